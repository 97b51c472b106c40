r"""How every ``crun`` and ``runc`` command reaches a container: only while our mark says that it is still ours, and with a log of its own.

What lies on a node, below ``${NEXCAGE_NODE_ROOT-}``::

    /run/nexcage-oci/FLEET/RUNTIME        the program's --root; its containers go by our ids
    /var/lib/nexcage-oci/FLEET/ID/mark    three lines: the mark, the runtime, the boot id of the node when it was made
                         .../ID/going     its delete has begun
                         .../ID/log       what the container prints
                         .../ID/said.PID  the program's log of one call
    /var/lib/nexcage-oci/.numbers/NUMBER  a symbolic link FLEET/ID: whose the number is

A container without its mark is none of ours, and a mark without its container (of this boot) is half made or half deleted.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import msgspec

from nexcage._core.command import Command, Result, nothing
from nexcage._core.seen import Mark
from nexcage.tools.runtime.words import classify

__all__ = ["GUARD", "PLACES", "RUN", "Runtime", "change", "read"]

T = TypeVar("T")

PLACES = r"""R=${NEXCAGE_NODE_ROOT-} mark=$1 program=$2 runtime=$3
fleet=${mark#nexcage fleet=} id=${mark#* id=}
fleet=${fleet%% *} id=${id%% *}
kept=$R/var/lib/nexcage-oci/$fleet/$id root=$R/run/nexcage-oci/$fleet/$runtime
log=$kept/said.$$
shift 3
"""
"""The first lines of every script: ``$1`` the mark, ``$2`` the program as the shell reads it, ``$3`` its name."""

OURS = r"""grep -qsxF -e "$mark" "$kept/mark" || { echo 'nexcage: the container does not carry our mark' >&2; exit 9; }
"""

RUN = r"""said() { # the program's own log, behind what it and the container have printed
  if [ "$1" -ne 0 ] && [ -s "$log" ]; then printf '\n@nexcage said\n'; tail -n 20 "$log"; fi >&2
  rm -f "$log"
  return "$1"
}
call() { eval "$program"' --root "$root" --log "$log" --log-format json "$@"'; }
"""

GUARD = (
    PLACES
    + OURS
    + RUN
    + r"""call "$@"
said $?
"""
)


class Runtime(msgspec.Struct, frozen=True):
    """One of the two programs. ``command``: an argv in place of its name, where it needs a helper in front."""

    name: Literal["crun", "runc"]
    command: tuple[str, ...] = ()

    @property
    def program(self) -> str:
        """What the shell on a node runs."""
        return shlex.join(self.command or (self.name,))


def change(
    runtime: Runtime, mark: Mark, *words: str, timeout: float = 60.0, **more: Any
) -> Command[None]:  # Any: Command's own fields
    """A command on the container that carries ``mark``; raises NotOurs when none does."""
    argv = ("sh", "-c", GUARD, "nexcage", str(mark), runtime.program, runtime.name, *words)
    return Command(argv, nothing, timeout=timeout, classify=classify, **more)


def read(
    runtime: Runtime, mark: Mark, parse: Callable[[Result], T], *words: str, timeout: float = 30.0, cap: int = 8 << 20
) -> Command[T]:
    """A command that only reads."""
    argv = ("sh", "-c", GUARD, "nexcage", str(mark), runtime.program, runtime.name, *words)
    return Command(argv, parse, safe=True, weight="read", timeout=timeout, cap=cap, classify=classify)

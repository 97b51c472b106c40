r"""What a node keeps of a fleet's steps: every claim directory in one command, and dropping those that no one can ask for any more.

See `nexcage.tools.claims` for what a claim is. A listing has a line per claim, ``OPID.STEP KIND AGE``: AGE in seconds of the node's
uptime since it ended (``ended``, ``void``) or began (``running``, ``lost``), ``-`` where the node does not know. ``empty``: the
directory alone, made by somebody who died before they took the claim.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, cast

import msgspec

from nexcage._core.command import MIB, Command, Result, text
from nexcage.tools.claims import KEPT

__all__ = ["CLAIMS", "DROP", "Kept", "drop", "listing"]

Kind = Literal["ended", "running", "lost", "void", "empty"]

_ABOUT = r"""cd "${NEXCAGE_NODE_ROOT-}/run/nexcage-ops/$1" 2>/dev/null || { echo "@nexcage kept end"; exit 0; }
read -r up _ < /proc/uptime
up=${up%.*}
digits() { case $1 in '' | *[!0-9]*) return 1 ;; esac && [ ${#1} -le 12 ]; }
about() { # of a claim: kind and age; START in go is in clock ticks, of which there are 100 in a second
  kind=empty age=- g=$(readlink "$1/go") u=
  read -r _ _ _ _ _ u < "$1/status"
  digits "${u%.*}" || u=
  [ -z "$u" ] || age=$((up - ${u%.*}))
  case $g in
    void) kind=void ;;
    run:*)
      p=${g#run:} p=${p%:*} start=${p#*:} p=${p%%:*}
      digits "$p" && digits "$start" || p=0 start=0
      if [ -n "$u" ]; then kind=ended
      else
        kind=lost age=$((up - start / 100))
        if read -r s < "/proc/$p/stat" && set -- ${s##*) } && [ "${20}" = "$start" ]; then kind=running; fi
      fi ;;
  esac
} 2>/dev/null
"""

CLAIMS = (
    _ABOUT
    + r"""for d in *.*; do
  [ -d "$d" ] || continue
  about "$d"
  echo "$d $kind $age"
done
echo "@nexcage kept end"
"""
)

DROP = (
    _ABOUT
    + r"""kept=$2
shift 2
for d in "$@"; do
  [ -d "$d" ] || continue
  about "$d"
  if [ "$kind" = lost ] && [ "$age" -gt "$kept" ] && rm -rf "$d"; then echo "$d"; fi
  if [ "$kind" = empty ] && rmdir "$d" 2>/dev/null; then echo "$d"; fi
done
echo "@nexcage kept end"
"""
)

_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,63})\.([0-9]{1,9}) (ended|running|lost|void|empty) (-?[0-9]{1,12}|-)")
_CAP = 16 * MIB  # some 200,000 claims


class Kept(msgspec.Struct, frozen=True):
    """A claim that a node keeps: the operation, its step, what is known, and for how many seconds (None: unknown)."""

    op: str
    step: int
    kind: Kind
    age: float | None = None

    @property
    def name(self) -> str:
        """Its directory."""
        return f"{self.op}.{self.step}"


def listing(fleet: str) -> Command[tuple[Kept, ...]]:
    """Every claim of a fleet on a node; changes nothing."""
    argv = ("sh", "-c", CLAIMS, "nexcage", fleet)
    return Command(argv, _kept, safe=True, weight="read", timeout=60.0, cap=_CAP)


def drop(fleet: str, names: Iterable[str]) -> Command[tuple[str, ...]]:
    """Remove these claims where their supervisor is gone and they began longer than `KEPT` ago, and the empty ones.

    For operations whose outcome is in the journal only: nobody may still want to ask for them.
    """
    argv = ("sh", "-c", DROP, "nexcage", fleet, f"{KEPT:.0f}", *names)
    return Command(argv, _dropped, safe=True, weight="read", timeout=60.0, cap=_CAP)


def _lines(result: Result) -> list[str]:
    lines = text(result).splitlines()
    if result.dropped or not lines or lines.pop() != "@nexcage kept end":
        raise ValueError("the list of claims is not whole")
    return lines


def _kept(result: Result) -> tuple[Kept, ...]:
    found = [match for match in map(_LINE.fullmatch, _lines(result)) if match is not None]
    return tuple(Kept(m[1], int(m[2]), cast("Kind", m[3]), _age(m[4])) for m in found)


def _age(word: str) -> float | None:
    return None if word == "-" else float(word)


def _dropped(result: Result) -> tuple[str, ...]:
    return tuple(_lines(result))

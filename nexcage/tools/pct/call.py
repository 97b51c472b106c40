"""How every ``pct`` command is run: ended by TERM only, with a deadline, its refusals put into our errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from nexcage import names
from nexcage._core.command import Command, Result, nothing
from nexcage.errors import InvalidSpec, NexcageError
from nexcage.tools.pct.words import classify

__all__ = ["change", "complaint", "flags", "number", "read", "volume_key"]

T = TypeVar("T")

_HARMLESS = re.compile(
    r"(?:vm \d+ - |perl: warning: |\t|    are supported and installed|\d+ doesn't exist$|Task finished with \d+ warning)"
)
_VOLUME = re.compile(r"rootfs|(?:mp|unused)(?:0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5])", re.ASCII)


def change(
    *argv: str, timeout: float, stdin: bytes = b"", silent: bool = False, **more: Any
) -> Command[None]:  # Any: Command's own fields
    """A command that changes something. ``silent``: it exits 0 though it failed, so what it says on stderr counts."""
    check = _complained if silent else None
    return Command(
        ("pct", *argv), nothing, stdin=stdin, cancel="term", timeout=timeout, classify=classify, check=check, **more
    )


def read(parse: Callable[[str], T], *argv: str, timeout: float = 60.0) -> Command[T]:
    """A command that only reads; ``parse`` gets its standard output as text."""
    return Command(
        ("pct", *argv),
        lambda result: parse(_text(result)),
        safe=True,
        cancel="term",
        timeout=timeout,
        weight="read",
        classify=classify,
    )


def _text(result: Result) -> str:
    """Standard output as it is: several variables of ``env`` are joined by NUL, which nothing may change."""
    return result.stdout.decode("utf-8", "backslashreplace").removesuffix("\n")


def complaint(stderr: str) -> str:
    """What standard error says apart from warnings that mean nothing for the command itself."""
    lines = [line for line in stderr.splitlines() if line.strip() and not _HARMLESS.match(line)]
    return "\n".join(lines)


def _complained(command: Command[Any], result: Result, node: str) -> NexcageError | None:
    if result.exit == 0 and complaint(result.stderr.decode("utf-8", "backslashreplace")):
        return classify(command, result, node)
    return None


def flags(**given: bool) -> tuple[str, ...]:
    """``--overrule-shutdown 1`` for each that is True; ``_`` in a name is ``-``, an underscore at its end is dropped."""
    words: list[str] = []
    for name, on in given.items():
        if on:
            words += [f"--{name.rstrip('_').replace('_', '-')}", "1"]
    return tuple(words)


def volume_key(key: str, *, unused: bool = False) -> str:
    """``rootfs`` or ``mp0`` to ``mp255``; raises InvalidSpec."""
    if type(key) is not str or not _VOLUME.fullmatch(key) or (key.startswith("unused") and not unused):
        raise InvalidSpec("volume", key, f"rootfs, mp0 to mp255{' or unused0 to unused255' if unused else ''}")
    return key


def number(vmid: int) -> str:
    """A VMID as a word."""
    return str(names.vmid(vmid))

"""What is found wrong in a document: where (a JSON pointer, RFC 6901), what, and whether it is fatal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from nexcage.errors import InvalidBundle

__all__ = ["Flaw", "Notice", "at", "judged"]

_ALSO = 8  # further flaws that an error names


class Notice(Struct, frozen=True):
    """A warning: the document is valid, but ``reason`` is worth knowing about the place ``pointer``."""

    pointer: str
    reason: str

    def __str__(self) -> str:
        return f"{self.pointer}: {self.reason}" if self.pointer else self.reason


class Flaw(Struct, frozen=True):
    """Something that a rule has found; a fatal one makes the document invalid, another is a `Notice`."""

    pointer: str
    reason: str
    fatal: bool = True


def at(pointer: str, *parts: str | int) -> str:
    """The pointer to a place below ``pointer``; names are escaped as RFC 6901 says."""
    for part in parts:
        name = part.replace("~", "~0").replace("/", "~1") if isinstance(part, str) else part
        pointer = f"{pointer}/{name}"
    return pointer


def judged(document: str, flaws: Iterable[Flaw]) -> Iterator[Notice]:
    """The warnings. Raises InvalidBundle for the first fatal flaw; its notes name the others."""
    found = list(flaws)
    fatal = [flaw for flaw in found if flaw.fatal]
    if fatal:
        error = InvalidBundle(document, fatal[0].pointer, fatal[0].reason)
        for flaw in fatal[1 : _ALSO + 1]:
            error.add_note(f"also {InvalidBundle(document, flaw.pointer, flaw.reason)}")
        if len(fatal) > _ALSO + 1:
            error.add_note(f"and {len(fatal) - _ALSO - 1} more")
        raise error
    return (Notice(flaw.pointer, flaw.reason) for flaw in found)

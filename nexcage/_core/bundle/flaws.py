"""What is found wrong in a document: where (a JSON pointer, RFC 6901), what, and whether it is fatal."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from nexcage.errors import InvalidBundle

__all__ = ["Flaw", "Notice", "at", "judged"]

_ALSO = 8  # further flaws that an error names
_SHOWN = 100  # warnings of one document


class Notice(Struct, frozen=True):
    """A warning: the document is valid, but ``reason`` is worth knowing about the place ``pointer``.

    ``misread_by`` is the backend whose program would read another document because of it.
    """

    pointer: str
    reason: str
    misread_by: str = ""

    def __str__(self) -> str:
        return f"{self.pointer}: {self.reason}" if self.pointer else self.reason


class Flaw(Struct, frozen=True):
    """Something that a rule has found; a fatal one makes the document invalid, another is a `Notice`.

    ``legal``: the specification allows it, and no kernel or runtime takes it. So it is no document that is invalid, but one that no
    backend can do.
    """

    pointer: str
    reason: str
    fatal: bool = True
    legal: bool = False
    misread_by: str = ""


def at(pointer: str, *parts: str | int) -> str:
    """The pointer to a place below ``pointer``; names are escaped as RFC 6901 says."""
    for part in parts:
        name = part.replace("~", "~0").replace("/", "~1") if isinstance(part, str) else part
        pointer = f"{pointer}/{name}"
    return pointer


def judged(document: str, flaws: Iterable[Flaw], untaken: list[Notice] | None = None) -> tuple[Notice, ...]:
    """The warnings. Raises InvalidBundle for the first fatal flaw; its notes name the others. Of very many some are only counted.

    What is legal goes to ``untaken``; without that list it is as fatal as the rest.
    """
    notices: list[Notice] = []
    fatal: list[Flaw] = []
    more = 0
    for flaw in flaws:
        if flaw.legal and untaken is not None:
            untaken += [Notice(flaw.pointer, flaw.reason)] if len(untaken) < _SHOWN else []
        elif flaw.fatal:
            fatal.append(flaw)
        elif len(notices) < _SHOWN:
            notices.append(Notice(flaw.pointer, flaw.reason, flaw.misread_by))
        else:
            more += 1
        if len(fatal) > _SHOWN:
            break
    if fatal:
        raise _error(document, fatal)
    return (*notices, Notice("", f"and {more} warnings more")) if more else tuple(notices)


def _error(document: str, fatal: list[Flaw]) -> InvalidBundle:
    first, *others = (InvalidBundle(document, flaw.pointer, flaw.reason) for flaw in fatal)
    for other in others[:_ALSO]:
        first.add_note(f"also {other}")
    if len(others) > _ALSO:
        first.add_note("and more" if len(fatal) > _SHOWN else f"and {len(others) - _ALSO} more")
    return first

"""From bytes to values, with everything checked on the way: `InvalidBundle` names the place, warnings come beside the document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Generic, TypeVar, cast

from msgspec import DecodeError, Struct, convert, to_builtins
from msgspec.json import Decoder

from nexcage._core.bundle.blame import blame
from nexcage._core.bundle.config import Config
from nexcage._core.bundle.flaws import Flaw, Notice, judged
from nexcage._core.bundle.kinds import UINT64_MAX
from nexcage._core.bundle.lookalikes import lookalikes
from nexcage._core.bundle.rules import config_flaws
from nexcage._core.bundle.strict import MAX_BYTES, MAX_DEPTH, Read, places, pointer_of, read
from nexcage.errors import InvalidBundle, escaped

__all__ = ["Decoded", "decode_config", "decoded"]

T = TypeVar("T", bound=Struct)


class Decoded(Struct, Generic[T], frozen=True):
    """A valid document, and what is worth a warning in it.

    ``untaken`` is what the specification allows in a config.json and no kernel or runtime takes: a plan refuses it on every backend.
    """

    document: T
    warnings: tuple[Notice, ...] = ()
    untaken: tuple[Notice, ...] = ()


def decode_config(data: bytes | str, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Decoded[Config]:
    """config.json of a bundle. Raises InvalidBundle with the JSON pointer of the first flaw, and no other exception."""
    untaken: list[Notice] = []
    found = decoded(
        "config.json", data, Config, config_flaws, max_bytes=max_bytes, max_depth=max_depth, untaken=untaken
    )
    return Decoded(found.document, found.warnings, tuple(untaken))


def decoded(
    name: str,
    data: bytes | str,
    kind: type[T],
    rules: Callable[[T], Iterable[Flaw]],
    *,
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    untaken: list[Notice] | None = None,
) -> Decoded[T]:
    """A document called ``name``: read strictly, typed, checked by its rules, in this order."""
    try:
        source = read(name, data, max_bytes=max_bytes, max_depth=max_depth)
        document = _typed(name, source, kind)
        found = judged(name, _flaws(document, kind, rules, source), untaken)
        return Decoded(document, found)
    except RecursionError:
        raise InvalidBundle(name, "", "is nested too deeply") from None


@cache
def _decoder(kind: type[Struct]) -> Decoder[Struct]:
    return Decoder(kind)


def _typed(name: str, source: Read, kind: type[T]) -> T:
    try:
        return cast("T", _decoder(kind).decode(source.text))
    except (DecodeError, UnicodeError) as error:
        # Where all types are right, msgspec stumbles over an integer of more digits than it reads.
        flaw = blame(kind, source.value) or next(_hostile(convert(source.value, kind)), Flaw("", str(error)))
        raise InvalidBundle(name, flaw.pointer, flaw.reason) from None


def _flaws(document: T, kind: type[T], rules: Callable[[T], Iterable[Flaw]], source: Read) -> Iterator[Flaw]:
    if source.odd:
        yield from _hostile(document)
    yield from lookalikes(kind, source.value, source.names)
    yield from rules(document)


def _hostile(document: Struct) -> Iterator[Flaw]:
    """What no property of any document may hold: NUL, and integers that do not fit in 64 bits."""
    for way, one in places(to_builtins(document, str_keys=True)):
        if isinstance(one, str) and "\0" in one:
            yield Flaw(pointer_of(way), f"a NUL in {escaped(one)}")
        elif isinstance(one, int) and not -(2**63) <= one <= UINT64_MAX:
            yield Flaw(pointer_of(way), "is an integer of more than 64 bits")

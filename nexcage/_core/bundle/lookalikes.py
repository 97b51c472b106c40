"""Property names that look like known ones: unknown properties are no error, but these are rarely meant to be ignored.

Programs written in Go (runc) read names in any case, and take the long s (U+017F) for s and the Kelvin sign for k. So ``Process``
beside ``process`` is a property named twice for them, and a plan for runc refuses it; alone it is one that they see and others do not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, cast, get_args

from msgspec import Struct
from msgspec.structs import fields

from nexcage._core.bundle.blame import bare, is_struct
from nexcage._core.bundle.flaws import Flaw, at
from nexcage.errors import escaped

__all__ = ["lookalikes"]

# Letters of other alphabets that are drawn like Latin ones, and what is not drawn at all.
_LATIN = str.maketrans(
    "аеорсухѕіјһԁԛԝкмтвнɡοανρτυχικηϲ",
    "aeopcyxsijhdqwkmtbhgoavptuxiknc",
)
_LONG = 80
_BLANK = re.compile(r"[\s_.\-\u00ad\u200b-\u200f\u2060-\u2064\ufe00-\ufe0f\ufeff]+")


def lookalikes(kind: type[Struct], value: object, names: Iterable[str]) -> Iterator[Flaw]:
    """Look-alikes in ``value``, a document of this kind; ``names`` are all names in it, which makes the usual answer quick.

    Those that a program misreads come first: of very many warnings only the first are kept.
    """
    known = _known(kind)
    if any(name not in known.names and _drawn(name) in known.drawn for name in names):
        yield from sorted(_walk(kind, value, ""), key=lambda flaw: not flaw.misread_by)


class _Known(Struct, frozen=True):
    names: frozenset[str]
    drawn: frozenset[str]


@cache
def _known(kind: type[Struct]) -> _Known:
    names = frozenset(field.encode_name for one in _kinds(kind) for field in fields(one))
    return _Known(names, frozenset(map(_drawn, names)))


def _kinds(kind: Any) -> Iterator[type[Struct]]:  # Any: a type as annotations have it
    inner = bare(kind)
    if is_struct(inner):
        yield inner
        for field in fields(inner):
            yield from _kinds(field.type)
    else:
        for one in get_args(inner):
            yield from _kinds(one)


def _drawn(name: str) -> str:
    """How ``name`` looks, roughly; a long one is like none."""
    if len(name) > _LONG:
        return ""
    if name.isascii():
        return _BLANK.sub("", name).lower()
    plain = unicodedata.normalize("NFKC", name).casefold().translate(_LATIN)
    return _BLANK.sub("", plain)


def _folded(name: str) -> str:
    """``name`` as Go's encoding/json compares it."""
    return name.replace("\u017f", "s").replace("\u212a", "k").lower()


def _walk(kind: Any, value: object, pointer: str) -> Iterator[Flaw]:  # Any: as above
    inner = bare(kind)
    if isinstance(value, Mapping):
        members = cast("Mapping[str, object]", value)
        if is_struct(inner):
            types = {field.encode_name: field.type for field in fields(inner)}
            yield from _among(members, types, pointer)
            for name in members.keys() & types.keys():
                yield from _walk(types[name], members[name], at(pointer, name))
        elif len(args := get_args(inner)) == 2:
            for name, child in members.items():
                yield from _walk(args[1], child, at(pointer, name))
    elif isinstance(value, list) and (args := get_args(inner)):
        for index, child in enumerate(cast("list[object]", value)):
            yield from _walk(args[0], child, at(pointer, index))


def _among(members: Mapping[str, object], known: Iterable[str], pointer: str) -> Iterator[Flaw]:
    drawn = {_drawn(name): name for name in known}
    for name in members:
        meant = drawn.get(_drawn(name))
        if meant is None or name in drawn.values():
            continue
        place = at(pointer, name)
        if _folded(name) != _folded(meant):
            yield Flaw(place, f"unknown property {escaped(name)} looks like {meant} and is ignored", fatal=False)
        elif meant in members:
            said = f"names {meant} a second time for runc, which reads names in any case; others ignore it"
            yield Flaw(place, said, fatal=False, misread_by="runc")
        else:
            yield Flaw(place, f"is ignored: the name is {meant}, but runc reads names in any case", fatal=False)

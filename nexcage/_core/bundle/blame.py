"""Which place of a document does not have the type that it should have.

msgspec says it in a notation of its own and without the names of entries in mappings, so the pointer is found by going down to the
innermost value that does not fit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, TypeGuard, Union, cast, get_args, get_origin

from msgspec import Struct, UnsetType, ValidationError, convert
from msgspec.structs import fields

from nexcage._core.bundle.flaws import Flaw, at
from nexcage.errors import escaped

__all__ = ["bare", "blame", "is_struct"]

_TWICE, _ONCE, _END = "\\\\", "\\", r"\Z"
_WORDS = {
    "int": "an integer",
    "str": "a string",
    "bool": "true or false",
    "float": "a number that is not written as an integer",
    "object": "an object",
    "array": "an array",
    "null": "null",
}
_EXPECTED = re.compile(r"Expected `(\w+)`(?: \| `null`)?, got `(\w+)`")
_BOUND = re.compile(r"Expected `\w+` (of length )?([<>]=?) (-?[0-9]+)")
_PATTERN = re.compile(r"Expected `str` matching regex '(.*)'$", re.DOTALL)


def blame(kind: Any, value: object, pointer: str = "") -> Flaw | None:  # Any: a type as annotations have it
    """The first place in ``value`` that is not a ``kind``; None when everything is."""
    try:
        convert(value, kind)
    except ValidationError as error:
        for missing in _missing(kind, value):
            return Flaw(at(pointer, missing), "is required")
        for part, of, child in _children(kind, value):
            found = blame(of, child, at(pointer, part))
            if found is not None:
                return found
        return Flaw(pointer, _reason(kind, value, str(error).split(" - at `", maxsplit=1)[0]))
    return None


def bare(kind: Any) -> Any:  # Any: as above
    """``kind`` without its bounds and without the words for a value that is left out."""
    while True:
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif get_origin(kind) in (Union, UnionType):
            rest = [one for one in get_args(kind) if one is not UnsetType and one is not type(None)]
            if len(rest) != 1:
                return kind
            kind = rest[0]
        else:
            return kind


def is_struct(kind: object) -> TypeGuard[type[Struct]]:
    """Whether this type is an object with known properties."""
    return isinstance(kind, type) and issubclass(kind, Struct)


def _missing(kind: Any, value: object) -> Iterator[str]:  # Any: as above
    inner = bare(kind)
    if is_struct(inner) and isinstance(value, Mapping):
        yield from (field.encode_name for field in fields(inner) if field.required and field.encode_name not in value)


def _children(kind: Any, value: object) -> Iterator[tuple[str | int, Any, object]]:  # Any: as above
    inner = bare(kind)
    origin = get_origin(inner)
    if isinstance(value, Mapping):
        members = cast("Mapping[str, object]", value)
        if is_struct(inner):
            known = {field.encode_name: field.type for field in fields(inner)}
            yield from ((name, known[name], child) for name, child in members.items() if name in known)
        elif isinstance(origin, type) and issubclass(origin, Mapping):
            yield from ((name, get_args(inner)[1], child) for name, child in members.items())
    elif isinstance(value, list) and origin is tuple:
        yield from ((index, get_args(inner)[0], child) for index, child in enumerate(cast("list[object]", value)))


def _reason(kind: Any, value: object, said: str) -> str:  # Any: as above
    inner = bare(kind)
    if get_origin(inner) is Literal and isinstance(value, str):
        return f"{escaped(value)} is none of {', '.join(map(str, get_args(inner)))}"
    if types := _EXPECTED.match(said):
        wanted, got = (_WORDS.get(word, word) for word in types.groups())
        return f"expected {wanted}, got {got}"
    if bound := _BOUND.match(said):
        least = "at least" if bound[2].startswith(">") else "at most"
        return f"has fewer than {bound[3]} entries" if bound[1] else f"{escaped(value)} is not {least} {bound[3]}"
    if form := _PATTERN.match(said):
        # msgspec shows a regular expression as Python would write it.
        return f"{escaped(value)} is not of the form {form[1].replace(_TWICE, _ONCE).removesuffix(_END)}$"
    return said.replace("`", "")

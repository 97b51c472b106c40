"""Bytes that somebody else wrote, read as one JSON value: RFC 8259 without what parsers read differently (RFC 7493, I-JSON).

Refused, also in properties that nobody reads: more bytes or more nesting than allowed, a byte order mark, bytes that are not UTF-8,
NaN and Infinity, a property named twice in one object, half a surrogate pair. The standard library's parser reads here, because msgspec
skips what its types do not name; the types read the same bytes afterwards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, TypeAlias, cast

from msgspec import Struct, field

from nexcage._core.bundle.flaws import at
from nexcage.errors import InvalidBundle, escaped

__all__ = ["MAX_BYTES", "MAX_DEPTH", "Read", "places", "pointer_of", "read"]

MAX_BYTES = 4 << 20
MAX_DEPTH = 64

_HALF = re.compile(r"[\ud800-\udfff]")
_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_SHORT = 19  # digits and a sign that always fit in 64 bits
_MOST = 400  # digits that matter; Python reads no integer of more than 4300


class Read(Struct):
    """A JSON value that was read: its text, the names of all properties in it, and whether there is a NUL or a long integer in it."""

    text: str
    value: Any = None  # Any: JSON
    names: set[str] = field(default_factory=set[str])
    odd: bool = False


class _Twice(Exception):
    """An object has a property twice."""


class _Pairs(list[tuple[str, object]]):
    """An object as it is written."""


def read(document: str, data: bytes | str, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Read:
    """The value in ``data``. Raises InvalidBundle."""
    done = Read(_text(document, data, max_bytes))

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:  # Any: JSON
        made = dict(items)
        if len(made) != len(items):
            raise _Twice
        done.names.update(made)
        return made

    def integer(digits: str) -> int:
        if len(digits) <= _SHORT:
            return int(digits)
        done.odd = True
        return int(digits[:_MOST])

    try:
        done.value = _parsed(document, done.text, pairs, integer)
    except _Twice:
        raise InvalidBundle(document, *_second(_parsed(document, done.text, _Pairs, integer))) from None
    if _deeper(done.value, max_depth):
        raise InvalidBundle(document, "", f"is nested more than {max_depth} levels deep")
    if "\\u" in done.text:
        done.odd = done.odd or "\\u0000" in done.text
        if _ESCAPED_HALF.search(done.text):
            _whole(document, done.value)
    return done


def _text(document: str, data: bytes | str, max_bytes: int) -> str:
    if len(data) > max_bytes:
        raise InvalidBundle(document, "", f"has {len(data)} bytes, more than {max_bytes}")
    try:
        text = str(data, "utf-8") if not isinstance(data, str) else data.encode().decode()
    except UnicodeError as error:
        where = f" (byte {error.start})" if isinstance(error, (UnicodeDecodeError, UnicodeEncodeError)) else ""
        raise InvalidBundle(document, "", f"is not UTF-8{where}") from None
    if text.startswith("\ufeff"):
        raise InvalidBundle(document, "", "begins with a byte order mark")
    if not text.strip():
        raise InvalidBundle(document, "", "is empty")
    return text


def _parsed(
    document: str, text: str, pairs: Callable[[list[tuple[str, Any]]], object], integer: Callable[[str], int]
) -> Any:  # Any: JSON
    def constant(name: str) -> NoReturn:
        raise InvalidBundle(document, "", f"is not JSON: {name} is no number")

    try:
        return json.JSONDecoder(object_pairs_hook=pairs, parse_constant=constant, parse_int=integer).decode(text)
    except json.JSONDecodeError as error:
        raise InvalidBundle(document, "", f"is not JSON: {error}") from None
    except RecursionError:
        raise InvalidBundle(document, "", "is nested too deeply") from None


def _deeper(value: object, depth: int) -> bool:
    """Whether there are more than ``depth`` containers around the innermost value."""
    level: list[Any] = [value]  # Any: JSON
    for _ in range(depth + 1):
        inner: list[Any] = []  # Any: as above
        for one in level:
            if type(one) is dict:
                inner += one.values()
            elif type(one) is list:
                inner += one
        if not inner:
            return False
        level = inner
    return True


# A pointer is written only where something is wrong: the pointers of all places together may be long without any bound.
Way: TypeAlias = "tuple[Way, str | int] | None"


def pointer_of(way: Way) -> str:
    """The pointer to the place where ``way`` leads."""
    parts: list[str | int] = []
    while way is not None:
        way, part = way
        parts.append(part)
    return at("", *reversed(parts))


def _second(value: object) -> tuple[str, str]:
    """The first property that its object has already, and what to say."""
    stack: list[tuple[Way, object]] = [(None, value)]
    while stack:
        way, value = stack.pop()
        if isinstance(value, _Pairs):
            seen: set[str] = set()
            for name, _ in value:
                if name in seen:
                    place = pointer_of((way, name))
                    return _HALF.sub("\ufffd", place), f"the object has a property {escaped(name)} twice"
                seen.add(name)
            stack += [((way, name), child) for name, child in reversed(value)]
        elif isinstance(value, list):
            entries = cast("list[object]", value)
            stack += [((way, index), child) for index, child in reversed(list(enumerate(entries)))]
    return "", "an object has a property twice"


def _whole(document: str, value: object) -> None:
    for way, one in places(value):
        if isinstance(one, str) and _HALF.search(one):
            shown = _HALF.sub("\ufffd", pointer_of(way))
            raise InvalidBundle(document, shown, f"half a surrogate pair in {escaped(one)}")


def places(value: object) -> Iterator[tuple[Way, object]]:
    """Every string, number and literal in a JSON value with its place, names of properties too, in the order of the document."""
    stack: list[tuple[Way, object]] = [(None, value)]
    while stack:
        way, value = stack.pop()
        if isinstance(value, Mapping):
            for name, child in reversed(list(cast("Mapping[str, object]", value).items())):
                below = (way, name)
                stack += [(below, child), (below, name)]
        elif isinstance(value, (list, tuple)):
            entries = list(enumerate(cast("list[object]", value)))
            stack += [((way, index), child) for index, child in reversed(entries)]
        else:
            yield way, value

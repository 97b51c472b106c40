"""Every property that a document sets, as JSON pointers in the specification's spelling."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from functools import cache
from typing import TypeVar, cast

import msgspec

from nexcage._core.bundle.flaws import at

__all__ = ["gathered", "leaves"]

V = TypeVar("V")
_SCALARS = frozenset((str, int, bool))  # most of a document: asked first, because isinstance of Mapping takes its time


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[tuple[str, str, object], ...]:
    """Name, the specification's spelling, and what is there when a document leaves it out, so that it says nothing."""
    return tuple((field.name, f"/{field.encode_name}", _left_out(field)) for field in msgspec.structs.fields(kind))


def _left_out(field: msgspec.structs.FieldInfo) -> object:
    made: object = field.default_factory
    return made() if callable(made) else field.default


def leaves(document: msgspec.Struct, covered: Container[str] = ()) -> list[str]:
    """The pointers of all scalars that ``document`` sets; a section that is set and empty counts itself.

    Those that are in ``covered``, or below one that is, are left out and cost nothing.
    """
    found: list[str] = []
    _collect(document, "", covered, found)
    return found


def _collect(value: object, pointer: str, covered: Container[str], found: list[str]) -> None:
    if pointer in covered:
        return
    if type(value) in _SCALARS:
        found.append(pointer)
    elif isinstance(value, msgspec.Struct):
        _section(value, pointer, covered, found)
    elif isinstance(value, tuple):
        for index, one in enumerate(cast("tuple[object, ...]", value)):
            _collect(one, f"{pointer}/{index}", covered, found)
    elif isinstance(value, Mapping):
        for key, one in cast("Mapping[str, object]", value).items():
            _collect(one, at(pointer, key), covered, found)
    else:
        found.append(pointer)


def _section(value: msgspec.Struct, pointer: str, covered: Container[str], found: list[str]) -> None:
    empty = True
    for name, spelled, default in _fields(type(value)):
        inner: object = getattr(value, name)
        if inner is not default and inner != default:
            empty = False
            _collect(inner, pointer + spelled, covered, found)
    if empty:
        found.append(pointer)


def gathered(verdicts: Mapping[str, V], stop: Container[str]) -> dict[str, V]:
    """``verdicts`` of leaves, with those of one parent made one when all below it agree; the parents in ``stop`` stay apart."""
    found = dict(verdicts)
    children: dict[str, set[str]] = {}
    for pointer in verdicts:
        child = pointer
        while parent := child.rpartition("/")[0]:
            inner = children.setdefault(parent, set())
            if child in inner:
                break
            inner.add(child)
            child = parent
    for parent in sorted(children, key=lambda pointer: -pointer.count("/")):
        inner = children[parent]
        first = found.get(next(iter(inner)))
        if parent not in stop and first is not None and all(found.get(child) == first for child in inner):
            found[parent] = first
            for child in inner:
                del found[child]
    return {pointer: found[pointer] for pointer in sorted(found, key=_order(verdicts))}


def _order(verdicts: Mapping[str, object]) -> Callable[[str], int]:
    """By the first leaf at a pointer or below it."""
    places: dict[str, int] = {}
    for number, leaf in enumerate(verdicts):
        pointer = leaf
        while pointer and pointer not in places:
            places[pointer] = number
            pointer = pointer.rpartition("/")[0]
    return lambda pointer: places[pointer]

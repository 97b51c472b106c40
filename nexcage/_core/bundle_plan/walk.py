"""Every property that a document sets, as JSON pointers in the specification's spelling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import TypeVar, cast

import msgspec

from nexcage._core.bundle.flaws import at

__all__ = ["gathered", "leaves", "uncovered"]

V = TypeVar("V")


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[tuple[str, str], ...]:
    return tuple((field.name, field.encode_name) for field in msgspec.structs.fields(kind))


def leaves(value: object, pointer: str = "") -> Iterator[str]:
    """The pointers of all scalars that are set below ``value``; a section that is set and empty counts itself."""
    if value is msgspec.UNSET:
        return
    if isinstance(value, msgspec.Struct):
        yield from _section(value, pointer)
    elif isinstance(value, tuple):
        for index, one in enumerate(cast("tuple[object, ...]", value)):
            yield from leaves(one, f"{pointer}/{index}")
    elif isinstance(value, Mapping):
        for key, one in cast("Mapping[str, object]", value).items():
            yield from leaves(one, at(pointer, key))
    else:
        yield pointer


def _section(value: msgspec.Struct, pointer: str) -> Iterator[str]:
    empty = True
    for name, spelled in _fields(type(value)):
        inner: object = getattr(value, name)
        if isinstance(inner, msgspec.Struct) and not _required(value, name) and _nothing(inner):
            continue
        for leaf in leaves(inner, f"{pointer}/{spelled}"):
            empty = False
            yield leaf
    if empty and pointer:
        yield pointer


@cache
def _made(kind: type[msgspec.Struct]) -> frozenset[str]:
    """Fields that are made when a document leaves them out, so that an empty one says nothing."""
    return frozenset(
        field.name for field in msgspec.structs.fields(kind) if field.default_factory is not msgspec.NODEFAULT
    )


def _required(value: msgspec.Struct, name: str) -> bool:
    return name not in _made(type(value))


def _nothing(value: msgspec.Struct) -> bool:
    return next(leaves(value), None) is None


def uncovered(pointers: Iterator[str], entries: frozenset[str]) -> Iterator[str]:
    """Those of ``pointers`` that have no entry at them or above them."""
    for pointer in pointers:
        place = pointer
        while place and place not in entries:
            place = place.rpartition("/")[0]
        if not place:
            yield pointer


def gathered(verdicts: Mapping[str, V], stop: Callable[[str], bool]) -> dict[str, V]:
    """``verdicts`` of leaves, with those of one parent made one when they agree; never across a pointer that ``stop`` holds."""
    found = dict(verdicts)
    depth = max((pointer.count("/") for pointer in found), default=0)
    for level in range(depth, 1, -1):
        parents: dict[str, list[str]] = {}
        for pointer in found:
            if pointer.count("/") == level:
                parents.setdefault(pointer.rpartition("/")[0], []).append(pointer)
        for parent, children in parents.items():
            alike = all(found[child] == found[children[0]] for child in children)
            if alike and not stop(parent) and not _deeper(found, parent, level):
                verdict = found[children[0]]
                found = _replaced(found, children, parent, verdict)
    return found


def _deeper(found: Mapping[str, V], parent: str, level: int) -> bool:
    return any(pointer.startswith(parent + "/") and pointer.count("/") > level for pointer in found)


def _replaced(found: Mapping[str, V], children: list[str], parent: str, verdict: V) -> dict[str, V]:
    gone = set(children)
    made: dict[str, V] = {}
    for pointer, one in found.items():
        if pointer not in gone:
            made[pointer] = one
        else:
            made[parent] = verdict
    return made

"""The plain kinds that documents of the runtime specification are made of (``schema/defs.json``).

A property that a document leaves out is `UNSET`, an empty tuple, an empty mapping, or a section whose properties are all left out;
``null`` is none of these and is refused. msgspec bounds integers by 64 bits with a sign only: what exceeds `UINT64_MAX` is found by
`nexcage._core.bundle.strict`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypeAlias

from msgspec import Meta, Struct, field

__all__ = [
    "UINT64_MAX",
    "IDMapping",
    "Int32",
    "Int64",
    "Section",
    "Strings",
    "Texts",
    "Uint8",
    "Uint16",
    "Uint32",
    "Uint64",
]

UINT64_MAX = 2**64 - 1

Int32: TypeAlias = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Int64: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Uint8: TypeAlias = Annotated[int, Meta(ge=0, le=2**8 - 1)]
Uint16: TypeAlias = Annotated[int, Meta(ge=0, le=2**16 - 1)]
Uint32: TypeAlias = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Uint64: TypeAlias = Annotated[int, Meta(ge=0)]
Strings: TypeAlias = tuple[str, ...]
Texts: TypeAlias = Mapping[str, str]


class Section(Struct, frozen=True, rename="camel", omit_defaults=True):
    """An object of a document. Its properties have Python names here; `msgspec.structs.fields` knows the specification's spelling."""


class IDMapping(Section, frozen=True, kw_only=True):
    """``size`` ids from ``container_id`` inside are those from ``host_id`` outside."""

    container_id: Uint32 = field(name="containerID")
    host_id: Uint32 = field(name="hostID")
    size: Uint32

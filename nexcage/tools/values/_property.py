"""Structs that are a comma list of ``key=value`` in PVE's eyes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import msgspec

from nexcage.errors import InvalidInput, InvalidSpec
from nexcage.tools.config import format_property_string, property_string
from nexcage.tools.values._kinds import Kind, checked

__all__ = ["Value"]

_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}", re.ASCII)


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One comma list. ``more`` holds the keys that are not known here, as they were read."""

    kinds: ClassVar[Mapping[str, Kind]] = {}
    """Every known key in PVE's spelling; ``-`` in it is ``_`` in the attribute's name."""
    bare: ClassVar[str] = ""
    """The key that may stand without its name, in front."""
    required: ClassVar[tuple[str, ...]] = ()
    label: ClassVar[str] = "value"
    """How errors name it."""

    more: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        str(self)

    @classmethod
    def parse(cls, text: str, *, strict: bool = False) -> Self:
        """The value in PVE's own spelling; ``strict`` refuses keys that are not known. Raises InvalidSpec."""
        if type(text) is not str:
            raise InvalidSpec(cls.label, text, "text")
        try:
            given = property_string(text, cls.bare, cls.label)
        except InvalidInput as error:
            raise InvalidSpec(cls.label, text, error.reason) from None
        unknown = [key for key in given if key not in cls.kinds]
        if strict and unknown:
            raise InvalidSpec(cls.label, unknown[0], cls._suggestion(unknown[0]))
        lacking = [key for key in (cls.bare, *cls.required) if key and key not in given]
        if lacking:
            raise InvalidSpec(cls.label, text, f"with {lacking[0]}=")
        fields: dict[str, Any] = {  # Any: of the type that the attribute has
            _attribute(key): kind.read(cls._field(key), given[key]) for key, kind in cls.kinds.items() if key in given
        }
        return cls(**fields, more=tuple((key, given[key]) for key in unknown))

    @classmethod
    def _field(cls, key: str) -> str:
        return f"{cls.label}.{key}"

    @classmethod
    def _suggestion(cls, key: str) -> str:
        from difflib import get_close_matches  # only for the error

        close = get_close_matches(key, cls.kinds, 1)
        return f"{close[0]}, perhaps?" if close else f"one of {', '.join(sorted(cls.kinds))}"

    def properties(self) -> dict[str, str]:
        """The keys that are set, each with PVE's text of its value."""
        found: dict[str, str] = {}
        for key, kind in self.kinds.items():
            value: object = getattr(self, _attribute(key))
            if value is not None and value != ():
                found[key] = kind.write(self._field(key), value)
        for key, text in self.more:
            if key in self.kinds or key in found or not _KEY.fullmatch(key):
                raise InvalidSpec(self._field("more"), key, "a key that is not known here, once")
            found[key] = checked(self._field(key), text)
        return found

    def __str__(self) -> str:
        values = self.properties()
        if self.bare and "=" in values.get(self.bare, ""):
            raise InvalidSpec(self._field(self.bare), values[self.bare], "no =, which PVE would take for a key")
        return format_property_string(values, self.bare, self.required)


def _attribute(key: str) -> str:
    return key.replace("-", "_")

"""Paths and environment entries: the two values that may hold any script's letters, on one line of UTF-8."""

from __future__ import annotations

import re

from nexcage.errors import InvalidPath, InvalidSpec
from nexcage.names._checks import climbs, text, unwritable

_ENV_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_PATH_MAX = 4095  # PATH_MAX without the NUL
_ARGUMENT_MAX = 131_071  # MAX_ARG_STRLEN without the NUL: the longest single argument that Linux hands to a program


def path(value: object) -> str:
    """An absolute path, as given: at most 4095 bytes of UTF-8, no ``..``, no control character or line break.

    Lone surrogates (file names that are not UTF-8, as ``os.fsdecode`` shows them) are refused: no journal and no
    ``state.json`` could hold such a path.
    """
    name = text("path", value, InvalidPath)
    if not name.startswith("/"):
        raise InvalidPath("path", name, "must be absolute")
    if fault := path_fault(name):
        raise InvalidPath("path", name, fault)
    return name


def path_fault(name: str) -> str:
    """Why ``name``, absolute or not, is no path to hand on; empty when it is one."""
    if unwritable(name):
        return "must be UTF-8 text without control characters or line breaks"
    if len(name.encode()) > _PATH_MAX:
        return f"at most {_PATH_MAX} bytes"
    return "must not hold a .. component" if climbs(name) else ""


def env(value: object) -> tuple[str, str]:
    """``(name, value)`` from one ``K=V``. The value may be empty and hold tabs, but no other control character."""
    entry = text("env", value, InvalidSpec)
    name, equals, content = entry.partition("=")
    if not equals or not re.fullmatch(_ENV_NAME, name):
        raise InvalidSpec("env", entry, "NAME=VALUE with a name of A-Z a-z 0-9 _ that does not begin with a digit")
    if unwritable(content, tab=True):
        raise InvalidSpec("env", entry, "the value must be UTF-8 text without control characters (but tab)")
    if len(entry.encode()) > _ARGUMENT_MAX:
        raise InvalidSpec("env", entry, f"at most {_ARGUMENT_MAX} bytes")
    return name, content

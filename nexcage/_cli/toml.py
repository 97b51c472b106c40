"""Values as TOML, for people and for reading again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

__all__ = ["as_toml", "key", "value"]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def as_toml(document: Mapping[str, object]) -> str:
    """A document that `tomllib` reads back equal; None is left out. Plain values first, then tables and lists of tables."""
    return "\n".join(_table(document, "")).strip("\n") + "\n"


def key(name: str) -> str:
    """A key, quoted where it must be."""
    return name if _BARE.fullmatch(name) else _text(name)


def value(given: object) -> str:
    """A value on one line, tables in braces. Raises TypeError for what TOML cannot say."""
    match given:
        case bool():
            return "true" if given else "false"
        case str():
            return _text(given)
        case int():
            return str(given)
        case float():
            return repr(given)
        case Mapping():
            table = cast("Mapping[str, object]", given)
            inner = ", ".join(f"{key(name)} = {value(one)}" for name, one in table.items() if one is not None)
            return f"{{ {inner} }}" if inner else "{}"
        case list() | tuple():
            return f"[{', '.join(value(one) for one in cast('Sequence[object]', given))}]"
        case _:
            raise TypeError(f"TOML cannot say {type(given).__name__}")


def _table(table: Mapping[str, object], prefix: str) -> Iterator[str]:
    tables: dict[str, object] = {
        name: one for name, one in table.items() if isinstance(one, Mapping) or _is_tables(one)
    }
    for name, one in table.items():
        if one is not None and name not in tables:
            yield f"{key(name)} = {value(one)}"
    for name, one in tables.items():
        whole = f"{prefix}{key(name)}"
        if isinstance(one, Mapping):
            yield from ("", f"[{whole}]")
            yield from _table(cast("Mapping[str, object]", one), f"{whole}.")
        else:
            for row in cast("Sequence[Mapping[str, object]]", one):
                yield from ("", f"[[{whole}]]")
                yield from _table(row, f"{whole}.")


def _is_tables(given: object) -> bool:
    rows = cast("Sequence[object]", given) if isinstance(given, (list, tuple)) else ()
    return bool(rows) and all(isinstance(row, Mapping) for row in rows)


def _text(given: str) -> str:
    return '"' + "".join(_ESCAPES.get(c) or (c if _plain(c) else _escaped(c)) for c in given) + '"'


def _plain(character: str) -> bool:
    return character >= " " and character != "\x7f" and not "\ud800" <= character <= "\udfff"


def _escaped(character: str) -> str:
    if "\ud800" <= character <= "\udfff":
        return "\\uFFFD"  # TOML has no lone surrogates
    return f"\\u{ord(character):04X}"

"""Changing a few keys of a config file by hand, which is the only way to raw ``lxc.*`` keys: everything else stays byte for byte.

:func:`nexcage.tools.config.parse` and ``render`` write a file as PVE would; this keeps what PVE would lose (lines that it cannot
read), the order of lines, and blanks. Lines are put into the main part: one that is appended to the file would belong to
its newest snapshot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from nexcage.errors import InvalidInput

__all__ = ["digest", "edited"]

_HEADER = re.compile(r"\[(?:pve:pending|[a-z][a-z0-9_-]+)\]\s*", re.IGNORECASE | re.ASCII)
_LINE = re.compile(r"(lxc\.[a-z0-9_.-]+)(?::|\s*=)|([a-z][a-z_]*[0-9]*):.", re.ASCII)
_KEY = re.compile(r"[a-z][a-z_]*[0-9]*", re.ASCII)
_RAW_KEY = re.compile(r"lxc\.[a-z0-9_.-]+", re.ASCII)
_BREAKS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_KEPT = frozenset(("rootfs", "delete", "description", "snapstate", "snaptime", "parent", "lock"))
_REFUSED = ("lxc.rootfs.path", "lxc.rootfs.options")


def digest(text: str | bytes) -> str:
    """What ``--digest`` compares with: the SHA-1 of the file's bytes."""
    from hashlib import sha1  # every call of a pretend tool loads this package, and none of them needs it

    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return sha1(data, usedforsecurity=False).hexdigest()


def edited(
    text: str, values: Mapping[str, str | None] | None = None, raw: Mapping[str, Sequence[str]] | None = None
) -> str:
    """``text`` with these keys of its main part set, or without them where the value is None.

    ``raw``: keys that may stand on several lines, each with all of its values in order. Raises InvalidInput for a key or value
    that would be another line, and for keys that only PVE may change.
    """
    wanted = {key: _line(key, value) for key, value in (values or {}).items()}
    wanted |= {key: tuple(_raw_line(key, one) for one in many) for key, many in (raw or {}).items()}
    lines = text.split("\n")
    end = next((n for n, line in enumerate(lines) if _HEADER.fullmatch(line)), len(lines))
    main, rest = lines[:end], lines[end:]
    for key, new in wanted.items():
        main = _replaced(main, key, new)
    return "\n".join([*main, *rest])


def _line(key: str, value: str | None) -> tuple[str, ...]:
    if not _KEY.fullmatch(key) or key in _KEPT:
        raise InvalidInput("key", key, "a key of the config that is not PVE's own to change")
    return () if value is None else (f"{key}: {_checked(key, value)}",)


def _raw_line(key: str, value: str) -> str:
    if not _RAW_KEY.fullmatch(key) or key in _REFUSED:
        raise InvalidInput("key", key, "a raw key lxc.NAME, and none of the root file system")
    return f"{key}: {_checked(key, value)}"


def _checked(key: str, value: str) -> str:
    if type(value) is not str or not value or value != value.strip() or _BREAKS.search(value):
        raise InvalidInput(key, value, "one line of text without blanks at its ends")
    return value


def _key(line: str) -> str:
    found = _LINE.match(line)
    return (found[1] or found[2]) if found else ""


def _replaced(main: list[str], key: str, new: tuple[str, ...]) -> list[str]:
    """The first line of the key becomes the new ones, its others go; a new key goes where PVE would sort it."""
    at = next((n for n, line in enumerate(main) if _key(line) == key), None)
    if at is None:
        at = _place(main, key) if new else 0
        return [*main[:at], *new, *main[at:]]
    others = [line for line in main[at + 1 :] if _key(line) != key]
    return [*main[:at], *new, *others]


def _place(main: list[str], key: str) -> int:
    """Behind the last line that sorts before it: descriptions, then keys by name, then raw keys in their order."""
    raw = key.startswith("lxc.")
    place = 0
    for n, line in enumerate(main):
        known = _key(line)
        if line.startswith("#") or (known and (raw or (not known.startswith("lxc.") and known < key))):
            place = n + 1
    return place

"""What every validator starts with: is it text (or a number) at all, and does the whole of it match?

Patterns are kept as text and compiled by ``re`` when first used: importing this package compiles none of them.
"""

from __future__ import annotations

import re
from typing import cast

from nexcage.errors import InvalidInput, InvalidName

# Control characters (C0, DEL, C1), the two Unicode line breaks that str.splitlines() knows besides them, and lone
# surrogates: none of them can be written on one line of UTF-8.
_UNWRITABLE = r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"


def text(field: str, value: object, error: type[InvalidInput] = InvalidName) -> str:
    """``value`` as a plain ``str``; anything but text is refused.

    By ``type(value)`` and the slots of ``str`` itself: neither a lying ``__class__`` nor an overridden method is asked.
    """
    if not issubclass(type(value), str):
        raise error(field, value, "must be text")
    return str.__str__(cast("str", value))


def whole(value: object) -> int | None:
    """``value`` as a plain ``int`` if it is a number without a fraction by its type; ``True`` is not a number."""
    if not issubclass(type(value), int) or type(value) is bool:
        return None
    return int.__int__(cast("int", value))


def matched(field: str, value: object, pattern: str, limit: int, reason: str) -> str:
    """``value`` if the whole of it matches; the length comes first, so no pattern ever sees a long text."""
    name = text(field, value)
    if len(name) > limit or not re.fullmatch(pattern, name):
        raise InvalidName(field, name, reason)
    return name


def unwritable(value: str, *, tab: bool = False) -> bool:
    """True when ``value`` does not fit on one line of UTF-8; ``tab`` lets tabs pass."""
    return re.search(_UNWRITABLE, value.replace("\t", "") if tab else value) is not None


def climbs(value: str) -> bool:
    """True when one component of the path is ``..``."""
    return ".." in value.split("/")

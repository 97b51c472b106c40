"""What one sub-option may be: how it is read, how it is written, and the words it is refused with."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, cast

from nexcage.errors import InvalidSpec

__all__ = [
    "Kind",
    "address",
    "checked",
    "choice",
    "cidr",
    "flag",
    "integer",
    "listed",
    "matching",
    "number",
    "size",
    "size_bytes",
    "size_text",
]

_OCTET = r"(?:25[0-5]|(?:2[0-4]|1[0-9]|[1-9])?[0-9])"
_V4 = re.compile(rf"(?:{_OCTET}\.){{3}}{_OCTET}")
_V6 = re.compile(r"[0-9A-Fa-f:.]{2,45}")
_SIZE = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,9}))?([KMGT]?)")
_UNITS = ("", "K", "M", "G", "T")
_FLAGS = {"1": True, "on": True, "yes": True, "true": True, "0": False, "off": False, "no": False, "false": False}
_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What is refused in every value: it would end a line, or hide what a terminal shows."""


class Kind(NamedTuple):
    """One kind of sub-option; both functions raise InvalidSpec with the field's name."""

    read: Callable[[str, str], object]
    """(field, text) to the value."""
    write: Callable[[str, object], str]
    """(field, value) to the text."""


def checked(field: str, value: object, also: str = ",") -> str:
    """``value``, when it is text without control characters and without any of ``also``."""
    if type(value) is not str or not value:
        raise InvalidSpec(field, value, "text that is not empty")
    if _BREAKS.search(value) or any(char in value for char in also):
        raise InvalidSpec(field, value, f"no control characters and none of {' '.join(also)}" if also else "one line")
    return value


def matching(pattern: str, reason: str) -> Kind:
    """Text of one form."""
    expression = re.compile(pattern, re.ASCII)

    def write(field: str, value: object) -> str:
        if type(value) is not str or not expression.fullmatch(value):
            raise InvalidSpec(field, value, reason)
        return checked(field, value)

    return Kind(write, write)


def choice(*words: str) -> Kind:
    """One of some words."""
    return matching("|".join(map(re.escape, words)), f"one of {', '.join(words)}")


def _read_flag(field: str, text: str) -> bool:
    known = _FLAGS.get(text.lower()) if text.isascii() else None
    if known is None:
        raise InvalidSpec(field, text, "0 or 1")
    return known


def _write_flag(field: str, value: object) -> str:
    if type(value) is not bool:
        raise InvalidSpec(field, value, "True or False")
    return str(int(value))


flag = Kind(_read_flag, _write_flag)


def integer(low: int, high: int) -> Kind:
    """A whole number between two bounds."""
    reason = f"a whole number from {low} to {high}"

    def write(field: str, value: object) -> str:
        if type(value) is not int or not low <= value <= high:
            raise InvalidSpec(field, value, reason)
        return str(value)

    def read(field: str, text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,19}", text, re.ASCII):
            raise InvalidSpec(field, text, reason)
        write(field, int(text))
        return int(text)

    return Kind(read, write)


def number(low: float, high: float) -> Kind:
    """A decimal number between two bounds, written without an exponent."""
    reason = f"a number from {low:g} to {high:g}"

    def write(field: str, value: object) -> str:
        if type(value) not in (int, float) or not low <= float(str(value)) <= high:
            raise InvalidSpec(field, value, reason)
        return f"{value:.6f}".rstrip("0").rstrip(".")

    def read(field: str, text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,15}(?:\.[0-9]{0,6})?|\.[0-9]{1,6}", text, re.ASCII):
            raise InvalidSpec(field, text, reason)
        write(field, float(text))
        return float(text)

    return Kind(read, write)


def listed(one: Kind, separator: str = ";") -> Kind:
    """Several of one kind, as a tuple."""

    def read(field: str, text: str) -> tuple[object, ...]:
        return tuple(one.read(field, word) for word in text.split(separator))

    def write(field: str, value: object) -> str:
        items: tuple[object, ...] = cast("tuple[object, ...]", value) if isinstance(value, tuple) else ()
        if not items:
            raise InvalidSpec(field, items, "a tuple that is not empty")
        words = [one.write(field, item) for item in items]
        if any(separator in word for word in words):
            raise InvalidSpec(field, items, f"no {separator}")
        return separator.join(words)

    return Kind(read, write)


# --- sizes ------------------------------------------------------------------------------------------------------------


def size_bytes(text: str, field: str = "size") -> int:
    """PVE's ``4G`` in bytes; a size without a unit is bytes. Raises InvalidSpec."""
    found = _SIZE.fullmatch(text) if type(text) is str else None
    if found is None:
        raise InvalidSpec(field, text, "a number and K, M, G or T, such as 8G")
    scale: int = 1024 ** _UNITS.index(found[3])
    tail = found[2] or ""
    return int(found[1] + tail) * scale // int(10 ** len(tail))


def size_text(count: int, field: str = "size") -> str:
    """Bytes as PVE writes them, in the largest unit that is exact: 0 is ``0T``."""
    if type(count) is not int or not 0 <= count < 1 << 63:
        raise InvalidSpec(field, count, "a number of bytes")
    units = list(_UNITS)
    while len(units) > 1 and count % 1024 == 0:
        count //= 1024
        del units[0]
    return f"{count}{units[0]}"


def _read_size(field: str, text: str) -> int:
    return size_bytes(text, field)


def _write_size(field: str, value: object) -> str:
    if type(value) is not int:
        raise InvalidSpec(field, value, "a number of bytes")
    return size_text(value, field)


size = Kind(_read_size, _write_size)


# --- addresses --------------------------------------------------------------------------------------------------------


def is_address(text: str, version: int) -> bool:
    """Whether ``text`` is an address and nothing else: no zone, no prefix."""
    if version == 4:
        return _V4.fullmatch(text) is not None
    if not _V6.fullmatch(text):
        return False
    from ipaddress import IPv6Address  # not free to import, and few containers need it

    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def address(version: int) -> Kind:
    """An IP address."""

    def write(field: str, value: object) -> str:
        if type(value) is not str or not is_address(value, version):
            raise InvalidSpec(field, value, f"an IPv{version} address")
        return value

    return Kind(write, write)


def cidr(version: int, *words: str) -> Kind:
    """An address with its prefix length, or one of some words."""
    most = 32 if version == 4 else 128
    reason = f"ADDRESS/PREFIX with a prefix from 8 to {most}, {' or '.join(words)}"

    def write(field: str, value: object) -> str:
        host, _, prefix = value.partition("/") if type(value) is str else ("", "", "")
        known = re.fullmatch("[0-9]{1,3}", prefix, re.ASCII) and 8 <= int(prefix) <= most and is_address(host, version)
        if type(value) is not str or not (value in words or known):
            raise InvalidSpec(field, value, reason)
        return value

    return Kind(write, write)

"""PVE's parameter checks: what a value may look like, and the exact words it is refused with.

A :class:`Prop` describes one option as PVE's JSON schema does. :func:`check` finds everything that is wrong with a set of
options; the result maps option names to messages, which :func:`verification_failed` turns into PVE's text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

__all__ = [
    "FORMATS",
    "Errors",
    "Prop",
    "Refused",
    "check",
    "check_format",
    "check_value",
    "format_size",
    "parse_bool",
    "parse_properties",
    "parse_size",
]
__all__ += ["print_properties", "split_list", "verification_failed"]

Errors: TypeAlias = dict[str, str]


class Refused(Exception):
    """A value is not what its format asks for; the text is PVE's, with its newline where PVE has one."""

    @property
    def text(self) -> str:
        """PVE's words."""
        return str(self.args[0])


class Prop(NamedTuple):
    """One option or sub-option."""

    kind: str = "string"  # string, boolean, integer, number
    format: str | None = None
    properties: Mapping[str, Prop] | None = None
    pattern: str | None = None
    enum: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    max_length: int | None = None
    min_length: int | None = None
    optional: bool = True
    default_key: bool = False
    requires: str | None = None
    interactive: bool = False
    file: bool = False

    @property
    def is_list(self) -> bool:
        """Whether the option may be repeated."""
        return self.format is not None and self.format.endswith("-list")


def split_list(text: str) -> list[str]:
    """PVE's lists: comma, semicolon, blank or NUL between the words; NUL alone when there is one."""
    if "\0" in text:
        return [word for word in text.split("\0") if word]
    return [word for word in re.split(r"[,; \t\r\n]+", text.strip()) if word]


def parse_bool(text: str) -> str | None:
    """``1`` or ``0`` for the words PVE takes, else None."""
    if re.fullmatch(r"1|on|yes|true", text, re.IGNORECASE):
        return "1"
    return "0" if re.fullmatch(r"0|off|no|false", text, re.IGNORECASE) else None


_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([KMGT])?")
_NUMBER = re.compile(r"[+-]?([0-9]+\.[0-9]+|[0-9]+\.|\.[0-9]+|[0-9]+)([eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"[+-]?[0-9]+")


def parse_size(text: str) -> int | None:
    """``4G`` in bytes; None when it is no size."""
    found = _SIZE.fullmatch(text)
    if found is None:
        return None
    factor = 1024 ** ("KMGT".index(found[2]) + 1) if found[2] else 1
    return int(float(found[1]) * factor)


def format_size(size: int) -> str:
    """Bytes in the largest unit that is exact: 0 is ``0T``."""
    for unit in ("", "K", "M", "G"):
        if size % 1024:
            return f"{size}{unit}"
        size //= 1024
    return f"{size}T"


# --- formats ----------------------------------------------------------------------------------------------------------


def _matches(pattern: str, message: str) -> Callable[[str], None]:
    expression = re.compile(pattern, re.ASCII)

    def verify(text: str) -> None:
        if not expression.fullmatch(text):
            raise Refused(message.replace("%", text) + "\n")

    return verify


def _is_ip(text: str, version: int) -> bool:
    from ipaddress import AddressValueError, IPv4Address, IPv6Address

    if version == 4 and not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3}){3}", text):
        return False
    try:
        IPv4Address(".".join(str(int(part)) for part in text.split("."))) if version == 4 else IPv6Address(text)
    except (AddressValueError, ValueError):
        return False
    return "%" not in text


def _ip(text: str) -> None:
    if not _is_ip(text, 4) and not _is_ip(text, 6):
        raise Refused("value does not look like a valid IP address\n")


def _ip_with_interface(text: str) -> None:
    address, percent, interface = text.partition("%")
    if percent and address.startswith("fe80:") and _is_ip(address, 6) and _IFACE.fullmatch(interface):
        return
    _ip(text)


_IFACE = re.compile(r"[a-z][a-z0-9_]{1,20}([:.][0-9]+)?", re.IGNORECASE | re.ASCII)


def _cidr(text: str, version: int) -> bool:
    address, slash, bits = text.partition("/")
    most = 32 if version == 4 else 128
    return bool(slash) and bits.isascii() and bits.isdigit() and 7 < int(bits) <= most and _is_ip(address, version)


def _ip_config(version: int, words: tuple[str, ...]) -> Callable[[str], None]:
    def verify(text: str) -> None:
        if text not in words and not _cidr(text, version):
            raise Refused(f"value does not look like a valid ipv{version} network configuration\n")

    return verify


def _address(version: int) -> Callable[[str], None]:
    def verify(text: str) -> None:
        if not _is_ip(text, version):
            raise Refused(f"value does not look like a valid IPv{version} address\n")

    return verify


def _startup(text: str) -> None:
    parts = [part for part in text.split(",") if part.strip()]
    if not text or text == "0" or not all(re.fullmatch(r"(order=)?[0-9]+|up=[0-9]+|down=[0-9]+", p) for p in parts):
        raise Refused("unable to parse startup options\n")


def _size(text: str) -> None:
    if parse_size(text) is None:
        raise Refused(f"value does not look like a valid disk size: {text}\n")


def _mount_string(text: str) -> None:
    if re.search(r"/\.\.?/|/\.\.?$|^\.\./", text):
        raise Refused(f"{text} contains illegal character sequences\n")


def _device(text: str) -> None:
    if re.search(r"/\.\.?(?:/|$)", text) or not text.startswith("/dev/"):
        raise Refused(f"{text} is not a valid device path\n")


def _volume_id(text: str) -> None:
    storage, colon, name = text.partition(":")
    if not colon or not name or not _STORAGE.fullmatch(storage):
        raise Refused(f"unable to parse volume ID '{text}'\n")


_STORAGE = re.compile(r"[a-z][a-z0-9_.-]*[a-z0-9]", re.IGNORECASE | re.ASCII)
_ZONE = re.compile(
    r"(Africa|America|Antarctica|Arctic|Asia|Atlantic|Australia|Europe|Indian|Pacific)(/[A-Za-z_+-]+){1,2}", re.ASCII
)


def _timezone(text: str) -> None:
    if text not in ("host", "UTC") and not _ZONE.fullmatch(text):
        raise Refused(f"invalid time zone '{text}'\n")


_LABEL = "[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?"

FORMATS: Mapping[str, Callable[[str], None]] = {
    "pve-vmid": _matches("[1-9][0-9]{2,8}", "value does not look like a valid VM ID"),
    "pve-node": _matches(_LABEL, "value does not look like a valid node name"),
    "pve-configid": _matches("[a-zA-Z][a-zA-Z0-9_-]+", "invalid configuration ID '%'"),
    "pve-storage-id": _matches(_STORAGE.pattern.replace("a-z", "a-zA-Z"), "storage ID '%' contains illegal characters"),
    "pve-poolid": _matches("[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+){0,2}", "value '%' does not look like a valid pool name"),
    "pve-tag": _matches("[a-zA-Z0-9_][a-zA-Z0-9_+.-]*", "invalid characters in tag"),
    "pve-startup-order": _startup,
    "dns-name": _matches(rf"({_LABEL}\.)*{_LABEL}", "value does not look like a valid DNS name"),
    "mac-addr": _matches(
        "[a-fA-F0-9][02468aceACE](:[a-fA-F0-9]{2}){5}", "value does not look like a valid unicast MAC address"
    ),
    "ipv4": _address(4),
    "ipv6": _address(6),
    "ip": _ip,
    "lxc-ip-with-ll-iface": _ip_with_interface,
    "pve-ipv4-config": _ip_config(4, ("dhcp", "manual")),
    "pve-ipv6-config": _ip_config(6, ("auto", "dhcp", "manual")),
    "disk-size": _size,
    "pve-lxc-mp-string": _mount_string,
    "pve-lxc-dev-string": _device,
    "pve-volume-id": _volume_id,
    "pve-ct-timezone": _timezone,
    "storage-pair": lambda text: None if text == "1" else _pair(text),
}


def _pair(text: str) -> None:
    for name in text.split(":"):
        if not _STORAGE.fullmatch(name):
            raise Refused(f"entry '{text}' contains invalid ID - storage ID '{name}' contains illegal characters\n\n")


# --- checks -----------------------------------------------------------------------------------------------------------


def _add(errors: Errors, path: str, message: str) -> None:
    errors[path] = f"{errors[path]}\\n{message}" if path in errors else message


def check(props: Mapping[str, Prop], values: Mapping[str, str], errors: Errors, path: str = "") -> None:
    """Add to ``errors`` what is wrong with ``values``, missing and unknown options included."""
    for name, prop in props.items():
        if name not in values and not prop.optional:
            _add(errors, f"{path}.{name}" if path else name, "property is missing and it is not optional")
    for name, value in values.items():
        full = f"{path}.{name}" if path else name
        known = props.get(name)
        if known is None:
            unknown = "property is not defined in schema and the schema does not allow additional properties"
            _add(errors, full, unknown)
            continue
        check_value(known, value, errors, full)
        if known.requires is not None and known.requires not in values:
            _add(errors, known.requires, f"missing property - '{full}' requires this property")


def check_value(prop: Prop, value: str, errors: Errors, path: str) -> None:
    """One value against its schema; the first thing that is wrong counts, in PVE's order."""
    if message := _wrong_kind(prop.kind, value):
        _add(errors, path, message)
        return
    try:
        check_format(prop, value, path)
    except Refused as refused:
        _add(errors, path, f"invalid format - {refused.text}")
        return
    if message := _wrong_value(prop, value):
        _add(errors, path, message)


def _wrong_kind(kind: str, value: str) -> str:
    wrong = (
        (kind == "boolean" and value not in ("0", "1"))
        or (kind == "integer" and not _INTEGER.fullmatch(value))
        or (kind == "number" and not _NUMBER.fullmatch(value))
    )
    return f"type check ('{kind}') failed - got '{value}'" if wrong else ""


def check_format(prop: Prop, value: str, path: str) -> None:
    if prop.properties is not None:
        parse_properties(prop.properties, value, path)
    elif prop.format is not None and prop.is_list:
        verify = FORMATS[prop.format.removesuffix("-list")]
        for word in split_list(value):
            verify(word)
    elif prop.format is not None:
        FORMATS[prop.format](value)


def _wrong_value(prop: Prop, value: str) -> str:
    if prop.pattern is not None and not re.fullmatch(prop.pattern, value, re.ASCII):
        return "value does not match the regex pattern"
    if prop.max_length is not None and len(value) > prop.max_length:
        return f"value may only be {prop.max_length} characters long"
    if prop.min_length is not None and len(value) < prop.min_length:
        return f"value must be at least {prop.min_length} characters long"
    if _NUMBER.fullmatch(value):
        if prop.maximum is not None and float(value) > prop.maximum:
            return (
                f"value must have a maximum value of {prop.maximum:g}" if prop.maximum < 1e6 else _large(prop.maximum)
            )
        if prop.minimum is not None and float(value) < prop.minimum:
            return f"value must have a minimum value of {prop.minimum:g}"
    if prop.enum and value not in prop.enum:
        return f"value '{value}' does not have a value in the enumeration '{', '.join(prop.enum)}'"
    return ""


def _large(maximum: float) -> str:
    return f"value must have a maximum value of {int(maximum)}"


def parse_properties(props: Mapping[str, Prop], text: str, path: str = "") -> dict[str, str]:
    """A property string as a dict with booleans as 0/1; :class:`Refused` with PVE's words when it is none."""
    known = _good.get((id(props), text))
    if known is not None:
        return dict(known)
    found: dict[str, str] = {}
    bare = False
    for part in text.split(","):
        if not part.strip():
            continue
        key, equals, value = part.partition("=")
        if equals and key and value:
            if key in found:
                raise Refused(f"duplicate key in comma-separated list property: {key}\n")
            known_prop = props.get(key)
            word = parse_bool(value) if known_prop is not None and known_prop.kind == "boolean" else None
            found[key] = value if word is None else word
        elif equals:
            raise Refused("missing key in comma-separated list property\n")
        else:
            key = next((name for name, prop in props.items() if prop.default_key), "")
            if bare or (key and key in found):
                raise Refused(f"duplicate key in comma-separated list property: {key}\n")
            if not key:
                raise Refused("value without key, but schema does not define a default key\n")
            bare = True
            found[key] = part
    errors: Errors = {}
    check(props, found, errors, path)
    if errors:
        raise Refused("format error\n" + "".join(f"{name}: {message}\n" for name, message in errors.items()))
    if len(_good) > 8192:
        _good.clear()
    _good[id(props), text] = dict(found)
    return found


_good: dict[tuple[int, str], dict[str, str]] = {}
"""Property strings found right, by schema; the schemas are constants of a module and live as long as this does."""


def print_properties(props: Mapping[str, Prop], values: Mapping[str, str]) -> str:
    """A property string in PVE's order: default key bare, required keys, the rest sorted."""
    default = next((name for name, prop in props.items() if prop.default_key), None)
    names = sorted(values)
    order = [name for name in names if name == default]
    order += [name for name in names if name != default and name in props and not props[name].optional]
    order += [name for name in names if name not in order]
    return ",".join(values[name] if name == default else f"{name}={values[name]}" for name in order)


def verification_failed(errors: Errors, usage: str, what: str = "Parameter verification failed.") -> str:
    """PVE's answer to bad options: one line per option, then the short usage."""
    lines = "".join(f"{name}: {message}\n" for name, message in errors.items())
    return f"400 {what}\n{lines}{usage}\n"

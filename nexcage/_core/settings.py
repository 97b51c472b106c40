"""What a create may say of a container besides its size and its place, in PVE's words (pve-commands 2.2-2.5): checked when it is said.

The words reach comma lists and files of lines: nothing in one of them can begin another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import cast

from nexcage import names
from nexcage.errors import InvalidInput, InvalidSpec

__all__ = ["ARCHES", "FIELDS", "OSTYPES", "check", "check_devices", "check_limits", "check_mounts", "refuse"]

ARCHES = ("amd64", "i386", "arm64", "armhf", "riscv32", "riscv64")
OSTYPES = (
    *("debian", "devuan", "ubuntu", "centos", "fedora", "opensuse", "archlinux", "alpine", "gentoo", "nixos"),
    "unmanaged",
)

FIELDS = (
    *("mounts", "devices", "cpulimit", "cpuunits", "features", "startup", "nameserver", "searchdomain", "timezone"),
    *("pool", "hookscript", "arch", "ostype", "protection"),
)
"""What of a Spec is checked here."""

_INDEX = r"(?:0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5])"
_MOUNT = re.compile(rf"mp{_INDEX}")
_DEVICE = re.compile(rf"dev{_INDEX}")
_HIDDEN = r"\s\x00-\x1f\x7f-\x9f\ud800-\udfff"
_NODE_FILE = re.compile(rf"/dev/[^,={_HIDDEN}]{{1,250}}")
_CLIMBS = re.compile(r"/\.\.?(?:/|$)")
_FLAG = re.compile("[01]")
_NUMBER = re.compile("[0-9]{1,9}")
_ID = re.compile("[0-9]{1,10}")
_ADDRESS = re.compile(r"([0-9A-Fa-f:.]{2,45})(%[A-Za-z][A-Za-z0-9_]{1,20})?")

_FEATURES: Mapping[str, re.Pattern[str]] = {
    **dict.fromkeys(("force_rw_sys", "fuse", "keyctl", "mknod", "nesting"), _FLAG),
    "mount": re.compile("[a-zA-Z0-9_]+(?:;[a-zA-Z0-9_]+)*"),
}
_STARTUP: Mapping[str, re.Pattern[str]] = dict.fromkeys(("order", "up", "down"), _NUMBER)
_OF_DEVICE: Mapping[str, re.Pattern[str]] = {
    "mode": re.compile("0[0-7]{3}"),
    "uid": _ID,
    "gid": _ID,
    "deny-write": _FLAG,
}
_WORDS: Mapping[str, tuple[re.Pattern[str], str]] = {
    "timezone": (
        re.compile(r"host|UTC|[A-Za-z]+(?:/[A-Za-z0-9_+-]+){1,2}"),
        "host, UTC or a zone such as Europe/Berlin",
    ),
    "pool": (
        re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+){0,2}"),
        "names of A-Z a-z 0-9 . _ - joined by /, at most three",
    ),
    "hookscript": (
        re.compile(rf"[A-Za-z][A-Za-z0-9._-]*:snippets/[^/,{_HIDDEN}]{{1,200}}"),
        "a script STORAGE:snippets/NAME",
    ),
    "arch": (re.compile("|".join(ARCHES)), f"one of {', '.join(ARCHES)}"),
    "ostype": (re.compile("|".join(OSTYPES)), f"one of {', '.join(OSTYPES)}"),
}


def check(field: str, value: object) -> None:
    """One of the settings that are a text or several; raises InvalidInput."""
    if field in _WORDS:
        pattern, reason = _WORDS[field]
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise InvalidSpec(field, value, reason)
    else:
        _LISTS[field](value)


def refuse(spec: object, fields: Iterable[str], reason: str) -> None:
    """Raises InvalidSpec for the first of ``fields`` that ``spec`` says."""
    for field in fields:
        value: object = getattr(spec, field)
        if value is not None and value is not False and value not in ((), {}):
            raise InvalidSpec(field, value, reason)


def _features(value: object) -> None:
    _pairs("features", value, _FEATURES, "nesting=1,keyctl=1,fuse=1,mknod=1,force_rw_sys=1,mount=nfs;cifs, each once")


def _startup(value: object) -> None:
    _pairs("startup", value, _STARTUP, "order=N,up=SECONDS,down=SECONDS, each at most once")


def _nameservers(value: object) -> None:
    for one in _several("nameserver", value):
        if not _is_address(one):
            raise InvalidSpec("nameserver", one, "an IP address")


def _searchdomains(value: object) -> None:
    for one in _several("searchdomain", value):
        names.hostname(one)


_LISTS: Mapping[str, Callable[[object], None]] = {
    "features": _features,
    "startup": _startup,
    "nameserver": _nameservers,
    "searchdomain": _searchdomains,
}


def check_limits(cpulimit: object, cpuunits: object) -> None:
    """How much of the node's processors it gets; raises InvalidSpec."""
    if cpulimit is not None and (
        isinstance(cpulimit, bool)
        or not isinstance(cpulimit, (int, float))
        or not (cpulimit == 0 or 0.01 <= cpulimit <= 8192)
    ):
        raise InvalidSpec("cpulimit", cpulimit, "a number of cores from 0.01 to 8192, or 0 for no limit")
    if cpuunits is not None and (
        isinstance(cpuunits, bool) or not isinstance(cpuunits, int) or not 0 <= cpuunits <= 500_000
    ):
        raise InvalidSpec("cpuunits", cpuunits, "a whole number from 0 to 500000")


def check_mounts(value: object) -> None:
    """Mount points by their key; raises InvalidSpec."""
    for key, text in _keyed("mounts", value):
        if not _MOUNT.fullmatch(key):
            raise InvalidSpec("mounts", key, "mp0 to mp255, each with SRC,mp=/DST")
        try:
            names.mount(text)
        except InvalidInput as error:
            raise InvalidSpec("mounts", text, error.reason) from None


def check_devices(value: object) -> None:
    """Devices of the node by their key; raises InvalidSpec."""
    for key, text in _keyed("devices", value):
        if not _DEVICE.fullmatch(key):
            raise InvalidSpec("devices", key, "dev0 to dev255, each with /dev/...[,mode=0660][,uid=N][,gid=N]")
        path, comma, rest = text.partition(",")
        if not _NODE_FILE.fullmatch(path) or _CLIMBS.search(path):
            raise InvalidSpec("devices", text, "/dev/... without . and .. as parts, in front")
        if comma:
            _pairs("devices", rest, _OF_DEVICE, "behind the path mode=0660, uid=N, gid=N, deny-write=1, each once")
        if any(int(number) > (1 << 32) - 2 for number in re.findall(r"[ug]id=([0-9]+)", rest)):
            raise InvalidSpec("devices", text, "ids below 4294967295")


def _pairs(field: str, value: object, known: Mapping[str, re.Pattern[str]], reason: str) -> None:
    seen: set[str] = set()
    for part in value.split(",") if isinstance(value, str) else ("",):
        key, equals, word = part.partition("=")
        if not equals or key not in known or key in seen or not known[key].fullmatch(word):
            raise InvalidSpec(field, value, reason)
        seen.add(key)


def _several(field: str, given: object) -> tuple[str, ...]:
    value = cast("tuple[object, ...]", given) if isinstance(given, tuple) else (None,)
    words = tuple(one for one in value if isinstance(one, str))
    if len(words) != len(value):
        raise InvalidSpec(field, value, "a tuple of str")
    return words


def _keyed(field: str, given: object) -> list[tuple[str, str]]:
    value = cast("Mapping[object, object]", given) if isinstance(given, Mapping) else {None: None}
    pairs = [(key, text) for key, text in value.items() if isinstance(key, str) and isinstance(text, str)]
    if len(pairs) != len(value):
        raise InvalidSpec(field, value, "a mapping of keys to texts in PVE's spelling")
    return pairs


def _is_address(text: str) -> bool:
    match = _ADDRESS.fullmatch(text)
    if match is None or (match[2] and not match[1].lower().startswith("fe80:")):
        return False
    from ipaddress import ip_address  # not free to import, and few containers need it

    try:
        ip_address(match[1])
    except ValueError:
        return False
    return True

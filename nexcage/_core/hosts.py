"""Which machines: host strings, ranges of them, and how to log in to one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

import msgspec

from nexcage.errors import InvalidInput, InvalidName

__all__ = ["LOCAL", "Host", "hosts", "is_pattern", "matching", "ssh_hosts", "words"]

LOCAL = "local"
"""The key of the node that is this machine."""

_RANGE = re.compile(r"\[([0-9A-Za-z,-]{1,256})\]")
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?")
_V6 = re.compile(r"[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9_.-]{1,15})?")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
MOST = 100_000
LONGEST = 1024


class Host(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node's login. ``key`` is the host string as given and names the node in its fleet; many hosts are called ``pve``.

    Empty fields are left to ssh_config and its defaults. ``address`` is what to connect to when it is not the key's host.
    ``known_hosts`` and ``identity_file`` are paths on this machine; ``jump`` is ``[user@]host[:port]``.
    """

    key: str
    address: str = ""
    user: str = ""
    port: int = 0
    identity_file: str = ""
    known_hosts: str = ""
    jump: str = ""

    @property
    def local(self) -> bool:
        """Whether it is this machine, without SSH."""
        return self.key == LOCAL and not self.address

    @classmethod
    def parse(cls, value: object) -> Host:
        """From ``[user@]host[:port]`` (an IPv6 address in brackets when a port follows); raises InvalidName."""
        if not isinstance(value, str):
            raise InvalidName("host", value, "text: [user@]host[:port]")
        user, at, rest = value.rpartition("@")
        if at and not _USER.fullmatch(user):
            raise InvalidName("host", value, "a login name before '@' of ASCII letters, digits and _ . -")
        port = 0
        if rest.startswith("["):
            name, bracket, tail = rest[1:].partition("]")
            digits = "" if bracket and not tail else tail[1:] if tail[:1] == ":" and tail[1:] else "x"
            pattern = _V6
        elif rest.count(":") > 1:
            name, digits, pattern = rest, "", _V6
        else:
            name, colon, digits = rest.partition(":")
            pattern = _NAME
            if colon and not digits:
                digits = "x"
        if not pattern.fullmatch(name):
            raise InvalidName(
                "host", value, "a host name or address of ASCII letters, digits and . - _, not beginning with '-'"
            )
        if digits:
            if not re.fullmatch(r"[0-9]{1,5}", digits) or not 1 <= int(digits) <= 65535:
                raise InvalidName("host", value, "a port from 1 to 65535 after ':'")
            port = int(digits)
        return cls(value, "" if value == LOCAL else name, user, port)


def hosts(pattern: str | Iterable[str]) -> tuple[str, ...]:
    """Host strings from patterns such as ``pve-[01-50].lan`` or ``root@pve[1,3-5]:2222``, commas or blanks between several.

    Widths are kept (``[01-10]``), letters work (``[a-c]``), order is as written, doubles are dropped. Raises InvalidName for a
    pattern that is not one, that runs backwards, or that gives more than 100,000.
    """
    found: dict[str, None] = {}
    if isinstance(pattern, str):
        made = 0
        for word in words(pattern):
            if len(word) > LONGEST:
                raise InvalidName("hosts", word, f"at most {LONGEST} characters for one pattern")
            for name in _expand(word, word):
                made += 1  # doubles too: [1,1][1,1]... makes few names out of very many
                if made > MOST:
                    raise InvalidName("hosts", pattern, f"at most {MOST} hosts")
                if name not in found:
                    Host.parse(name)
                    found[name] = None
    elif isinstance(pattern, Iterable) and not isinstance(pattern, (bytes, bytearray)):
        for part in pattern:
            if not isinstance(part, str):
                raise InvalidName("hosts", part, "text such as pve-[01-50].lan")
            found |= dict.fromkeys(hosts(part))
            if len(found) > MOST:
                raise InvalidName("hosts", part, f"at most {MOST} hosts")
    else:
        raise InvalidName("hosts", pattern, "text such as pve-[01-50].lan, or several of it")
    if not found:
        raise InvalidName("hosts", pattern, "at least one host, such as pve-[01-50].lan")
    return tuple(found)


def words(text: str) -> list[str]:
    """The patterns in a text: commas and blanks outside of brackets are between them."""
    return re.findall(r"(?:\[[^\[\]]*\]|[^\s,])+", text)


def is_pattern(word: object) -> bool:
    """Whether a word stands for names of ssh_config."""
    return isinstance(word, str) and ("*" in word or "?" in word)


def matching(pattern: str, known: Iterable[str]) -> tuple[str, ...]:
    """The known names that ``[user@]GLOB[:port]`` matches, with its login. Raises InvalidName when there is none."""
    user, at, rest = pattern.rpartition("@")
    name, colon, port = rest.partition(":")
    found = tuple(f"{user}{at}{one}{colon}{port}" for one in known if fnmatchcase(one, name))
    if not found:
        raise InvalidName("host", pattern, "a pattern that a name in ssh_config matches")
    return found


def ssh_hosts(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names that ``Host`` lines of an ssh_config say (no patterns), and the files that it includes."""
    names: dict[str, None] = {}
    includes: list[str] = []
    for line in text.splitlines():
        match = re.match(r"\s*(host|include)(?:\s+|\s*=\s*)(.*)", line, re.IGNORECASE)
        if match is None:
            continue
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|[^\s"]+', match[2].split(" #")[0])]
        if match[1].lower() == "include":
            includes += words
        else:
            names |= dict.fromkeys(word for word in words if _NAME.fullmatch(word) or _V6.fullmatch(word))
    return tuple(names), tuple(includes)


def _expand(word: str, whole: str) -> Iterable[str]:
    match = _RANGE.search(word)
    if not match:
        yield word
        return
    head, tail = word[: match.start()], word[match.end() :]
    for item in match.group(1).split(","):
        for value in _items(item, whole):
            for rest in _expand(tail, whole):
                yield head + value + rest


def _items(item: str, whole: str) -> Iterable[str]:
    low, dash, high = item.partition("-")
    if not dash:
        if not item:
            raise InvalidName("hosts", whole, "no empty items in [...]")
        return (item,)
    if low.isdigit() and high.isdigit():
        if int(low) > int(high) or int(high) - int(low) > MOST:
            raise InvalidName("hosts", whole, f"ranges that run upwards, at most {MOST} long")
        width = len(low) if low.startswith("0") or len(low) == len(high) else 0
        return (f"{n:0{width}d}" for n in range(int(low), int(high) + 1))
    if len(low) == len(high) == 1 and low.isalpha() and high.isalpha() and low <= high:
        return (chr(c) for c in range(ord(low), ord(high) + 1))
    raise InvalidInput("hosts", whole, "ranges such as [01-50], [1,3-5] or [a-c]")

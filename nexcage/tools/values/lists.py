"""PVE's lists of words: tags, name servers, keys to delete."""

from __future__ import annotations

import re
from collections.abc import Iterable

from nexcage import names
from nexcage.errors import InvalidSpec
from nexcage.tools.values._kinds import checked, is_address

__all__ = ["joined", "nameservers", "split", "tags"]

_WORD = re.compile(r"[^,; \t\r\n\0]+")
_ZONED = re.compile(r"(fe80:[0-9A-Fa-f:.]{1,40})%[A-Za-z][A-Za-z0-9_]{1,20}(?:[:.][0-9]+)?", re.ASCII)


def split(text: str) -> tuple[str, ...]:
    """The words of a list as PVE reads it: comma, semicolon, blank or NUL between them; NUL alone where there is one."""
    if "\0" in text:
        return tuple(word for word in text.split("\0") if word)
    return tuple(_WORD.findall(text))


def joined(field: str, words: Iterable[str], separator: str = " ") -> str:
    """The words with a separator that none of them holds; raises InvalidSpec."""
    if isinstance(words, str):
        raise InvalidSpec(field, words, "several words, not one text")
    return separator.join(checked(field, word, ",; ") for word in words)


def tags(words: Iterable[str]) -> str:
    """Tags as PVE stores them: lower-case, sorted, each once."""
    if isinstance(words, str):
        raise InvalidSpec("tags", words, "several words, not one text")
    return ";".join(sorted({names.tag(word) for word in words}))


def nameservers(words: Iterable[str]) -> str:
    """Name servers as PVE stores them; a link-local address may carry its interface (``fe80::1%eth0``)."""
    given = tuple(words) if not isinstance(words, str) else split(words)
    for word in given:
        zoned = _ZONED.fullmatch(word) if type(word) is str else None
        plain = zoned[1] if zoned else word
        if type(plain) is not str or not (is_address(plain, 4) or is_address(plain, 6)):
            raise InvalidSpec("nameserver", word, "an IP address")
    return joined("nameserver", given)

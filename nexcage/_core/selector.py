"""Selectors: ``tag=web node=pve-0* state=stopped id~^web-`` picks containers; every term must match.

A term is KEY=GLOB, KEY!=GLOB (neither) or KEY~REGEX. Keys: ``id node state tag backend image vmid``. Globs are ``* ? [..]``, case
matters except in tags. A container has many tags: ``tag=web`` wants one that matches, ``tag!=web`` that none does.
"""

from __future__ import annotations

import re
import warnings
from fnmatch import translate

import msgspec

from nexcage._core.machine import Machine
from nexcage.errors import InvalidInput

__all__ = ["Selector"]

_KEYS = ("id", "node", "state", "tag", "backend", "image", "vmid")
_TERM = re.compile(r"([a-z]+)(!=|=|~)(.*)", re.DOTALL)


class _Term(msgspec.Struct, frozen=True):
    key: str
    op: str
    pattern: re.Pattern[str]


class Selector(msgspec.Struct, frozen=True):
    """A parsed selector; an empty one matches everything that exists."""

    terms: tuple[_Term, ...] = ()

    @classmethod
    def parse(cls, text: object) -> Selector:
        """From its text; raises InvalidInput that names the term."""
        if not isinstance(text, str) or len(text) > 4096:
            raise InvalidInput("selector", text, "text such as 'tag=web node=pve-0* state=stopped id~^web-'")
        terms: list[_Term] = []
        for word in text.split():
            match = _TERM.fullmatch(word)
            if not match or match[1] not in _KEYS:
                raise InvalidInput(
                    "selector", word, f"KEY=GLOB, KEY!=GLOB or KEY~REGEX with KEY one of {', '.join(_KEYS)}"
                )
            try:
                flags = re.IGNORECASE if match[1] == "tag" else re.NOFLAG  # PVE keeps tags in lower case
                with warnings.catch_warnings():  # what a future Python may read differently is not the caller's output
                    warnings.simplefilter("ignore", FutureWarning)
                    pattern = re.compile(match[3] if match[2] == "~" else translate(match[3]), flags)
            except (re.error, RecursionError, OverflowError):
                raise InvalidInput("selector", word, "a valid regular expression after '~'") from None
            terms.append(_Term(match[1], match[2], pattern))
        return cls(tuple(terms))

    def matches(self, machine: Machine) -> bool:
        """Whether every term matches."""
        return all(_matches(term, machine) for term in self.terms)


def _matches(term: _Term, machine: Machine) -> bool:
    values = _values(term.key, machine)
    if term.op == "~":
        return any(term.pattern.search(value) for value in values)
    found = any(term.pattern.fullmatch(value) for value in values)
    return not found if term.op == "!=" else found


def _values(key: str, machine: Machine) -> tuple[str, ...]:
    match key:
        case "tag":
            return tuple(tag.lower() for tag in machine.spec.tags) if machine.spec else ()
        case "image":
            return (machine.spec.image,) if machine.spec else ()
        case "vmid":
            return (str(machine.vmid),) if machine.vmid else ()
        case _:
            return (str(getattr(machine, key)),)

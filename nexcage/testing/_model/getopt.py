"""The option parser of PVE's tools (Perl's Getopt::Long as PVE sets it up)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from nexcage.testing._model.schema import Prop, parse_bool

__all__ = ["BadOption", "Parsed", "parse"]


class BadOption(Exception):
    """The command line cannot be read; the text holds the warnings and then PVE's line."""


class Parsed(NamedTuple):
    """Options by full name, and the words that are none."""

    options: dict[str, str]
    rest: list[str]


class _Parser:
    def __init__(self, find: Callable[[str], Prop | None], names: Callable[[], Sequence[str]]) -> None:
        self.find: Callable[[str], Prop | None] = find
        self.names: Callable[[], Sequence[str]] = names
        self.warnings: list[str] = []
        self.options: dict[str, str] = {}

    def complete(self, name: str) -> str | None:
        """The full name of an option given in any case and as short as it stays unique."""
        if self.find(name) is not None:
            return name
        short = name.lower()
        hits = [known for known in self.names() if known.lower().startswith(short)]
        exact = [known for known in hits if known.lower() == short]
        if len(exact) == 1 or len(hits) == 1:
            return (exact or hits)[0]
        if hits:
            listed = ", ".join(sorted(hit.lower() for hit in hits))
            self.warnings.append(f"Option {short} is ambiguous ({listed})\n")
        else:
            self.warnings.append(f"Unknown option: {short}\n")
        return None

    def take(self, word: str, waiting: list[str]) -> None:
        """One ``--option`` with its value, which may be the next word."""
        name, equals, value = word.lstrip("-").partition("=") if word.startswith("--") else word[1:].partition("=")
        full = self.complete(name)
        if full is None:
            return
        prop = self.find(full)
        assert prop is not None
        if prop.kind == "boolean" or prop.interactive:
            if not equals and waiting and not (len(waiting[0]) > 1 and waiting[0].startswith("-")):
                value = waiting.pop(0)
        elif not equals and waiting:
            value = waiting.pop(0)
        elif not value:
            self.warnings.append(f"Option {full.lower()} requires an argument\n")
            return
        if prop.is_list and full in self.options:
            value = f"{self.options[full]},{value}"
        self.options[full] = value


def parse(words: Sequence[str], find: Callable[[str], Prop | None], names: Callable[[], Sequence[str]]) -> Parsed:
    """Split a command line into options and the rest; options may stand anywhere before ``--``."""
    parser = _Parser(find, names)
    waiting = list(words)
    rest: list[str] = []
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            rest += waiting
            break
        if len(word) > 1 and word.startswith("-"):
            parser.take(word, waiting)
        else:
            rest.append(word)
    if parser.warnings:
        raise BadOption("".join(parser.warnings) + "400 unable to parse option\n")
    return Parsed(parser.options, rest)


def normalise_booleans(options: dict[str, str], find: Callable[[str], Prop | None]) -> None:
    """Turn the words of booleans into 0 and 1; the first that is no boolean hides every other mistake."""
    for name, value in options.items():
        prop = find(name)
        if prop is not None and prop.kind == "boolean":
            word = "1" if value == "" else parse_bool(value)
            if word is None:
                raise BadOption("400 unable to parse boolean option\n")
            options[name] = word

"""From argv to a `Call`: which command, which options, which words. Pure: nothing is opened and nothing is looked up.

A global option means the same before and after the command because both places are read by one parser: the command is found
first (options with a value are known, so their values are never taken for it), then everything else is parsed at once.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

from nexcage._cli.commands import COMMANDS, GLOBAL, GROUPS, Command, Option, options_of

__all__ = ["Call", "Usage", "close_to", "config_of", "parse"]

_OCI = ("root", "log", "log_format", "systemd_cgroup")

Value = str | bool | list[str] | None


class Usage(Exception):
    """The command line cannot be understood; ``hint`` says what may have been meant. ``unknown`` is a command that is none of ours."""

    unknown: str = ""

    def __init__(self, message: str, *, command: str = "", hint: str = "", oci: bool = False) -> None:
        super().__init__(message)
        self.command: str = command
        self.hint: str = hint
        self.oci: bool = oci


class Call:
    """A command line, understood: the command's name, its words, and its options by name (``--pid-file`` is ``pid_file``)."""

    def __init__(self, command: Command, words: Sequence[str], values: Mapping[str, Value]) -> None:
        self.command: Command = command
        self.words: tuple[str, ...] = tuple(words)
        self._values: dict[str, Value] = dict(values)

    @property
    def name(self) -> str:
        return self.command.name

    @property
    def oci(self) -> bool:
        """Whether an OCI engine is talking: one of its own global options was given."""
        return any(self._values.get(name) for name in _OCI)

    def with_words(self, words: Sequence[str]) -> Call:
        """The same call with other words."""
        return Call(self.command, words, self._values)

    def flag(self, name: str) -> bool:
        return self._values.get(name) is True

    def text(self, name: str) -> str | None:
        value = self._values.get(name)
        return value if isinstance(value, str) else None

    def many(self, name: str) -> tuple[str, ...]:
        value = self._values.get(name)
        return tuple(value) if isinstance(value, list) else ()

    def given(self, name: str) -> bool:
        return self._values.get(name) not in (None, False, [])

    def usage(self, message: str, hint: str = "") -> Usage:
        """The error for a call that the parser took and the command cannot take."""
        return Usage(message, command=self.name, hint=hint, oci=self.oci)


def parse(argv: Sequence[str], more: Mapping[str, Command] | None = None) -> Call:
    """The call that ``argv`` (without the program's name) makes; raises `Usage`. ``more`` commands are those of plugins.

    ``--help`` anywhere gives a call of ``help`` with the command as its words, ``--version`` one of ``version``, whatever else is
    missing or wrong.
    """
    commands = COMMANDS | dict(more or {})
    name, rest = _find(list(argv), commands)
    if name in commands and (commands[name].verbatim or (commands[name].verbatim_oci and _is_oci(argv))):
        rest = _verbatim(commands[name], rest)
    for part, value in _tokens(rest, options_of(commands[name]) if name in commands else GLOBAL):
        if part in ("-h", "--help") and value is None:
            return Call(COMMANDS["help"], name.split(), {})
    if name in GROUPS:
        raise Usage("which one?", command=name, hint=f"one of: {', '.join(GROUPS[name])}", oci=_is_oci(argv))
    if not name:
        if any(part == "--version" for part, _ in _tokens(rest, GLOBAL)):
            return Call(COMMANDS["version"], (), {})
        _parse(None, rest)
        raise Usage("no command", hint="'nexcage help' lists them", oci=_is_oci(argv))
    call = _parse(commands[name], rest)
    if call.flag("version"):
        return Call(COMMANDS["version"], (), {"output": call.text("output")})
    _check_choices(call)
    return call


def _find(argv: list[str], commands: Mapping[str, Command]) -> tuple[str, list[str]]:
    """The command's name (empty when there is none; a group alone when its second word is missing) and argv without it."""
    rest = list(argv)
    first = _next_word(rest, 0)
    if first is None:
        return "", rest
    word = rest.pop(first)
    if word in GROUPS:
        second = _next_word(rest, first)
        if second is None:
            return word, rest
        sub = rest.pop(second)
        if sub not in GROUPS[word]:
            raise _unknown("command", f"{word} {sub}", (f"{word} {known}" for known in GROUPS[word]), oci=_is_oci(argv))
        return f"{word} {sub}", rest
    if word not in commands:
        if first and argv[first - 1].startswith("--"):  # its value is what was taken for the command
            flag, flags = argv[first - 1], [flag for option in GLOBAL for flag in option.flags]
            if flag.partition("=")[0] not in flags and flag != "--":
                raise _unknown("option", flag.partition("=")[0], flags, oci=_is_oci(argv))
        known = [name for name in COMMANDS if " " not in name] + list(GROUPS)
        error = _unknown("command", word, known, oci=_is_oci(argv))
        error.unknown = word
        raise error
    return word, rest


def _verbatim(command: Command, argv: list[str]) -> list[str]:
    """Behind the first word everything is the program's that the command runs, whatever it looks like."""
    takes_value = {flag for option in options_of(command) if option.value for flag in option.flags}
    at = 0
    while at < len(argv) and argv[at] != "--":
        if argv[at] in takes_value:
            at += 2
        elif argv[at].startswith("-") and argv[at] != "-":
            at += 1
        elif argv[at + 1 : at + 2] == ["--"]:
            return argv
        else:
            return [*argv[: at + 1], "--", *argv[at + 1 :]]
    return argv


def _next_word(argv: list[str], start: int) -> int | None:
    """Where the next part stands that is neither an option nor the value of a global one."""
    takes_value = {flag for option in GLOBAL if option.value for flag in option.flags}
    position = start
    while position < len(argv):
        part = argv[position]
        if part == "--":
            argv.pop(position)
            return position if position < len(argv) else None
        if part in takes_value:
            position += 2
        elif part.startswith("-") and part != "-":
            position += 1
        else:
            return position
    return None


def config_of(argv: Sequence[str]) -> str | None:
    """What ``--config`` says, wherever it stands; for what must be known before the command is."""
    found: str | None = None
    for part, value in _tokens(argv, GLOBAL):
        flag, equals, rest = part.partition("=")
        if flag == "--config":
            found = rest if equals else value
    return found


def _tokens(argv: Sequence[str], options: Iterable[Option]) -> Iterable[tuple[str, str | None]]:
    """The option tokens of argv with the value that each takes from the next part; what stands behind ``--`` is none."""
    takes_value = {flag for option in options if option.value for flag in option.flags}
    position = 0
    while position < len(argv) and argv[position] != "--":
        part = argv[position]
        value = argv[position + 1] if part in takes_value and position + 1 < len(argv) else None
        if part.startswith("-"):
            yield part, value
        position += 1 if value is None else 2


def _is_oci(argv: Sequence[str]) -> bool:
    flags = {flag for option in GLOBAL if option.name in _OCI for flag in option.flags}
    return any(part.partition("=")[0] in flags for part, _ in _tokens(argv, GLOBAL))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Usage(message)


def _build(options: Iterable[Option]) -> _Parser:
    parser = _Parser(prog="nexcage", add_help=False, allow_abbrev=False, argument_default=None, exit_on_error=True)
    for option in options:
        if not option.value:
            parser.add_argument(*option.flags, dest=option.name, action="store_true")
        elif option.many:
            parser.add_argument(*option.flags, dest=option.name, action="append", metavar=option.value)
        else:
            parser.add_argument(*option.flags, dest=option.name, action=_Once, metavar=option.value)
    parser.add_argument("words", nargs="*")
    return parser


class _Once(argparse.Action):
    """Given twice with two values it is a mistake, not an override."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest, None)
        if before is not None and before != values:
            parser.error(f"{option_string} was given twice with different values")
        setattr(namespace, self.dest, values)


def _parse(command: Command | None, argv: list[str]) -> Call:
    name = command.name if command else ""
    options = options_of(command) if command else GLOBAL
    # What stands behind -- is words, whatever it looks like; argparse's own handling differs between Python versions.
    end = argv.index("--") if "--" in argv else len(argv)
    argv, behind = argv[:end], argv[end + 1 :]
    try:
        namespace, extra = _build(options).parse_known_intermixed_args(_guarded(argv))
    except Usage as error:
        message = re.sub(r"^argument (.*/)?(-\S+): expected one argument$", r"\2 needs a value", str(error))
        raise Usage(message, command=name, hint=f"nexcage help {name}".rstrip(), oci=_is_oci(argv)) from None
    for part in extra:
        if part.startswith("-"):
            known = [flag for option in options if not option.hidden for flag in option.flags]
            raise _unknown("option", part.partition("=")[0], known, command=name, oci=_is_oci(argv))
    values: dict[str, Value] = vars(namespace)
    words = values.pop("words")
    return Call(command or COMMANDS["help"], [*(words if isinstance(words, list) else ()), *extra, *behind], values)


def _guarded(argv: list[str]) -> list[str]:
    # argparse reads a word with a blank that begins with '-' as a positional; it is refused as the option that it looks like.
    return [
        part.replace(" ", "\u2423") if part.startswith("--") and " " in part.partition("=")[0] else part
        for part in argv
    ]


def _check_choices(call: Call) -> None:
    for option in options_of(call.command):
        if not option.choices or option.open:
            continue
        choices = option.choices
        if option.name == "output":
            choices = call.command.outputs or option.choices
        single = call.text(option.name)
        for value in (*((single,) if single is not None else ()), *call.many(option.name)):
            if value not in choices:
                flag = option.flags[-1]
                if call.oci and option.name == "format" and call.name == "list":
                    continue  # runc's words for it go into the log that is open by then
                if call.oci and option.name == "format":
                    raise Usage("invalid format option", oci=True)
                raise call.usage(f"{flag} takes {_either(choices)}, not {value!a}", close_to(value, choices))


def _either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def close_to(word: str, known: Iterable[str]) -> str:
    """``did you mean X?`` for a word of ``known`` that looks like ``word``, else empty."""
    # Without the dashes: they would make every two short options look alike.
    bare = {name.lstrip("-") or name: name for name in known}
    given = word.lstrip("-")
    alike = {name: difflib.SequenceMatcher(None, given, name).ratio() for name in bare}
    best = max(alike.values(), default=0.0)
    found = [bare[name] for name, ratio in alike.items() if ratio >= max(0.6, best - 0.02)]
    return f"did you mean {_either(found[:3])}?" if found else ""


def _unknown(what: str, word: str, known: Iterable[str], *, command: str = "", oci: bool = False) -> Usage:
    shown = ascii(word)[1:-1] if len(word) < 80 else ascii(word[:80])[1:-1] + "..."
    hint = close_to(word, known) or f"nexcage help {command}".rstrip()
    return Usage(f"unknown {what} {shown}", command=command, hint=hint, oci=oci)

"""``nexcage plugins``, and the commands that plugins add (`nexcage.abc.Verb`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import msgspec

import nexcage
from nexcage._cli.commands import OUTPUTS, Command, Option
from nexcage._cli.parser import Call, Usage, config_of, parse
from nexcage._cli.render import print_rows
from nexcage._cli.settings import settings
from nexcage._cli.streams import Streams
from nexcage._cli.verbs_fleet import Verb

if TYPE_CHECKING:
    from nexcage import Fleet
    from nexcage.abc import Verb as PluginVerb

__all__ = ["find", "plugins", "prepare"]

_COLUMNS = ("name", "group", "package", "version", "state", "why")


def plugins(call: Call, streams: Streams) -> int:
    """A row for each installed plugin; 1 when one that is on cannot be used."""
    if call.words:
        raise call.usage(f"does not take the word {call.words[0]!a}")
    found = nexcage.plugins(settings(call).plugins)
    print_rows(
        streams, [msgspec.structs.asdict(one) for one in found], call.text("output") or "table", _COLUMNS, name="name"
    )
    return 1 if any(one.state == "failed" for one in found) else 0


def find(argv: Sequence[str], error: Usage) -> Call | str:
    """The call of a plugin's command, or the help of it; raises ``error`` when no plugin has the command."""
    from nexcage._cli.help import help_of

    verb = _commands(config_of(argv)).get(error.unknown)
    if verb is None:
        raise error
    command = _command(error.unknown, verb)
    call = parse(argv, {command.name: command})
    return help_of(command) if call.name == "help" else call


def prepare(call: Call, streams: Streams) -> Verb:
    """What the plugin's command does with the open fleet."""
    verb = _commands(call.text("config"))[call.name]
    given: dict[str, str | bool] = {
        option.name: call.flag(option.name) if not option.value else call.text(option.name) or ""
        for option in call.command.options
        if call.given(option.name)
    }

    async def work(fleet: Fleet) -> int:
        answer = await verb.run(fleet, call.words, given, streams.line)
        if isinstance(answer, int):
            return answer
        columns = list(dict.fromkeys(key for row in answer for key in row)) or ["id"]
        print_rows(streams, answer, call.text("output") or "table", columns, name=columns[0])
        return 0

    return work


def _commands(config: str | None) -> Mapping[str, PluginVerb]:
    return cast("Mapping[str, PluginVerb]", nexcage.plugged("commands", nexcage.load_config(config).plugins))


def _command(name: str, verb: PluginVerb) -> Command:
    """Its line in the table of commands."""
    options: list[Option] = []
    for spelled, help in getattr(verb, "options", {}).items():
        flags, value = re.findall(r"(?<![\w-])--?[\w-]+", spelled), re.search(r" ([A-Z][A-Z_]*)$", spelled)
        options.append(Option(tuple(flags), help, value[1] if value else ""))
    return Command(name, getattr(verb, "usage", ""), verb.summary, options=tuple(options), outputs=OUTPUTS)

"""``nexcage config``: what the settings are, where each came from, whether a file is valid, and old files as new ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

import nexcage
from nexcage._cli.parser import Call
from nexcage._cli.render import as_json, print_rows
from nexcage._cli.settings import settings
from nexcage._cli.streams import Streams
from nexcage._cli.toml import as_toml, key, value

__all__ = ["config"]


def config(call: Call, streams: Streams) -> int:
    """The one that was asked for."""
    which = {"show": _show, "check": _check, "convert": _convert, "schema": _schema}
    return which[call.name.split()[1]](call, streams)


def _show(call: Call, streams: Streams) -> int:
    """Every setting, one a line as TOML has it; ``--origin`` adds the file or option that it came from."""
    if call.words:
        raise call.usage(f"does not take the word {call.words[0]!a}")
    origins: dict[str, str] = {}
    values = msgspec.to_builtins(settings(call, origins))
    origin = call.flag("origin")
    rows = [{"key": name, "value": one, "origin": _origin(name, origins)} for name, one in _flat(values)]
    if call.text("output") == "json":
        streams.line(as_json(streams, rows if origin else values, indent=2))
    elif origin:
        print_rows(
            streams, [{**row, "value": value(row["value"])} for row in rows], "table", ("key", "value", "origin")
        )
    else:
        for row in rows:
            streams.line(f"{row['key']} = {value(row['value'])}")
    return 0


def _check(call: Call, streams: Streams) -> int:
    """Raise what is wrong; say nothing but ``ok`` otherwise."""
    if len(call.words) > 1:
        raise call.usage(f"does not take the word {call.words[1]!a}")
    if call.words and call.text("config") is not None:
        raise call.usage("--config and the word both name a file")
    if call.words:
        nexcage.load_config(call.words[0]).logins()
    else:
        settings(call).logins()
    streams.line("ok")
    return 0


def _convert(call: Call, streams: Streams) -> int:
    """TOML on standard output; each key without a counterpart on standard error."""
    if len(call.words) != 1:
        raise call.usage("takes one file", "nexcage config convert config.json > config.toml")
    converted = nexcage.convert_config(call.words[0])
    streams.write(as_toml(converted.config))
    for one in converted.dropped:
        streams.say(f"nexcage: config convert: left out {one.key}: {one.reason}")
    return 0


def _schema(call: Call, streams: Streams) -> int:
    if call.words:
        raise call.usage(f"does not take the word {call.words[0]!a}")
    streams.line(as_json(streams, nexcage.config_schema(), indent=2))
    return 0


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:  # Any: TOML values
    for name, one in values.items():
        if isinstance(one, Mapping) and one:
            yield from _flat(one, f"{prefix}{key(name)}.")  # pyright: ignore[reportUnknownArgumentType]
        else:
            yield f"{prefix}{key(name)}", one


def _origin(name: str, origins: Mapping[str, str]) -> str:
    parts = name.replace('"', "").split(".")
    for end in range(len(parts), 0, -1):
        found = origins.get(".".join(parts[:end]))
        if found:
            return found
    return "default"

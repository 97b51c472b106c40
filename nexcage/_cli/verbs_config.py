"""``nexcage config``: what the settings are, where each came from, and whether a file is valid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from nexcage._cli.parser import Call
from nexcage._cli.render import as_json, print_rows
from nexcage._cli.settings import settings
from nexcage._cli.streams import Streams

__all__ = ["check", "show"]


def show(call: Call, streams: Streams) -> int:
    """Every setting, one a line as TOML has it; ``--origin`` adds the file or option that it came from."""
    if call.words:
        raise call.usage(f"does not take the word {call.words[0]!a}")
    origins: dict[str, str] = {}
    values = msgspec.to_builtins(settings(call, origins))
    origin = call.flag("origin")
    rows = [{"key": key, "value": value, "origin": _origin(key, origins)} for key, value in _flat(values)]
    if call.text("output") == "json":
        streams.line(as_json(streams, rows if origin else values, indent=2))
    elif origin:
        shown = [{**row, "value": as_json(streams, row["value"])} for row in rows]
        print_rows(streams, shown, "table", ("key", "value", "origin"))
    else:
        for row in rows:
            streams.line(f"{row['key']} = {as_json(streams, row['value'])}")
    return 0


def check(call: Call, streams: Streams) -> int:
    """Raise what is wrong; say nothing but ``ok`` otherwise."""
    import nexcage

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


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:  # Any: TOML values
    for key, value in values.items():
        word = key if key.replace("-", "").replace("_", "").isalnum() and key.isascii() else as_json_key(key)
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{word}.")  # pyright: ignore[reportUnknownArgumentType]
        else:
            yield f"{prefix}{word}", value


def as_json_key(key: str) -> str:
    """A quoted TOML key."""
    import json

    return json.dumps(key)


def _origin(key: str, origins: Mapping[str, str]) -> str:
    parts = key.replace('"', "").split(".")
    for end in range(len(parts), 0, -1):
        found = origins.get(".".join(parts[:end]))
        if found:
            return found
    return "default"

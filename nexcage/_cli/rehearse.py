"""``--dry-run``: the commands that would be run, as an operator would type them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nexcage import Intent, NexcageError, Update
from nexcage._cli.main import exit_status
from nexcage._cli.parser import Call
from nexcage._cli.render import as_json
from nexcage._cli.streams import Streams, one_line

if TYPE_CHECKING:
    from nexcage import Fleet

__all__ = ["rehearse"]


async def rehearse(call: Call, streams: Streams, fleet: Fleet, intents: Iterable[Intent]) -> int:
    """Print for each of ``intents`` what it would do; nothing is done. The exit status that it would have, as far as known."""
    statuses: set[int] = set()
    for intent in intents:
        try:
            changes = await fleet[intent.id].plan(intent) if isinstance(intent, Update) else ()
            node, commands = await fleet.rehearse(intent)
        except NexcageError as error:
            streams.say(f"nexcage: {call.name} '{intent.id}': {one_line(str(error))}")
            statuses.add(exit_status(error))
            continue
        typed = [list(command.typed) for command in commands]
        if call.text("output") in ("json", "jsonl"):
            told: dict[str, Any] = {"id": intent.id, "node": node, "commands": typed}  # Any: whatever JSON can say
            told |= {"changes": [str(change) for change in changes]} if isinstance(intent, Update) else {}
            streams.line(as_json(streams, told))
            continue
        for change in changes:
            streams.line(f"{intent.id}: {one_line(str(change))}")
        for argv in typed:
            streams.line(f"{node}: {one_line(shlex.join(argv))}")
        if not typed:
            streams.line(f"{intent.id}: nothing to do")
    return 0 if not statuses else statuses.pop() if len(statuses) == 1 else 1

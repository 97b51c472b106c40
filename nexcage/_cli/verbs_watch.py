"""``nexcage watch``: hear what somebody else does to the containers, record it, and print it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import msgspec

import nexcage
from nexcage import NotFound
from nexcage._cli.parser import Call
from nexcage._cli.render import as_json, colourful
from nexcage._cli.streams import Streams, one_line
from nexcage._cli.verbs_fleet import Verb

if TYPE_CHECKING:
    from nexcage import Event, Fleet

__all__ = ["prepare"]

_KINDS = (nexcage.Observed, nexcage.NodeLost, nexcage.NodeFound)


def prepare(call: Call, streams: Streams) -> Verb:
    """Until interrupted, or until nobody reads any more."""
    if call.words:
        raise call.usage(f"does not take the word {call.words[0]!a}", f"--node {ascii(call.words[0])[1:-1]}")
    keys = call.many("node")
    output = call.text("output") or ("text" if colourful(streams.stdout) else "jsonl")

    def show(event: Event) -> None:
        text = one_line(nexcage.text_line(event)) if output == "text" else as_json(streams, msgspec.to_builtins(event))
        streams.line(text)
        streams.flush()

    async def verb(fleet: Fleet) -> int:
        for key in keys:
            if key not in fleet.nodes:
                raise NotFound("node", key, "is not in this fleet")
        async with fleet.events.subscribe() as events, anyio.create_task_group() as tasks:
            tasks.start_soon(fleet.watch, *keys)
            async for event in events:
                if isinstance(event, _KINDS) and _wanted(event, keys):
                    show(event)
                if streams.reader_gone or streams.refused:
                    break
            tasks.cancel_scope.cancel()
        return 0

    return verb


def _wanted(event: nexcage.Observed | nexcage.NodeLost | nexcage.NodeFound, keys: tuple[str, ...]) -> bool:
    return not keys or event.node in keys

"""``nexcage events``: the journal as it is and as it grows. No fleet is opened, and a read-only directory is enough."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import nexcage
from nexcage import names
from nexcage._cli.dialects import number
from nexcage._cli.parser import Call
from nexcage._cli.render import as_json, colourful
from nexcage._cli.settings import state_dir
from nexcage._cli.streams import Streams, one_line

if TYPE_CHECKING:
    from nexcage import Event

__all__ = ["events"]


def events(call: Call, streams: Streams) -> int:
    """Print them; with ``--follow`` until interrupted or until nobody reads any more."""
    if call.words:
        raise call.usage(f"does not take the word {call.words[0]!a}", f"--id {ascii(call.words[0])[1:-1]}")
    since = number("since", call.text("since") or "0")
    wanted = _filter(call, since)
    spell = _spelling(call, streams)
    where = state_dir(call)
    if call.flag("follow"):
        import anyio

        anyio.run(_follow, where, since, wanted, spell, streams)
        return 0
    for event in nexcage.read_journal(where):
        if wanted(event):
            streams.line(spell(event))
        if streams.reader_gone or streams.refused:
            break
    return 0


async def _follow(
    where: Path, since: int, wanted: Callable[[Event], bool], spell: Callable[[Event], str], streams: Streams
) -> None:
    async for event in nexcage.follow(where, since=since):
        if wanted(event):
            streams.line(spell(event))
            streams.flush()
        if streams.reader_gone or streams.refused:
            return


def _filter(call: Call, since: int) -> Callable[[Event], bool]:
    ids = frozenset(names.container_id(id) for id in call.many("id"))
    ops = frozenset(call.many("op"))

    def wanted(event: Event) -> bool:
        if event.seq <= since or isinstance(event, nexcage.Checkpointed):
            return False
        return (not ids or event.id in ids) and (not ops or str(getattr(event, "op", "")) in ops)

    return wanted


def _spelling(call: Call, streams: Streams) -> Callable[[Event], str]:
    output = call.text("output") or ("text" if colourful(streams.stdout) else "jsonl")
    if output == "text":
        return lambda event: one_line(nexcage.text_line(event))
    return lambda event: as_json(streams, msgspec.to_builtins(event))

"""``nexcage backup snapshot delsnapshot rollback resize move-volume template migrate update snapshots``, and ``--dry-run``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nexcage import (
    Backup,
    DelSnapshot,
    Intent,
    InvalidInput,
    MakeTemplate,
    Migrate,
    MoveVolume,
    Resize,
    Rollback,
    Snapshot,
    names,
)
from nexcage._cli.dialects import Targets, number, targets
from nexcage._cli.finding import ids_of
from nexcage._cli.parser import Call
from nexcage._cli.render import print_rows
from nexcage._cli.streams import Streams
from nexcage._cli.updates import change
from nexcage._cli.verbs_fleet import Verb
from nexcage._cli.verbs_life import driven

if TYPE_CHECKING:
    from nexcage import Fleet

__all__ = ["prepare", "prepare_snapshots"]

Maker = Callable[[str, str | None], Intent]
_OPERANDS = {
    "snapshot": "NAME",
    "delsnapshot": "NAME",
    "rollback": "NAME",
    "resize": "DISK SIZE",
    "move-volume": "DISK STORAGE",
    "migrate": "NODE",
}
"""What follows the containers."""


def prepare(call: Call, streams: Streams) -> Verb:
    """Which containers and which intent; raises before anything is opened."""
    call, given = _operands(call)
    return driven(call, streams, targets(call), _maker(call, given, streams))


def _operands(call: Call) -> tuple[Call, tuple[str, ...]]:
    """The call without what follows the containers, and that."""
    wanted = _OPERANDS.get(call.name, "").split()
    if len(call.words) < len(wanted):
        raise call.usage(f"takes ID... {' '.join(wanted)}", f"nexcage help {call.name}")
    split = len(call.words) - len(wanted)
    return call.with_words(call.words[:split]), call.words[split:]


def _maker(call: Call, given: tuple[str, ...], streams: Streams) -> Maker:
    match call.name:
        case "backup":
            where, mode = call.text("storage") or "local", call.text("mode") or "snapshot"
            compress = call.text("compress") or "zstd"
            return lambda id, key: Backup(id, where, mode, compress, op_id=key)
        case "snapshot":
            text = call.text("description") or ""
            return lambda id, key: Snapshot(id, given[0], text, op_id=key)
        case "delsnapshot":
            return lambda id, key: DelSnapshot(id, given[0], op_id=key)
        case "rollback":
            start = call.flag("start")
            return lambda id, key: Rollback(id, given[0], start, op_id=key)
        case "resize":
            return lambda id, key: Resize(id, given[0], given[1], op_id=key)
        case "move-volume":
            delete = call.flag("delete")
            return lambda id, key: MoveVolume(id, given[0], given[1], delete, op_id=key)
        case "template":
            return lambda id, key: MakeTemplate(id, op_id=key)
        case "migrate":
            restart, storage = call.flag("restart"), call.text("storage")
            seconds = number("timeout", call.text("timeout") or "180")
            return lambda id, key: Migrate(id, given[0], restart, seconds, storage, op_id=key)
        case _:
            return change(call, streams)


def prepare_snapshots(call: Call, streams: Streams) -> Verb:
    """``snapshots ID``: what it could be rolled back to."""
    if len(call.words) != 1 and call.text("name") is None:
        raise call.usage("takes one ID")
    wanted = targets(call)
    for word in wanted.words:
        names.container_id(word)

    async def verb(fleet: Fleet) -> int:
        id = await _only(fleet, wanted)
        rows = [
            {"name": snap.name, "created": _time(snap.at), "parent": snap.parent, "state": snap.state or "whole"}
            | {"description": snap.description}
            for snap in await fleet[id].snapshots()
        ]
        columns = ("name", "created", "parent", "state", "description")
        print_rows(streams, rows, call.text("output") or "table", columns, name="name")
        return 0

    return verb


async def _only(fleet: Fleet, wanted: Targets) -> str:
    ids = await ids_of(fleet, wanted, None)
    if len(ids) != 1:
        raise InvalidInput("container", wanted.selector or "", f"one container; this means {len(ids)}")
    return ids[0]


def _time(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at else ""

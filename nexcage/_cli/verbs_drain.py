"""``nexcage drain NODE``: its containers go to the other nodes of its cluster; ``cordon`` and ``uncordon``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexcage._cli.dialects import number
from nexcage._cli.parser import Call
from nexcage._cli.render import print_rows
from nexcage._cli.streams import Streams
from nexcage._cli.verbs_fleet import Verb
from nexcage._cli.verbs_life import do_many

if TYPE_CHECKING:
    from nexcage import Fleet

__all__ = ["prepare", "prepare_cordon"]


def prepare(call: Call, streams: Streams) -> Verb:
    """The moves, or with ``--dry-run`` what they would be."""
    if len(call.words) != 1:
        raise call.usage("takes one NODE", "nexcage help drain")
    seconds = number("timeout", call.text("timeout") or "180")

    async def verb(fleet: Fleet) -> int:
        if not call.flag("dry_run"):
            fleet.cordon(call.words[0])
        moves = await fleet.moves_off(call.words[0], restart=call.flag("restart"), timeout=seconds)
        staying = fleet.stay_on(call.words[0])
        if not call.flag("dry_run"):
            status = await do_many(call, streams, fleet, moves, summary=False)
            _tell_staying(streams, fleet, staying)
            return status or int(bool(staying))
        output = call.text("output") or "table"
        rows = [{"id": one.id, "from": call.words[0], "to": one.node} for one in moves]
        if output != "name":
            rows += [{"id": id, "from": call.words[0], "to": "", "stays": _why(fleet, id)} for id in staying]
        print_rows(streams, rows, output, ("id", "from", "to", *(("stays",) if staying else ())))
        return 0

    return verb


def _why(fleet: Fleet, id: str) -> str:
    return f"backend '{fleet[id].machine.backend}' has no way to move it"


def _tell_staying(streams: Streams, fleet: Fleet, staying: tuple[str, ...]) -> None:
    for id in staying:
        streams.say(f"nexcage: drain: '{id}' stays: {_why(fleet, id)}")


def prepare_cordon(call: Call, streams: Streams) -> Verb:  # noqa: ARG001 (it says nothing)
    """Whether these nodes take new containers; what is so already is fine."""
    if not call.words:
        raise call.usage("takes at least one NODE", f"nexcage help {call.name}")

    async def verb(fleet: Fleet) -> int:
        change = fleet.cordon if call.name == "cordon" else fleet.uncordon
        for node in call.words:
            change(node)
        return 0

    return verb

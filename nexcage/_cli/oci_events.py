"""``events`` for an OCI engine: what a container uses, as the lines that ``runc events`` prints."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import anyio

from nexcage import IllegalTransition, InvalidInput, NotFound, Selector, State, Stats
from nexcage._cli.dialects import oci_id
from nexcage._cli.parser import Call
from nexcage._cli.render import as_json
from nexcage._cli.streams import Streams
from nexcage._cli.verbs_fleet import Verb

if TYPE_CHECKING:
    from nexcage import Fleet

__all__ = ["as_event", "duration", "prepare"]

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "\u00b5s": 1e-6, "ns": 1e-9}
_PART = r"([0-9]+(?:\.[0-9]*)?)(h|ms|us|\u00b5s|ns|m|s)"


def prepare(call: Call, streams: Streams) -> Verb:
    """Once with ``--stats``, else every ``--interval`` until the container ends."""
    id = oci_id(call, call.words)
    every = duration(call.text("interval") or "5s")

    async def verb(fleet: Fleet) -> int:
        streams.line(as_json(streams, as_event(await _used(fleet, id))))
        while not call.flag("stats") and not streams.reader_gone:
            streams.flush()
            await anyio.sleep(every)
            try:
                streams.line(as_json(streams, as_event(await _used(fleet, id))))
            except (IllegalTransition, NotFound):
                break
        return 0

    return verb


async def _used(fleet: Fleet, id: str) -> Stats:
    """Raises NotFound, and IllegalTransition for one that does not run."""
    machine = fleet.machines.get(id)
    if machine is None or machine.state is State.ABSENT:
        raise NotFound("container", id)
    found = await fleet.stats(Selector.parse(f"id~^{re.escape(id)}$"))
    if not found:
        raise IllegalTransition(id, "measure", str(fleet.machines[id].state))
    return found[0]


def as_event(used: Stats) -> dict[str, Any]:  # Any: whatever JSON can say
    """The line. What the cgroup was not asked for is absent."""
    limit = {"limit": used.memory_limit} if used.memory_limit else {}
    data = {
        "cpu": {"usage": {"total": round(used.cpu * 1e9)}, "throttling": {}},
        "memory": {"usage": {**limit, "usage": used.memory}, "swap": {"usage": used.swap}},
        "pids": {"current": used.pids},
    }
    return {"type": "stats", "id": used.id, "data": data}


def duration(text: str) -> float:
    """Seconds of ``5s``, ``1m30s``, ``500ms``; more than none."""
    if not re.fullmatch(f"(?:{_PART})+", text):
        raise InvalidInput("interval", text, "a duration such as 5s or 1m30s")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, text))
    if seconds <= 0:
        raise InvalidInput("interval", text, "a duration above 0")
    return seconds

"""``nexcage reconcile``: what differs between the journal and the nodes, why, and what is done about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nexcage import Difference, NodeError, NotFound, Selector, names
from nexcage._cli.dialects import Targets, targets
from nexcage._cli.finding import ids_of
from nexcage._cli.parser import Call
from nexcage._cli.render import print_rows
from nexcage._cli.streams import Streams
from nexcage._cli.verbs_fleet import Verb

if TYPE_CHECKING:
    from nexcage import Fleet

__all__ = ["prepare"]

_COLUMNS = ("id", "was", "state", "node", "vmid", "result", "action", "why")


def prepare(call: Call, streams: Streams) -> Verb:
    """A row for each container that differs; the exit status says whether anything is left."""
    named = call.words or call.given("name") or call.given("all") or call.given("selector")
    wanted = targets(call) if named else Targets(selector="")
    for word in wanted.words:
        names.container_id(word)
    if wanted.selector is not None:
        Selector.parse(wanted.selector)
    dry_run = call.flag("dry_run")

    async def verb(fleet: Fleet) -> int:
        found = await _found(fleet, wanted, call.text("runtime"), dry_run)
        rows = [_row(difference, dry_run) for difference in found]
        output = call.text("output") or "table"
        if rows or output != "table":
            print_rows(streams, rows, output, _COLUMNS)
        return _status(found)

    return verb


async def _found(fleet: Fleet, wanted: Targets, runtime: str | None, dry_run: bool) -> list[Difference]:
    if wanted.selector == "" and runtime is None:
        return await fleet.reconcile(dry_run=dry_run)
    ids = await ids_of(fleet, wanted, runtime)
    for id in ids:
        if not fleet[id].machine.seq:
            raise NotFound("container", id)
    return await fleet.reconcile(*ids, dry_run=dry_run) if ids else []


def _row(difference: Difference, dry_run: bool) -> Mapping[str, Any]:  # Any: whatever JSON can say
    error = difference.error
    if error is not None:
        result = "failed"
    elif difference.done:
        result = "done"
    else:
        result = "would" if dry_run and difference.action else "left"
    row: dict[str, Any] = {
        "id": difference.id,
        "was": str(difference.was),
        "state": str(difference.state),
        "node": difference.node,
        "vmid": difference.vmid,
        "result": result,
        "action": difference.action,
        "why": difference.why,
    }
    if error is not None:
        row["error"] = {"type": error.type, "message": error.message, "notes": list(error.notes)}
    return row


def _status(found: Sequence[Difference]) -> int:
    """3 when a node could not be asked, 1 when anything is left to do, else 0."""
    if any(one.error is not None and isinstance(one.error.error(), NodeError) for one in found):
        return 3
    return 1 if any(not one.done for one in found) else 0

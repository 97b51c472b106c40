"""``nexcage backups`` and ``restore``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nexcage import Create, InvalidInput, names
from nexcage._cli.dialects import Targets
from nexcage._cli.finding import ids_of
from nexcage._cli.outcomes import print_outcomes
from nexcage._cli.parser import Call
from nexcage._cli.rehearse import rehearse
from nexcage._cli.render import print_rows
from nexcage._cli.streams import Streams
from nexcage._cli.verbs_fleet import Verb

if TYPE_CHECKING:
    from nexcage import Fleet

__all__ = ["prepare_backups", "prepare_restore"]

_COLUMNS = ("volume", "node", "vmid", "id", "size")


def prepare_backups(call: Call, streams: Streams) -> Verb:
    """Those of all guests on the nodes, or of the containers that are named."""
    for word in call.words:
        names.container_id(word)

    async def verb(fleet: Fleet) -> int:
        wanted = set(await ids_of(fleet, Targets(call.words), None)) if call.words else None
        known = {(m.node, m.vmid): m.id for m in fleet.machines.values() if m.vmid}
        rows: list[dict[str, Any]] = [  # Any: whatever JSON can say
            {"volume": one.id, "node": node, "vmid": one.vmid, "id": known.get((node, one.vmid), ""), "size": one.size}
            for node, archives in sorted((await fleet.backups()).items())
            for one in archives
        ]
        shown = [row for row in rows if wanted is None or row["id"] in wanted]
        print_rows(streams, shown, call.text("output") or "table", _COLUMNS, name="volume")
        return 0

    return verb


def prepare_restore(call: Call, streams: Streams) -> Verb:
    """``restore ID VOLUME``; raises before anything is opened."""
    if len(call.words) != 2:
        raise call.usage("takes ID VOLUME")
    id, volume = names.container_id(call.words[0]), call.words[1]
    if names.image(volume).kind != "backup":
        raise InvalidInput("backup", volume, "an archive of a container, STORAGE:backup/NAME.tar.zst")
    node, storage, hostname = call.text("node") or "", call.text("storage"), call.text("hostname")

    async def verb(fleet: Fleet) -> int:
        spec = await fleet.restoring(volume, node=node, storage=storage, hostname=hostname)
        intent = Create(id, spec, call.text("op_id"))
        if call.flag("dry_run"):
            return await rehearse(call, streams, fleet, [intent])
        done = await fleet.do(intent, wait=True)
        if output := call.text("output"):
            print_outcomes(streams, [done], output, single=True)
        return 0

    return verb

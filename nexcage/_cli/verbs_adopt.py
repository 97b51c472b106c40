"""``nexcage adopt``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexcage import Adopt, names
from nexcage._cli.outcomes import print_outcomes
from nexcage._cli.parser import Call
from nexcage._cli.rehearse import rehearse
from nexcage._cli.streams import Streams
from nexcage._cli.verbs_fleet import Verb

if TYPE_CHECKING:
    from nexcage import Fleet

__all__ = ["prepare"]


def prepare(call: Call, streams: Streams) -> Verb:
    """One guest and the id that it gets; raises before anything is opened."""
    id = call.text("id")
    if len(call.words) != 1 or id is None:
        raise call.usage("takes VMID --id ID")
    node = call.text("node") or ""
    intent = Adopt(names.container_id(id), names.vmid(call.words[0]), node, call.text("op_id"))

    async def verb(fleet: Fleet) -> int:
        if call.flag("dry_run"):
            return await rehearse(call, streams, fleet, [intent])
        done = await fleet.do(intent, wait=True)
        if output := call.text("output"):
            print_outcomes(streams, [done], output, single=True)
        return 0

    return verb

"""Containers that are made as copies of others of the same fleet."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from nexcage._core.intents import Create, Delete, Intent
from nexcage._core.machine import Machine
from nexcage._core.route import Plan
from nexcage._core.spec import Spec
from nexcage._core.states import TABLE, Op, State
from nexcage.errors import Busy, IllegalTransition, NotFound

__all__ = ["copied", "in_the_way", "templated"]


def copied(spec: Spec, source: Machine) -> Plan:
    """Where the copy is made and what it will be: as its source, but for what a copy may have of its own.

    Raises NotFound, Busy or IllegalTransition where the source cannot be copied now.
    """
    if source.state is State.ABSENT:
        raise NotFound("container", source.id)
    if source.running is not None:
        raise Busy(f"container '{source.id}'", f"{source.running.op} by {source.running.owner}")
    if TABLE[source.state, Op.CLONE].kind != "keep":
        raise IllegalTransition(source.id, "clone", str(source.state))
    known = source.spec or Spec(image="", source=source.id)
    what = msgspec.structs.replace(
        known,
        source=source.id,
        linked=spec.linked,
        snapshot=spec.snapshot,
        hostname=spec.hostname,
        storage=spec.storage or known.storage,
        description=spec.description,
        annotations=spec.annotations,
        ssh_public_keys=(),
        backend=source.backend,
        node=None,
        pool=None,  # pct and qm do not put a copy there
    )
    return Plan(what, source.backend, (source.node,), (f"it is a copy of '{source.id}'",))


def templated(machine: Machine) -> bool:
    """Whether it has lately been made a template, or tried to: an older look may not show it."""
    return any(end.op is Op.TEMPLATE for end in machine.done)


def in_the_way(intent: Intent, machines: Mapping[str, Machine], *, since: int) -> tuple[Machine, Busy] | None:
    """A linked copy that is being made of the template that ``intent`` deletes (also when it is not known what became of that), or has
    come to its end later than record ``since``; and the other way round; with what to say of it. A template that is destroyed then
    would lose its config and keep its disks.
    """
    if isinstance(intent, Create) and intent.spec.linked:
        source = machines.get(intent.spec.source or "")
        open_ = None if source is None else source.running or source.unresolved
        if source is not None and open_ is not None and open_.op is Op.DELETE:
            return source, Busy(f"container '{source.id}'", f"delete by {open_.owner}")
    if isinstance(intent, Delete):
        copies = (m for m in machines.values() if m.spec is not None and m.spec.linked and m.spec.source == intent.id)
        for copy in copies:
            open_ = copy.running or copy.unresolved
            if copy.seq > since or (open_ is not None and open_.op is Op.CREATE):
                return copy, Busy(f"container '{intent.id}'", f"the linked copy '{copy.id}' is made of it")
    return None

"""From an intent to the verb of its backend, where that has one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import msgspec

from nexcage import names
from nexcage._core import changes
from nexcage._core.details import Details, Snap, mebibytes
from nexcage._core.events import Began
from nexcage._core.intents import Adopt, Create, Delete, Kill, Pause, Resume, Start, Stop
from nexcage._core.keeping import (
    Backup,
    DelSnapshot,
    Keeping,
    MakeTemplate,
    Migrate,
    MoveVolume,
    Resize,
    Rollback,
    Snapshot,
    Update,
)
from nexcage._core.machine import Machine
from nexcage._core.seen import Look, Mark
from nexcage._engine.node import FleetNode
from nexcage.abc import Backend, Keeper, Node, Ref
from nexcage.errors import IllegalTransition, InvalidInput, NoRoute, NotFound, Unsupported

__all__ = ["carry_out", "details_of", "perform", "ready", "stays_with_its_files", "verb_of"]


def verb_of(intent: Keeping) -> str:
    """What the method of a backend for it is called."""
    return str(intent.op).replace("-", "_")


def details_of(machine: Machine, look: Look, backend: str, op: str) -> Details:
    """Its config as the look shows it; raises Unsupported where its backend shows none, NotFound when it is gone."""
    details = look.details.get(machine.vmid)
    if details is None and machine.vmid in look.guests and look.guests[machine.vmid].mark is not None:
        raise Unsupported(machine.id, op, backend, "does not show settings and snapshots")
    if details is None:
        raise NotFound("container", machine.id, f"is not on {machine.node}")
    return details


async def ready(
    intent: Keeping, machine: Machine, fleet: str, look: Look, backend: Backend, nodes: Mapping[str, FleetNode]
) -> Keeping | None:
    """The intent as it is to be begun, None when it is so already; raises what makes it impossible. Changes nothing."""
    if not callable(getattr(backend, verb_of(intent), None)):
        raise Unsupported(machine.id, str(intent.op), backend.name)
    if isinstance(intent, Update) and (limits := getattr(backend, "limits", None)) is not None:
        limits(intent)
        return intent
    if isinstance(intent, Update) and intent.limits:
        key, value = next(iter(intent.limits.items()))
        raise InvalidInput(
            f"limits.{key}", value, f"left out: only crun and runc have it, and this is {backend.name}'s"
        )
    details = details_of(machine, look, backend.name, str(intent.op))
    guest = look.guests.get(machine.vmid)
    if isinstance(intent, Migrate) and (stays_with_its_files(machine) or (guest is not None and guest.gated)):
        why = f"cannot move what was made from a bundle: its init, its hooks and what its config names are files of {machine.node}"
        raise Unsupported(machine.id, "migrate", backend.name, why)
    mark = str(Mark(fleet, machine.id, machine.vmid, machine.mark))
    running = guest is not None and guest.running
    wanted = changes.ready(intent, details, mark=mark, running=running, node=machine.node)
    if isinstance(wanted, Migrate):
        return await _with_target(wanted, machine, look, nodes)
    return wanted


def stays_with_its_files(machine: Machine) -> bool:
    """Whether it was made from a bundle for Proxmox VE, which has files on its node that do not move with it."""
    return machine.spec is not None and machine.spec.bundle is not None


async def _with_target(intent: Migrate, machine: Machine, look: Look, nodes: Mapping[str, FleetNode]) -> Migrate:
    node = nodes.get(intent.node)
    if node is None:
        raise NoRoute(f"node '{intent.node}' is not in this fleet, so '{intent.id}' would be lost to it")
    there = await node.of(machine.backend).look()
    if there.vmids.get(machine.vmid) != look.pve:
        raise IllegalTransition(intent.id, "migrate", "", reason=f"{node.key} is not in the cluster of {look.node}")
    return msgspec.structs.replace(intent, target=there.pve)


async def perform(backend: Backend, node: Node, began: Began, machine: Machine) -> Ref | None:
    """Run the backend's verb for what began; of a create the container that it made."""
    ref = Ref(machine.id, machine.vmid, began.node)
    match began.intent:
        case Create(spec=spec) if spec.source is not None:
            return await cast("Keeper", backend).clone(node, Ref(machine.id, 0, began.node), spec)
        case Create(spec=spec):
            return await backend.create(node, Ref(machine.id, 0, began.node), spec)
        case Adopt(vmid=vmid):
            await cast("Keeper", backend).adopt(node, Ref(machine.id, vmid, began.node))
        case Start():
            await backend.start(node, ref)
        case Stop(timeout=timeout, force=force):
            await backend.stop(node, ref, timeout=timeout, force=force)
        case Kill(signal=signal):
            await backend.kill(node, ref, names.signal(signal))
        case Pause():
            await backend.pause(node, ref)
        case Resume():
            await backend.resume(node, ref)
        case Delete(force=force, purge=purge):
            await backend.delete(node, ref, force=force, purge=purge)
        case _:
            assert isinstance(began.intent, Keeping)
            await carry_out(backend, node, ref, began.intent, began.op_id)
    return None


async def carry_out(backend: Backend, node: Node, ref: Ref, intent: Keeping, op_id: str) -> None:
    """Run the backend's verb."""
    keeper = cast("Keeper", backend)  # `ready` has seen that it has this verb
    match intent:
        case Backup(storage=storage, mode=mode, compress=compress):
            await keeper.backup(node, ref, storage, mode=mode, compress=compress)
        case Snapshot(name=name, description=text):
            await keeper.snapshot(node, ref, name, description=Snap.said(op_id, text))
        case DelSnapshot(name=name):
            await keeper.delsnapshot(node, ref, name)
        case Rollback(name=name, start=start):
            await keeper.rollback(node, ref, name, start=start)
        case Resize(disk=disk, size=size):
            await keeper.resize(node, ref, disk, mebibytes(size) or 0)
        case MoveVolume(disk=disk, storage=storage, delete=delete):
            await keeper.move_volume(node, ref, disk, storage, delete=delete)
        case MakeTemplate():
            await keeper.template(node, ref)
        case Update():
            values = changes.settings(intent, mark=str(node.mark(ref.id, ref.vmid)))
            await keeper.update(node, ref, values, unset=intent.unset, digest=intent.digest)
        case Migrate(target=target, restart=restart, timeout=timeout, storage=storage):
            await keeper.migrate(node, ref, target, restart=restart, timeout=timeout, storage=storage)

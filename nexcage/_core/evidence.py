"""What became of an operation that nobody drives any more: a verdict out of what the node shows and what it has kept (design 8).

The order of trust: a supervisor that still works (wait); the exit status that the node kept; what is to be seen. A container
that is half made or half deleted is only called ours when our own step surely worked on it since this boot.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from nexcage._core.changes import incomplete
from nexcage._core.events import Attempted, Began
from nexcage._core.keeping import DelSnapshot, Snapshot
from nexcage._core.machine import Machine
from nexcage._core.runtimes import RUNTIMES
from nexcage._core.seen import Guest, Look, Mark, Settled, Verdict, probe
from nexcage._core.states import Op

__all__ = [
    "LOCKS",
    "Judgement",
    "aborted",
    "emptied",
    "half",
    "judge",
    "making",
    "proof",
    "ran",
    "rebooted",
    "unproven",
]

MENDING = "mend"
"""The tool of a step that finishes or removes what is half made."""
TICKS = 100
"""In a second, as the kernel counts them for programs."""
_BESIDE = ("zfs", "pvesm")
"""Tools of steps that do not work on the container itself."""
LOCKS = {
    Op.CREATE: "create",
    Op.DELETE: "destroyed",
    Op.SNAPSHOT: "snapshot",
    Op.DELSNAPSHOT: "snapshot-delete",
    Op.MIGRATE: "migrate",
}
"""What PVE writes into a config while it makes or deletes a container (all that a killed one leaves there) or a snapshot, or moves it."""


class Judgement(msgspec.Struct, frozen=True):
    """``half``: a half-made or half-deleted container that is ours; mending it decides. ``by``: what told (``Succeeded.resolved_by``)."""

    verdict: Literal["done", "not", "wait", "unknown", "half"]
    by: str = ""
    why: str = ""


def judge(began: Began, machine: Machine, look: Look, last: Settled | None, fleet: str, *, kept: float) -> Judgement:
    """Whether ``began`` happened. ``last`` is its newest step as the node knows it (None: it was not asked, or there is no step).

    ``kept``: seconds of uptime that a node keeps ended claims, so that one that is not there never began.
    """
    step = machine.last
    says = last is not None and isinstance(began.intent, Snapshot)  # what is half done of it names the operation itself
    if last is not None and (step is None or rebooted(step, last)):
        last = None  # what it had kept is gone
    if machine.steps == 0:
        return Judgement("not", "journal", "its driver ended before its first step")
    if last is not None and last.kind == "running":
        return Judgement("wait", "claim", "its command is still running")
    never = last is not None and step is not None and last.kind == "void" and 0 <= last.uptime - step.uptime < kept
    if never and began.op in (Op.CREATE, Op.ADOPT) and look.find(fleet, began.id, began.op_id) is not None:
        never = False  # its mark is there, so it did begin: somebody has removed the claim
    if never and machine.steps == 1:
        return Judgement("not", "claim", "its command never began")
    if began.op is Op.KILL or (began.op is Op.UPDATE and began.backend in RUNTIMES):
        if last is not None and last.result is not None and last.result.exit is not None:
            return Judgement("done" if last.result.exit == 0 else "not", "claim")
        return Judgement("unknown", "", f"{began.op} leaves no trace")
    verdict = probe(began, machine, look, fleet)
    if verdict == "wait":
        return Judgement("wait", "task", "a task on the node still works on it")
    if began.op is Op.BACKUP:
        return _saved(last)
    if began.op is Op.ROLLBACK:
        return _rolled_back(verdict, last)
    if began.op is Op.START and verdict == "done" and _refused(last) and not _runs(machine, look):
        return Judgement("not", "claim")  # it has ended, and not because it was started
    if half(began, machine, look) is not None:
        # It says so, also after a reboot, or our claim does.
        begun = says or making(began, machine, look, fleet) or (last is not None and not never)
        if began.op is Op.MIGRATE:
            begun = last is not None and (aborted(last) or (step is not None and step.tool == MENDING))
        if begun and (last is None or _ours(last)):
            return Judgement("half", "repair", f"{machine.vmid} on {look.node} is half done and ours")
        if began.op is Op.DELETE:
            return Judgement("unknown", "", f"half-deleted {machine.vmid} is left on {look.node}")
        if began.op is Op.MIGRATE:
            return Judgement("not", "probe", unproven(began, machine, look))
        what = "half-made" if began.op is Op.CREATE else "an incomplete snapshot of"
        return Judgement("not", "probe", f"{what} {machine.vmid} is left on {look.node}")
    known = last is not None and last.kind == "ended"
    return Judgement(verdict, "claim" if known else "probe")


def rebooted(step: Attempted, known: Settled) -> bool:
    """Whether the node may have been rebooted between ``step`` and now. A claim that is there shows by itself that it was not."""
    return known.boot_id != step.boot_id and (step.boot_id != "" or known.kind == "void")


def half(began: Began, machine: Machine, look: Look) -> Guest | None:
    """The container that a create or a delete left half done, as far as it shows: a config with PVE's lock and without a mark."""
    guest = look.guests.get(machine.vmid)
    if isinstance(began.intent, (Snapshot, DelSnapshot)):
        return _half_snapshot(began, began.intent, machine, look)
    if began.op is Op.MIGRATE:
        return guest if guest is not None and _carries(guest, machine) and guest.lock == LOCKS[began.op] else None
    lock = LOCKS.get(began.op)
    if guest is None or lock is None or (guest.mark is not None and not _held(began, guest)):
        return None
    if machine.last is not None and machine.last.tool in _BESIDE:
        return None  # our newest step had nothing to do with what is there
    mended = machine.last is not None and machine.last.tool == MENDING and not guest.lock
    return guest if guest.lock == lock or mended else None


def emptied(machine: Machine, look: Look) -> bool:
    """Whether what mending had begun to remove is there with nothing in its config any more, not even PVE's lock."""
    guest = look.guests.get(machine.vmid)
    mended = machine.last is not None and machine.last.tool == MENDING
    return mended and guest is not None and guest.kind != "oci" and machine.vmid not in look.details


def making(began: Began, machine: Machine, look: Look, fleet: str) -> bool:
    """Whether the container says that this create is making it: then a step of ours has worked on it, also where the newest never began."""
    details = look.details.get(machine.vmid)
    wanted = f"making {Mark(fleet, began.id, machine.vmid, began.op_id)}"
    return began.op is Op.CREATE and details is not None and wanted in details.description.split("\n")


def _carries(guest: Guest, machine: Machine) -> bool:
    return guest.mark is not None and guest.mark.op == machine.mark and not guest.copy


def aborted(last: Settled) -> bool:
    """Whether our ``pct migrate`` itself says that it came to its end without success, and not because of somebody else's lock: so the
    lock that is there was its own. One that was killed may have waited for another.
    """
    result = last.result
    said = b"" if result is None else result.stdout + result.stderr
    theirs = (b"is locked", b"can't lock file", b"got timeout")
    return bool(result and result.exit) and b"migration aborted" in said and not any(word in said for word in theirs)


def unproven(began: Began, machine: Machine, look: Look | None) -> str:
    """What is to be told of the lock of a migration that nobody can prove to be this one's; empty when there is none."""
    if look is None or began.op is not Op.MIGRATE or half(began, machine, look) is None:
        return ""
    do = f"when nothing works on it there and on its target any more, `pct unlock {machine.vmid}` on {look.node} takes it away"
    return f"it is still on {look.node}, with the lock of a migration that nobody can prove to be this one's; {do}"


def _half_snapshot(began: Began, intent: Snapshot | DelSnapshot, machine: Machine, look: Look) -> Guest | None:
    guest, details = look.guests.get(machine.vmid), look.details.get(machine.vmid)
    if guest is None or details is None or guest.mark is None or guest.mark.op != machine.mark:
        return None
    return guest if incomplete(intent, began.op_id, details, guest.lock) is not None else None


def _refused(last: Settled | None) -> bool:
    return last is not None and last.result is not None and bool(last.result.exit)


def _runs(machine: Machine, look: Look) -> bool:
    guest = look.guests.get(machine.vmid)
    return guest is not None and guest.running


def _saved(last: Settled | None) -> Judgement:
    """An archive does not show in a look; only its command knows."""
    if last is None or last.result is None or last.result.exit is None:
        return Judgement("unknown", "", "nobody knows whether the backup was made")
    return Judgement("done" if last.result.exit == 0 else "not", "claim")


def _rolled_back(verdict: Verdict, last: Settled | None) -> Judgement:
    """Only its command knows: a rollback that was stopped in the middle looks like a whole one, and is never repeated."""
    if last is None or last.result is None or last.result.exit is None:
        return Judgement("unknown", "", "nobody knows how far a rollback came")
    if last.result.exit == 0:
        return Judgement(verdict if verdict == "done" else "unknown", "claim", "its snapshot is not the current one")
    return Judgement("not" if verdict != "unknown" else verdict, "claim")


def _held(began: Began, guest: Guest) -> bool:
    """Whether its mark is that of this create, which has left the lock on because there was more to do."""
    mark = guest.mark
    return (
        began.op is Op.CREATE and mark is not None and (mark.id, mark.op) == (began.id, began.op_id) and not guest.copy
    )


def proof(machine: Machine, last: Settled) -> Settled:
    """When our step worked on what it left half done. Mending is no such step: what others did before it is not ours. But what it ran
    itself is (``again``).
    """
    step = machine.last
    if step is None or step.tool != MENDING:
        return last
    at, started = step.tries.get("at"), step.tries.get("started")
    if not isinstance(at, int) or not isinstance(started, int):
        return last
    before = tuple(str(step.tries.get("again", "")).split())
    now = ran(last) if last.started > started else ""
    return msgspec.structs.replace(
        last, at=at, started=started, again=before if now in before else (*before, *filter(None, [now]))
    )


def ran(last: Settled) -> str:
    """While which ticks that command ran; empty for one of which that is not known."""
    if last.result is None:
        return ""
    return f"{last.started}-{last.started + int((last.result.seconds + 1.0) * TICKS)}"


def _ours(last: Settled) -> bool:
    """Whether our command itself worked on it. One that was told that the VMID is taken had nothing to do with what is there, and a
    repair that the node refused for want of proof is not asked for again.
    """
    said = b"" if last.result is None else last.result.stderr
    return b"already exists" not in said and b"not provably ours" not in said

"""What one look at a node shows, and what it says about an operation whose answer was lost (design 7 and 8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from nexcage._core.changes import happened
from nexcage._core.command import Result
from nexcage._core.details import Details
from nexcage._core.events import Began
from nexcage._core.keeping import Keeping, Migrate
from nexcage._core.machine import Machine
from nexcage._core.runtimes import RUNTIMES
from nexcage._core.states import KEEPING, Op, State

__all__ = ["Guest", "Look", "Mark", "Settled", "Task", "Verdict", "observed", "probe", "task_of", "unchanged"]

Verdict = Literal["done", "not", "wait", "unknown"]


class Mark(msgspec.Struct, gc=False, frozen=True):
    """How a container on a node says whose it is: one line of its description."""

    fleet: str
    id: str
    vmid: int
    op: str

    def __str__(self) -> str:
        return f"nexcage fleet={self.fleet} id={self.id} vmid={self.vmid} op={self.op}"

    @classmethod
    def find(cls, description: str) -> Mark | None:
        """The mark in a description, if it has exactly one well-formed line of it."""
        lines = [line for line in description.split("\n") if line.startswith("nexcage fleet=")]
        if len(lines) != 1:
            return None
        given = dict(word.split("=", 1) for word in lines[0].split(" ")[1:] if "=" in word)
        vmid = given.get("vmid", "")
        if set(given) != {"fleet", "id", "vmid", "op"} or not (vmid.isascii() and vmid.isdigit() and len(vmid) < 10):
            return None
        mark = cls(given["fleet"], given["id"], int(vmid), given["op"])
        return mark if str(mark) == lines[0] else None  # the guard on the node compares whole lines


class Guest(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """One container on a node, ours or not. ``started`` is init's start time in clock ticks since boot (tells a reused pid).

    ``kind`` is ``vm`` for a virtual machine: its pid is that of its ``kvm`` process. ``silent``: that runs and does not say whether
    the machine is paused. ``oci`` is a container of ``runtime`` (crun, runc); one of these that does not run has ended. ``waiting``: its
    init is there (``running``), and has not been told to start the container's program. ``gated``: of a container of Proxmox VE, which
    was made from a bundle: it waits until its first start.
    """

    vmid: int
    running: bool = False
    frozen: bool = False
    pid: int = 0
    started: int = 0
    name: str = ""
    lock: str = ""
    template: bool = False
    tags: tuple[str, ...] = ()
    mark: Mark | None = None
    memory: int = 0
    broken: bool = False
    kind: Literal["lxc", "vm", "oci"] = "lxc"
    silent: bool = False
    waiting: bool = False
    runtime: str = ""
    gated: bool = False

    @property
    def tool(self) -> str:
        """The program that manages it."""
        if self.kind == "oci":
            return self.runtime
        return "qm" if self.kind == "vm" else "pct"

    @property
    def half(self) -> str:
        """``half-made`` or ``half-deleted``, by the lock that PVE holds meanwhile and that a killed task leaves; else empty. In other
        families it stands for a mark without its container.
        """
        return {"create": "half-made", "destroyed": "half-deleted"}.get(self.lock, "")

    def says(self, fleet: str, id: str, op: str = "") -> bool:
        """Whether it is ``id`` of ``fleet`` (made by create ``op``, if given) by its mark, and no copy of that."""
        mark = self.mark
        return (
            mark is not None
            and mark.id == id
            and mark.fleet == fleet
            and mark.vmid == self.vmid
            and (not op or mark.op == op)
        )

    @property
    def copy(self) -> bool:
        """Whether its mark names another VMID: clone and restore copy the description."""
        return self.mark is not None and self.mark.vmid != self.vmid


class Task(msgspec.Struct, gc=False, frozen=True):
    """A live PVE task: its type (``vzcreate``), the guest it works on, and the worker's pid."""

    upid: str
    type: str
    vmid: int
    pid: int


class Settled(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What a node knows of one step; asking makes sure that one that has not begun never will.

    ``ended``: ``result`` is its answer. ``running``: its supervisor works. ``void``: it did not begin since the node's boot (as far
    back as claims are kept). ``lost``: it began and its supervisor is gone, or what lies there is no claim; nobody knows. ``unusable``:
    no claim can be kept there now, so it may even begin later. ``at`` and ``started``: when it began, in
    Unix seconds of the node's clock and in ticks since its boot, 0 for void; ``boot_id`` and ``uptime`` (seconds) of the node now.
    ``again``: while which later steps of the same operation ran that were to remove what it left (ticks, ``FROM-TO``).
    """

    kind: Literal["ended", "running", "void", "lost", "unusable"]
    result: Result | None = None
    at: int = 0
    started: int = 0
    boot_id: str = ""
    uptime: float = 0.0
    again: tuple[str, ...] = ()


class Look(msgspec.Struct, gc=False, frozen=True):
    """A node as one command saw it. ``vmids``: every guest of its cluster and the PVE node that has it. ``ops``: those
    operations among the ones asked for that still have a process there. ``memory``: MiB available. ``uptime``: seconds since boot.
    ``details``: the rest of a guest's config, where the backend shows it. ``maintenance``: Proxmox VE keeps its own guests off the
    node (``ha-manager crm-command node-maintenance``).
    """

    node: str
    pve: str
    boot_id: str
    guests: Mapping[int, Guest]
    vmids: Mapping[int, str]
    tasks: tuple[Task, ...] = ()
    ops: tuple[str, ...] = ()
    quorate: bool = True
    memory: int = 0
    at: float = 0.0
    uptime: float = 0.0
    details: Mapping[int, Details] = {}
    maintenance: bool = False

    def find(self, fleet: str, id: str, op: str = "", *, vmid: int = 0) -> Guest | None:
        """The container that says it is ``id`` of ``fleet`` (made by create ``op``, if given); copies do not count. ``vmid``: where it is
        looked for first.
        """
        first = self.guests.get(vmid)
        if first is not None and first.says(fleet, id, op):
            return first
        return next((guest for guest in self.guests.values() if guest.says(fleet, id, op)), None)


def observed(guest: Guest | None, machine: Machine) -> State:
    """The state that looking shows. CREATED or STOPPED depends on whether it ever ran, which only the journal knows, unless a created
    container has a process.
    """
    if guest is None:
        return State.ABSENT
    if guest.running and (guest.waiting or _leaving(guest, machine)):
        return State.CREATED
    if guest.running:
        if guest.silent and machine.state is State.PAUSED:
            return State.PAUSED  # as it was the last time it said
        # PVE freezes the inner cgroup while it snapshots or backs up: that is not a pause (design 7).
        return State.PAUSED if guest.frozen and guest.lock not in ("snapshot", "backup") else State.RUNNING
    return State.STOPPED if machine.ran or guest.kind == "oci" or _ended(guest, machine) else State.CREATED


def _leaving(guest: Guest, machine: Machine) -> bool:
    """Whether the init that waited at its gate is gone and LXC's monitor not yet: nobody has started the program."""
    return guest.gated and not guest.pid and machine.state is State.CREATED


def _ended(guest: Guest, machine: Machine) -> bool:
    """Whether it had a process that waited at its gate, and has none any more."""
    return guest.gated and machine.was is State.CREATED and machine.pid > 0


def task_of(look: Look, vmid: int) -> Task | None:
    """The live task that works on ``vmid``."""
    return next((task for task in look.tasks if task.vmid == vmid), None)


def undone(began: Began, machine: Machine, look: Look) -> bool:
    """Whether a start has removed its container: a hook of its bundle failed (runtime-spec 1.3, config.md "POSIX-platform Hooks")."""
    if began.op is not Op.START or machine.spec is None or machine.spec.bundle is None or began.backend in RUNTIMES:
        return False
    return bool(machine.vmid) and machine.vmid not in look.vmids and machine.vmid not in look.guests


def unchanged(began: Began, guest: Guest | None, machine: Machine, look: Look) -> State:
    """The state after an operation that did not happen. What is not here any more may have moved, so it is no less there until somebody
    has looked for it.
    """
    if undone(began, machine, look):
        return State.ABSENT
    if guest is None and began.op is not Op.CREATE:
        return began.before
    return observed(guest, machine)


def probe(began: Began, machine: Machine, look: Look, fleet: str) -> Verdict:
    """Whether the operation happened, by the table of design 8. ``wait``: a task still works on it; look again.

    ``unknown``: looking cannot tell: a signal leaves no trace, and another container may have taken the place.
    """
    vmid = machine.vmid
    if began.op_id in look.ops:
        return "wait"
    if began.op is Op.ADOPT:  # whatever task works on it is somebody else's
        return _adopted(began, look, fleet)
    if vmid and task_of(look, vmid):
        return "wait"
    if began.op is Op.CREATE:
        # Without a mark it is not made: what a killed worker left (`lock: create`) never becomes whole, and is not proof of ours.
        made = look.find(fleet, began.id, began.op_id)
        if made is not None:
            return "not" if made.lock == "create" else "done"
        elsewhere = (
            bool(vmid) and look.vmids.get(vmid, look.pve) != look.pve
        )  # somebody else's, or ours and moved since
        return "unknown" if elsewhere else "not"
    # Where the backend has no VMIDs, the mark alone says which one it is.
    guest = look.guests.get(vmid) if vmid else look.find(fleet, began.id, machine.mark)
    if guest is None and began.op is Op.MIGRATE:
        return _moved(began, machine, look)
    if undone(began, machine, look):
        return "not"
    ours = guest is not None and guest.mark is not None and guest.mark.op == machine.mark
    if began.op is Op.DELETE:
        if guest is None:
            return "not" if vmid in look.vmids else "done"
        return "not" if ours and guest.lock != "destroyed" else "unknown"
    if not ours or guest is None:
        return "unknown"
    if began.op in KEEPING:
        return _kept(began, guest, look)
    state = observed(guest, machine)
    if guest.silent and began.op in (Op.PAUSE, Op.RESUME):
        return "unknown"
    match began.op:
        case Op.START:
            if guest.kind == "oci" or _ended(guest, machine):  # its program may have come to its end already
                return "done" if state in (State.RUNNING, State.STOPPED) else "not"
            return "done" if state is State.RUNNING and guest.pid else "not"
        case Op.STOP:
            return "not" if guest.running else "done"
        case Op.PAUSE:
            return "done" if state is State.PAUSED else "not"
        case Op.RESUME:
            return "done" if state is State.RUNNING else "not"
        case _:
            return "unknown"


def _adopted(began: Began, look: Look, fleet: str) -> Verdict:
    if look.find(fleet, began.id, began.op_id) is not None:
        return "done"
    return "unknown" if look.vmids.get(began.vmid, look.pve) != look.pve else "not"  # it may have moved with our mark


def _kept(began: Began, guest: Guest, look: Look) -> Verdict:
    details = look.details.get(guest.vmid)
    if details is None or not isinstance(began.intent, Keeping):
        return "unknown"
    mark = str(guest.mark)
    return happened(began.intent, began.op_id, details, lock=guest.lock, running=guest.running, mark=mark)


def _moved(began: Began, machine: Machine, look: Look) -> Verdict:
    """It is not here any more: it may be on its way, or somebody destroyed it."""
    if not isinstance(began.intent, Migrate):
        return "unknown"
    there = look.vmids.get(machine.vmid, "")
    return "done" if there and there != look.pve else "unknown"

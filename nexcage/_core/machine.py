"""A container as a machine: what folding its events gives, and the one place that decides whether an operation may begin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from nexcage._core.changes import applied
from nexcage._core.events import (
    Attempted,
    Began,
    Ended,
    Failed,
    Interrupted,
    NodeFound,
    NodeLost,
    Observed,
    Succeeded,
    TakenOver,
    _Event,  # pyright: ignore[reportPrivateUsage]
)
from nexcage._core.intents import Adopt, Create, Inside, Intent, force_of
from nexcage._core.keeping import Update
from nexcage._core.spec import Spec
from nexcage._core.states import BESIDE, KEEPING, Op, Rule, State, allowed, rule
from nexcage.errors import AlreadyExists, Busy, IllegalTransition, JournalError, NexcageError, NotFound

__all__ = ["Checkpointed", "Event", "Machine", "fold"]

REMEMBERED = 8  # newest outcomes of a container
GIVEN = 64  # of its operations whose id the caller gave: what a repeated id is answered from


class Machine(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """One container as its events tell it. A value: `apply` gives the next one.

    ``running`` is the operation under way, ``unresolved`` the one whose answer was lost. ``was`` is the last state that was true
    (it differs from ``state`` in UNKNOWN and in transitional states). ``mark`` is the op id of its create; ``done``
    holds its last outcomes, newest last, and ``given`` those of operations whose id the caller gave.
    ``last`` is the newest step of the newest operation, ``steps`` their number. ``wanted`` is the state that was asked for
    last (or adopted): where it differs from ``state``, somebody else changed the container.
    ``pid`` is init's on the host, 0 when there is no process. ``beside``: what goes on inside it meanwhile (`BESIDE`).
    """

    id: str
    state: State = State.ABSENT
    was: State = State.ABSENT
    seq: int = 0
    node: str = ""
    vmid: int = 0
    backend: str = ""
    mark: str = ""
    boot_id: str = ""
    pid: int = 0
    ran: bool = False
    steps: int = 0
    last: Attempted | None = None
    spec: Spec | None = None
    running: Began | None = None
    unresolved: Began | None = None
    done: tuple[Ended, ...] = ()
    given: tuple[Ended, ...] = ()
    created_at: float = 0.0
    at: float = 0.0
    wanted: State | None = None
    beside: tuple[Began, ...] = ()

    def rule(self, intent: Intent | Inside, *, strict_oci: bool = False) -> Rule:
        """The table's cell for ``intent`` now; raises NotFound, AlreadyExists or IllegalTransition for the cells that refuse."""
        cell = rule(self.state, intent.op, force=force_of(intent), strict_oci=strict_oci, process=self.pid > 0)
        if cell.kind == "refuse":
            raise self.illegal(intent.op, strict_oci=strict_oci)
        if cell.kind == "missing" and not (intent.op is Op.DELETE and force_of(intent)):
            raise NotFound("container", self.id)
        if cell.kind == "exists":
            raise AlreadyExists("container", self.id)
        return cell

    def illegal(self, op: Op, reason: str = "", *, strict_oci: bool = False) -> NexcageError:
        """The error for ``op`` here, with what is allowed instead."""
        now = tuple(word for word in allowed(self.state, strict_oci=strict_oci) if word != str(op))
        return IllegalTransition(self.id, str(op), str(self.state), now, reason)

    def begin(
        self,
        intent: Intent,
        *,
        op_id: str,
        node: str = "",
        backend: str = "",
        vmid: int = 0,
        boot_id: str = "",
        owner: str = "",
        epoch: int = 0,
        fenced: bool = False,
        strict_oci: bool = False,
    ) -> Began:
        """The event that begins ``intent``. Raises what `rule` raises, Busy while another operation runs, and IllegalTransition
        for what needs no operation at all (already so) or a look first (UNKNOWN). Changes nothing.
        """
        if self.running is not None:
            raise Busy(f"container '{self.id}'", f"{self.running.op} by {self.running.owner or 'another operation'}")
        cell = self.rule(intent, strict_oci=strict_oci)
        if cell.kind not in ("go", "keep"):
            raise self.illegal(intent.op, f"it is {self.state} ({cell.kind})", strict_oci=strict_oci)
        new = isinstance(intent, (Create, Adopt))
        known = intent.vmid if isinstance(intent, Adopt) else 0 if new else vmid or self.vmid
        return Began(
            id=self.id,
            op=intent.op,
            op_id=op_id,
            before=self.state,
            via=cell.via or self.state,
            intent=intent,
            node=node or self.node,
            backend=backend or self.backend,
            vmid=known,
            mark=op_id if new else self.mark,
            boot_id=boot_id,
            owner=owner,
            epoch=epoch,
            fenced=fenced,
        )

    def outcome(self, op_id: str) -> Ended | None:
        """How the operation with this key ended, as far as it is remembered."""
        return next((end for end in reversed((*self.given, *self.done)) if end.op_id == op_id), None)

    def apply(self, event: Event) -> Machine:
        """The machine after ``event``; raises JournalError when that event cannot follow."""
        match event:
            case Began():
                if event.op in BESIDE:
                    return msgspec.structs.replace(self, beside=(*self.beside, event))
                if self.running is not None:
                    raise self._misfit(event, f"{self.running.op} {self.running.op_id} is running")
                return self._began(event)
            case Attempted():
                if self.running is None or self.running.op_id != event.op_id:
                    raise self._misfit(event, "no such operation is running")
                tried = event.tries.get("vmid")
                return self._with(
                    event, steps=event.step, last=event, vmid=tried if isinstance(tried, int) else self.vmid
                )
            case TakenOver():
                return self._taken_over(event)
            case Succeeded() | Failed() | Interrupted():
                return self._beside(event) if event.op in BESIDE else self._ended(event)
            case Observed():
                return self._observed(event)
            case Checkpointed():
                return msgspec.structs.replace(event.machine, seq=event.seq)
            case NodeLost() | NodeFound():
                return self

    def _began(self, event: Began) -> Machine:
        if isinstance(event.intent, (Create, Adopt)):
            fresh = Machine(
                self.id,
                done=self.done,
                given=self.given,
                created_at=event.at,
                spec=event.intent.spec if isinstance(event.intent, Create) else None,
                vmid=event.vmid,
                mark=event.mark,
                ran=isinstance(event.intent, Adopt),  # whether one that rests ever ran is not known
                beside=self.beside,
            )
            return fresh._with(
                event, state=event.via, node=event.node, backend=event.backend, boot_id=event.boot_id, running=event
            )
        return self._with(
            event,
            state=event.via,
            was=self.state,
            node=event.node or self.node,
            boot_id=event.boot_id or self.boot_id,
            steps=0,
            last=None,
            running=event,
        )

    def _taken_over(self, event: TakenOver) -> Machine:
        began = self.running or self.unresolved
        if began is None or began.op_id != event.op_id:
            raise self._misfit(event, "no such operation is running")
        running = msgspec.structs.replace(began, owner=event.owner, epoch=event.epoch or began.epoch)
        return self._with(event, state=began.via, running=running, unresolved=None)

    def _beside(self, event: Ended) -> Machine:
        """``seq`` stays: what is compared with a look is as it was."""
        began = next((one for one in self.beside if one.op_id == event.op_id), None)
        if began is None:
            raise self._misfit(event, "no such operation is running")
        given = self.given if began.intent.op_id is None else (*self.given, event)[-GIVEN:]
        left = tuple(one for one in self.beside if one is not began)
        return msgspec.structs.replace(self, beside=left, given=given)

    def _ended(self, event: Ended) -> Machine:
        began = self.running or self.unresolved
        if began is None or began.op_id != event.op_id:
            raise self._misfit(event, "no such operation is running")
        kept: dict[str, object] = {"done": (*self.done, event)[-REMEMBERED:]}
        if began.intent.op_id is not None:
            kept["given"] = (*self.given, event)[-GIVEN:]
        if isinstance(event, Interrupted):
            return self._with(event, state=State.UNKNOWN, running=None, unresolved=began, **kept)
        ended = self._in(event, event.state, pid=event.pid, running=None, unresolved=None, **kept)
        if isinstance(event, Failed) and event.op not in (Op.DELETE, Op.START):
            return ended
        if isinstance(event, Failed):
            # The container may be gone: something is left beside it, or a hook of its start failed.
            return msgspec.structs.replace(ended, wanted=State.ABSENT) if event.state is State.ABSENT else ended
        if event.state is State.ABSENT:
            return msgspec.structs.replace(ended, wanted=State.ABSENT)
        return msgspec.structs.replace(
            ended,
            wanted=self._wanted(event),
            spec=applied(ended.spec, began.intent) if ended.spec and isinstance(began.intent, Update) else ended.spec,
            node=event.node or ended.node,
            vmid=event.vmid or ended.vmid,
            backend=event.backend or ended.backend,
            mark=event.mark or ended.mark,
        )

    def _wanted(self, event: Succeeded) -> State | None:
        if event.op is Op.KILL:
            return None  # a signal may well end it
        return self.wanted if event.op in KEEPING and event.op is not Op.ROLLBACK else event.state

    def _observed(self, event: Observed) -> Machine:
        if event.rebuilt:
            return self._rebuilt(event)
        if self.running is not None:
            raise self._misfit(event, f"{self.running.op} {self.running.op_id} is running")
        return self._in(
            event,
            event.state,
            pid=event.pid,
            node=event.node or self.node,
            vmid=event.vmid or self.vmid,
            boot_id=event.boot_id or self.boot_id,
            unresolved=None,
            wanted=event.state if event.adopted or self.unresolved else self.wanted,
        )

    def _rebuilt(self, event: Observed) -> Machine:
        fresh = Machine(
            self.id,
            node=event.node,
            backend=event.backend,
            boot_id=event.boot_id,
            created_at=event.at,
            beside=self.beside,
        )
        known = fresh._in(event, event.state, pid=event.pid)
        if event.state is State.ABSENT:
            return msgspec.structs.replace(known, wanted=State.ABSENT)
        # Whether it ever ran is not known; one that is only created is said to be so by nobody but the journal.
        ran = event.state is not State.CREATED
        return msgspec.structs.replace(known, vmid=event.vmid, mark=event.mark, ran=ran, wanted=event.state)

    def _in(self, event: Event, state: State, **changes: object) -> Machine:
        ran = self.ran or state in (State.RUNNING, State.PAUSED, State.STOPPED)
        if state is State.ABSENT:
            changes |= {"pid": 0, "vmid": 0, "mark": ""}
            ran = False
        return self._with(event, state=state, was=state, ran=ran, **changes)

    def _with(self, event: Event, **changes: object) -> Machine:
        return msgspec.structs.replace(self, seq=event.seq, at=event.at, **changes)

    def _misfit(self, event: Event, why: str) -> JournalError:
        return JournalError(
            f"record {event.seq} ({type(event).__name__.lower()}) does not follow for container '{self.id}': {why}"
        )


class Checkpointed(_Event, frozen=True, kw_only=True, omit_defaults=True):
    """A machine as it was when its journal segment began, so that reading may start there."""

    machine: Machine


Event: TypeAlias = (
    Began | Attempted | TakenOver | Succeeded | Failed | Interrupted | Observed | NodeLost | NodeFound | Checkpointed
)


def fold(events: Iterable[Event], machines: Iterable[Machine] = ()) -> dict[str, Machine]:
    """The machines that ``events`` give, by container id; deleted ones stay as ABSENT. ``machines`` is where to begin.

    Raises JournalError for an event that cannot follow those before it.
    """
    folded = {machine.id: machine for machine in machines}
    for event in events:
        if event.id:
            folded[event.id] = (folded.get(event.id) or Machine(event.id)).apply(event)
    return folded

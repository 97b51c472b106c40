"""An intent on its way, and the values that its end is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from nexcage._core.events import Began, Ended, Failed, Interrupted, Problem, Succeeded
from nexcage._core.intents import Intent, Stop
from nexcage._core.machine import Machine
from nexcage._core.outcome import Done, Failure
from nexcage._core.runtimes import RUNTIMES
from nexcage._core.states import Op, State
from nexcage._engine.hurry import Hurry
from nexcage._loop import loop_time
from nexcage.errors import CommandFailed, IllegalTransition, NexcageError, NodeError, NodeTimeout, Uncertain

if TYPE_CHECKING:
    from nexcage._engine.bundles import Ready
    from nexcage._engine.sent import Handed

__all__ = ["Operation", "notes_of", "repeated"]


class Operation:
    """One intent from the moment it was taken. ``began`` is set once its `Began` is durable; while it is ``beginning``, that may be so
    before it is set.

    ``hurry`` (of a stop) is set when a forced stop wants a graceful one to end; ``superseded_by`` when another operation took
    its place before it began. ``scope`` ends it then, and when it takes too long; its deadline stands still while it waits for its turn.
    ``requested``: the HA manager was asked for it. ``untouched``: it was ended before its first command, and that is recorded.
    ``bundle``: what a create is made from, where its backend is told.
    """

    def __init__(self, intent: Intent, op_id: str) -> None:
        self.intent: Intent = intent
        self.op_id: str = op_id
        self.at: float = loop_time()
        self.began: Began | None = None
        self.beginning: bool = False
        self.retries: int = 0
        self.hurry: Hurry | None = Hurry() if isinstance(intent, Stop) else None
        self.scope: anyio.CancelScope = anyio.CancelScope()
        self.superseded_by: Op | None = None
        self.requested: bool = False
        self.untouched: bool = False
        self.bundle: Ready | Handed | None = None

    @property
    def seconds(self) -> float:
        """Since it got its turn (the bounds in Limits), or was taken when it needed none."""
        return round(loop_time() - self.at, 6)

    def done(self, machine: Machine, *, changed: bool, resolved_by: str = "") -> Done:
        return Done(
            intent=self.intent,
            op_id=self.op_id,
            state=machine.state,
            changed=changed,
            node=machine.node,
            vmid=_shown(machine.backend, machine.vmid or (self.began.vmid if self.began else 0)),
            pid=machine.pid,
            seconds=self.seconds,
            retries=self.retries,
            resolved_by=resolved_by,
            notes=self._notes(machine),
        )

    def failure(self, machine: Machine, error: NexcageError) -> Failure:
        return Failure(
            intent=self.intent,
            error=error,
            op_id=self.op_id,
            state=machine.state,
            node=error.node if isinstance(error, NodeError) else machine.node,
            vmid=_shown(machine.backend, machine.vmid),
            seconds=self.seconds,
            retries=self.retries,
        )

    def succeeded(
        self, began: Began, machine: Machine, state: State, pid: int, *, changed: bool = True, resolved_by: str = ""
    ) -> Succeeded:
        return Succeeded(
            id=began.id,
            op=began.op,
            op_id=self.op_id,
            state=state,
            changed=changed,
            node=began.node,
            vmid=machine.vmid,
            backend=began.backend,
            mark=began.mark,
            pid=pid,
            seconds=self.seconds,
            resolved_by=resolved_by,
            notes=self._notes(machine),
        )

    def _notes(self, machine: Machine) -> tuple[str, ...]:
        asked = ("done by the HA manager, which was asked for it",) if self.requested else ()
        return (*notes_of(machine, self.op_id), *asked)

    def failed(
        self, began: Began, state: State, pid: int, error: NexcageError | None, *, lost: bool, resolved_by: str = ""
    ) -> tuple[Failed, NexcageError]:
        """It did not happen: the event and the error to raise. ``error`` None: the tool said yes and nothing was to be seen."""
        if lost:
            error = NodeTimeout(
                began.node, f"{began.op} of '{began.id}' got no answer; looking shows that it did not happen"
            )
        if error is None:
            said = f"{began.op} said it was done, but the container is {state}"
            error = CommandFailed(began.node, (str(began.op), began.id), 0, said)
        problem = Problem.of(error)
        event = Failed(
            id=began.id,
            op=began.op,
            op_id=self.op_id,
            state=state,
            pid=pid,
            error=problem,
            seconds=self.seconds,
            resolved_by="probe" if lost else resolved_by,
        )
        return event, error

    def interrupted(self, began: Began, problem: Problem) -> Interrupted:
        return Interrupted(id=began.id, op=began.op, op_id=self.op_id, error=problem, seconds=self.seconds)

    def given_up(self, began: Began, error: NexcageError | None) -> tuple[Interrupted, NexcageError]:
        """Nobody can know: the event and the error to raise."""
        unsure = error if isinstance(error, Uncertain) else Uncertain(self.op_id, str(error or "looking did not tell"))
        if error is not None and error is not unsure:
            unsure.noted(*getattr(error, "__notes__", ()))
        return self.interrupted(began, Problem.of(unsure)), unsure


def _shown(backend: str, vmid: int) -> int:
    """The number that Proxmox VE knows a container by; containers of crun and runc have none."""
    return 0 if backend in RUNTIMES else vmid


def repeated(op: Operation, machine: Machine, ended: Ended) -> Done:
    """The same key again: the same outcome, raised or returned, and nothing runs."""
    if ended.op is not op.intent.op:
        reason = f"op id {op.op_id} belongs to an earlier {ended.op}"
        raise IllegalTransition(machine.id, str(op.intent.op), str(machine.state), reason=reason)
    if not isinstance(ended, Succeeded):
        raise ended.error.error()
    return Done(
        intent=op.intent,
        op_id=op.op_id,
        state=ended.state,
        changed=ended.changed,
        node=ended.node,
        vmid=_shown(ended.backend, ended.vmid),
        pid=ended.pid,
        seconds=ended.seconds,
        resolved_by=ended.resolved_by,
        notes=ended.notes,
    )


def notes_of(machine: Machine, op_id: str) -> tuple[str, ...]:
    """What the newest step of an operation says to know about it."""
    step = machine.last
    note = step.tries.get("note") if step is not None and step.op_id == op_id else None
    return (str(note),) if note else ()

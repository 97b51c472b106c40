"""Running an operation that has begun, until it is known how it ended or that nobody can know."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from contextlib import suppress
from random import Random

import anyio
import msgspec

from nexcage._core.config import Limits
from nexcage._core.events import Began, Ended, Succeeded
from nexcage._core.evidence import LOCKS, unproven
from nexcage._core.intents import Stop
from nexcage._core.keeping import Migrate
from nexcage._core.machine import Machine
from nexcage._core.seen import Verdict, observed, probe, unchanged
from nexcage._core.states import KEEPING, Op, Rule, State
from nexcage._engine.node import FleetNode, Lost
from nexcage._engine.observe import Observer
from nexcage._engine.operation import Operation
from nexcage._engine.recover import Recovery
from nexcage._engine.retry import pause
from nexcage._engine.steps import Raced, Steps
from nexcage._engine.tidying import completed, leaves, tidied
from nexcage._engine.verbs import perform
from nexcage._loop import loop_time
from nexcage.abc import Backend, Ref
from nexcage.errors import CommandFailed, JournalError, NexcageError, NodeError, Uncertain

__all__ = ["Attempt"]

_ONCE = frozenset({Op.ROLLBACK, Op.BACKUP})  # what a look cannot tell: its command alone knows
# After the probe (design 8).
_REPEATABLE = (frozenset({Op.CREATE, Op.ADOPT, Op.START, Op.STOP, Op.DELETE, Op.PAUSE, Op.RESUME}) | KEEPING) - _ONCE


_ROUNDS = 180.0
"""Seconds that an HA manager has for what it was asked: it comes round every ten, and starts on the new node what was moved there."""

_ALREADY = re.compile(r"already running|not running")  # what pct says when somebody else was first


class Attempt:
    """The backend's verb, then a look, then the verb again where that is harmless."""

    def __init__(
        self,
        op: Operation,
        cell: Rule,
        steps: Steps,
        node: FleetNode,
        backend: Backend,
        *,
        fleet: str,
        observer: Observer,
        recovery: Recovery,
        limits: Limits,
        random: Random,
        may_retry: Callable[[int], bool],
    ) -> None:
        self._op = op
        self._cell = cell
        self._steps = steps
        self._node = node
        self._backend = backend
        self._fleet = fleet
        self._observer = observer
        self._recovery = recovery
        self._limits = limits
        self._random = random
        self._may_retry = may_retry
        self._made: Ref | None = None

    async def until_known(self) -> tuple[Ended, NexcageError | None]:
        """The event that ends the operation, and the error to raise with it. Raises JournalError when a step cannot
        be recorded.
        """
        op = self._op
        for attempt in itertools.count():
            error, lost = await self._verb()
            began = await self._steps.begun()
            blind = began.op is Op.UPDATE and hasattr(self._backend, "limits")  # its settings do not show in a look
            if (began.op is Op.KILL or blind) and (
                error is None or lost
            ):  # a signal leaves no trace to look for, and is never sent twice
                if error is not None:
                    return op.given_up(began, error)
                machine, by = self._machine, self._steps.resolved_by
                return op.succeeded(began, machine, began.before, machine.pid, resolved_by=by), None
            if began.op in _ONCE and lost:  # one that was stopped in the middle looks like a whole one
                return op.given_up(began, error)
            if error is not None and not self._steps.touched:  # nothing was started, so all is as it was
                verdict, state, pid = "not", began.before, self._machine.pid
            else:
                try:
                    verdict, state, pid = await self._verdict(certain=error is None)
                except NexcageError as blind:
                    return op.given_up(began, (error or blind).noted(f"and looking failed: {blind}" if error else ""))
            mended = await self._mended() if verdict != "done" and self._steps.touched else False
            if mended is None:  # whoever recovers it removes that
                return op.given_up(began, error)
            if mended:
                try:
                    verdict, state, pid = await self._verdict(certain=False)
                except NexcageError as blind:
                    return op.given_up(began, error or blind)
            if began.op is Op.ROLLBACK and error is not None:
                verdict = self._refused_rollback()
            # A program that was run may have come to its end already; one whose hook failed may run all the same.
            over = began.op is Op.START and state is State.STOPPED
            hooked = isinstance(error, CommandFailed) and error.argv[:1] == ("hook",)
            if error is not None and (blind or began.op is Op.BACKUP or (over and not lost) or hooked):
                verdict = "not"
            try:
                if verdict == "done" and error is not None and (failed := await self._completed()) is not None:
                    (_, state, pid), error, lost = await self._verdict(certain=False), failed, False
                    verdict = "not"
                if leaves(began, verdict, self._machine, self._node.seen):
                    left = await self._tidied()
                    if left is not None and verdict == "done":
                        return op.failed(began, state, pid, left, lost=False)
                    if left is not None and error is not None:
                        error.noted(f"and something is left of it: {left}")
            except Lost as answer:
                return op.given_up(began, Uncertain(op.op_id, str(answer)))
            except NodeError as away:  # whoever recovers it goes on from here
                return op.given_up(began, away)
            if verdict == "done":
                changed = lost or not (isinstance(error, CommandFailed) and _ALREADY.search(error.stderr))
                op.requested = self._steps.requested
                by = "probe" if lost else self._steps.resolved_by
                state = state if began.op is Op.ADOPT or over else self._cell.to or state
                machine = self._machine
                if self._made is not None and self._made.vmid:
                    machine = msgspec.structs.replace(machine, vmid=self._made.vmid)
                ended = op.succeeded(began, machine, state, pid, changed=changed, resolved_by=by)
                return await self._arrived(ended), None
            if verdict == "unknown":
                return op.given_up(began, error)
            repeat = began.op in _REPEATABLE and (lost or (error is not None and error.retryable))
            if not (repeat and self._may_retry(attempt)):
                if error is None and self._steps.requested:
                    error = self._ignored(state)
                if error is not None and (told := unproven(began, self._machine, self._node.seen)):
                    error.noted(told)
                return op.failed(began, state, pid, error, lost=lost, resolved_by=self._steps.resolved_by)
            op.retries += 1
            self._steps.touched = False
            await anyio.sleep(pause(attempt, self._limits, self._random))
        raise AssertionError

    @property
    def _patience(self) -> float:
        """Seconds until what was said to be done must be seen."""
        if not self._steps.requested:
            return self._limits.settle_timeout
        wanted = self._began.intent
        return _ROUNDS + (wanted.timeout if isinstance(wanted, (Stop, Migrate)) else 0.0)

    async def _arrived(self, ended: Succeeded) -> Succeeded:
        """After a migration it is as its new node shows it; an HA manager starts it there in a round of its own."""
        if not isinstance(self._began.intent, Migrate):
            return ended
        until = loop_time() + (self._patience if self._steps.requested else 0.0)
        while True:
            state, pid = await self._observer.there(self._machine, self._began.intent.node)
            if state is State.RUNNING or self._began.before is not State.RUNNING or loop_time() >= until:
                return msgspec.structs.replace(ended, node=self._began.intent.node, state=state, pid=pid)
            await anyio.sleep(self._random.uniform(0.5, 1.5))

    def _ignored(self, state: State) -> NexcageError:
        said = f"the HA manager was asked and has not done it in {self._patience:g} s: the container is {state}"
        error = CommandFailed(self._node.key, (str(self._began.op), self._began.id), 0, said)
        return error.noted("see `ha-manager status` there")

    def _refused_rollback(self) -> Verdict:
        """The tool said no; its lock tells that it had begun to change the disks."""
        guest = self._node.seen.guests.get(self._machine.vmid) if self._node.seen is not None else None
        return "unknown" if guest is not None and guest.lock == "rollback" else "not"

    async def _mended(self) -> bool | None:
        """A killed tool may leave a container half made or half deleted; what is provably ours goes. None: not now, because the cluster
        is not quorate, or the answer was lost.
        """
        look = self._node.seen
        if look is None or self._began.op not in LOCKS:
            return False
        proof = await self._recovery.proof(self._node, self._began, self._machine, look)
        if proof is None:
            return False
        if not look.quorate:
            return None
        mended = await self._recovery.mend(self._steps, self._began, self._machine, look, proof)
        if mended is not False:
            return mended
        with suppress(NexcageError):  # it may have lost its quorum meanwhile
            look = await self._node.look()
        return False if look.quorate else None

    async def _completed(self) -> NexcageError | None:
        """What follows a start, where its verb did not come so far; the error when that failed. Raises NodeError and Lost."""
        look = self._node.seen
        return None if look is None else await completed(self._backend, self._steps, self._began, self._machine, look)

    async def _tidied(self) -> NexcageError | None:
        """Put away what is left; the error when that cannot be done. Raises Lost, and the NodeError of a node that cannot be reached."""
        for attempt in itertools.count():
            left = await tidied(self._backend, self._steps, self._began, self._machine)
            if not isinstance(left, NodeError) or not left.retryable:
                return left
            if not self._may_retry(attempt):
                raise left
            await anyio.sleep(pause(attempt, self._limits, self._random))
        raise AssertionError

    @property
    def _began(self) -> Began:
        return self._steps.began

    @property
    def _machine(self) -> Machine:
        return self._observer.machine(self._began.id)

    async def _verb(self) -> tuple[NexcageError | None, bool]:
        """Run the backend's verb; its error, and whether an answer was lost."""
        backend, steps, began = self._backend, self._steps, self._began
        machine = steps.begins or self._machine
        try:
            self._made = await perform(backend, steps, began, machine) or self._made
        except Lost as answer:
            return Uncertain(self._op.op_id, str(answer)), True
        except (JournalError, Raced):
            raise
        except NexcageError as error:
            return error, False
        return None, False

    async def _verdict(self, *, certain: bool) -> tuple[Verdict, State, int]:
        """Look until it is known; (verdict, state, pid). ``certain``: the commands said yes, so wait for it to show.

        Raises the NodeError of a node that cannot be seen for ``probe_timeout``.
        """
        began, node, limits = self._began, self._node, self._limits
        start = loop_time()
        for attempt in itertools.count():
            spent = loop_time() - start
            try:
                over = await self._steps.over()
                look = await node.look(() if certain and attempt == 0 else (began.op_id,))
            except NexcageError as error:
                if not error.retryable or spent > limits.probe_timeout:
                    raise
                await anyio.sleep(pause(attempt, limits, self._random))
                continue
            machine = self._machine
            verdict = probe(began, machine, look, self._fleet) if over else "wait"
            if verdict != "wait" and not (verdict == "not" and certain and spent < self._patience):
                guest = look.find(self._fleet, began.id, began.mark, vmid=machine.vmid)
                state = unchanged(began, guest, machine, look) if verdict == "not" else observed(guest, machine)
                return verdict, state, guest.pid if guest else 0
            await anyio.sleep(min(0.05 * 2.0 ** min(attempt, 6), 2.0) * self._random.uniform(0.5, 1.5))
        raise AssertionError

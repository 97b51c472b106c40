"""Bringing an operation that nobody drives any more to its end (design 5 and 8).

Its driver died, or it was interrupted. The node is asked in the order of trust: does the command still run; what exit status did
the node keep; what is to be seen. What that proves is written as the operation's outcome, once: the record is a compare-and-set,
so two who recover at the same time, or one who dies and begins again, change nothing more. Only debris that is provably ours takes
commands; whoever runs them has taken the operation over in the journal first, and they are steps of it like any other.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from random import Random

import anyio
import msgspec

from nexcage._core.config import Config, Limits
from nexcage._core.events import Began, Ended, Failed, Problem, Succeeded, TakenOver
from nexcage._core.evidence import LOCKS, Judgement, half, judge, making, proof
from nexcage._core.intents import Create
from nexcage._core.keeping import DelSnapshot, Migrate, Snapshot
from nexcage._core.machine import Event, Machine
from nexcage._core.seen import Look, Settled, observed, unchanged
from nexcage._core.states import Op, State
from nexcage._engine.hurry import Hurry
from nexcage._engine.node import FleetNode, Lost
from nexcage._engine.observe import Observer, Stale
from nexcage._engine.operation import notes_of
from nexcage._engine.steps import Steps
from nexcage._engine.tidying import completed, handed, leaves, tidied, tidies, unpacked
from nexcage.abc import Backend, Journal, Lease, Ref
from nexcage.errors import Busy, CommandFailed, NexcageError, NodeError, NodeUnreachable, NoQuorum
from nexcage.tools.claims import KEPT

__all__ = ["Recovery"]

_log = logging.getLogger("nexcage")
_RESULT = {
    Op.STOP: State.STOPPED,
    Op.PAUSE: State.PAUSED,
    Op.RESUME: State.RUNNING,
    Op.CREATE: State.CREATED,
    Op.DELETE: State.ABSENT,
}


def _mender(began: Began) -> str:
    if isinstance(began.intent, (Snapshot, DelSnapshot)):
        return "mend_snapshot"
    if began.op is Op.MIGRATE:
        return "mend_lock"
    return "mend_clone" if isinstance(began.intent, Create) and began.intent.spec.source is not None else "mend"


def _wants_quorum(began: Began, node: FleetNode, look: Look) -> None:
    if not look.quorate:
        when = "is removed when its cluster is quorate again"
        raise NoQuorum(node.key, f"what {began.op} of '{began.id}' left half done {when}")


class Recovery:
    """Resolves what is left of operations; `Driver` and `Fleet` ask it for one container at a time."""

    def __init__(
        self,
        *,
        fleet: str,
        owner: str,
        journal: Journal,
        nodes: Mapping[str, FleetNode],
        backends: Mapping[str, Backend],
        config: Config,
        limits: Limits,
        observer: Observer,
        lease: Lease,
        alive: Callable[[str], bool],
        random: Random,
    ) -> None:
        self._fleet = fleet
        self._owner = owner
        self._journal = journal
        self._nodes = nodes
        self._backends = backends
        self._config = config
        self._limits = limits
        self._observer = observer
        self._lease = lease
        self._alive = alive
        self._random = random
        self._locks: dict[str, anyio.Lock] = {}
        self._turns: dict[str, anyio.Semaphore] = {}
        self.busy: Callable[[str], bool] = lambda _: False
        """Whether this driver itself is at work on a container."""

    # ---- whose it is -------------------------------------------------------------------------------------------------------

    def left(self, id: str) -> Began | None:
        """The operation on this container that waits for somebody to find out what became of it."""
        machine = self._observer.machine(id)
        if machine.running is None:
            return machine.unresolved
        if self.busy(id) or (machine.running.owner != self._owner and self._alive(machine.running.owner)):
            return None
        return machine.running

    def all(self) -> list[str]:
        """The containers with such an operation, in the order in which those began."""
        found = [(began.seq, id) for id in self._journal.machines if (began := self.left(id)) is not None]
        return [id for _, id in sorted(found)]

    async def resolve(self, id: str, *, wait: bool = True) -> Event | None:
        """Find out what became of it and record that; None when there is nothing to find out, or (``wait`` False) not yet.

        Raises NodeError when its node cannot be asked, and Busy when its command does not end within ``probe_timeout``: then it
        stays as it was.
        """
        if self.left(id) is None:
            return None
        lock = self._locks.setdefault(id, anyio.Lock())
        if not wait and lock.statistics().locked:
            return None
        try:
            async with lock:
                return await self._resolve(id, wait)
        finally:
            if not lock.statistics().locked and not lock.statistics().tasks_waiting:
                self._locks.pop(id, None)

    async def _resolve(self, id: str, wait: bool) -> Event | None:
        await self._journal.refresh()
        began, machine = self.left(id), self._observer.machine(id)
        if began is None:
            return None
        node = self._observer.node(machine)
        until = anyio.current_time() + self._limits.probe_timeout
        for attempt in itertools.count():
            last, look = await self._evidence(node, began, machine)
            finding = judge(began, machine, look, last, self._fleet, kept=KEPT)
            if finding.verdict != "wait":
                return await self._settle(began, machine, node, look, last, finding)
            if not wait:
                return None
            if anyio.current_time() > until:
                raise Busy(f"container '{id}'", f"{began.op} {began.op_id} is still running on {node.key}")
            await anyio.sleep(min(0.2 * 2.0 ** min(attempt, 5), 5.0) * self._random.uniform(0.5, 1.5))
            machine = self._observer.machine(id)
            if self.left(id) != began:
                return None  # somebody else was faster
        raise AssertionError

    async def _evidence(self, node: FleetNode, began: Began, machine: Machine) -> tuple[Settled | None, Look]:
        last: Settled | None = None
        said: tuple[Settled, ...] = ()
        if machine.steps:
            steps = Steps.claims(self._fleet, began, machine.steps)
            said = await node.settle(*steps)
            last = next((one for one in said if one.kind == "running"), said[-1])
        # After the claims: what a command did before its end can be seen now. Where its end is not known, its processes are looked for;
        # where nothing can be running any more, all look together.
        over = last is None or last.kind in ("ended", "void")
        look = await (node.look() if over else node.look((began.op_id,)))
        if last is not None and last.kind == "void" and making(began, machine, look, self._fleet):
            last = next((one for one in reversed(said) if one.kind != "void"), last)
        return last, look

    async def _settle(
        self, began: Began, machine: Machine, node: FleetNode, look: Look, last: Settled | None, finding: Judgement
    ) -> Event | None:
        if finding.verdict == "half" and (
            last is None or not hasattr(self._backends.get(began.backend), _mender(began))
        ):
            finding = judge(began, machine, look, None, self._fleet, kept=KEPT)
        if finding.verdict == "half":
            _wants_quorum(began, node, look)
        if finding.verdict == "half" and last is not None:
            mended = await self._mended(began, machine, node, look, last)
            machine = self._observer.machine(machine.id)
            if mended is None or machine.running is None:
                return None
            look = mended
            began = machine.running
            if half(began, machine, look) is not None:  # lost while that was tried
                _wants_quorum(began, node, look)
            finding = judge(began, machine, look, None, self._fleet, kept=KEPT)
            finding = Judgement(finding.verdict, "repair", finding.why)
        left: NexcageError | None = None
        failed: NexcageError | None = None
        backend = self._backends.get(began.backend)
        if finding.verdict == "done" and began.op is Op.START and tidies(backend, began, machine):
            if not await self._take_over(began):
                return None
            machine = self._observer.machine(machine.id)
            began = machine.running or began
            failed = await self._completed(began, machine, node, look)
            if failed is not None:
                look, finding = await node.look((began.op_id,)), Judgement("not", "repair", str(failed))
                machine = self._observer.machine(machine.id)
        if leaves(began, finding.verdict, machine, look) and tidies(self._backends.get(began.backend), began, machine):
            if not await self._take_over(began):
                return None
            machine = self._observer.machine(machine.id)
            began = machine.running or began
            left = await self._put_away(began, machine, node, look)
        if finding.verdict == "done" and handed(began):
            if not await self._take_over(began):
                return None
            machine = self._observer.machine(machine.id)
            began = machine.running or began
            with suppress(Lost):
                steps = self.steps(node, began, look, count=machine.steps)
                await unpacked(self._backends.get(began.backend), steps, began, machine)
        if finding.verdict in ("done", "not"):
            outcome = self._outcome(began, machine, look, last, finding)
            if failed is not None and isinstance(outcome, Failed):
                outcome = msgspec.structs.replace(outcome, error=Problem.of(failed))
            if left is not None:
                problem = Problem.of(left)
                outcome = Failed(id=began.id, op=began.op, op_id=began.op_id, state=outcome.state, error=problem)
            ended = await self._end(began, outcome)
            await self._compared(ended, look)
            return ended
        if machine.running is not None:
            await self._observer.abandon(machine)
            machine = self._observer.machine(machine.id)
        return await self._observer.record(machine, look, f"{began.op} was interrupted")

    def _outcome(
        self, began: Began, machine: Machine, look: Look, last: Settled | None, finding: Judgement
    ) -> Succeeded | Failed:
        guest = look.find(self._fleet, began.id, began.mark)
        if finding.verdict == "done":
            # A signal or a snapshot wants no state of its own: it is as it is seen.
            as_seen = began.op not in _RESULT and guest is not None
            return Succeeded(
                id=began.id,
                op=began.op,
                op_id=began.op_id,
                state=observed(guest, machine) if as_seen else _RESULT.get(began.op, began.before),
                node=began.intent.node if isinstance(began.intent, Migrate) else began.node,
                vmid=guest.vmid if guest else machine.vmid,
                backend=began.backend,
                mark=began.mark,
                pid=guest.pid if guest else 0,
                resolved_by=finding.by,
                notes=notes_of(machine, began.op_id),
            )
        return Failed(
            id=began.id,
            op=began.op,
            op_id=began.op_id,
            state=unchanged(began, guest, machine, look),
            pid=guest.pid if guest else 0,
            error=Problem.of(self._why(began, machine, last, finding)),
            resolved_by=finding.by,
        )

    def _why(self, began: Began, machine: Machine, last: Settled | None, finding: Judgement) -> NexcageError:
        result = last.result if last is not None else None
        if result is not None and result.exit:
            tool = machine.last.tool if machine.last is not None else str(began.op)
            said = result.stderr.decode("utf-8", "backslashreplace")
            return CommandFailed(began.node, (tool, str(began.op), began.id), result.exit, said)
        error = NexcageError(f"{began.op} of '{began.id}' did not happen: {finding.why or 'looking shows it'}")
        error.retryable = True
        return error

    async def _end(self, began: Began, event: Ended) -> Event | None:
        """Write the outcome, unless somebody else has."""

        def draft(machines: Mapping[str, Machine]) -> Event:
            now = machines.get(began.id)
            open_ = None if now is None else now.running or now.unresolved
            if open_ is None or open_.op_id != began.op_id or open_.owner != began.owner:
                raise Stale
            return event

        try:
            (written,) = await self._journal.append(draft)
        except Stale:
            return None
        return written

    async def _compared(self, ended: Event | None, look: Look) -> None:
        """Whatever else that look shows: somebody may have moved or changed the container meanwhile."""
        if ended is None or (machine := self._observer.machine(ended.id)).seq != ended.seq:
            return
        try:
            await self._observer.record(machine, look)
        except NexcageError as error:
            _log.debug("'%s' is not compared with %s: %s", ended.id, look.node, error)

    # ---- debris ------------------------------------------------------------------------------------------------------------

    async def _mended(self, began: Began, machine: Machine, node: FleetNode, look: Look, last: Settled) -> Look | None:
        """Take the operation over and remove what it left half done; the look after that. None when somebody else has it now."""
        if not await self._take_over(began):
            return None
        machine = self._observer.machine(began.id)
        assert machine.running is not None
        steps = self.steps(node, machine.running, look, count=machine.steps)
        if await self.mend(steps, machine.running, machine, look, last) is None:
            raise NodeUnreachable(
                node.key, f"whether what {began.op} of '{began.id}' left half done is gone is not known"
            )
        return await node.look((began.op_id,))

    async def _take_over(self, began: Began) -> bool:
        """Go on with it under our name, unless somebody else was faster."""
        epoch = await self._lease.hold()

        def draft(machines: Mapping[str, Machine]) -> Event:
            now = machines.get(began.id)
            open_ = None if now is None else now.running or now.unresolved
            if now is None or open_ is None or open_ != began:
                raise Stale
            return TakenOver(id=began.id, op=began.op, op_id=began.op_id, owner=self._owner, epoch=epoch)

        try:
            await self._journal.append(draft)
        except Stale:
            return False
        return True

    async def _completed(self, began: Began, machine: Machine, node: FleetNode, look: Look) -> NexcageError | None:
        """What was to follow its start; the error when that failed. Raises NodeError to be asked again later."""
        steps = self.steps(node, began, look, count=machine.steps)
        try:
            return await completed(self._backends.get(began.backend), steps, began, machine, look)
        except Lost as answer:
            raise NodeUnreachable(node.key, str(answer)) from None

    async def _put_away(self, began: Began, machine: Machine, node: FleetNode, look: Look) -> NexcageError | None:
        """What it left beside its container; the error when that could not be put away. Raises NodeError to be asked again later."""
        steps = self.steps(node, began, look, count=machine.steps)
        try:
            left = await tidied(self._backends.get(began.backend), steps, began, machine)
        except Lost as answer:
            raise NodeUnreachable(node.key, str(answer)) from None
        if isinstance(left, NodeError) and left.retryable:
            raise left
        return left

    async def mend(self, steps: Steps, began: Began, machine: Machine, look: Look, last: Settled) -> bool | None:
        """Remove what a create or delete that is being driven here left half done; whether that was tried with success, None when the
        answer was lost.
        """
        guest = half(began, machine, look)
        backend = self._backends.get(began.backend)
        do = getattr(backend, _mender(began), None)
        if guest is None or do is None:
            return False
        ref, lock = Ref(began.id, machine.vmid, began.node), LOCKS[began.op]
        turns = self._turns.setdefault(began.node, anyio.Semaphore(self._limits.creates_per_node))
        try:
            async with turns:  # a dead driver may have left many
                if isinstance(began.intent, (Snapshot, DelSnapshot)):
                    await do(steps, ref, began.intent.name, lock=lock, op=began.op_id)
                elif isinstance(began.intent, Create) and began.intent.spec.source is not None:
                    source = look.find(self._fleet, began.intent.spec.source)
                    if source is None or source.mark is None:
                        return False
                    await do(steps, ref, source.mark, proof(machine, last))
                elif began.op is Op.MIGRATE:
                    await do(steps, ref, proof(machine, last))
                else:
                    await do(steps, ref, lock, proof(machine, last))
        except (NexcageError, Lost) as error:
            _log.warning("%s of %s left %s half done on %s: %s", began.op, began.id, machine.vmid, began.node, error)
            return None if isinstance(error, Lost) or (isinstance(error, NodeError) and error.retryable) else False
        return True

    def steps(self, node: FleetNode, began: Began, look: Look, *, count: int = 0, hurry: Hurry | None = None) -> Steps:
        """The way to the node for an operation that this driver has in hand."""
        return Steps(
            node,
            began,
            look,
            self._journal,
            fleet=self._fleet,
            vmids=range(self._config.vmids[0], self._config.vmids[1] + 1),
            hurry=hurry,
            lease=self._lease,
            limits=self._limits,
            random=self._random,
            count=count,
        )

    async def proof(self, node: FleetNode, began: Began, machine: Machine, look: Look) -> Settled | None:
        """What shows that debris of a create or delete that is being driven here is ours; None when nothing does."""
        if half(began, machine, look) is None or not machine.steps:
            return None
        try:
            last, _ = await self._evidence(node, began, machine)
        except NexcageError:
            return None
        return last if judge(began, machine, look, last, self._fleet, kept=KEPT).verdict == "half" else None

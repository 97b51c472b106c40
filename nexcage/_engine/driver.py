"""One intent to its end: ask the table, record, run the commands, look, record.

What is true when we die on any line: before `Began` is durable nothing has been changed; after it the container is in a
transitional state whose owner is gone, and whoever comes next finds out what became of it (`Recovery`). Lost answers are asked for
again (`Steps`); what nobody knows then, cancellation and our own deadline end in `Interrupted` and UNKNOWN until someone has looked.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from nexcage._core.adopting import adoptable
from nexcage._core.command import Command
from nexcage._core.config import Config, Limits
from nexcage._core.copies import in_the_way, templated
from nexcage._core.events import Began, Ended, Failed, Problem, Succeeded
from nexcage._core.intents import Adopt, Create, Delete, Intent, Kill, Start, Stop
from nexcage._core.keeping import Keeping
from nexcage._core.machine import Event, Machine
from nexcage._core.outcome import Done, Outcome
from nexcage._core.seen import Look
from nexcage._core.states import TABLE, Op, Rule, State
from nexcage._engine.adopting import find
from nexcage._engine.attempt import Attempt
from nexcage._engine.creation import Creation, backend_of
from nexcage._engine.gate import Gate
from nexcage._engine.hooks import Around
from nexcage._engine.node import FleetNode
from nexcage._engine.observe import Observer
from nexcage._engine.operation import Operation, repeated
from nexcage._engine.recover import Recovery
from nexcage._engine.rehearsal import Rehearsal
from nexcage._engine.retry import Budget, pause
from nexcage._engine.steps import Raced, Steps
from nexcage._engine.tidying import rehearsed
from nexcage._engine.turns import Turns
from nexcage._engine.verbs import perform, ready
from nexcage._loop import loop_time
from nexcage.abc import Backend, Journal, Lease
from nexcage.errors import (
    Busy,
    CommandFailed,
    JournalError,
    NexcageError,
    NodeTimeout,
    NoQuorum,
    Uncertain,
)

if TYPE_CHECKING:
    from nexcage._engine.bundles import Ready
    from nexcage._engine.sent import Handed

__all__ = ["Driver"]

_log = logging.getLogger("nexcage")
_SUPERSEDED = frozenset({Op.START, Op.PAUSE, Op.RESUME})
_ROUNDS = 16
FRESH = 1.0  # seconds that a look is good enough to decide by


class Driver:
    """Takes intents to their ends. One operation at a time per container; in this process they queue, elsewhere the
    journal decides.
    """

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
        creation: Creation,
        recovery: Recovery,
        lease: Lease,
        alive: Callable[[str], bool],
        random: Random,
        strict_oci: bool,
        hooks: Around | None = None,
    ) -> None:
        self._hooks = hooks
        self._fleet = fleet
        self._owner = owner
        self._journal = journal
        self._nodes = nodes
        self._backends = backends
        self._config = config
        self._limits = limits
        self._observer = observer
        self._creation = creation
        self._recovery = recovery
        self._lease = lease
        recovery.busy = self._holders_has
        self._alive = alive
        self._random = random
        self._strict = strict_oci
        self._gate = Gate(limits, len(nodes))
        self._budget = Budget(limits)
        self._turns = Turns()

    def _holders_has(self, id: str) -> bool:
        holder = self._turns.holder(id)
        # Before it begins, it may be what asks about the one before it, which may have the same key and be of this driver too.
        return holder is not None and (holder.began is not None or holder.beginning)

    # ---- taking turns ------------------------------------------------------------------------------------------------------

    async def do(self, intent: Intent, *, wait: bool = False) -> Done:
        """Drive ``intent`` to its end, or raise. ``wait``: for an operation of another driver too, instead of raising Busy.

        Cancelling records `Interrupted` when it had begun; the container is then UNKNOWN.
        """
        return await self._take(self._operation(intent), wait)

    async def outcome(self, intent: Intent, *, wait: bool = False) -> Outcome:
        """The same, with an error of ours as a value."""
        op = self._operation(intent)
        try:
            return await self._take(op, wait)
        except NexcageError as error:
            return op.failure(self._observer.machine(intent.id), error)

    def _operation(self, intent: Intent) -> Operation:
        return Operation(intent, intent.op_id or f"{self._random.getrandbits(64):016x}")

    async def _take(self, op: Operation, wait: bool) -> Done:
        intent = op.intent
        self._meet(intent)
        await self._turns.take(op)
        try:
            if self._hooks is not None:
                return await self._hooks.around(op, self._observer.machine, partial(self._in_time, op, wait))
            return await self._in_time(op, wait)
        finally:
            self._turns.leave(op)

    def _meet(self, intent: Intent) -> None:
        """What a new intent means for the one that holds the container now."""
        holder = self._turns.holder(intent.id)
        if holder is None:
            return
        if isinstance(intent, Stop) and intent.force:
            for op in (holder, *self._turns.waiting(intent.id)):
                if op.hurry is not None:
                    op.hurry.set()  # also of one that has not begun: its shutdown is skipped then
        if holder.began is None:
            if intent.op in (Op.STOP, Op.DELETE) and holder.intent.op in _SUPERSEDED:
                holder.superseded_by = intent.op
                holder.scope.cancel()
            return
        machine = self._observer.machine(intent.id)
        if (
            TABLE[machine.state, intent.op].kind in ("refuse", "exists")
            and holder.began.via is machine.state is not holder.began.before
        ):
            machine.rule(intent, strict_oci=self._strict)

    def _superseded(self, op: Operation) -> NexcageError:
        machine = self._observer.machine(op.intent.id)
        return machine.illegal(op.intent.op, f"{op.superseded_by} came before it began")

    async def _in_time(self, op: Operation, wait: bool) -> Done:
        timeout = self._limits.op_timeout
        op.scope.deadline = loop_time() + timeout
        with op.scope:
            return await self._drive(op, wait)
        if op.superseded_by is not None:
            raise self._superseded(op)
        machine = self._observer.machine(op.intent.id)
        error = NodeTimeout(
            machine.node or "?",
            f"{op.intent.op} of '{op.intent.id}' took longer than {timeout:g} s (limits.op_timeout)",
        )
        error.uncertain = op.began is not None and not op.untouched
        raise error

    # ---- deciding ----------------------------------------------------------------------------------------------------------

    async def _drive(self, op: Operation, wait: bool) -> Done:
        self._budget.earn()
        for attempt in itertools.count():
            try:
                return await self._decide(op, wait)
            except NexcageError as error:
                own = op.began is not None or error.uncertain or not error.retryable or isinstance(error, Busy)
                if own or not self._may_retry(attempt):
                    raise
                op.retries += 1
            await anyio.sleep(pause(attempt, self._limits, self._random))
        raise AssertionError

    def _may_retry(self, attempt: int) -> bool:
        return attempt < self._limits.retries and self._budget.spend()

    async def _decide(self, op: Operation, wait: bool) -> Done:
        intent = op.intent
        for round_ in range(_ROUNDS):
            machine = self._observer.machine(intent.id)
            if intent.op_id is not None and (ended := machine.outcome(intent.op_id)) is not None:
                return repeated(op, machine, ended)
            if machine.running is not None and not await self._free(machine, intent, wait):
                continue
            try:
                cell = machine.rule(intent, strict_oci=self._strict)
            except NexcageError:
                if round_ == 0:  # before refusing, read what other processes have written
                    await self._journal.refresh()
                    continue
                raise
            done = await self._by(cell, op, machine)
            if done is not None:
                return done
        raise Busy(f"container '{intent.id}'", "it keeps changing while we look")

    async def _by(self, cell: Rule, op: Operation, machine: Machine) -> Done | None:
        """Act on the table's cell; None means: decide again."""
        match cell.kind:
            case "missing":
                return Done(intent=op.intent, op_id=op.op_id, state=State.ABSENT, changed=False)
            case "look":
                await self._recovery.resolve(machine.id)
                if (
                    self._observer.machine(machine.id).state is State.UNKNOWN
                    and await self._observer.observe(machine.id) is None
                    and self._observer.machine(machine.id).state is State.UNKNOWN
                ):
                    raise Uncertain(machine.unresolved.op_id if machine.unresolved else "?", "looking did not tell")
                return None
            case "already":
                if await self._observer.observe(machine.id) is not None:
                    return None
                await self._journal.refresh()  # another process may have outdone the record that was compared
                now = self._observer.machine(machine.id)
                return op.done(now, changed=False) if now.seq == machine.seq else None
            case _:
                try:
                    return await self._perform(op, machine, cell)
                except Raced:
                    return None

    async def _free(self, machine: Machine, intent: Intent, wait: bool) -> bool:
        """Whether nobody drives it now: recover what a dead driver left, wait for a live one or raise Busy."""
        running = machine.running
        assert running is not None
        if running.owner == self._owner or not self._alive(running.owner):
            await self._recovery.resolve(machine.id)
            return False
        if not wait and TABLE[machine.state, intent.op].kind != "queue":
            raise Busy(f"container '{machine.id}'", f"{running.op} by {running.owner}")
        until = loop_time() + self._limits.op_timeout
        nap = 0.02
        while self._observer.machine(machine.id).running == running and self._alive(running.owner):
            if loop_time() > until:
                raise Busy(f"container '{machine.id}'", f"{running.op} by {running.owner}")
            await anyio.sleep(nap * self._random.uniform(0.5, 1.5))
            nap = min(nap * 2, 1.0)
            await self._journal.refresh()
        return False

    # ---- where -------------------------------------------------------------------------------------------------------------

    async def rehearse(self, intent: Intent) -> tuple[str, tuple[Command[Any], ...]]:
        """The node and the commands that would change something there; runs none of them. Raises what refuses the intent."""
        await self._journal.refresh()
        machine = self._observer.machine(intent.id)
        if machine.running is not None:
            raise Busy(f"container '{machine.id}'", f"{machine.running.op} by {machine.running.owner}")
        cell = machine.rule(intent, strict_oci=self._strict)
        if cell.kind in ("already", "missing"):
            return machine.node, ()
        bundle: Ready | Handed | None = None
        if isinstance(intent, Create):
            async with self._creation.ready(intent.op_id or "OPERATION", intent, send=False) as made:
                intent, node, backend, bundle = made
        elif isinstance(intent, Adopt):
            node, backend = await find(intent, self._nodes, self._backends)
        else:
            node, backend = self._observer.node(machine), backend_of(machine, self._backends)
            self._able(intent, machine, backend)
        look = await node.look()
        if isinstance(intent, Keeping):
            ready_ = await ready(intent, machine, self._fleet, look, backend, self._nodes)
            if ready_ is None:
                return node.key, ()
            intent = ready_
        if isinstance(intent, Adopt):
            await self._creation.not_twice(intent.id, node)
            adoptable(intent, node.key, look, self._fleet)
        began = machine.begin(intent, op_id=intent.op_id or "OPERATION", node=node.key, strict_oci=self._strict)
        vmids = range(self._config.vmids[0], self._config.vmids[1] + 1)
        stage = Rehearsal(node, look, self._fleet, began.mark, vmids)
        stage.bundle = bundle
        try:
            await perform(backend, stage, began, msgspec.structs.replace(machine, node=node.key))
        except CommandFailed:
            if not stage.commands:  # else a verb looks for what it changed, and nothing was
                raise
        await rehearsed(backend, stage, began, machine)
        return node.key, tuple(stage.commands)

    async def _perform(self, op: Operation, machine: Machine, cell: Rule) -> Done | None:
        intent = op.intent
        if isinstance(intent, Create):
            async with self._creation.ready(op.op_id, intent) as made:
                op.bundle = made.bundle
                return await self._at(op, made.intent, machine, cell, made.node, made.backend)
        if isinstance(intent, Adopt):
            node, backend = await find(intent, self._nodes, self._backends)
            for other in self._nodes.values():
                await self._creation.not_twice(intent.id, other)
            return await self._at(op, intent, machine, cell, node, backend)
        backend = backend_of(machine, self._backends)
        self._able(intent, machine, backend)
        return await self._at(op, intent, machine, cell, self._observer.node(machine), backend)

    def _able(self, intent: Intent, machine: Machine, backend: Backend) -> None:
        """Refuse what the table allows and the tools of this backend cannot do."""
        held = machine.pid > 0 or getattr(backend, "holds_created", True)
        if isinstance(intent, Kill) and machine.state is State.CREATED and not held:
            raise machine.illegal(Op.KILL, "it is created and has no process yet", strict_oci=self._strict)
        if isinstance(intent, Start) and machine.state is State.STOPPED and not getattr(backend, "restarts", True):
            raise machine.illegal(Op.START, f"{backend.name} starts a container once: delete it and create it again")

    async def _at(
        self, op: Operation, intent: Intent, machine: Machine, cell: Rule, node: FleetNode, backend: Backend
    ) -> Done | None:
        async with self._gate.slot(node.key, create=isinstance(intent, Create), scope=op.scope):
            op.at = loop_time()  # waiting for its turn is not what an operation takes
            # The command itself checks the mark and the outcome is looked at afterwards, so this look need not be
            # the very newest.
            since = self._journal.seq
            shared = isinstance(intent, Delete) and (_is_template(node.seen, machine) or templated(machine))
            look = await node.look(within=0.0 if shared or isinstance(intent, (Keeping, Adopt)) else FRESH)
            if not look.quorate and not isinstance(intent, Kill):
                raise NoQuorum(node.key, "its cluster can be read but not changed until it is quorate again")
            if look.maintenance and isinstance(intent, Create):
                return None  # it was not when this node was chosen
            if isinstance(intent, (Create, Adopt)):
                await self._creation.not_twice(intent.id, node)
                if isinstance(intent, Adopt):
                    adoptable(intent, node.key, look, self._fleet)
            elif await self._observer.differs(machine, look):
                look = await node.look()  # what was seen a moment ago may be older than the record that it differs from
                if await self._observer.record(machine, look) is not None:
                    return None
            if isinstance(intent, Keeping):
                wanted = await ready(intent, machine, self._fleet, look, backend, self._nodes)
                if wanted is None:
                    return op.done(machine, changed=False)
                intent = wanted
            if self._hooks is not None and await self._hooks.before(op, intent, machine):
                return None  # that took its time: decide and look again
            linked = shared or _is_template(look, machine) or (isinstance(intent, Create) and intent.spec.linked)
            if linked and not await self._clear(intent):
                return None
            steps = await self._begin(op, intent, machine, node, backend, look, since=since if linked else None)
            node.at_work += 1
            op.beginning = True
            try:
                return await self._carry_out(op, cell, steps, node, backend)
            finally:
                op.beginning = False
                node.at_work -= 1

    async def _clear(self, intent: Intent) -> bool:
        """Whether nothing is in the way between a template and its linked copies: find out what became of what nobody drives, raise Busy
        of the rest.
        """
        found = in_the_way(intent, self._journal.machines, since=self._journal.seq)
        if found is None:
            return True
        other, busy = found
        if self._recovery.left(other.id) is None:
            raise busy
        await self._recovery.resolve(other.id)
        return False

    async def _begin(
        self,
        op: Operation,
        intent: Intent,
        machine: Machine,
        node: FleetNode,
        backend: Backend,
        look: Look,
        *,
        since: int | None,
    ) -> Steps:
        """Its way to the node. `Began` is written with the first step, or before the verb where that may act otherwise. ``since``: where
        linked copies matter, the last record before ``look``.
        """
        epoch = await self._lease.hold()

        def begin(now: Machine) -> Began:
            return now.begin(
                intent,
                op_id=op.op_id,
                node=node.key,
                backend=backend.name,
                boot_id=look.boot_id,
                owner=self._owner,
                epoch=epoch,
                fenced=node.fencing,
                strict_oci=self._strict,
            )

        def draft(machines: Mapping[str, Machine]) -> Event:
            now = machines.get(intent.id) or Machine(intent.id)
            if now.running is not None or (now.state, now.node, now.mark, now.vmid) != (
                machine.state,
                machine.node,
                machine.mark,
                machine.vmid,
            ):
                raise Raced
            if since is None and isinstance(intent, Delete) and templated(now):
                raise Raced  # the look may be older than that
            if since is not None and in_the_way(intent, machines, since=since) is not None:
                raise Raced
            return begin(now)

        def told(began: Began) -> None:
            op.began = began

        began = begin(machine)
        steps = self._recovery.steps(node, began, look, hurry=op.hurry)
        steps.begin_with(draft, machine.apply(began), told)
        steps.bundle = op.bundle
        return steps

    # ---- doing -------------------------------------------------------------------------------------------------------------

    async def _carry_out(self, op: Operation, cell: Rule, steps: Steps, node: FleetNode, backend: Backend) -> Done:
        attempt = Attempt(
            op,
            cell,
            steps,
            node,
            backend,
            fleet=self._fleet,
            observer=self._observer,
            recovery=self._recovery,
            limits=self._limits,
            random=self._random,
            may_retry=self._may_retry,
        )
        try:
            if not getattr(backend, "only_commands", False):
                await steps.begun()
            ended, error = await attempt.until_known()
        except JournalError as trouble:  # a step could not be written down, so that step did not run; earlier ones did
            trouble.uncertain = steps.count > 1
            raise
        except BaseException as cause:
            if op.began is None and (isinstance(cause, NexcageError) or not isinstance(cause, Exception)):
                raise  # it has not begun
            began = await steps.begun()
            problem = Problem.of(Uncertain(op.op_id, f"{began.op} was cancelled"))
            if isinstance(cause, Exception):  # a defect of a backend or of ours: what it did is not known
                _log.exception("%s of %s broke", began.op, began.id)
                problem = Problem.of(cause)
            end: Ended = op.interrupted(began, problem)
            if not steps.touched and not isinstance(cause, Exception):  # nothing was started, so that much is known
                never = NexcageError(f"{began.op} of '{began.id}' was cancelled before its first step")
                end, _ = op.failed(began, began.before, self._observer.machine(began.id).pid, never, lost=False)
            with anyio.CancelScope(shield=True), anyio.move_on_after(30):
                await self._journal.append(end)
                op.untouched = isinstance(end, Failed)
            if isinstance(cause, Exception):
                raise Uncertain(op.op_id, f"{began.op} broke: {type(cause).__name__}: {cause}") from cause
            raise
        began = steps.began
        with anyio.CancelScope(shield=True):  # it is known now: a cancel must not turn it into UNKNOWN
            try:
                await self._journal.append(ended)
            except JournalError as trouble:
                trouble.uncertain = True
                raise trouble.noted(f"{began.op} of '{began.id}' had run: a look will tell what came of it") from error
        if error is not None:
            raise error
        assert isinstance(ended, Succeeded)
        return op.done(self._observer.machine(began.id), changed=ended.changed, resolved_by=ended.resolved_by)


def _is_template(look: Look | None, machine: Machine) -> bool:
    guest = look.guests.get(machine.vmid) if look is not None else None
    return guest is not None and guest.template

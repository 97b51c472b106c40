"""A node as a backend sees it during one operation: every command that changes something is a journaled step."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import msgspec

from nexcage._core.command import Claim, Command, Result
from nexcage._core.config import Limits
from nexcage._core.events import Attempted, Began
from nexcage._core.evidence import rebooted
from nexcage._core.machine import Event, Machine
from nexcage._core.seen import Look, Mark
from nexcage._core.states import Op
from nexcage._engine.hurry import Hurry
from nexcage._engine.node import FleetNode, answer
from nexcage._engine.retry import pause
from nexcage._loop import loop_time
from nexcage.abc import Draft, Journal, Lease
from nexcage.errors import Fenced, IllegalTransition, NexcageError, NodeError, NodeUnreachable, NotOurs
from nexcage.tools.ha import was_asked

__all__ = ["Raced", "Steps"]

T = TypeVar("T")


class Raced(NexcageError):
    """The journal moved between deciding and beginning; decide again."""


class Steps:
    """Implements `nexcage.abc.Node` for the operation ``began``. ``hurry`` is set when a forced stop wants it to end at once
    (None: nothing will).

    ``count``: steps that were journaled before.
    """

    def __init__(
        self,
        node: FleetNode,
        began: Began,
        seen: Look,
        journal: Journal,
        *,
        fleet: str,
        vmids: range,
        hurry: Hurry | None,
        lease: Lease,
        limits: Limits,
        random: Random,
        count: int = 0,
    ) -> None:
        self.seen: Look = seen
        self.vmids: range = vmids
        self.count: int = count
        self.touched: bool = False
        """Whether a command that changes something may have begun since this was last set to False."""
        self.resolved_by: str = ""
        """``claim`` when an answer was lost and the node had kept it."""
        self.requested: bool = False
        """Whether the tool said that it only asked the HA manager, who comes round when it comes round."""
        self.bundle: object = None
        """What the engine has made ready for a create from a bundle."""
        self.begins: Machine | None = None
        """The machine as the operation will have made it by beginning, as long as that is not written."""
        self._node = node
        self._began = began
        self._journal = journal
        self._fleet = fleet
        self._hurry = hurry
        self._lease = lease
        self._limits = limits
        self._random = random
        self._draft: Draft | None = None  # of its Began, as long as that is not written
        self._told: Callable[[Began], None] = lambda _: None
        self._open: tuple[Claim, ...] = ()  # of commands that may run, or begin later: their answer was lost

    @property
    def name(self) -> str:
        return self._node.key

    @property
    def began(self) -> Began:
        """How the operation began, or will when its first step is written."""
        return self._began

    def begin_with(self, draft: Draft, machine: Machine, told: Callable[[Began], None]) -> None:
        """Write its `Began` together with the first step: one wait for the disk instead of two. ``told`` hears of it once it is durable;
        until then ``machine`` is what it will be.

        A verb that may change things by other means than commands of this node has to find it written: call `begun` before it.
        """
        self._draft, self._told, self.begins = draft, told, machine

    async def begun(self) -> Began:
        """Its `Began`, written now if no step has been. Raises what the draft raises, and JournalError."""
        if self._draft is not None:
            await self._begin(self._draft)
        return self._began

    async def _begin(self, draft: Draft, *first: Attempted) -> None:
        try:
            began, *_ = await self._journal.append(draft, *first)
        except anyio.get_cancelled_exc_class():  # asyncio's Task.cancel comes through also where it is written
            machine = self._journal.machines.get(self._began.id)
            now = None if machine is None else machine.running
            if now is not None and (now.op_id, now.owner) == (self._began.op_id, self._began.owner):
                self._has_begun(now)
            raise
        self._has_begun(began)

    def _has_begun(self, began: Event) -> None:
        assert isinstance(began, Began)
        self._began, self._draft, self.begins = began, None, None
        self._told(began)

    def mark(self, id: str, vmid: int) -> Mark:
        return Mark(self._fleet, id, vmid, self._began.mark)

    @staticmethod
    def claims(fleet: str, began: Began, count: int) -> tuple[Claim, ...]:
        """The claims of the newest steps of an operation: before a forced stop the graceful one may still be at work."""
        steps = range(max(1, count - 2), count + 1)
        return tuple(Claim(fleet=fleet, op=began.op_id, step=step, id=began.id) for step in steps)

    async def run(self, command: Command[T]) -> T:
        if command.safe:
            return await self._node.run(command)
        await self._hold()
        step, command = await self._step(command)
        await self._hold()  # the disk may have taken long, and a driver that slept meanwhile has lost the lease
        before, self.touched = self.touched, True
        result: Result | None = None
        try:
            result = await self._node.call(command)
            self._node.pace += (result.seconds - self._node.pace) / 4
            if result.exit is None:
                result = await self._asked(step, command, result)
        except (NodeError, Fenced):  # it surely did not begin
            # Were its claim removed by somebody, a create would make a second container: it looks before it is tried again.
            self.touched = before or (result is not None and self._began.op is Op.CREATE)
            raise
        try:
            said = answer(command, result, self.name)
            self.requested = self.requested or was_asked(result.stdout)
            return said
        except (NotOurs, IllegalTransition):  # said before the command itself began
            self.touched = before
            raise

    async def _hold(self) -> None:
        """Raises Fenced when another state directory has the lease, or has had it since the operation began."""
        if await self._lease.hold() != self._began.epoch:
            raise Fenced(self._fleet)

    async def _step(self, command: Command[T]) -> tuple[Attempted, Command[T]]:
        """The next step, journaled, and the command with its claim."""
        began, self.count = self._began, self.count + 1
        seen = self._node.seen or self.seen
        step = Attempted(
            id=began.id,
            op=began.op,
            op_id=began.op_id,
            step=self.count,
            tool=_tool(command.argv),
            tries=dict(command.tries),
            boot_id=seen.boot_id,
            uptime=seen.uptime,
        )
        if self._draft is None:
            await self._journal.append(step)
        else:
            await self._begin(self._draft, step)
            began = self._began
            # What was cancelled or overtaken just then has not run anything, and is to say so.
            await anyio.lowlevel.checkpoint_if_cancelled()
        env = {
            **command.env,
            "NEXCAGE_OP_ID": began.op_id,
            "NEXCAGE_STEP": str(self.count),
            "NEXCAGE_EPOCH": str(began.epoch),
        }
        claim = Claim(
            fleet=self._fleet,
            op=began.op_id,
            step=self.count,
            id=began.id,
            boot_id=seen.boot_id,
            epoch=began.epoch,
            seq=began.seq,
        )
        return step, msgspec.structs.replace(command, env=env, claim=claim)

    async def _asked(self, step: Attempted, command: Command[Any], lost: Result) -> Result:
        """The answer that was lost, as the node has kept it; ``lost`` again when it has not. Raises NodeUnreachable when the
        command never began.
        """
        claim = command.claim
        assert claim is not None
        until = loop_time() + self._limits.probe_timeout
        for attempt in itertools.count():
            try:
                (known,) = await self._node.settle(claim)
            except NexcageError as error:
                if not error.retryable or loop_time() > until:
                    self._open += (claim,)
                    return lost
                await anyio.sleep(pause(attempt, self._limits, self._random))
                continue
            if known.kind == "lost" or rebooted(step, known):
                return lost
            if known.kind == "void":
                raise NodeUnreachable(self.name, "the link was lost before the command began")
            if known.result is not None:
                self.resolved_by = "claim"
                return known.result
            if loop_time() > until:
                self._open += (claim,)
                return lost
            await anyio.sleep(min(0.1 * 2.0 ** min(attempt, 6), 2.0) * self._random.uniform(0.5, 1.5))
        raise AssertionError

    async def over(self) -> bool:
        """Whether no command whose answer was lost runs now or can begin any more: only then does a look say how it ended. Raises
        NodeError when the node cannot be asked.
        """
        if self._open:
            known = await self._node.settle(*self._open)
            self._open = tuple(claim for claim, one in zip(self._open, known, strict=True) if one.kind == "running")
        return not self._open

    async def run_unless_hurried(self, command: Command[Any]) -> bool:
        if (hurry := self._hurry) is None:
            await self.run(command)
            return True
        with hurry.scope():
            try:
                await self.run(command)
            except Exception:
                if not hurry.asked:
                    raise
            else:
                return True
        return False


def _tool(argv: tuple[str, ...]) -> str:
    """The program that an operator would name, behind the shell that checks whose the container is."""
    for word in argv:
        if word in _TOOLS:
            return word
    return argv[0]


_TOOLS = frozenset(
    {"mend", "pct", "qm", "zfs", "lxc-freeze", "lxc-unfreeze", "crun", "runc", "kill", "pvesm", "gate", "hook"}
)

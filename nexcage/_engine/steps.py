"""A node as a backend sees it during one operation: every command that changes something is a journaled step."""

from __future__ import annotations

from typing import Any, TypeVar

import anyio

from nexcage._core.command import Command
from nexcage._core.events import Attempted, Began
from nexcage._core.seen import Look, Mark
from nexcage._engine.node import FleetNode, answer
from nexcage.abc import Journal
from nexcage.errors import IllegalTransition, NodeError, NotOurs

__all__ = ["Steps"]

T = TypeVar("T")


class Steps:
    """Implements `nexcage.abc.Node` for the operation ``began``. ``hurry`` is set when a forced stop wants it to end at once."""

    def __init__(
        self,
        node: FleetNode,
        began: Began,
        seen: Look,
        journal: Journal,
        *,
        fleet: str,
        vmids: range,
        hurry: anyio.Event,
    ) -> None:
        self.seen: Look = seen
        self.vmids: range = vmids
        self.count: int = 0
        self.touched: bool = False
        """Whether a command that changes something may have begun since this was last set to False."""
        self._node = node
        self._began = began
        self._journal = journal
        self._fleet = fleet
        self._hurry = hurry

    @property
    def name(self) -> str:
        return self._node.key

    def mark(self, id: str, vmid: int) -> Mark:
        return Mark(self._fleet, id, vmid, self._began.mark)

    async def run(self, command: Command[T]) -> T:
        if command.safe:
            return await self._node.run(command)
        began, self.count = self._began, self.count + 1
        tool = next((word for word in command.argv if word in _TOOLS), command.argv[0])
        await self._journal.append(
            Attempted(
                id=began.id, op=began.op, op_id=began.op_id, step=self.count, tool=tool, tries=dict(command.tries)
            )
        )
        before, self.touched = self.touched, True
        try:
            result = await self._node.call(command, {"NEXCAGE_OP_ID": began.op_id, "NEXCAGE_STEP": str(self.count)})
        except NodeError:  # it surely did not begin
            self.touched = before
            raise
        try:
            return answer(command, result, self.name)
        except (NotOurs, IllegalTransition):  # said before the command itself began
            self.touched = before
            raise

    async def run_unless_hurried(self, command: Command[Any]) -> bool:
        failure: list[Exception] = []
        ended = False

        async def work() -> None:
            nonlocal ended
            try:
                await self.run(command)
                ended = True
            except Exception as error:  # noqa: BLE001 (carried out of the task group bare)
                failure.append(error)
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await self._hurry.wait()
            tasks.cancel_scope.cancel()
        if failure and not self._hurry.is_set():
            raise failure[0]
        return ended


_TOOLS = frozenset({"pct", "qm", "zfs", "lxc-freeze", "lxc-unfreeze", "crun", "runc", "kill"})

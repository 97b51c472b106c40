"""A node on which nothing is changed: it shows what an operation would do."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from nexcage._core.command import Command, Result
from nexcage._core.seen import Look, Mark
from nexcage._engine.node import FleetNode, Lost
from nexcage.errors import NodeUnreachable

__all__ = ["Rehearsal"]

T = TypeVar("T")


class Rehearsal:
    """Implements `nexcage.abc.Node`: what only reads is run, of the rest ``commands`` keeps what it would be."""

    rehearsed: bool = True

    def __init__(self, node: FleetNode, seen: Look, fleet: str, mark: str, vmids: range) -> None:
        self.seen: Look = seen
        self.vmids: range = vmids
        self.commands: list[Command[Any]] = []  # Any: of whatever answer
        self.bundle: object = None
        self._node = node
        self._fleet = fleet
        self._mark = mark

    @property
    def name(self) -> str:
        return self._node.key

    def mark(self, id: str, vmid: int) -> Mark:
        return Mark(self._fleet, id, vmid, self._mark)

    async def run(self, command: Command[T]) -> T:
        if command.safe:
            try:
                return await self._node.run(command)
            except Lost as lost:
                raise NodeUnreachable(self.name, str(lost)) from None
        self.commands.append(command)
        try:
            return command.parse(Result(0))
        except ValueError:  # it would have said something, a pid perhaps
            return cast("T", 0)

    async def run_unless_hurried(self, command: Command[Any]) -> bool:
        await self.run(command)
        return True

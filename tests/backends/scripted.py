"""A node that keeps what a backend runs on it and answers what a test says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from nexcage import Guest, Look, Mark
from nexcage._core.command import Command, Result
from nexcage.tools import lxc

__all__ = ["GUARD", "ScriptedNode"]

T = TypeVar("T")
GUARD = ("sh", "-c", lxc.GUARD, "nexcage")


class ScriptedNode:
    """Keeps what is run on it; ``answer`` makes the result, exit 0 without words if it is not given."""

    name: str = "pve-01"
    guarded: tuple[str, ...] = GUARD
    """How a command begins that `typed` shows without its guard (its mark and its VMID are two words more)."""

    def __init__(self, *guests: Guest, vmids: range = range(100, 1000), hurried: bool = False) -> None:
        by_vmid = {guest.vmid: guest for guest in guests}
        self.seen: Look = Look("pve-01", "pve1", "boot", by_vmid, dict.fromkeys(by_vmid, "pve1"))
        self.vmids: range = vmids
        self.hurried: bool = hurried
        self.commands: list[Command[Any]] = []
        self.answer: Callable[[Command[Any]], Result] = lambda _: Result(0)

    def mark(self, id: str, vmid: int) -> Mark:
        return Mark("f1", id, vmid, "op-1")

    async def run(self, command: Command[T]) -> T:
        self.commands.append(command)
        result = self.answer(command)
        refused = command.check(command, result, self.name) if command.check is not None else None
        if refused is not None:
            raise refused
        if result.exit != 0:
            raise command.classify(command, result, self.name)
        return command.parse(result)

    async def run_unless_hurried(self, command: Command[Any]) -> bool:
        await self.run(command)
        return not self.hurried

    @property
    def typed(self) -> list[tuple[str, ...]]:
        """What an operator would have typed: without the guard around it."""
        guard = self.guarded
        return [
            argv[len(GUARD) + 2 :] if argv[: len(guard)] == guard else argv for argv in (c.argv for c in self.commands)
        ]

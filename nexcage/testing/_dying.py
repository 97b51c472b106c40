"""The links of a program that can die: a command may be the last thing that it did, or its answer the last thing that it got."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from random import Random
from typing import TYPE_CHECKING, Any

import anyio

from nexcage._core.command import Command, Result
from nexcage.testing._around import Around
from nexcage.testing.disk import Crash, Fate

if TYPE_CHECKING:
    from nexcage.abc import Stream, Transport

__all__ = ["DyingTransport"]

_LATER = 4.0
"""Most of a pretend tool's work is done within so many seconds."""


class DyingTransport(Around):
    """A link of a program with that `Fate`. Three points per command that changes something: before it is sent; while it runs, at a
    moment of its own; after its answer has come. One for what only reads.

    ``began``: whether a command has begun there by now. The dead program's links must be cut by whoever made them
    (`Fate.at_death`): what it does while it unwinds must not reach the node.
    """

    def __init__(self, inner: Transport, node: str, fate: Fate, began: Callable[[], bool], random: Random) -> None:
        super().__init__(inner)
        self._node = node
        self._fate = fate
        self._began = began
        self._random = random

    async def run(self, command: Command[Any]) -> Result:  # Any: of whatever type its answer is
        word = f"{' '.join(command.argv[:2])} on {self._node}"
        if command.safe:
            self._fate.point(f"ask: {word}")
            return await self._inner.run(command)
        self._fate.point(f"before: {word}")
        if self._fate.doomed(f"sent: {word}"):
            await self._last(command)
        self._fate.point(f"sent: {word}")
        result = await self._inner.run(command)
        self._fate.point(f"answered: {word}")
        return result

    async def _last(self, command: Command[Any]) -> None:  # Any: as above
        """The program dies while this runs."""
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                await self._inner.run(command)
                self._fate.die()
                raise Crash

            async def die() -> None:
                with anyio.move_on_after(_LATER):
                    while not self._began():  # noqa: ASYNC110 (virtual time, and nobody there to tell)
                        await anyio.sleep(0.0005)
                await anyio.sleep(self._random.choice((0.0, self._random.uniform(0.0, _LATER))))
                self._fate.die()
                raise Crash

            tasks.start_soon(run)
            tasks.start_soon(die)

    def stream(self, command: Command[Any]) -> AbstractAsyncContextManager[Stream]:  # Any: as above
        self._fate.point(f"stream: {command.argv[0]} on {self._node}")
        return self._inner.stream(command)

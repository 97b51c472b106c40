"""Whose turn it is with a container: in this process its operations go one after the other, in the order in which they came."""

from __future__ import annotations

from collections import deque

from nexcage._engine.operation import Operation
from nexcage._loop import Once

__all__ = ["Turns"]


class Turns:
    """Who holds which container, and who waits for it."""

    def __init__(self) -> None:
        self._holders: dict[str, Operation] = {}
        self._waiting: dict[str, deque[tuple[Operation, Once]]] = {}

    def holder(self, id: str) -> Operation | None:
        """The operation whose turn it is."""
        return self._holders.get(id)

    def waiting(self, id: str) -> tuple[Operation, ...]:
        """The operations that wait for their turn, in the order in which they came."""
        return tuple(op for op, _ in self._waiting.get(id, ()))

    async def take(self, op: Operation) -> None:
        """Wait for the turn of ``op``; whoever has it must give it back with `leave`."""
        id = op.intent.id
        if id not in self._holders:
            self._holders[id] = op
            return
        place = (op, Once())
        self._waiting.setdefault(id, deque()).append(place)
        try:
            await place[1].wait()
        except BaseException:
            if self._holders.get(id) is op:
                self.leave(op)
            else:
                self._waiting[id].remove(place)
                if not self._waiting[id]:
                    del self._waiting[id]
            raise

    def leave(self, op: Operation) -> None:
        """The next one's turn."""
        id = op.intent.id
        queue = self._waiting.get(id)
        if queue is None:
            del self._holders[id]
            return
        self._holders[id], woken = queue.popleft()
        if not queue:
            del self._waiting[id]
        woken.set()

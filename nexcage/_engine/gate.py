"""How many operations at once: per fleet, per node, and creates per node. Fair between nodes."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio

from nexcage._core.config import Limits

__all__ = ["Gate"]


class _Lane:
    __slots__ = ("creates", "running", "waiting")

    def __init__(self) -> None:
        self.running = 0
        self.creates = 0
        self.waiting: deque[tuple[anyio.Event, bool]] = deque()


class Gate:
    """Admits operations. Where all nodes together could take more than the total, each node is held to its share of it, so that
    slow nodes never hold the slots of the others; waiting nodes are served in turn.
    """

    def __init__(self, limits: Limits, nodes: int) -> None:
        self._limits = limits
        crowded = nodes * limits.per_node > limits.total
        self._share = max(1, min(limits.per_node, limits.total // max(1, nodes))) if crowded else limits.per_node
        self._lanes: dict[str, _Lane] = {}
        self._turns: deque[str] = deque()
        self._running = 0

    @asynccontextmanager
    async def slot(self, node: str, *, create: bool) -> AsyncGenerator[None]:
        """Wait for a place on ``node`` and hold it."""
        lane = self._lanes.get(node)
        if lane is None:
            lane = self._lanes[node] = _Lane()
            self._turns.append(node)
        entry = (anyio.Event(), create)
        lane.waiting.append(entry)
        self._admit()
        try:
            await entry[0].wait()
        except BaseException:
            if entry[0].is_set():
                self._leave(lane, create)
            else:
                lane.waiting.remove(entry)
                self._admit()
            raise
        try:
            yield
        finally:
            self._leave(lane, create)

    def _leave(self, lane: _Lane, create: bool) -> None:
        self._running -= 1
        lane.running -= 1
        lane.creates -= create
        self._admit()

    def _admit(self) -> None:
        idle = 0
        while self._running < self._limits.total and idle < len(self._turns):
            lane = self._lanes[self._turns[0]]
            self._turns.rotate(-1)
            entry = self._next(lane)
            if entry is None:
                idle += 1
                continue
            idle = 0
            lane.waiting.remove(entry)
            self._running += 1
            lane.running += 1
            lane.creates += entry[1]
            entry[0].set()

    def _next(self, lane: _Lane) -> tuple[anyio.Event, bool] | None:
        if not lane.waiting or lane.running >= self._share:
            return None
        if lane.creates < self._limits.creates_per_node:
            return lane.waiting[0]
        # Creates are at their bound: what is lighter may pass them.
        return next((entry for entry in lane.waiting if not entry[1]), None)

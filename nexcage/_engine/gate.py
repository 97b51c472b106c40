"""How many operations at once: per fleet, per node, and creates per node. Fair between nodes."""

from __future__ import annotations

import math
from collections import OrderedDict, deque

import anyio

from nexcage._core.config import Limits
from nexcage._loop import Once, loop_time

__all__ = ["Gate"]


class _Entry:
    """Someone who wants a place. ``ticket`` keeps the order between the two queues of a lane; ``woken`` is there while it waits."""

    __slots__ = ("admitted", "create", "ticket", "woken")

    def __init__(self, ticket: int, create: bool) -> None:
        self.admitted = False
        self.create = create
        self.ticket = ticket
        self.woken: Once | None = None

    def admit(self) -> None:
        self.admitted = True
        if self.woken is not None:
            self.woken.set()


class _Lane:
    __slots__ = ("creates", "heavy", "light", "running")

    def __init__(self) -> None:
        self.running = 0
        self.creates = 0
        self.heavy: deque[_Entry] = deque()
        self.light: deque[_Entry] = deque()

    def queue(self, create: bool) -> deque[_Entry]:
        return self.heavy if create else self.light


class Gate:
    """Admits operations. Where all nodes together could take more than the total, each node is held to its share of it, so that
    slow nodes never hold the slots of the others; waiting nodes are served in turn.
    """

    def __init__(self, limits: Limits, nodes: int) -> None:
        self._limits = limits
        crowded = nodes * limits.per_node > limits.total
        self._share = max(1, min(limits.per_node, limits.total // max(1, nodes))) if crowded else limits.per_node
        self._lanes: dict[str, _Lane] = {}
        self._turns: OrderedDict[_Lane, None] = OrderedDict()
        self._tickets = 0
        self._running = 0

    def slot(self, node: str, *, create: bool, scope: anyio.CancelScope | None = None) -> _Slot:
        """Wait for a place on ``node`` and hold it: an async context. The deadline of ``scope`` stands still while it waits."""
        lane = self._lanes.get(node)
        if lane is None:
            lane = self._lanes[node] = _Lane()
            self._turns[lane] = None
        return _Slot(self, lane, create, scope)

    async def enter(self, lane: _Lane, create: bool, scope: anyio.CancelScope | None) -> None:
        self._tickets += 1
        entry = _Entry(self._tickets, create)
        lane.queue(create).append(entry)
        self._admit(lane)
        if entry.admitted:
            return
        entry.woken = Once()
        left = math.inf
        if scope is not None:
            left, scope.deadline = scope.deadline - loop_time(), math.inf
        try:
            await entry.woken.wait()
        except BaseException:
            if entry.admitted:
                self.leave(lane, create)
            else:
                lane.queue(create).remove(entry)
            raise
        if scope is not None:
            scope.deadline = loop_time() + left

    def leave(self, lane: _Lane, create: bool) -> None:
        full = self._running >= self._limits.total
        self._running -= 1
        lane.running -= 1
        lane.creates -= create
        if not full:  # nobody else was waiting for the place that is free now
            self._admit(lane)
            return
        for waiting in list(self._turns):
            if self._admit(waiting):
                return

    def _admit(self, lane: _Lane) -> bool:
        """Let those in who may, one after the other; whether the fleet is full then."""
        while self._running < self._limits.total:
            queue = self._next(lane)
            if queue is None:
                return False
            entry = queue.popleft()
            self._running += 1
            lane.running += 1
            lane.creates += entry.create
            self._turns.move_to_end(lane)
            entry.admit()
        return True

    def _next(self, lane: _Lane) -> deque[_Entry] | None:
        """The queue of a lane whose first may enter; None when nobody may."""
        if lane.running >= self._share:
            return None
        heavy = lane.heavy if lane.creates < self._limits.creates_per_node else None
        if heavy and lane.light:
            return heavy if heavy[0].ticket < lane.light[0].ticket else lane.light
        return heavy or lane.light or None  # creates at their bound: what is lighter passes them


class _Slot:
    """A place as an async context; usable once."""

    __slots__ = ("_create", "_gate", "_lane", "_scope")

    def __init__(self, gate: Gate, lane: _Lane, create: bool, scope: anyio.CancelScope | None) -> None:
        self._gate = gate
        self._lane = lane
        self._create = create
        self._scope = scope

    async def __aenter__(self) -> None:
        await self._gate.enter(self._lane, self._create, self._scope)

    async def __aexit__(self, *_: object) -> None:
        self._gate.leave(self._lane, self._create)

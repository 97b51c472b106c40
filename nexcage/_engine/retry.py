"""When to try again: full jitter, a budget for the whole fleet, and a circuit breaker per node."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from nexcage._core.config import Limits
from nexcage.errors import AuthRejected, HostKeyRejected, NexcageError, NodeError, NodeNotUsable, NodeUnreachable

__all__ = ["Breaker", "Budget", "pause"]


def pause(attempt: int, limits: Limits, random: Random) -> float:
    """Seconds before try number ``attempt`` + 1: anything up to base·2^attempt, so that many callers spread out."""
    return random.uniform(0, min(limits.retry_most, limits.retry_base * 2.0 ** min(attempt, 16)))


class Budget:
    """Retries may add at most a share of the operations as load: a fleet in trouble is not hammered."""

    def __init__(self, limits: Limits) -> None:
        self._share = limits.retry_share
        self._left = 10.0

    def earn(self) -> None:
        """An operation began."""
        self._left = min(self._left + self._share, 1000.0)

    def spend(self) -> bool:
        """Whether one more retry is affordable; takes it if so."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Breaker:
    """Leaves a node alone after failures in a row, then lets one try pass. A rejected login or host key is final
    until `reset`.
    """

    def __init__(self, node: str, limits: Limits, now: Callable[[], float], random: Random) -> None:
        self._node = node
        self._limits = limits
        self._now = now
        self._random = random
        self._failures = 0
        self._until = 0.0
        self._last: NexcageError | None = None

    @property
    def open(self) -> bool:
        """Whether the node is given up for now."""
        return self._final or self._failures >= self._limits.breaker_failures

    @property
    def last(self) -> NexcageError | None:
        """Why it failed last."""
        return self._last

    @property
    def _final(self) -> bool:
        return isinstance(self._last, (AuthRejected, HostKeyRejected))

    def admit(self) -> None:
        """Raise instead of trying, while the circuit is open; after its time let this one try pass."""
        if self._final and self._last is not None:
            raise again(self._last)
        if self._failures < self._limits.breaker_failures:
            return
        left = self._until - self._now()
        if left > 0:
            why = self._last.reason if isinstance(self._last, NodeError) else str(self._last)
            raise NodeUnreachable(
                self._node, f"left alone for {left:.1f} s more after {self._failures} failures, the last: {why}"
            )
        self._until = self._now() + self._limits.breaker_seconds  # others wait for this try's answer

    def failed(self, error: NexcageError) -> bool:
        """Count a failure of the node itself; True when this opened the circuit."""
        if isinstance(error, NodeNotUsable):
            return False
        before = self.open
        self._failures += 1
        self._last = error
        self._until = self._now() + self._limits.breaker_seconds * self._random.uniform(0.8, 1.2)
        return self.open and not before

    def answered(self) -> bool:
        """The node answered; True when this closed the circuit."""
        before = self.open
        self._failures, self._last = 0, None
        return before

    reset = answered


def again(error: NexcageError) -> NexcageError:
    """A fresh copy, for raising one error in several tasks without their tracebacks piling up on it."""
    import copy

    return copy.copy(error).with_traceback(None)

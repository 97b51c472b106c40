"""Events for subscribers in this process. They never push back on the work: one that falls behind gets Lagged."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager

import anyio

from nexcage._core.machine import Checkpointed, Event
from nexcage.errors import Lagged

__all__ = ["Events", "Subscription"]


class Subscription:
    """An async iterator of events in the order of their numbers. One task may iterate at a time."""

    def __init__(self, since: int, ids: frozenset[str] | None, most: int) -> None:
        self._queue: deque[Event] = deque()
        self._ids = ids
        self._most = most
        self.past: Iterator[Event] = iter(())
        self._news = anyio.Event()
        self._missed = 0
        self._closed = False
        self.seq: int = since
        """The number of the last event handed out; ``subscribe(since=...)`` resumes from it."""

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        for event in self.past:
            if event.seq > self.seq and self._wanted(event):
                self.seq = event.seq
                return event
        while not self._queue:
            if self._missed:
                raise Lagged(self.seq, self._missed)
            if self._closed:
                raise StopAsyncIteration
            await self._news.wait()
        event = self._queue.popleft()
        self.seq = event.seq
        return event

    def _wanted(self, event: Event) -> bool:
        return not isinstance(event, Checkpointed) and (self._ids is None or event.id in self._ids)

    def put(self, event: Event) -> None:
        """Queue an event, or count it as missed; never waits."""
        if event.seq <= self.seq or not self._wanted(event):
            return
        if self._missed or len(self._queue) >= self._most:
            self._missed += 1
        else:
            self._queue.append(event)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    def close(self) -> None:
        """No more events come."""
        self._closed = True
        self._wake()


class Events:
    """The stream of a fleet: `subscribe`. Published once durable, in the order of their numbers."""

    def __init__(self, past: Callable[[int], Iterable[Event]], seq: Callable[[], int], most: int) -> None:
        self._past = past
        self._seq = seq
        self._most = most
        self._subscribers: list[Subscription] = []
        self._closed = False

    @asynccontextmanager
    async def subscribe(
        self, since: int | None = None, ids: Iterable[str] | None = None
    ) -> AsyncGenerator[Subscription]:
        """Events from number ``since`` + 1 on (from now on without it), of these containers (all without ``ids``).

        Iterating raises Lagged after the events that were kept when the subscriber fell behind; nothing is lost when it then
        subscribes again with the number that Lagged carries. The stream ends when the fleet is closed.
        """
        now = self._seq()
        subscription = Subscription(
            now if since is None else since, None if ids is None else frozenset(ids), self._most
        )
        self._subscribers.append(subscription)
        if self._closed:
            subscription.close()
        if since is not None and since < now:
            # Live events queue up meanwhile; what the journal and the queue both have is dropped by number.
            subscription.past = (event for event in self._past(since) if event.seq <= now)
        try:
            yield subscription
        finally:
            self._subscribers.remove(subscription)

    def publish(self, events: Iterable[Event]) -> None:
        """Hand durable events to every subscriber; never waits."""
        for event in events:
            for subscription in self._subscribers:
                subscription.put(event)

    def close(self) -> None:
        """End every subscription, and those that come later once they have told the past."""
        self._closed = True
        for subscription in self._subscribers:
            subscription.close()

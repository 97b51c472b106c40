"""What the nodes have of images, as it was seen: one command answers everybody who asks at the same time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import anyio

from nexcage._core.command import Command
from nexcage._core.images import Image, Shelf
from nexcage._engine.node import FleetNode, Lost
from nexcage._engine.retry import again
from nexcage.errors import NexcageError, NodeError, NodeTimeout, NodeUnreachable
from nexcage.tools.shelf import shelf

__all__ = ["Flights", "Shelves", "carried"]

T = TypeVar("T")

TRUSTED = 60.0
"""Seconds that an image which was seen is taken to be there still."""
FRESH = 1.0
"""Seconds that a look is good enough to say what is not there."""


class Shelves:
    """Looks at images, by node and storage (empty: all of them)."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], tuple[float, Shelf]] = {}
        self._there: dict[tuple[str, str], dict[str, Image]] = {}
        self._flights = Flights()

    def known(self, node: str, storage: str, volume: str) -> Image | None:
        """An image that was seen there not long ago."""
        at, _ = self._seen.get((node, storage), (-1e9, None))
        return self._there[node, storage].get(volume) if anyio.current_time() - at <= TRUSTED else None

    def shared(self, node: str, storage: str) -> bool:
        """Whether the storage is one that several nodes have in common, as far as was seen."""
        held = self._seen.get((node, storage)) or self._seen.get((node, ""))
        store = held[1].stores.get(storage) if held else None
        return store is not None and store.shared

    def forget(self, node: str, storage: str) -> None:
        """Something was changed there."""
        for key in ((node, storage), (node, "")):
            self._seen.pop(key, None)

    async def look(self, node: FleetNode, storage: str = "") -> Shelf:
        """The images of a node, at most `FRESH` seconds old. Raises the errors of the node."""
        at, seen = self._seen.get((node.key, storage), (-1e9, None))
        if seen is not None and anyio.current_time() - at <= FRESH:
            return seen

        async def look() -> Shelf:
            began = anyio.current_time()
            found = await carried(node, shelf(node.key, storage))
            self._seen[node.key, storage] = (began, found)
            self._there[node.key, storage] = {image.volume: image for image in found.images}
            return found

        return await self._flights.join((node.key, storage), look)

    async def has_file(self, node: FleetNode, path: str) -> bool | None:
        """Whether a file is there; None where nobody can tell."""
        found = await self._flights.join((node.key, "", path), lambda: carried(node, shelf(node.key, "none", (path,))))
        return found.files.get(path) if found.stores else None


class _Flight:
    """Work that several wait for; without ``over`` and without an error, whoever did it was cancelled."""

    def __init__(self) -> None:
        self.done: anyio.Event = anyio.Event()
        self.over: bool = False
        self.value: Any = None  # Any: of the work that was begun under this key
        self.error: NexcageError | None = None


class Flights:
    """Things that are done once for everybody who wants them at the same time."""

    def __init__(self) -> None:
        self._under_way: dict[tuple[str, ...], _Flight] = {}

    async def join(self, key: tuple[str, ...], work: Callable[[], Awaitable[T]]) -> T:
        """Do ``work``, or wait for whoever does it now and share how it ends. When that one is cancelled, another one does it."""
        while (flight := self._under_way.get(key)) is not None:
            await flight.done.wait()
            if flight.error is not None:
                raise again(flight.error)
            if flight.over:
                return cast("T", flight.value)
        flight = self._under_way[key] = _Flight()
        try:
            flight.value = value = await work()
            flight.over = True
        except NexcageError as error:
            flight.error = error
            raise
        finally:
            del self._under_way[key]
            flight.done.set()
        return value


async def carried(node: FleetNode, command: Command[T]) -> T:
    """Run it; a lost answer is an error of the node, uncertain when the command changes something."""
    try:
        return await node.run(command)
    except Lost as lost:
        what = " ".join(command.argv[:2]) if command.argv[0] != "sh" else "a look at its images"
        error: NodeError = NodeUnreachable(node.key, f"the link was lost during {what}")
        if lost.result.lost == "deadline":
            error = NodeTimeout(node.key, f"{what} took too long")
        error.uncertain = not command.safe
        raise error from None

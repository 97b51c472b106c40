"""What a driver does when it dies, as scenarios of `every_crash`: the life of one container. Each may be begun again by the next driver."""

from __future__ import annotations

import contextlib

from nexcage import AlreadyExists, DelSnapshot, Fleet, NotFound, Snapshot, Spec

__all__ = ["Life"]


class Life:
    """The container ``id``, made from ``spec``."""

    def __init__(self, id: str, spec: Spec) -> None:
        self._id = id
        self._spec = spec

    async def create(self, fleet: Fleet) -> None:
        with contextlib.suppress(AlreadyExists):
            await fleet[self._id].create(self._spec)

    async def start(self, fleet: Fleet) -> None:
        await fleet[self._id].start()

    async def stop(self, fleet: Fleet) -> None:
        await fleet[self._id].stop()

    async def pause(self, fleet: Fleet) -> None:
        await fleet[self._id].pause()

    async def resume(self, fleet: Fleet) -> None:
        await fleet[self._id].resume()

    async def delete(self, fleet: Fleet) -> None:
        await fleet[self._id].delete(force=True)

    async def running(self, fleet: Fleet) -> None:
        await self.create(fleet)
        await self.start(fleet)

    async def stopped(self, fleet: Fleet) -> None:
        await self.running(fleet)
        await self.stop(fleet)

    async def paused(self, fleet: Fleet) -> None:
        await self.running(fleet)
        await self.pause(fleet)

    async def snapshot(self, fleet: Fleet) -> None:
        with contextlib.suppress(AlreadyExists):
            await fleet.do(Snapshot(self._id, "before"))

    async def delsnapshot(self, fleet: Fleet) -> None:
        with contextlib.suppress(NotFound):
            await fleet.do(DelSnapshot(self._id, "before"))

    async def kept(self, fleet: Fleet) -> None:
        await self.running(fleet)
        await self.snapshot(fleet)

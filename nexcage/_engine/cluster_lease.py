"""The lease of a fleet whose drivers are on several hosts, kept by the cluster itself (`nexcage.tools.lease`)."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import anyio

from nexcage._core.command import Command
from nexcage._engine.node import Lost
from nexcage.errors import Busy, Fenced, JournalError, NexcageError, NodeError, NodeUnreachable, NoQuorum
from nexcage.tools import lease as words

__all__ = ["ClusterLease", "Keeper", "StateDirectory"]

T = TypeVar("T")
_LOG = logging.getLogger("nexcage")
_PATIENCE = 60.0
_LEAVING = 5.0


class StateDirectory(Protocol):
    """This driver's state directory as the lease's holder; what gives a bool is tried again while it is False."""

    @property
    def id(self) -> str: ...
    def join(self) -> bool: ...
    def highest(self) -> int: ...
    def keep(self, epoch: int) -> None: ...
    def take_turn(self) -> bool: ...
    def end_turn(self) -> None: ...
    def last(self) -> bool: ...
    def leave(self) -> None: ...


class Keeper(Protocol):
    """A node that can be asked."""

    @property
    def key(self) -> str: ...
    async def run(self, command: Command[T]) -> T: ...


class ClusterLease:
    """`nexcage.abc.Lease` in ``/etc/pve`` of the cluster that ``nodes`` belong to; the first that answers is asked from then on."""

    def __init__(
        self, nodes: Sequence[Keeper], holder: StateDirectory, fleet: str, *, ttl: float, clock: Callable[[], float]
    ) -> None:
        self.fleet: str = fleet
        self.holder: StateDirectory = holder
        self._nodes: list[Keeper] = list(nodes)
        self._ttl, self._clock = ttl, clock
        self._epoch = 0
        self._asked = False
        self._renewed = (0.0, -1e9)  # on the wall clock, and on the loop's, which does not jump
        self._one = anyio.Lock()

    def __repr__(self) -> str:
        return f"<ClusterLease of {self.fleet}: {f'epoch {self._epoch}' if self._epoch else 'not held'}>"

    async def hold(self) -> int:
        """The epoch; takes the lease when it is free or expired. No command within a third of the ttl.

        Raises Busy while another state directory holds it, Fenced once after it was lost, NoQuorum, and NodeError when no node can
        be asked. Cancelled, it may have been taken or renewed.
        """
        if not self._fresh():
            async with self._one:
                if not self._fresh():
                    await self._ask()
        return self._epoch

    async def aclose(self) -> None:
        """The last process of a state directory that ends gives the lease back; an unreachable node only lets it expire."""
        self._epoch = 0
        try:
            if self._asked and self.holder.last():
                with anyio.CancelScope(shield=True), anyio.move_on_after(_LEAVING):
                    await self._nodes[0].run(words.release(self.fleet, self.holder.id))
        except (NexcageError, Lost, OSError) as error:
            _LOG.warning("the lease of fleet %s is left to expire: %s", self.fleet, error)
        finally:
            self.holder.leave()

    def _fresh(self) -> bool:
        wall, steady = self._clock() - self._renewed[0], anyio.current_time() - self._renewed[1]
        return self._epoch > 0 and 0 <= wall < self._ttl / 3 and steady < self._ttl / 3

    async def _ask(self) -> None:
        try:
            await self._patiently(self.holder.join)
            await self._patiently(self.holder.take_turn)
            try:
                await self._renew()
            finally:
                self.holder.end_turn()
        except OSError as error:
            raise JournalError(
                f"the lease of fleet {self.fleet} cannot be kept, so nothing new is begun: {error}"
            ) from None

    async def _patiently(self, attempt: Callable[[], bool]) -> None:
        deadline = anyio.current_time() + _PATIENCE
        while not attempt():  # tiny and synchronous by decision: one small file of our own
            if anyio.current_time() > deadline:
                raise Busy(
                    f"fleet {self.fleet}",
                    "another process of its state directory asks for the lease and does not go on",
                )
            await anyio.sleep(0.05)

    async def _renew(self) -> None:
        began = (self._clock(), anyio.current_time())
        highest = self.holder.highest()
        standing = await self._answered(
            words.hold(self.fleet, self.holder.id, os.uname().nodename, highest=highest, now=self._clock())
        )
        had, self._epoch = self._epoch, 0
        if standing.mine:
            self.holder.keep(standing.epoch)
        if had and (not standing.mine or standing.epoch != had):
            raise Fenced(self.fleet, standing.epoch)
        if not standing.mine:
            raise Busy(
                f"fleet {self.fleet}",
                f"its lease is held by {standing.holder} on {standing.host} until that has not renewed it for 120 seconds",
            ).noted("one state directory drives a fleet at a time: wait until that one's drivers have ended, or use it")
        self._epoch = standing.epoch
        self._renewed = began if standing.renewed else (0.0, -1e9)  # else it is asked again at once

    async def _answered(self, command: Command[words.Standing]) -> words.Standing:
        """The answer of the first node that has one. That node goes first next time: only it can renew what it has made."""
        last: NexcageError = NodeUnreachable("(none)", "the fleet has no node to ask for its lease")
        for node in list(self._nodes):
            try:
                self._asked = True
                standing = await node.run(command)
            except Lost:
                last = NodeUnreachable(node.key, "the link was lost while asking for the fleet's lease")
            except NoQuorum:
                raise
            except NodeError as error:
                last = error
            else:
                self._nodes.remove(node)
                self._nodes.insert(0, node)
                return standing
        raise last

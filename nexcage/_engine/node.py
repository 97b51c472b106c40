"""A node of the fleet: its link, its circuit breaker, and looks that many callers share."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import msgspec
from anyio.abc import TaskGroup

from nexcage._core.command import Claim, Command, Result, shown
from nexcage._core.config import Limits
from nexcage._core.hosts import Host
from nexcage._core.seen import Look, Settled
from nexcage._engine.retry import Breaker, again
from nexcage.abc import Stream, Transport
from nexcage.errors import CommandFailed, NexcageError, NodeError, NodeNotUsable, NodeTimeout, NodeUnreachable, brief
from nexcage.tools import claims

__all__ = ["Asked", "FleetNode", "Lost", "answer"]

T = TypeVar("T")
_log = logging.getLogger("nexcage.command")


TOGETHER = 64  # operations that one command asks for
SWEEPING = 1800.0  # seconds between sweeps of old claims
PERIOD = 0.02  # seconds between looks at one node: those who ask meanwhile share the next
GATHERED = 0.01  # seconds at least that a look waits for the other operations at work on the node to ask for it too
AT_MOST = 0.1  # and at most: as long as half of the last one took, for on a busy node looks cost more than waiting


class Lost(Exception):
    """A command may have begun and its answer is gone; never leaves the engine."""

    def __init__(self, node: str, command: Command[Any], result: Result) -> None:
        super().__init__(f"the answer of {' '.join(command.argv[:2])} on {node} was lost ({result.lost or 'link'})")
        self.node: str = node
        self.result: Result = result


class Asked:
    """A look that somebody waits for."""

    def __init__(self) -> None:
        self.done: anyio.Event = anyio.Event()
        self.askers: int = 0
        self.look: Look | None = None
        self.error: NexcageError | None = None


class _Question:
    """Steps that somebody asks the node for."""

    def __init__(self, steps: tuple[Claim, ...]) -> None:
        self.steps: tuple[Claim, ...] = steps
        self.done: anyio.Event = anyio.Event()
        self.known: tuple[Settled, ...] = ()
        self.error: NexcageError | None = None


def _chunks(questions: list[_Question]) -> Iterator[list[_Question]]:
    """In parts that a command line and an answer can hold."""
    for start in range(0, len(questions), TOGETHER):
        yield questions[start : start + TOGETHER]


class FleetNode:
    """One node. ``key`` is its host string; ``seen`` the newest look (None before the first)."""

    def __init__(
        self,
        host: Host,
        transport: Transport,
        observe: Callable[[str, tuple[str, ...]], Command[Look]],
        *,
        limits: Limits,
        tasks: TaskGroup,
        clock: Callable[[], float],
        random: Random,
        changed: Callable[[str, NexcageError | None, str], None],
    ) -> None:
        self.key: str = host.key
        self.host: Host = host
        self.seen: Look | None = None
        self.at_work: int = 0
        """How many operations are under way on it; each of them will ask for a look."""
        self._transport = transport
        self._observe = observe
        self._tasks = tasks
        self._clock = clock
        self._changed = changed
        self._breaker = Breaker(host.key, limits, anyio.current_time, random)
        self._next: Asked | None = None
        self._looking = False
        self._looked = -1e9
        self._closed = False
        self._questions: list[_Question] = []
        self._sweeping = False
        self._took = 0.0  # seconds, of the last look
        self._marks: tuple[Look | None, dict[tuple[str, str], int]] = (None, {})

    @property
    def lost(self) -> bool:
        """Whether it is given up for now."""
        return self._breaker.open

    @property
    def away(self) -> bool:
        """Whether it could not be reached when it was last asked."""
        return self._breaker.last is not None

    @property
    def fencing(self) -> bool:
        """Whether the node itself refuses commands of a driver that has lost its lease: it has a runner."""
        return bool(getattr(self._transport, "fencing", False))

    @property
    def mode(self) -> str:
        """How commands reach it (``runner``, ``exec``, and why), as far as its transport says."""
        return str(getattr(self._transport, "mode", "") or "")

    def having(self, fleet: str, id: str) -> int | None:
        """The VMID of the container that the newest look shows as ``id`` of ``fleet``; copies do not count."""
        if self.seen is not self._marks[0]:
            guests = self.seen.guests.values() if self.seen else ()
            marks = {(g.mark.fleet, g.mark.id): g.vmid for g in guests if g.mark is not None and not g.copy}
            self._marks = (self.seen, marks)
        return self._marks[1].get((fleet, id))

    def forgive(self) -> None:
        """Close the circuit by hand: after a rejected login or host key was put right."""
        self._breaker.reset()

    def __repr__(self) -> str:
        if self.lost:
            return f"<Node {self.key}: lost ({self._breaker.last})>"
        return f"<Node {self.key}: {len(self.seen.guests)} guests>" if self.seen else f"<Node {self.key}: not seen yet>"

    async def call(self, command: Command[Any], env: Mapping[str, str] | None = None) -> Result:
        """Run a command; raises a NodeError only when it surely did not begin."""
        self._breaker.admit()
        if env:
            command = msgspec.structs.replace(command, env={**command.env, **env})
        began = anyio.current_time()
        try:
            result = await self._carried(command)
        except NodeError as error:
            _log.debug("%s: %s: %s", self.key, brief(command.argv), error)
            self._failed(error)
            raise
        except NexcageError:
            raise
        except Exception:  # noqa: BLE001 (a defect of the transport: nobody knows whether it began)
            _log.exception("%s: %s broke", self.key, brief(command.argv))
            result = Result(None, lost="link")
        if _log.isEnabledFor(logging.DEBUG):
            spent = anyio.current_time() - began
            said = shown(result.stderr[-200:]).strip()
            _log.debug("%s: %s: exit %s in %.3f s %s", self.key, brief(command.argv), result.exit, spent, said)
        if result.exit is None and result.lost == "link":
            self._failed(NodeUnreachable(self.key, "the link was lost"))
        elif result.exit is not None and self._breaker.answered():
            self._changed(self.key, None, self.seen.boot_id if self.seen else "")
        return result

    @asynccontextmanager
    async def stream(self, command: Command[Any]) -> AsyncGenerator[Stream]:
        """Run a command and hand out what it prints as it comes; a NodeError of this node only when it surely did not begin."""
        self._breaker.admit()
        _log.debug("%s: %s: begins", self.key, brief(command.argv))
        begun = False
        try:
            async with self._transport.stream(command) as stream:
                begun = True
                yield stream
        except NodeError as error:
            if error.node == self.key and (isinstance(error, NodeUnreachable) or not begun):
                self._failed(error)
            raise

    async def _carried(self, command: Command[Any]) -> Result:
        """A claim is kept by the node's runner, or by a script where there is none."""
        if command.claim is None or getattr(self._transport, "claims", False):
            return await self._transport.run(command)
        if not self._sweeping:
            self._sweeping = True
            self._tasks.start_soon(self._sweep, command.claim.fleet)
        return claims.unclaimed(await self._transport.run(claims.claimed(command)), self.key)

    async def _sweep(self, fleet: str) -> None:
        """Where no runner removes old claims, a driver that lives long does."""
        while True:
            await anyio.sleep(SWEEPING)
            try:
                await self.run(claims.sweep(fleet))
            except (NexcageError, Lost) as error:
                _log.debug("%s: old claims were not swept: %s", self.key, error)

    async def settle(self, *steps: Claim) -> tuple[Settled, ...]:
        """What the node knows of these steps; those that have not begun never will. Those who ask at the same time share a command.

        Raises NodeError when it cannot be asked.
        """
        if self._closed:
            raise NodeUnreachable(self.key, "the fleet is closing")
        asked = _Question(steps)
        self._questions.append(asked)
        if len(self._questions) == 1:
            self._tasks.start_soon(self._answers)
        await asked.done.wait()
        if asked.error is not None:
            raise again(asked.error)
        return asked.known

    async def _answers(self) -> None:
        batch: list[_Question] = []
        try:
            await anyio.lowlevel.checkpoint()
            batch, self._questions = self._questions, []
            for some in _chunks(batch):
                await self._ask(some)
        finally:
            for asked in batch + self._questions:
                if not asked.done.is_set() and not asked.known and asked.error is None:
                    asked.error = NodeUnreachable(self.key, "the fleet is closing")
                asked.done.set()

    async def _ask(self, some: list[_Question]) -> None:
        steps = [step for asked in some for step in asked.steps]
        error: NexcageError | None = None
        known: tuple[Settled, ...] = ()
        try:
            known = await self.run(claims.settle(*steps))
            if len(known) != len(steps):
                error = CommandFailed(self.key, ("settle",), 0, "its answer about claims is not complete")
        except Lost:
            error = NodeUnreachable(self.key, "the link was lost while asking for claims")
        except NexcageError as trouble:
            error = trouble
        at = 0
        for asked in some:
            asked.error, asked.known = error, known[at : at + len(asked.steps)]
            if any(one.kind == "unusable" for one in asked.known):
                asked.error = NodeNotUsable(self.key, "claims cannot be kept there, so a step may still begin")
            at += len(asked.steps)
            asked.done.set()

    def _failed(self, error: NexcageError) -> None:
        if self._breaker.failed(error):
            self._changed(self.key, error, "")

    async def run(self, command: Command[T], env: Mapping[str, str] | None = None) -> T:
        """Run a command and parse its answer; raises Lost when there is none."""
        return answer(command, await self.call(command, env), self.key)

    async def look(self, ops: tuple[str, ...] = (), *, within: float = 0.0) -> Look:
        """What is so now: a look that began after this call, or at most ``within`` seconds before it.

        Callers at the same time share one, unless they ask for ``ops``. Raises NodeError when the node cannot be seen.
        """
        if ops:
            return await self._look(ops)
        if within and self.seen is not None and not self.lost and anyio.current_time() - self._looked <= within:
            return self.seen
        shared = self.ask()
        await shared.done.wait()
        if shared.look is None:
            raise again(shared.error or NodeUnreachable(self.key, "the fleet is closing"))
        return shared.look

    def ask(self) -> Asked:
        """Have a look that begins after this call; whoever asks before it begins shares it. Does not wait."""
        if self._closed:
            raise NodeUnreachable(self.key, "the fleet is closing")
        if self._next is None:
            self._next = Asked()
            if not self._looking:
                self._looking = True
                self._tasks.start_soon(self._looks)
        self._next.askers += 1
        return self._next

    async def _looks(self) -> None:
        shared: Asked | None = None
        try:
            while self._next is not None:
                gather = min(AT_MOST, max(GATHERED, self._took / 2)) if self.at_work > self._next.askers else 0.0
                await anyio.sleep(max(gather, self._looked + PERIOD - anyio.current_time()))
                shared, self._next = self._next, None
                try:
                    shared.look = await self._look(())
                except NexcageError as error:
                    shared.error = error
                    if self._breaker.last is error and self._next is not None:
                        # There is no link: who asked meanwhile would wait as long again for the same answer.
                        self._next.error, meanwhile, self._next = error, self._next, None
                        meanwhile.done.set()
                except Exception as error:  # noqa: BLE001 (a defect of a backend costs a look, not the fleet)
                    _log.exception("%s: looking broke", self.key)
                    shared.error = NodeUnreachable(self.key, f"looking broke: {type(error).__name__}: {error}")
                shared.done.set()
        finally:
            self._looking = False
            for left in (shared, self._next):
                if left is not None:
                    left.done.set()

    async def _look(self, ops: tuple[str, ...]) -> Look:
        began = anyio.current_time()
        try:
            look = await self.run(self._observe(self.key, ops))
        except Lost as lost:
            if lost.result.lost == "deadline":
                raise NodeTimeout(self.key, "it did not show its containers in time") from None
            raise NodeUnreachable(self.key, "the link was lost while looking") from None
        look = msgspec.structs.replace(look, at=self._clock())
        self._took = anyio.current_time() - began
        if began > self._looked:  # a slow look must not replace a newer one
            self.seen, self._looked = look, began
        return look

    async def aclose(self) -> None:
        """Close the link."""
        self._closed = True
        await self._transport.aclose()


def answer(command: Command[T], result: Result, node: str) -> T:
    """The value of a result: raises Lost without an exit status, and what the command's vocabulary makes of a failure."""
    if result.exit is None:
        raise Lost(node, command, result)
    if command.check is not None:
        refused = command.check(command, result, node)
        if refused is not None:
            raise refused
    if result.exit != 0:
        raise command.classify(command, result, node)
    try:
        return command.parse(result)
    except NexcageError:
        raise
    except (ValueError, LookupError, ArithmeticError) as error:
        said = f"its answer cannot be read: {error}"
        raise CommandFailed(node, command.argv, 0, said, shown(result.stdout)) from None

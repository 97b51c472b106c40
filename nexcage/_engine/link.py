"""The way to a node: its transport, its circuit breaker, and the claims of steps that many callers ask for together."""

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
from nexcage._core.seen import Settled
from nexcage._engine.retry import Breaker, again
from nexcage.abc import Stream, Transport
from nexcage.errors import CommandFailed, NexcageError, NodeError, NodeNotUsable, NodeUnreachable, brief
from nexcage.tools import claims

__all__ = ["Link", "Lost", "answer"]

T = TypeVar("T")
_log = logging.getLogger("nexcage.command")


TOGETHER = 64  # operations that one command asks for
SWEEPING = 1800.0  # seconds between sweeps of old claims


class Lost(Exception):
    """A command may have begun and its answer is gone; never leaves the engine."""

    def __init__(self, node: str, command: Command[Any], result: Result) -> None:
        super().__init__(f"the answer of {' '.join(command.argv[:2])} on {node} was lost ({result.lost or 'link'})")
        self.node: str = node
        self.result: Result = result


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


class Link:
    """What all views of one node share. ``boot_id`` is that of its newest look."""

    def __init__(
        self,
        host: Host,
        transport: Transport,
        *,
        limits: Limits,
        tasks: TaskGroup,
        random: Random,
        changed: Callable[[str, NexcageError | None, str], None],
    ) -> None:
        self.key: str = host.key
        self.host: Host = host
        self.boot_id: str = ""
        self.closed: bool = False
        self.breaker: Breaker = Breaker(host.key, limits, anyio.current_time, random)
        self._transport = transport
        self._tasks = tasks
        self._changed = changed
        self._questions: list[_Question] = []
        self._sweeping = False

    @property
    def fencing(self) -> bool:
        return bool(getattr(self._transport, "fencing", False))

    @property
    def mode(self) -> str:
        return str(getattr(self._transport, "mode", "") or "")

    async def call(self, command: Command[Any], env: Mapping[str, str] | None = None) -> Result:
        """Run a command; raises a NodeError only when it surely did not begin."""
        self.breaker.admit()
        if env:
            command = msgspec.structs.replace(command, env={**command.env, **env})
        telling = _log.isEnabledFor(logging.DEBUG)
        began = anyio.current_time() if telling else 0.0
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
        if telling:
            spent = anyio.current_time() - began
            said = shown(result.stderr[-200:]).strip()
            _log.debug("%s: %s: exit %s in %.3f s %s", self.key, brief(command.argv), result.exit, spent, said)
        if result.exit is None and result.lost == "link":
            self._failed(NodeUnreachable(self.key, "the link was lost"))
        elif result.exit is not None and self.breaker.answered():
            self._changed(self.key, None, self.boot_id)
        return result

    @asynccontextmanager
    async def stream(self, command: Command[Any]) -> AsyncGenerator[Stream]:
        """Run a command and hand out what it prints as it comes; a NodeError of this node only when it surely did not begin."""
        self.breaker.admit()
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
        if self.closed:
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
        if self.breaker.failed(error):
            self._changed(self.key, error, "")

    async def run(self, command: Command[T], env: Mapping[str, str] | None = None) -> T:
        """Run a command and parse its answer; raises Lost when there is none."""
        return answer(command, await self.call(command, env), self.key)

    async def aclose(self) -> None:
        """Close it; whoever waits for an answer gets none."""
        self.closed = True
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

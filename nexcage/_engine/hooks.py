"""Calling what plugins hang around operations: in the order of their names, each with a deadline, none of them able to break an
operation unless it was given the right to refuse one.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from random import Random
from typing import Literal

import anyio
import anyio.to_thread

from nexcage._core.intents import Intent
from nexcage._core.machine import Machine
from nexcage._core.outcome import Done
from nexcage._core.states import DRIVEN, Op
from nexcage._engine.operation import Operation
from nexcage.errors import NexcageError, Refused, Uncertain

__all__ = ["BREAKS", "VERBS", "Around", "Hooked"]


def _verb(when: str, op: Op) -> str:
    return f"{when}_{op}".replace("-", "_")


VERBS = frozenset({_verb(when, op) for when in ("pre", "post") for op in DRIVEN} | {"failed"})
"""Everything that a hook can be called."""

BREAKS = (Exception, SystemExit)
"""What a plugin's code may raise at most without ending more than itself."""

_TRIES = 3
_THREADS = 8  # plain functions at once; one that hangs keeps its thread until it ends
_log = logging.getLogger("nexcage")


class Hooked:
    """The hooks of one plugin."""

    def __init__(self, name: str, hooks: object, timeout: float, policy: Literal["skip", "retry", "abort"]) -> None:
        self.name: str = name
        self.timeout: float = timeout
        self.policy: Literal["skip", "retry", "abort"] = policy
        self._hooks = hooks

    def verb(self, name: str) -> Callable[..., object] | None:
        try:
            found: object = getattr(self._hooks, name, None)
        except BREAKS as error:
            return partial(_raise, error)
        return found if callable(found) else None


class Around:
    """All hooks of a fleet. ``inline``: plain functions are called on the loop, for simulations under virtual time."""

    def __init__(self, hooked: Sequence[Hooked], random: Random, *, inline: bool = False) -> None:
        self._plugged: list[Hooked] = list(hooked)
        self._random = random
        self._inline = inline
        self._threads = anyio.CapacityLimiter(_THREADS)
        self._asked: set[Operation] = set()

    async def before(self, op: Operation, intent: Intent, machine: Machine) -> bool:
        """Once per operation, when it is about to begin; raises Refused. Whether anybody was asked, which takes time."""
        if op in self._asked:
            return False
        self._asked.add(op)
        verb = _verb("pre", intent.op)
        asked = [one for one in self._plugged if one.verb(verb)]
        for one in asked:
            error = await self._call(one, verb, intent, machine)
            if error is None:
                continue
            if one.policy == "abort":
                raise Refused(one.name, f"{intent.op} container '{intent.id}'", _said(error)) from error
            self._unplug(one, verb, error)
        return bool(asked)

    async def around(
        self, op: Operation, machine: Callable[[str], Machine], drive: Callable[[], Awaitable[Done]]
    ) -> Done:
        """Drive ``op``; when it came so far that hooks were asked, tell them how it ended."""
        try:
            done = await drive()
            if op in self._asked:
                await self._tell(_verb("post", op.intent.op), done)
        except NexcageError as error:
            if op in self._asked:
                await self._tell("failed", op.failure(machine(op.intent.id), error))
            raise
        except BaseException:
            if op in self._asked:
                lost = Uncertain(op.op_id, f"{op.intent.op} was cancelled")
                with anyio.CancelScope(shield=True):  # each call has its deadline
                    await self._tell("failed", op.failure(machine(op.intent.id), lost))
            raise
        finally:
            self._asked.discard(op)
        return done

    async def _tell(self, verb: str, outcome: object) -> None:
        for one in list(self._plugged):
            error = await self._call(one, verb, outcome)
            if error is not None:
                self._unplug(one, verb, error)

    def _unplug(self, one: Hooked, verb: str, error: BaseException) -> None:
        # What may refuse operations stays: without it they would all go through.
        left = "stays, as its policy is 'abort'" if one.policy == "abort" else "was unplugged"
        if one.policy != "abort" and one in self._plugged:
            self._plugged.remove(one)
        _log.warning("hook %s of plugin '%s' failed, and the plugin %s: %s", verb, one.name, left, _said(error))

    async def _call(self, one: Hooked, verb: str, *values: object) -> BaseException | None:
        """Call a hook within its deadline; what it raised."""
        hook = one.verb(verb)
        if hook is None:
            return None
        cause: BaseException | None = None
        for attempt in range(_TRIES if one.policy == "retry" else 1):
            if attempt:
                await anyio.sleep(0.1 * 2**attempt * self._random.random())
            with anyio.move_on_after(one.timeout) as scope:
                try:
                    await self._invoke(hook, values)
                except BREAKS as error:  # its policy says what becomes of it
                    cause = error
                else:
                    return None
            if scope.cancelled_caught:
                cause = TimeoutError(f"it took longer than {one.timeout:g} s")
        return cause

    async def _invoke(self, hook: Callable[..., object], values: tuple[object, ...]) -> None:
        if self._inline or inspect.iscoroutinefunction(hook):
            answer = hook(*values)
        else:
            answer = await anyio.to_thread.run_sync(
                partial(hook, *values), limiter=self._threads, abandon_on_cancel=True
            )
        if inspect.isawaitable(answer):
            await answer


def _raise(error: BaseException, *_: object) -> None:
    raise error


def _said(error: BaseException) -> str:
    if isinstance(error, NexcageError) or (isinstance(error, TimeoutError) and error.args):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

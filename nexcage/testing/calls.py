"""Commands under way on a simulated node, each a task of its own: a machine's processes do not end with whoever started them."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import anyio

from nexcage.testing._model import find_tool
from nexcage.testing._model.drive import Handle, drive
from nexcage.testing._model.tool import Ctx
from nexcage.testing.faults import Ground, under_faults

if TYPE_CHECKING:
    from nexcage.testing.cluster import SimNode

__all__ = ["Call", "HalfOpen", "Link", "spawn"]

_tasks: set[object] = set()  # asyncio keeps only weak references to its tasks


class Link(Protocol):
    """A connection to a node, as the node sees it."""

    def cut(self) -> None:
        """It is lost, without a word to either side."""
        ...

    def hold(self) -> None:
        """Nothing passes any more, in either direction."""
        ...

    def release(self) -> None:
        """What was held up passes."""
        ...


@runtime_checkable
class HalfOpen(Protocol):
    """A connection that can also be lost one way only."""

    def mute(self) -> None:
        """What the node sends vanishes from now on; what is sent to it arrives."""
        ...


class Supervisor(Protocol):
    """The process of the node that a claimed command runs under."""

    def kill(self) -> None:
        """SIGKILL for it and for its command."""
        ...


def spawn(work: Callable[[], Awaitable[None]]) -> None:
    """Run ``work`` beside everything else, until it ends or the event loop does.

    On purpose without a parent: what runs here are processes of another machine. They outlive the call, the connection and the
    fleet that started them, and nothing of ours waits for them.
    """
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        import trio

        async def guarded() -> None:
            with suppress(trio.Cancelled):
                await work()

        trio.lowlevel.spawn_system_task(guarded)
        return

    async def awaited() -> None:
        await work()

    # In a context of its own: a process of another machine does not stop when the program that started it does.
    task = asyncio.get_running_loop().create_task(awaited(), context=Context())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


class Call(Ground):
    """One command on a node. ``exit`` is set when it has ended; ``when_ended`` is called then."""

    def __init__(
        self,
        node: SimNode,
        argv: tuple[str, ...],
        *,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        out: Callable[[bytes], object] | None = None,
        err: Callable[[bytes], object] | None = None,
        link: Link | None = None,
        when_ended: Callable[[], None] | None = None,
        blocked: Callable[[], bool] | None = None,
        supervisor: Supervisor | None = None,
    ) -> None:
        self.node: SimNode = node
        self.exit: int | None = None
        self.signal: str = ""
        """The signal that ended it, if one did (``TERM``, ``KILL``)."""
        self.ctx: Ctx = Ctx(node.model, argv, env=env, stdin=stdin, out=self._printer(out), err=self._printer(err))
        self.link: Link | None = link
        self._supervisor = supervisor
        self._reader_gone = False
        self._blocked = blocked
        self._when_ended = when_ended
        self._handle = Handle()

    def begin(self) -> None:
        """Start it; it goes on until it ends, whoever waits for it."""
        self.node.calls[self] = None
        spawn(self._run)

    async def _run(self) -> None:
        node = self.node
        tool = find_tool(node.model, self.ctx.argv[0])
        try:
            if tool is None:
                self.ctx.err(f"{self.ctx.argv[0]}: not found\n")
                self.exit = 127
            else:
                self.exit = await drive(under_faults(tool, self), self.ctx, locks=node.locks, handle=self._handle)
                if self._handle.dropped:
                    self.signal = "KILL"
                elif self.exit == 143 and self._handle.interrupted:
                    self.signal = "TERM"
        except Exception:  # noqa: BLE001 - a mistake in a pretend tool; it must not take the whole cluster with it
            self.ctx.err("nexcage sim: a pretend tool broke\n" + traceback.format_exc())
            self.exit = 70
        finally:
            node.calls.pop(self, None)
            if self._when_ended is not None and self.exit is not None:
                self._when_ended()

    def _printer(self, put: Callable[[bytes], object] | None) -> Callable[[bytes], None]:
        def say(data: bytes) -> None:
            if self._reader_gone:
                self._handle.interrupt()  # SIGPIPE: PVE's tools then end their task and clean up
            elif put is not None:
                put(data)

        return say

    def reader_gone(self) -> None:
        """Nobody reads what it prints any more."""
        self._reader_gone = True

    def interrupt(self) -> None:
        """SIGTERM or SIGINT."""
        self._handle.interrupt()

    def drop(self) -> None:
        """SIGKILL or SIGHUP."""
        self._handle.drop()

    # What faults do with it.

    @property
    def blocked(self) -> bool:
        return self._blocked is not None and self._blocked()

    @property
    def arrived(self) -> bool:
        return self._supervisor is not None

    @property
    def supervised(self) -> bool:
        return self._supervisor is not None

    def cut(self) -> None:
        if self.link is not None:
            self.link.cut()

    def mute(self) -> None:
        if isinstance(self.link, HalfOpen):
            self.link.mute()
        elif self.link is not None:
            self.link.hold()

    def gone(self) -> None:
        if self._supervisor is not None:
            self._supervisor.kill()
        else:
            self.drop()

    def killed(self) -> None:
        self.drop()

    def beside(self, argv: tuple[str, ...]) -> None:
        Call(self.node, argv).begin()

    def happen(self, kind: str) -> None:
        self.node.happen_within_step(kind)


async def finished(
    node: SimNode,
    argv: tuple[str, ...],
    env: Mapping[str, str],
    stdin: bytes,
    out: Callable[[bytes], object],
    err: Callable[[bytes], object],
) -> Call:
    """Run a command on the node itself, without any link, to its end. Cancelling it kills the command."""
    over = anyio.Event()
    call = Call(node, argv, env=env, stdin=stdin, out=out, err=err, when_ended=over.set)
    call.begin()
    try:
        await over.wait()
    except BaseException:
        call.drop()
        raise
    return call

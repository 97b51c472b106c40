"""Claims on a simulated node: commands that run at most once under a supervisor of the node's own, and fences.

`start` is what a runner does with a command that has a claim. The scripts of `nexcage.tools.claims` have their twins in
``_model/claims.py``; both work on the same files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import anyio

from nexcage._core.command import Command
from nexcage._transports.caps import HeadTail
from nexcage._transports.running import GRACE, PATIENCE
from nexcage.testing._model import claims
from nexcage.testing._model.claims import Order
from nexcage.testing.calls import Call, HalfOpen, Link, spawn

if TYPE_CHECKING:
    from nexcage.testing.cluster import SimNode

__all__ = ["Asked", "Started", "Supervised", "attend", "start"]

DAY = 86400.0
_MOST = 10**9


class Started(NamedTuple):
    """What became of the wish to run a command under a claim.

    ``begun`` and ``attached``: ``asked`` tells when it has ended, and how. Else it surely did not begin: ``void`` (somebody called it
    off), ``rebooted``, ``fenced`` (``seen``: the higher pair), ``unusable`` (claims cannot be kept there).
    """

    kind: Literal["begun", "attached", "void", "rebooted", "fenced", "unusable"]
    asked: Asked | None = None
    seen: tuple[int, int] = (0, 0)


class Asked:
    """One who waits for a claimed command, over a link that may be lost; the command does not mind."""

    def __init__(
        self,
        node: SimNode,
        path: str,
        supervised: Supervised | None,
        link: Link | None,
        when_ended: Callable[[], None] | None,
    ) -> None:
        self.link: Link | None = link
        self.when_ended: Callable[[], None] | None = when_ended
        self._node = node
        self._path = path
        self._supervised = supervised
        if supervised is not None:
            supervised.asked[self] = None

    @property
    def ended(self) -> bool:
        """Whether there is no more to wait for."""
        return self._supervised is None or self._supervised.over

    def report(self) -> bytes:
        """What the node knows of it, as its scripts print it; `nexcage.tools.claims.unclaimed` reads it."""
        return claims.report(self._node.model, self._path, _MOST)

    def end(self) -> None:
        """End the command by its class, for everybody who waits for it."""
        if self._supervised is not None:
            self._supervised.end()

    def leave(self) -> None:
        """Wait no longer."""
        if self._supervised is not None:
            self._supervised.asked.pop(self, None)


class Supervised:
    """A supervisor and its command: two processes of the node that nobody's link owns."""

    def __init__(self, node: SimNode, order: Order) -> None:
        self.asked: dict[Asked, None] = {}
        self.over: bool = False
        """Nobody need wait any more: it has ended, or goes on long after its deadline."""
        self._node = node
        self._order = order
        self._out, self._err = (_Kept(order.cap, order.tail) for _ in range(2))
        self._late = False
        self._killed = False
        self._ended = anyio.Event()
        self._call = Call(
            node,
            order.argv,
            env=order.env,
            stdin=order.stdin,
            out=self._out.add,
            err=self._err.add,
            link=_Links(self),
            when_ended=self._finish,
            supervisor=self,
        )
        self._call.ctx.claim = order.path

    def begin(self) -> None:
        """Make the go link and run the command; call it within a step in which there was no such link."""
        node, model, path = self._node, self._node.model, self._order.path
        pid = model.start_process("nexcage-claim")
        started = (model.files.read(f"/proc/{pid}/stat") or "").rpartition(") ")[2].split()[19]
        self._call.ctx.pids.add(pid)  # it lives as long as the call
        claims.take(model, path, f"run:{pid}:{started}:{int(model.now())}")
        node.locks.take(claims.lock_of(path), self)
        model.supervised[path] = self
        self._began = anyio.current_time()
        self._call.begin()
        spawn(self._watch)

    async def _watch(self) -> None:
        with anyio.move_on_after(self._order.timeout):
            await self._ended.wait()
        if self._ended.is_set():
            return
        self._late = True
        self.end()
        with anyio.move_on_after(PATIENCE):
            await self._ended.wait()
        if not self._ended.is_set():
            self.over = True
            self._tell()

    def end(self) -> None:
        """End the command by its class."""
        if self._ended.is_set():
            return
        self._call.interrupt()
        if self._order.cancel == "kill":
            spawn(self._kill)

    async def _kill(self) -> None:
        with anyio.move_on_after(GRACE):
            await self._ended.wait()
        if not self._ended.is_set():
            self._call.drop()

    def kill(self) -> None:
        """SIGKILL for both: nobody writes a status any more."""
        self._killed = True
        self._call.drop()

    def _finish(self) -> None:
        model, path = self._node.model, self._order.path
        self._ended.set()
        self.over = True
        if model.supervised.get(path) is self:
            del model.supervised[path]
        if not self._killed:
            with self._node.step():
                claims.finish(model, path, self._status(), bytes(self._out), bytes(self._err))
        self._node.locks.release(claims.lock_of(path), self)
        self._tell()

    def _status(self) -> str:
        call = self._call
        assert call.exit is not None
        signalled = bool(call.signal) if self._order.tail else 128 < call.exit < 193  # a shell sees the number only
        dropped = self._out.dropped + self._err.dropped
        spent = anyio.current_time() - self._began
        seconds = f"{spent:.3f}" if self._order.tail else f"{spent:.0f}"
        return f"{call.exit} {int(signalled)} {dropped} {int(self._late)} {seconds}"

    def _tell(self) -> None:
        for asked in list(self.asked):
            if asked.when_ended is not None:
                asked.when_ended()


class _Links:
    """The links of everybody who waits, as one."""

    def __init__(self, supervised: Supervised) -> None:
        self._supervised = supervised

    def _each(self) -> list[Link]:
        return [asked.link for asked in self._supervised.asked if asked.link is not None]

    def cut(self) -> None:
        for link in self._each():
            link.cut()

    def hold(self) -> None:
        for link in self._each():
            link.hold()

    def release(self) -> None:
        for link in self._each():
            link.release()

    def mute(self) -> None:
        for link in self._each():
            if isinstance(link, HalfOpen):
                link.mute()
            else:
                link.hold()


class _Kept:
    """What is kept of an output: beginning and end, or (``tail`` False) only the beginning, as ``head -c`` does."""

    def __init__(self, cap: int, tail: bool) -> None:
        self._kept = HeadTail(cap if tail else 2 * cap)
        self._cap = cap
        self._tail = tail
        self._total = 0

    def add(self, data: bytes) -> None:
        self._total += len(data)
        self._kept.add(data)

    @property
    def dropped(self) -> int:
        return max(0, self._total - self._cap)

    def __bytes__(self) -> bytes:
        kept = bytes(self._kept)
        return kept if self._tail else kept[: self._cap]


def start(
    node: SimNode, command: Command[Any], *, link: Link | None = None, when_ended: Callable[[], None] | None = None
) -> Started:
    """Run ``command`` under its claim, or find who did: decided in one step of the node.

    ``when_ended`` is called when there is an answer; ``link`` is what faults of the command cut.
    """
    claim = command.claim
    assert claim is not None
    model, path = node.model, claim.path
    with node.step():
        if not claims.make(model, path):
            return Started("unusable")
        first = claims.go(model, path)
        if first == "void":
            return Started("void")
        if first is not None:
            return Started("attached", _attended(node, path, link, when_ended))
        if claim.boot_id and claim.boot_id != (model.files.read("/proc/sys/kernel/random/boot_id") or "").strip():
            return Started("rebooted")
        seen = claims.outrun(model, claim.fleet, claim.id, (claim.epoch, claim.seq))
        if seen is not None:
            return Started("fenced", seen=seen)
        timeout = DAY if command.timeout is None else command.timeout
        env = {"LC_ALL": "C", **command.env}
        order = Order(path, command.argv, env, command.stdin, command.cancel, timeout, command.cap)
        supervised = Supervised(node, order)
        supervised.begin()
        return Started("begun", Asked(node, path, supervised, link, when_ended))


def _attended(node: SimNode, path: str, link: Link | None, when_ended: Callable[[], None] | None) -> Asked:
    supervised = node.model.supervised.get(path)
    assert supervised is None or isinstance(supervised, Supervised)
    return Asked(node, path, supervised, link, when_ended)


def attend(node: SimNode, order: Order, link: Link | None) -> Supervised:
    """Begin a command that a script has claimed, within its step; ``link`` is the script's."""
    supervised = Supervised(node, order)
    supervised.begin()
    Asked(node, order.path, supervised, link, None)
    return supervised

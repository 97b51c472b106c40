"""The runner on a simulated node: the protocol of ``runner.pl`` spoken in this process, its commands run by the model."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from nexcage._core.command import Claim, Command, nothing
from nexcage._transports import frames
from nexcage._transports.caps import HeadTail
from nexcage._transports.frames import Decoder, Frame, FrameError, Hello, Refused, Run
from nexcage._transports.running import GRACE
from nexcage.testing import claims, faults
from nexcage.testing.calls import Call
from nexcage.tools import attach

if TYPE_CHECKING:
    from nexcage.testing.calls import Link
    from nexcage.testing.claims import Started
    from nexcage.testing.cluster import SimNode

__all__ = ["RunnerTwin"]

HEARTBEATS = 60.0
"""Seconds without a word from the driver after which the session ends."""
_CHUNK = 1 << 16
_READS_INPUT = frozenset({"exec", "/dev/stdin", "-"})
_TOOLS = ("pct", "qm", "zfs", "crun", "runc", "lxc-info")


class RunnerTwin:
    """One session. ``send`` takes frames for the driver, ``over`` ends the session from this side, ``held``: nothing passes now."""

    def __init__(
        self,
        node: SimNode,
        link: Link,
        send: Callable[[bytes], None],
        over: Callable[[], None],
        held: Callable[[], bool],
    ) -> None:
        self.node: SimNode = node
        self.link: Link = link
        self.send: Callable[[bytes], None] = send
        self.held: Callable[[], bool] = held
        self.orders: dict[int, _Order | _Claimed] = {}
        self._over = over
        self._decoder = Decoder(frames.TO_NODE)
        self._silence: asyncio.TimerHandle | None = None
        self._heard()
        send(_hello(node).encode())

    def feed(self, data: bytes) -> None:
        """What came from the driver."""
        self._heard()
        try:
            for one in self._decoder.feed(data):
                self._take(one)
        except FrameError as error:
            self.send(frames.frame(frames.QUIT, 0, frames.field(error)))
            self.lost()
            self._over()

    def lost(self) -> None:
        """The session is over: what was begun for it ends by its class."""
        if self._silence is not None:
            self._silence.cancel()
        for order in list(self.orders.values()):
            order.forsake()
        self.orders.clear()

    def _heard(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
        self._silence = asyncio.get_running_loop().call_later(HEARTBEATS, self._gave_up)

    def _gave_up(self) -> None:
        self.lost()
        self._over()

    def _take(self, one: Frame) -> None:
        kind, number, payload = one
        if kind == frames.PING:
            self.send(frames.frame(frames.PONG))
            return
        if kind == frames.RUN:
            if number in self.orders or number == 0:
                raise FrameError(f"command {number} runs already")
            run = Run.decode(payload)
            order = self.orders[number] = (_Claimed if run.claim else _Order)(self, number, run)
            order.go_on()
            return
        if kind not in (frames.INPUT, frames.EOF, frames.CREDIT, frames.END):
            raise FrameError(f"a frame of kind {kind}")
        known = self.orders.get(number)  # of one that has ended: it crossed its result
        if known is None:
            return
        if kind == frames.INPUT:
            known.input(payload)
        elif kind == frames.EOF:
            known.eof()
        elif kind == frames.CREDIT:
            known.credit(frames.count(payload))
        else:
            known.end()


class _Order:
    """One command of a session."""

    def __init__(self, twin: RunnerTwin, number: int, run: Run) -> None:
        self._twin = twin
        self._number = number
        self._run = run
        self._input = bytearray(run.stdin)
        self._eof = not run.stream
        self._call: Call | None = None
        self._kept = {frames.OUT: HeadTail(run.cap), frames.ERR: HeadTail(run.cap)}
        self._queue: deque[tuple[int, bytes]] = deque()
        self._on_the_way = 0
        self._timers: list[asyncio.TimerHandle] = []
        self._began = 0.0
        self._late = self._ending = self._left = False

    # What the driver says.

    def go_on(self) -> None:
        """Begin it once its input is there, as far as the pretend tools need it at once."""
        run = self._run
        if self._call is not None:
            return
        streams = run.argv[2:3] == (attach.ATTACH,)
        reads = not streams and not _READS_INPUT.isdisjoint(run.argv)
        waits = len(self._input) < (run.total or 0) or (not self._eof and reads)
        if not waits:
            self._begin()

    def input(self, data: bytes) -> None:
        if self._call is not None:
            self._call.ctx.feed(data)
        else:
            self._input += data
        if self._run.stream:
            self._say(frames.frame(frames.CREDIT, self._number, frames.field(len(data))))
        self.go_on()

    def eof(self) -> None:
        self._eof = True
        if self._call is not None:
            self._call.ctx.end_input()
        self.go_on()

    def credit(self, taken: int) -> None:
        self._on_the_way = max(0, self._on_the_way - taken)
        self._flush()

    def end(self) -> None:
        """End it by its class."""
        if self._ending or self._left:
            return
        self._ending = True
        if self._call is None:  # it waits for its input and never begins
            self._answer(None)
            return
        self._call.interrupt()
        if self._run.cancel == "kill":
            self._after(GRACE, self._call.drop)
        else:
            self._after(self._run.patience, self._leave)

    def forsake(self) -> None:
        """Its session is over."""
        self._cancel_timers()
        self._left = True
        if self._call is None or self._call.exit is not None:
            return
        self._call.interrupt()
        if self._run.cancel == "kill":
            asyncio.get_running_loop().call_later(GRACE, self._call.drop)

    # What becomes of it.

    def _begin(self) -> None:
        run, twin = self._run, self._twin
        self._began = asyncio.get_running_loop().time()
        self._call = Call(
            twin.node,
            run.argv,
            env={"LC_ALL": "C", **run.env},
            stdin=bytes(self._input),
            out=lambda data: self._said(frames.OUT, data),
            err=lambda data: self._said(frames.ERR, data),
            link=twin.link,
            when_ended=self._ended,
            blocked=lambda: twin.held() or self._on_the_way >= frames.WINDOW,
        )
        self._call.ctx.eof = self._eof
        self._call.begin()
        if run.stream:
            self._say(frames.frame(frames.BEGUN, self._number, frames.field(1)))
        if run.timeout is not None:
            self._after(run.timeout, self._too_late)

    def _said(self, kind: int, data: bytes) -> None:
        if not self._run.stream:
            self._kept[kind].add(data)
        elif not self._left:
            self._queue.extend((kind, data[at : at + _CHUNK]) for at in range(0, len(data), _CHUNK))
            self._flush()

    def _flush(self) -> None:
        while self._queue and self._on_the_way < frames.WINDOW:
            kind, data = self._queue.popleft()
            self._on_the_way += len(data)
            self._say(frames.frame(kind, self._number, data))
        if not self._queue and self._call is not None and self._call.exit is not None:
            self._answer(self._call.exit)

    def _too_late(self) -> None:
        self._late = True
        self.end()

    def _leave(self) -> None:
        self._answer(None)

    def _ended(self) -> None:
        if not self._left:
            self._flush()

    def _answer(self, exit: int | None) -> None:
        self._cancel_timers()
        self._left = True
        self._twin.orders.pop(self._number, None)
        signalled = self._call is not None and bool(self._call.signal)
        self._say(
            frames.result(
                self._number,
                exit,
                bytes(self._kept[frames.OUT]),
                bytes(self._kept[frames.ERR]),
                signalled=signalled,
                dropped=sum(kept.dropped for kept in self._kept.values()),
                late=self._late,
                seconds=asyncio.get_running_loop().time() - self._began if self._began else 0.0,
            )
        )

    def _say(self, data: bytes) -> None:
        self._twin.send(data)

    def _after(self, seconds: float, then: Callable[[], None]) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(seconds, then))

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()


class _Claimed:
    """A claimed command that the driver of this session has asked for; its supervisor does not mind what becomes of the session."""

    def __init__(self, twin: RunnerTwin, number: int, run: Run) -> None:
        self._twin = twin
        self._number = number
        self._run = run
        self._input = bytearray(run.stdin)
        self._started: Started | None = None
        self._began = 0.0

    def input(self, data: bytes) -> None:
        self._input += data
        self.go_on()

    def eof(self) -> None: ...

    def credit(self, taken: int) -> None: ...

    def go_on(self) -> None:
        """Start it, or attach to it, once its input is there."""
        if self._started is not None or len(self._input) < (self._run.total or 0):
            return
        self._began = asyncio.get_running_loop().time()
        twin, command = self._twin, _command(self._run, bytes(self._input))
        if self._lost_on_the_way():
            twin.link.cut()
            return
        started = self._started = claims.start(twin.node, command, link=twin.link, when_ended=self._ended)
        match started.kind:
            case "begun" | "attached":
                self._ended()
            case "fenced":
                self._refuse("fenced", f"{started.seen[0]} {started.seen[1]}")
            case "rebooted":
                self._refuse("rebooted", "it was rebooted since this operation began")
            case "void":
                self._refuse("void", "somebody has found this step not begun and called it off")
            case "unusable":
                self._refuse("claims", "/run cannot be written")

    def _lost_on_the_way(self) -> bool:
        """Whether the link is lost before the claim is taken, as for a command that is lost before it begins."""
        node = self._twin.node
        if not faults.state_of(node.model).get("faults"):
            return False
        with node.step():
            return faults.taken(node.model, self._run.argv, faults.ARRIVING) is not None

    def end(self) -> None:
        """End it by its class, for everybody who waits for it."""
        if self._started is None:
            self._refuse("full", "it was ended before it began")
        elif self._started.asked is not None:
            self._started.asked.end()

    def forsake(self) -> None:
        """Its session is over."""
        if self._started is not None and self._started.asked is not None:
            self._started.asked.leave()

    def _refuse(self, kind: str, message: str) -> None:
        self._twin.orders.pop(self._number, None)
        self._twin.send(Refused(kind, message).encode(self._number))

    def _ended(self) -> None:
        if self._started is None or self._number not in self._twin.orders:
            return
        asked = self._started.asked
        if asked is None or not asked.ended:
            return
        del self._twin.orders[self._number]
        asked.leave()
        head, _, body = asked.report().partition(b"\n")
        kind, exit, signalled, dropped, late, seconds, *_, out, _ = head.decode("ascii").split()[2:]
        attached = self._started.kind == "attached"
        known = kind == "ended" and exit != "-"
        self._twin.send(
            frames.result(
                self._number,
                int(exit) if known else None,
                body[: int(out)],
                body[int(out) :],
                signalled=signalled == "1",
                dropped=int(dropped),
                late=late == "1",
                seconds=float(seconds) if attached else asyncio.get_running_loop().time() - self._began,
                attached=attached,
            )
        )


def _command(run: Run, stdin: bytes) -> Command[None]:
    fleet, _, rest = run.claim.partition("/")
    op, _, step = rest.rpartition(".")
    claim = Claim(
        fleet=fleet,
        op=op,
        step=int(step),
        id=run.id,
        boot_id=run.boot,
        epoch=run.epoch,
        seq=run.seq,
    )
    return Command(
        run.argv,
        nothing,
        stdin=stdin,
        env=run.env,
        cancel=run.cancel,
        timeout=run.timeout,
        cap=run.cap,
        claim=claim,
    )


def _hello(node: SimNode) -> Hello:
    read = node.model.files.read
    return Hello(
        protocol=frames.PROTOCOL,
        boot_id=(read("/proc/sys/kernel/random/boot_id") or "").strip(),
        time=node.model.now(),
        uptime=float((read("/proc/uptime") or "0").split()[0]),
        perl="v5.36.0",
        pid=1,
        tools=_TOOLS,
        ops=True,
    )

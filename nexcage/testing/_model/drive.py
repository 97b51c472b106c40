"""Drivers: run a pretend tool under a virtual clock (anyio), or as the body of a process over a directory on disk."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

from nexcage.testing._model.files import SIM, DiskFiles
from nexcage.testing._model.tool import Ctx, Flock, Input, Interrupted, Sleep, Steps, Tool, Unlock, Wait, tracked

if TYPE_CHECKING:
    from nexcage.testing._model.node import Node

__all__ = ["DiskLocks", "Handle", "Locks", "cluster_lock", "drive", "drive_process", "leave", "reap"]

_POLL = 0.02


class Locks:
    """The flocks of one node in memory: who holds which path."""

    def __init__(self) -> None:
        self._held: dict[str, object] = {}
        self._waiting: dict[str, list[Any]] = {}  # Any: anyio.Event, not imported for executables

    def take(self, path: str, owner: object) -> bool:
        """Get the lock if nobody else has it."""
        return self._held.setdefault(path, owner) is owner

    def release(self, path: str, owner: object) -> None:
        """Give it back; whoever waits tries again."""
        if self._held.get(path) is owner:
            del self._held[path]
            for event in self._waiting.pop(path, ()):
                event.set()

    def release_all(self, owner: object) -> None:
        """Give back everything this owner holds."""
        for path in [path for path, holder in self._held.items() if holder is owner]:
            self.release(path, owner)

    def held(self, path: str) -> bool:
        """Whether anybody holds it."""
        return path in self._held

    async def changed(self, path: str) -> None:
        """Return when it may be worth trying again."""
        import anyio

        event = anyio.Event()
        self._waiting.setdefault(path, []).append(event)
        await event.wait()


class DiskLocks:
    """The flocks of one node on disk: the kernel's own, shared with the executables."""

    def __init__(self, files: DiskFiles) -> None:
        self.files: DiskFiles = files
        self._held: dict[tuple[int, str], int] = {}

    def take(self, path: str, owner: object) -> bool:
        """Get the lock if nobody else has it."""
        key = (id(owner), path)
        if key in self._held:
            return True
        descriptor = _open_lock(self.files.real(path))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._held[key] = descriptor
        return True

    def release(self, path: str, owner: object) -> None:
        """Give it back."""
        descriptor = self._held.pop((id(owner), path), None)
        if descriptor is not None:
            os.close(descriptor)

    def release_all(self, owner: object) -> None:
        """Give back everything this owner holds."""
        for _, path in [key for key in self._held if key[0] == id(owner)]:
            self.release(path, owner)

    async def changed(self, path: str) -> None:
        """Return when it may be worth trying again."""
        import anyio

        await anyio.sleep(_POLL)


def _open_lock(path: str) -> int:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


class Handle:
    """From outside: interrupt a running tool as SIGTERM does, or drop it as SIGKILL does."""

    def __init__(self) -> None:
        self._scope: Any = None  # Any: anyio.CancelScope
        self.interrupted: int = 0
        self.dropped: bool = False

    def attach(self, scope: object) -> None:
        """The wait that the driver is in."""
        self._scope = scope

    def interrupt(self) -> None:
        """SIGTERM or SIGINT: the tool cleans up at its next wait. The fourth one kills, as PVE does."""
        self.interrupted += 1
        if self.interrupted >= 4:
            self.dropped = True
        self._wake()

    def drop(self) -> None:
        """SIGKILL or SIGHUP: nothing more happens; what is there stays."""
        self.dropped = True
        self._wake()

    def _wake(self) -> None:
        if self._scope is not None:
            self._scope.cancel()


class _Run:
    """A tool on its way, one step at a time; on disk each step is one commit under the cluster's lock."""

    def __init__(self, tool: Tool, ctx: Ctx) -> None:
        self.ctx: Ctx = ctx
        self.node: Node = ctx.node
        self.steps: Steps = tracked(tool, ctx)
        self.status: int = 0

    def step(self, answer: object, interrupt: bool) -> Wait | None:
        """What the tool waits for next; None when it has ended with :attr:`status`."""
        files = self.node.files
        if not isinstance(files, DiskFiles):
            self.node.settle()
            return self._resume(answer, interrupt)
        with cluster_lock(files):
            reap(self.node, files)
            self.node.settle()
            wait = self._resume(answer, interrupt)
            for pid in self.ctx.pids:
                files.write(f"{_OWNERS}/{pid}", f"{os.getpid()} {_started(os.getpid())}")
        return wait

    def _resume(self, answer: object, interrupt: bool) -> Wait | None:
        try:
            return self.steps.throw(Interrupted()) if interrupt else self.steps.send(answer)
        except StopIteration as end:
            self.status = end.value
        except Interrupted:
            self.status = 143
        return None

    def abandon(self) -> None:
        """The tool is no more: its workers end."""
        files = self.node.files
        if not self.ctx.pids:
            return
        if isinstance(files, DiskFiles):
            with cluster_lock(files):
                self.node.abandon(self.ctx)
        else:
            self.node.abandon(self.ctx)


_OWNERS = f"{SIM}/owners"


def reap(node: Node, files: DiskFiles) -> None:
    """End the workers whose real process was killed; call with the cluster's lock held."""
    for name in files.names(_OWNERS):
        owner, _, started = (files.read(f"{_OWNERS}/{name}") or "0 ").partition(" ")
        if not node.alive(int(name)) or _started(int(owner)) != started:
            node.end_process(int(name))
            files.remove(f"{_OWNERS}/{name}")


async def drive(tool: Tool, ctx: Ctx, *, locks: Locks | DiskLocks, handle: Handle | None = None) -> int:
    """Run a tool to its end; its exit status (137 when dropped). Cancelling the caller drops the tool.

    Over a directory on disk it waits for the cluster's lock with the loop stopped: steps of other processes last
    milliseconds, and a thread for each step would cost more.
    """
    import anyio

    handle = Handle() if handle is None else handle
    owner = object()
    run = _Run(tool, ctx)
    answer: object = None
    done = 0
    try:
        while not handle.dropped:
            interrupt, done = handle.interrupted > done, handle.interrupted
            wait = run.step(answer, interrupt)
            if wait is None:
                return run.status
            if isinstance(wait, Unlock):
                locks.release(wait.path, owner)
                answer = None
            elif isinstance(wait, Flock) and locks.take(wait.path, owner):
                answer = True
            else:
                answer = None
                with anyio.CancelScope() as scope:
                    handle.attach(scope)
                    answer = await _heard(ctx) if isinstance(wait, Input) else await _wait(wait, locks, owner)
                handle.attach(None)
        return 137
    finally:
        locks.release_all(owner)
        run.abandon()


async def _heard(ctx: Ctx) -> object:
    import anyio

    if not ctx.stdin and not ctx.eof:
        news = anyio.Event()
        ctx.listener = news.set
        try:
            await news.wait()
        finally:
            ctx.listener = None
    return None


async def _wait(wait: Sleep | Flock, locks: Locks | DiskLocks, owner: object) -> object:
    import anyio

    if isinstance(wait, Sleep):
        await anyio.sleep(wait.seconds)
        return None
    with anyio.move_on_after(wait.timeout):
        while not locks.take(wait.path, owner):
            await locks.changed(wait.path)
        return True
    return False


# --- processes --------------------------------------------------------------------------------------------------------


class cluster_lock:  # noqa: N801 (used like a function)
    """One step at a time on a cluster on disk; first finishes what a killed process left half done."""

    def __init__(self, files: DiskFiles) -> None:
        self.files: DiskFiles = files
        self._descriptor: int = -1

    def __enter__(self) -> None:
        self._descriptor = _open_lock(os.path.join(self.files.cluster, "lock"))
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self.files.recover()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self.files.commit()
        finally:
            self.files.discard()
            os.close(self._descriptor)


class _Signals:
    """TERM and INT are taken between steps, so that no step is torn."""

    def __init__(self) -> None:
        self.pending: int = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, *_: object) -> None:
        self.pending += 1
        if self.pending >= 4:
            os._exit(137)


class _Process:
    """The driver of one executable."""

    def __init__(self, tool: Tool, ctx: Ctx) -> None:
        assert isinstance(ctx.node.files, DiskFiles)
        self.files: DiskFiles = ctx.node.files
        self.ctx: Ctx = ctx
        self.tracked: _Run = _Run(tool, ctx)
        self.signals: _Signals = _Signals()
        self.locks: DiskLocks = DiskLocks(self.files)
        self.guardian: int | None = None

    def run(self) -> int:
        answer: object = None
        handled = 0
        while True:
            interrupt, handled = self.signals.pending > handled, self.signals.pending
            wait = self.tracked.step(answer, interrupt)
            self._flush()
            if wait is None:
                break
            if self.ctx.pids and self.guardian is None:
                self.guardian = self._guard()
            answer = self._wait(wait, handled)
        if self.guardian is not None:
            os.write(self.guardian, b"done")
        if self.ctx.seq is not None and (due := self.ctx.node.next_due()) is not None:
            _settle_later(self.ctx.node, self.files, due)
        return self.tracked.status

    def _guard(self) -> int:
        """A second process that ends this one's workers when it is killed, as a node's kernel would."""
        reading, writing = os.pipe()
        parent, started = os.getpid(), _started(os.getpid())
        if os.fork():
            os.close(reading)
            return writing
        _detach()
        self.locks.release_all(self)
        os.close(writing)
        if not os.read(reading, 4):
            while _started(parent) == started:  # its pipes close a moment before it is dead
                time.sleep(_POLL)
            with cluster_lock(self.files):
                reap(self.ctx.node, self.files)
        os._exit(0)

    def _flush(self) -> None:
        """Output leaves after the step that wrote it; a reader that is gone stops the tool as PVE's tools stop."""
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except BrokenPipeError:
            self.signals.pending += 1
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.close(null)

    def _wait(self, wait: Wait, handled: int) -> object:
        if isinstance(wait, Sleep):
            self._sleep(wait.seconds, handled)
            return None
        if isinstance(wait, Unlock):
            self.locks.release(wait.path, self)
            return None
        if isinstance(wait, Input):
            self._read(handled)
            return None
        end = time.monotonic() + wait.timeout
        while not self.locks.take(wait.path, self):
            if time.monotonic() >= end or self.signals.pending > handled:
                return False
            time.sleep(_POLL)
        return True

    def _read(self, handled: int) -> None:
        import select

        while self.signals.pending == handled:
            if select.select([0], [], [], 0.1)[0]:
                data = os.read(0, 1 << 16)
                if data:
                    self.ctx.feed(data)
                else:
                    self.ctx.end_input()
                return

    def _sleep(self, seconds: float, handled: int) -> None:
        end = time.monotonic() + seconds
        while self.signals.pending == handled and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))  # a signal that came just before would not cut a long sleep short


def _detach() -> None:
    """Leave the caller's session and its pipes, so that nobody waits for this process."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def _settle_later(node: Node, files: DiskFiles, due: float) -> None:
    """Let a container halt by itself although no tool may run when its time comes."""
    if os.fork():
        return
    _detach()
    while True:
        time.sleep(max(0.0, due - node.steady()) + 0.005)
        if not os.path.isdir(files.cluster):
            os._exit(0)
        with cluster_lock(files):
            node.settle()
        following = node.next_due()
        if following is None or following - node.steady() > 60:
            os._exit(0)
        due = following


def drive_process(tool: Tool, ctx: Ctx) -> int:
    """Run a tool as this process, over a directory on disk; its exit status.

    A step that raises changes nothing on disk.
    """
    return _Process(tool, ctx).run()


def _started(pid: int) -> str:
    """When a real process started, in clock ticks; empty when there is none, or only its zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(") ")[2].split(" ")
        return fields[19] if fields[0] not in "ZX" else ""
    except (OSError, IndexError):
        return ""


def leave(status: int) -> NoReturn:
    """End the process with what was written, and without running anything else."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        status = status or 141
    os._exit(status & 255)

"""Drivers: run a pretend tool under a virtual clock (anyio), or as the body of a process over a directory on disk."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from nexcage.testing._model.files import SIM, DiskFiles
from nexcage.testing._model.tool import Ctx, Flock, Interrupted, Sleep, Steps, Tool, Unlock, Wait, tracked

__all__ = ["Handle", "Locks", "drive", "drive_process"]

_POLL = 0.02


class Locks:
    """The flocks of one node in memory: who holds which path."""

    def __init__(self) -> None:
        self._held: dict[str, object] = {}
        self._waiting: dict[str, list[Any]] = {}  # Any: anyio.Event, not imported for executables

    def take(self, path: str, owner: object) -> bool:
        """Get the lock if nobody else has it."""
        holder = self._held.setdefault(path, owner)
        return holder is owner

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

    async def wait(self, path: str, owner: object, timeout: float) -> bool:
        """Get the lock within ``timeout`` seconds."""
        import anyio

        with anyio.move_on_after(timeout):
            while not self.take(path, owner):
                event = anyio.Event()
                self._waiting.setdefault(path, []).append(event)
                await event.wait()
            return True
        return False


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


async def drive(tool: Tool, ctx: Ctx, *, locks: Locks, handle: Handle | None = None) -> int:
    """Run a tool to its end; its exit status (137 when dropped). Cancelling the caller drops the tool."""
    import anyio

    handle = Handle() if handle is None else handle
    owner = object()
    node = ctx.node
    steps = tracked(tool, ctx)
    answer: object = None
    done = 0
    try:
        while True:
            node.settle()
            try:
                if handle.dropped:
                    return 137
                if handle.interrupted > done:
                    done = handle.interrupted
                    wait = steps.throw(Interrupted())
                else:
                    wait = steps.send(answer)
            except StopIteration as end:
                status: int = end.value
                return status
            except Interrupted:
                return 143
            with anyio.CancelScope() as scope:
                handle.attach(scope)
                answer = None
                answer = await _wait(wait, locks, owner)
            handle.attach(None)
    finally:
        locks.release_all(owner)
        node.abandon(ctx)


async def _wait(wait: Wait, locks: Locks, owner: object) -> object:
    import anyio

    if isinstance(wait, Sleep):
        await anyio.sleep(wait.seconds)
        return None
    if isinstance(wait, Unlock):
        locks.release(wait.path, owner)
        return None
    if locks.take(wait.path, owner):
        return True
    return await locks.wait(wait.path, owner, wait.timeout) if wait.timeout > 0 else False


# --- processes --------------------------------------------------------------------------------------------------------


@contextmanager
def cluster_lock(files: DiskFiles) -> Iterator[None]:
    """One step at a time on a cluster on disk; first finishes what a killed process left half done."""
    descriptor = os.open(os.path.join(files.cluster, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        files.recover()
        yield
        files.commit()
    finally:
        files.discard()
        os.close(descriptor)


class _Signals:
    """TERM and INT are taken between steps, so that no step is torn."""

    def __init__(self) -> None:
        self.pending: int = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        self.pending += 1
        if self.pending >= 4:
            os._exit(137)


class _Process:
    """The driver of one executable."""

    def __init__(self, tool: Tool, ctx: Ctx) -> None:
        assert isinstance(ctx.node.files, DiskFiles)
        self.files: DiskFiles = ctx.node.files
        self.ctx: Ctx = ctx
        self.steps: Steps = tracked(tool, ctx)
        self.signals: _Signals = _Signals()
        self.flocks: dict[str, int] = {}

    def run(self) -> int:
        answer: object = None
        handled = 0
        while True:
            wait: Wait | None = None
            status = 0
            with cluster_lock(self.files):
                self._reap()
                self.ctx.node.settle()
                try:
                    if self.signals.pending > handled:
                        handled = self.signals.pending
                        wait = self.steps.throw(Interrupted())
                    else:
                        wait = self.steps.send(answer)
                except StopIteration as end:
                    status = end.value
                except Interrupted:
                    status = 143
                self._own()
            self._flush()
            if wait is None:
                return status
            answer = self.wait(wait, handled)

    def _own(self) -> None:
        """Note which real process the model's workers belong to."""
        known = f"{SIM}/owners"
        for pid in self.ctx.pids:
            if not self.files.exists(f"{known}/{pid}"):
                self.files.write(f"{known}/{pid}", f"{os.getpid()} {_started(os.getpid())}")

    def _reap(self) -> None:
        """End the workers whose real process was killed."""
        known = f"{SIM}/owners"
        for name in self.files.names(known):
            owner, _, started = (self.files.read(f"{known}/{name}") or "0 ").partition(" ")
            if not self.ctx.node.alive(int(name)) or _started(int(owner)) != started:
                self.ctx.node.end_process(int(name))
                self.files.remove(f"{known}/{name}")

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

    def wait(self, wait: Wait, handled: int) -> object:
        if isinstance(wait, Sleep):
            self.sleep(wait.seconds, handled)
            return None
        if isinstance(wait, Unlock):
            descriptor = self.flocks.pop(wait.path, None)
            if descriptor is not None:
                os.close(descriptor)
            return None
        return self.flock(wait, handled)

    def sleep(self, seconds: float, handled: int) -> None:
        end = time.monotonic() + seconds
        while self.signals.pending == handled and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))  # a signal that came just before would not cut a long sleep short

    def flock(self, wait: Flock, handled: int) -> bool:
        path = self.files.real(wait.path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        end = time.monotonic() + wait.timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= end or self.signals.pending > handled:
                    os.close(descriptor)
                    return False
                time.sleep(_POLL)
            else:
                self.flocks[wait.path] = descriptor
                return True


def drive_process(tool: Tool, ctx: Ctx) -> int:
    """Run a tool as this process, over a directory on disk; its exit status.

    A step that raises changes nothing on disk.
    """
    return _Process(tool, ctx).run()


def _started(pid: int) -> str:
    """When a real process started, in clock ticks; empty when there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(") ")[2].split(" ")[19]
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

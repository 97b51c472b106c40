"""Reading a journal while others write it: from any process, with no part in the fleet."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Self

import anyio
import anyio.to_thread

from nexcage._core.machine import Event
from nexcage._sinks.segments import Sequence, first_of, folder_of, records, segments_in, shared
from nexcage.errors import JournalError

__all__ = ["Tail", "Wake", "follow"]

_AT_ONCE = 4096  # events of one read, so that following from the first day needs no memory for all of it
_IN_NONBLOCK, _IN_CLOEXEC = 0o4000, 0o2000000
_IN_MODIFY, _IN_MOVED_TO, _IN_CREATE = 0x2, 0x80, 0x100


class Tail:
    """A place in a journal. `read` gives what is behind it; blocking, for a worker thread."""

    def __init__(self, path: str | os.PathLike[str], since: int = 0) -> None:
        self._path = os.fspath(path)
        self._since = since
        self._sequence = Sequence()
        self._segment = ""
        self._offset = 0

    def read(self) -> tuple[list[Event], bool]:
        """The next durable events, and whether there are more at once. A journal that is not there yet is empty."""
        folder = folder_of(self._path)
        try:
            with shared(folder):
                return self._next(folder)
        except FileNotFoundError:
            return [], False
        except OSError as error:
            raise JournalError(f"cannot follow the journal in {folder}: {error}") from None

    def _next(self, folder: str) -> tuple[list[Event], bool]:
        names = segments_in(folder)
        if not names:
            return [], False
        if not self._segment:
            self._segment = max((name for name in names if first_of(name) <= self._since + 1), default=names[0])
        events: list[Event] = []
        later = [name for name in names if name > self._segment]
        if self._segment in names and self._read(os.path.join(folder, self._segment), events, torn=bool(later)):
            return events, True
        if later:
            self._segment, self._offset = later[0], 0
        return events, bool(later)

    def _read(self, path: str, events: list[Event], *, torn: bool) -> bool:
        """Whether there is more. What was torn off at the very end is left: whoever writes next mends it."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if os.fstat(fd).st_size < self._offset:
                raise JournalError(f"records that were read are gone from {path}")
            for record in records(lambda size, offset: os.pread(fd, size, offset), self._offset):
                if record.fault and not record.whole and not torn:
                    continue
                event, _ = self._sequence.take(record)
                if event is not None and event.seq > self._since:
                    events.append(event)
                self._offset = record.end
                if len(events) >= _AT_ONCE:
                    return True
        finally:
            os.close(fd)
        return False


class Wake:
    """Tells when files of a directory change: by inotify, else by looking again after a while."""

    def __init__(self, *, seconds: float = 0.25, inotify: bool = True) -> None:
        """``seconds``: the mean pause where nothing tells us."""
        self._seconds = seconds
        self._fd = _inotify() if inotify else -1
        self._watched = ""

    def watch(self, folder: str) -> None:
        """Begin to listen; what changes from here on wakes `wait`. May be called again, and before the directory exists."""
        if self._fd >= 0 and folder != self._watched and _add_watch(self._fd, folder):
            self._watched = folder

    async def wait(self) -> None:
        """Until something may have changed. Never misses a change for long: file systems that tell nobody are looked at again."""
        listening = self._fd >= 0 and self._watched
        pause = self._seconds * (20 if listening else 1) * random.uniform(0.5, 1.5)
        if not listening:
            await anyio.sleep(pause)
            return
        with anyio.move_on_after(pause):
            await anyio.wait_readable(self._fd)
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 65536)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


async def follow(path: str | os.PathLike[str], *, since: int = 0, wake: Wake | None = None) -> AsyncGenerator[Event]:
    """The events of a journal with numbers above ``since``, then those that come, for ever. For any process; needs no fleet.

    Damaged records are left out. Raises JournalError when the directory cannot be read; one that is not there yet is waited for.
    """
    tail = Tail(path, since)
    with wake or Wake() as waking:
        while True:
            waking.watch(folder_of(os.fspath(path)))
            # A writer that was stopped between write and sync holds the lock: giving up must work all the same.
            events, more = await anyio.to_thread.run_sync(tail.read, abandon_on_cancel=True)
            for event in events:
                yield event
            if not more:
                await waking.wait()


def _inotify() -> int:
    """A descriptor of a new inotify instance; -1 where there is none to have."""
    try:
        return int(_libc("inotify_init1", _IN_NONBLOCK | _IN_CLOEXEC))
    except (ImportError, OSError, AttributeError):
        return -1


def _add_watch(fd: int, folder: str) -> bool:
    try:
        return _libc("inotify_add_watch", fd, os.fsencode(folder), _IN_MODIFY | _IN_MOVED_TO | _IN_CREATE) >= 0
    except (ImportError, OSError, AttributeError):
        return False


def _libc(name: str, *arguments: int | bytes) -> int:
    import ctypes

    return int(getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments))

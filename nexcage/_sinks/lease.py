"""The lease of a fleet as a file that the state directories of one host share.

The file says who holds it: fleet, holder (the id of a state directory), epoch, until when. It changes only under the ``flock`` on
``PATH.lock`` and as a whole. The epoch rises whenever another state directory takes it, and never falls: the taker writes it
into its own state directory first. Where nothing is known of earlier epochs, it begins at the clock (Unix seconds), so that a
fleet whose state directory was lost does not begin below what its nodes have seen.

What a clock that jumps can do: forwards, a lease seems to have expired and is taken under a higher epoch; backwards, one that
ends too far in the future is cut to a full ttl from now. Two state directories never have one epoch, for it is counted up under
the lock.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypeVar

import anyio
import anyio.to_thread
import msgspec

from nexcage._loop import loop_time
from nexcage._sinks.disk import Disk, directory, made_directory, read_small, write_whole
from nexcage._sinks.holder import Holder, holder_gone
from nexcage.errors import Busy, Fenced, JournalError, escaped

__all__ = ["FileLease", "Held"]

T = TypeVar("T")
_LOG = logging.getLogger("nexcage")
_PATIENCE = 10.0  # seconds for locks that are held for milliseconds: longer, and their holder was stopped in between


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What is in the file. ``state`` is the holder's own file, by whose lock others see whether it is alive."""

    fleet: str
    holder: str
    epoch: int
    expires: float
    ttl: float
    host: str = ""
    state: str = ""


class _Lost(Exception):
    """Somebody else has it, or had it in between; never leaves this module."""

    def __init__(self, epoch: int) -> None:
        self.epoch: int = epoch


class FileLease:
    """`nexcage.abc.Lease` in a file; ``inline`` does its I/O on the loop (for simulations)."""

    def __init__(
        self,
        path: str,
        holder: Holder,
        fleet: str,
        *,
        ttl: float,
        clock: Callable[[], float],
        disk: Disk | None = None,
        inline: bool = False,
    ) -> None:
        self.path: str = os.path.abspath(path)
        self.holder: Holder = holder
        self.fleet: str = fleet
        self._ttl, self._clock, self._disk, self._inline = ttl, clock, disk or Disk(), inline
        self._epoch = 0
        self._renewed = (0.0, 0.0)  # on the wall clock, and on the loop's, which does not jump
        self._one = anyio.Lock()

    def __repr__(self) -> str:
        return f"<FileLease {self.path}: {f'epoch {self._epoch}' if self._epoch else 'not held'}>"

    async def hold(self) -> int:
        """The epoch; takes the lease when it is free, expired, or its holder is dead. No I/O within a third of the ttl.

        Raises Busy while another state directory holds it, Fenced once after it was lost, JournalError when the file cannot be
        used. Cancelled, it may have been taken or renewed.
        """
        if not self._fresh():
            async with self._one:
                if not self._fresh():
                    await self._ask()
        return self._epoch

    async def aclose(self) -> None:
        """The last process of a state directory that ends leaves a lease that others may take at once."""
        self._epoch = 0
        self.holder.leave()

    def _fresh(self) -> bool:
        wall, steady = self._clock() - self._renewed[0], loop_time() - self._renewed[1]
        return self._epoch > 0 and 0 <= wall < self._ttl / 3 and steady < self._ttl / 3

    async def _ask(self) -> None:
        began = loop_time()
        try:
            await self._patiently(lambda: self.holder.join() or None, "its holder file")
            held = await self._patiently(self._renew, "its lease file")
        except _Lost as lost:
            self._epoch = 0
            raise Fenced(self.fleet, lost.epoch) from None
        except OSError as error:
            raise JournalError(f"the lease in {self.path} cannot be kept, so nothing new is begun: {error}") from None
        self._epoch, self._renewed = held.epoch, (held.expires - held.ttl, began)

    async def _patiently(self, work: Callable[[], T | None], what: str) -> T:
        """Its result, tried again while somebody else has the lock."""
        deadline = loop_time() + _PATIENCE
        while True:
            done = work() if self._inline else await anyio.to_thread.run_sync(work)
            if done is not None:
                return done
            if loop_time() > deadline:
                raise Busy(f"fleet {self.fleet}", f"{what} is locked by a process that does not go on")
            await anyio.sleep(0.01)

    # Under the lock

    @contextmanager
    def _locked(self) -> Generator[int | None]:
        """A descriptor of the directory, or None when another process has the lock."""
        made_directory(self._disk, os.path.dirname(self.path))
        folder = directory(os.path.dirname(self.path), follow=True)
        lock = -1
        try:
            lock = self._disk.open(f"{os.path.basename(self.path)}.lock", os.O_RDWR | os.O_CREAT, dir_fd=folder)
            try:
                self._disk.lock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
            else:
                yield folder
        finally:
            if lock >= 0:
                os.close(lock)
            os.close(folder)

    def _renew(self) -> Held | None:
        with self._locked() as folder:
            if folder is None:
                return None
            now = self._clock()
            held = self._read(folder)
            highest = self.holder.highest()
            mine = held is not None and held.holder == self.holder.id and held.epoch >= highest
            if self._epoch and not (mine and held is not None and held.epoch == self._epoch):
                raise _Lost(held.epoch if held is not None else 0)
            if held is not None and mine:
                rest = held.expires - now
                if held.ttl == self._ttl and self._ttl * 2 / 3 < rest <= self._ttl:
                    return held  # another process of ours has just renewed it
                return self._write(folder, held.epoch, now)
            if held is not None and held.holder != self.holder.id:
                self._refuse_if_held(folder, held, now)
            known = max(highest, held.epoch if held is not None else 0)
            # Without the file, what others have had since our own highest is not known.
            epoch = known + 1 if held is not None else max(known + 1, int(now))
            self.holder.keep(epoch)
            return self._write(folder, epoch, now)

    def _refuse_if_held(self, folder: int, held: Held, now: float) -> None:
        if now >= held.expires or holder_gone(self._disk, held.state, held.holder):
            return
        most = now + min(held.ttl, 86400.0)
        if held.expires > most:  # the clock was set back; it must not be held for that long
            held = msgspec.structs.replace(held, expires=most)
            self._put(folder, held)
        until = datetime.fromtimestamp(held.expires, UTC).isoformat(timespec="seconds")
        raise Busy(
            f"fleet {self.fleet}",
            f"its lease is held by {escaped(held.holder)[1:-1]} on {escaped(held.host)[1:-1]} until {until}",
        ).noted("one state directory drives a fleet at a time: wait until that one's drivers have ended, or use it")

    def _write(self, folder: int, epoch: int, now: float) -> Held:
        held = Held(
            fleet=self.fleet,
            holder=self.holder.id,
            epoch=epoch,
            expires=now + self._ttl,
            ttl=self._ttl,
            host=os.uname().nodename,
            state=self.holder.path,
        )
        self._put(folder, held)
        return held

    def _put(self, folder: int, held: Held) -> None:
        data = msgspec.json.format(msgspec.json.encode(held), indent=1) + b"\n"
        write_whole(self._disk, os.path.basename(self.path), data, dir_fd=folder, durable=True)

    def _read(self, folder: int) -> Held | None:
        """None when it is not there, or holds nothing that can be read (a disk's doing, for it is written whole)."""
        data = read_small(self._disk, os.path.basename(self.path), dir_fd=folder)
        if data is None:
            return None
        try:
            held = msgspec.json.decode(data, type=Held)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            _LOG.warning("the lease in %s cannot be read and is taken anew: %s", self.path, error)
            return None
        if held.fleet != self.fleet:
            raise JournalError(
                f"{self.path} is the lease of fleet {escaped(held.fleet)[1:-1]}, not {self.fleet}: every fleet needs its own"
            )
        return held

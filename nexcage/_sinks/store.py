"""One process's hand on the journal's directory: the synchronous half, run in a worker thread.

Everything here happens under the ``flock`` on ``journal/lock``, held from the first byte read to the end of the sync, so what
anybody reads is durable and a draft is judged by what is true at the moment it is written. The order of a commit: read what
others appended, judge the drafts, write all lines at once, sync once, fold, project. A commit that fails leaves the file as it
was.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

import msgspec

from nexcage._core.events import Observed
from nexcage._core.machine import Checkpointed, Event, Machine
from nexcage._core.oci import same_state
from nexcage._core.states import State
from nexcage._sinks.disk import Disk, directory, made_directory, read_small, write_whole
from nexcage._sinks.segments import Record, line_of, records, segment_name, segments_in
from nexcage.abc import Draft
from nexcage.errors import JournalError

__all__ = ["Call", "News", "Sizes", "Store"]

_LOG = logging.getLogger("nexcage")
_QUARANTINE = "quarantine.json"
_ABSENT_SECONDS = 3600.0  # how long and how many deleted containers a checkpoint remembers, for repeated op ids
_ABSENT_MOST = 1000


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """When a segment is full, and how much of the past is kept."""

    segment_bytes: int = 16 << 20
    keep_bytes: int = 256 << 20
    keep_seconds: float = 30 * 86400.0


class Call:
    """One ``append``: its drafts, and what became of them."""

    __slots__ = ("drafts", "error", "events")

    def __init__(self, drafts: Sequence[Draft]) -> None:
        self.drafts: Sequence[Draft] = drafts
        self.events: tuple[Event, ...] = ()
        self.error: Exception | None = None


class News:
    """What a commit brought: events that are new here, others' too, in order, and the machines that changed (None: dropped)."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.machines: dict[str, Machine | None] = {}


class _View(Mapping[str, Machine]):
    """What a draft is judged by: the machines, with what the batch did so far. Asking for one that is set aside raises."""

    def __init__(self, layers: Sequence[Mapping[str, Machine]], aside: Mapping[str, str]) -> None:
        self._layers = layers
        self._aside = aside

    def __getitem__(self, id: str) -> Machine:
        self.allow(id)
        for layer in self._layers:
            if id in layer:
                return layer[id]
        raise KeyError(id)

    def __iter__(self) -> Iterator[str]:
        return (id for id in {id: None for layer in reversed(self._layers) for id in layer} if id not in self._aside)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def allow(self, id: str) -> None:
        if id in self._aside:
            raise JournalError(f"container '{id}' is set aside: {self._aside[id]}; see: nexcage doctor")


class Store:
    """The directory, the segment that grows, and the machines as its records leave them."""

    def __init__(
        self,
        path: str,
        *,
        disk: Disk,
        clock: Callable[[], float],
        sizes: Sizes,
        project: Callable[[Iterable[Machine]], None] = lambda _: None,
    ) -> None:
        self.path: str = path
        self.machines: dict[str, Machine] = {}
        self.quarantined: dict[str, str] = {}
        self.damage: list[str] = []
        self.seq: int = 0
        self.syncs: int = 0
        self.touched: set[str] = set()  # ids with records behind the newest checkpoint, when opened
        self.project: Callable[[Iterable[Machine]], None] = project
        self._disk, self._clock, self._sizes = disk, clock, sizes
        self._dir = self._lock = self._fd = -1
        self._segment = ""
        self._offset = 0  # behind the last record that was read or written
        self._open_line = False  # that record lacks its newline
        self._checkpoint: set[str] | None = None  # ids of the checkpoint that is being read
        self._checkpoint_end = 0
        self._rotate_at = 0
        self._undo: tuple[int, int] | None = (
            None  # after a failed write: cut to the first, if the file still ends at the second
        )

    # Opening and closing

    def open(self, begin: Callable[[], None] = lambda: None) -> None:
        """Fold the newest segment and mend its end; ``begin`` runs under the same lock. What cannot be written is only read."""
        try:
            made_directory(self._disk, self.path)
        except OSError as error:
            if not os.path.isdir(self.path):
                _LOG.warning("no journal in %s, so nothing can be changed: %s", self.path, error)
                return
        with self._locked(fcntl.LOCK_EX):
            self._clean()
            self._read_quarantine()
            news = News()
            self._catch_up(news, mend=self._may_write())
            for id in self.quarantined.keys() - self.machines.keys():
                self.machines[id] = Machine(id, state=State.UNKNOWN)
            self.touched = {event.id for event in news.events if event.id and not isinstance(event, Checkpointed)}
            begin()

    def close(self) -> None:
        for fd in (self._fd, self._lock, self._dir):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock = self._dir = -1

    @contextlib.contextmanager
    def _locked(self, how: int) -> Generator[None]:
        self._attach()
        self._disk.lock(self._lock, how)
        try:
            if os.fstat(self._lock).st_nlink == 0 or os.fstat(self._dir).st_nlink == 0:
                raise JournalError(
                    f"the journal in {self.path} was removed or replaced while it was open: open the fleet again"
                )
            yield
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _attach(self) -> None:
        if self._dir < 0:
            made_directory(self._disk, self.path)
            self._dir = directory(self.path)
        if self._lock < 0:
            try:
                self._lock = self._disk.open("lock", os.O_RDWR | os.O_CREAT, dir_fd=self._dir)
            except OSError:  # read-only: a lock that is there can still be taken
                self._lock = self._disk.open("lock", os.O_RDONLY, dir_fd=self._dir)

    def _may_write(self) -> bool:
        return fcntl.fcntl(self._lock, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY

    def _clean(self) -> None:
        """Half-made files of a process that died here."""
        for name in os.listdir(self._dir):
            if name.endswith(".new"):
                with contextlib.suppress(OSError):
                    self._disk.unlink(name, dir_fd=self._dir)

    # Committing

    def commit(self, calls: Sequence[Call]) -> News:
        """Make the drafts of each call durable, all of a call or none. Fills in each call's events or error; never raises."""
        news = News()
        writing = any(call.drafts for call in calls)
        if not writing and self._dir < 0 and not os.path.isdir(self.path):
            return news  # there is no journal, and none can be made: nothing to read
        try:
            with self._locked(fcntl.LOCK_EX if writing else fcntl.LOCK_SH):
                found = self._catch_up(news, mend=writing)
                if writing:
                    self._rotate_if_full(news)
                    self._write(calls, news)
                elif found and self._fd >= 0:
                    # Its writer may have died before the sync: what we tell must be durable.
                    self._sync(self._fd)
        except (OSError, JournalError) as error:
            for call in calls:
                call.events = ()
                call.error = call.error or _refusal(self.path, error)
        return news

    def _write(self, calls: Sequence[Call], news: News) -> None:
        changed: dict[str, Machine] = {}
        events: list[Event] = []
        lines: list[bytes] = []
        for call in calls:
            self._judge(call, changed, events, lines)
        if not events:
            return
        self._append(b"".join(lines))
        self.seq += len(events)
        told = [
            new for id, new in changed.items() if (old := self.machines.get(id)) is None or not same_state(old, new)
        ]
        self.machines |= changed
        for event in events:
            if _rebuilt(event):
                self.quarantined.pop(event.id, None)
        news.machines |= changed
        news.events += events
        self.project(told)

    def _judge(self, call: Call, changed: dict[str, Machine], events: list[Event], lines: list[bytes]) -> None:
        """The call's events with their numbers, folded onto what the batch has so far; all of them, or none if one is refused."""
        mine: dict[str, Machine] = {}
        view = _View((mine, changed, self.machines), self.quarantined)
        numbered: list[Event] = []
        written: list[bytes] = []
        try:
            for draft in call.drafts:
                event = draft(view) if callable(draft) else draft
                event = msgspec.structs.replace(
                    event, seq=self.seq + len(events) + len(numbered) + 1, at=event.at or self._clock()
                )
                event, line = line_of(event)
                if event.id:
                    before = None if _rebuilt(event) else view.get(event.id)
                    mine[event.id] = (before or Machine(event.id)).apply(event)
                numbered.append(event)
                written.append(line)
        except Exception as error:  # noqa: BLE001 (a draft may raise what it likes; its caller gets it)
            call.error = error
            return
        call.events = tuple(numbered)
        changed |= mine
        events += numbered
        lines += written

    def _append(self, data: bytes) -> None:
        if self._fd < 0:
            self._create(segment_name(self.seq + 1))
        fd = self._writable()
        before = self._offset
        try:
            self._disk.write(fd, b"\n" + data if self._open_line else data)
            self._sync(fd)
        except OSError:
            self._undo = (before, os.fstat(fd).st_size)
            with contextlib.suppress(OSError):
                self._take_back()
            raise
        self._offset = before + len(data) + self._open_line
        self._open_line = False

    def _take_back(self) -> None:
        """Cut what a failed write left. Nobody was told of it, but whole lines of it would be read as facts."""
        if self._undo is not None:
            good, end = self._undo
            if os.fstat(self._fd).st_size == end > good:
                self._disk.truncate(self._fd, good)
            self._undo = None

    def _sync(self, fd: int) -> None:
        self.syncs += 1
        self._disk.sync(fd)

    # Reading

    def _catch_up(self, news: News, *, mend: bool) -> bool:
        """Read what others appended, through newer segments too; whether there was anything. ``mend`` cuts a torn end."""
        before = self.seq
        while True:
            if self._fd >= 0:
                self._take_back()
                self._read(news, mend=mend)
            self._end_checkpoint(news)
            later = [name for name in segments_in(self._dir) if name > self._segment]
            if not later:
                return self.seq > before
            if not self._segment:  # the first look: the newest checkpoint says what matters
                later = later[-1:]
                self.seq = int(later[0][:20]) - 1
            self._switch(later[0])

    def _switch(self, name: str) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        try:
            self._fd = self._disk.open(name, os.O_RDWR | os.O_APPEND, dir_fd=self._dir)
        except OSError:
            self._fd = self._disk.open(name, os.O_RDONLY, dir_fd=self._dir)
        self._segment, self._offset, self._open_line = name, 0, False
        self._undo, self._checkpoint, self._checkpoint_end, self._rotate_at = None, set(), 0, 0

    def _read(self, news: News, *, mend: bool) -> None:
        size = os.fstat(self._fd).st_size
        if size < self._offset:
            raise JournalError(
                f"records that were read are gone from {self.path}/{self._segment}: open the fleet again"
            )
        if size == self._offset:
            return
        doubtful: list[Record] = []
        for record in records(lambda size, offset: self._disk.read(self._fd, size, offset), self._offset):
            if record.fault and not record.whole:
                doubtful.append(record)
                continue
            for bad in doubtful:
                self._bad(bad)
            doubtful.clear()
            if record.fault:
                self._bad(record)
            else:
                self._good(record, news)
            self._offset, self._open_line = record.end, not record.closed
        if doubtful and mend:
            self._cut(doubtful[0].start, size)

    def _good(self, record: Record, news: News) -> None:
        if record.seq <= self.seq:
            self._note(f"record {record.seq} comes after record {self.seq} in {self._segment}")
            return
        if record.seq > self.seq + 1:
            self._note(
                f"records {self.seq + 1} to {record.seq - 1} are missing before byte {record.start} of {self._segment}"
            )
        self.seq = record.seq
        event = record.event
        if event is None:
            self._note(f"record {record.seq} in {self._segment} is of a kind that this version does not know")
            return
        if self._checkpoint is not None:
            if isinstance(event, Checkpointed):
                self._checkpoint.add(event.id)
                self._checkpoint_end = record.end
            else:
                self._end_checkpoint(news)
        news.events.append(event)
        if _rebuilt(event):
            self.quarantined.pop(event.id, None)  # what is damaged does not count any more
        if not event.id or (event.id in self.quarantined and not isinstance(event, Checkpointed)):
            return
        try:
            machine = (self.machines.get(event.id) or Machine(event.id)).apply(event)
        except JournalError as error:
            self._set_aside(event.id, str(error))
        else:
            self.machines[event.id] = news.machines[event.id] = machine

    def _end_checkpoint(self, news: News) -> None:
        """A checkpoint was read to its end: deleted containers that it leaves out are forgotten."""
        if self._checkpoint:
            for id in [
                id
                for id, machine in self.machines.items()
                if machine.state is State.ABSENT and id not in self._checkpoint
            ]:
                del self.machines[id]
                news.machines[id] = None
        self._checkpoint = None

    def _bad(self, record: Record) -> None:
        where = f"at byte {record.start} of {self._segment}"
        self.seq += record.whole  # it had a number
        self.seq = max(self.seq, record.seq)
        if record.id:
            self._set_aside(record.id, f"a record {where} is bad: {record.fault}")
        else:
            self._note(f"a record {where} is bad: {record.fault}")

    def _set_aside(self, id: str, why: str) -> None:
        self.quarantined[id] = why
        if id not in self.machines:
            self.machines[id] = Machine(id, state=State.UNKNOWN)
        self._note(f"container '{id}' is set aside: {why}")

    def _note(self, what: str) -> None:
        self.damage.append(what)
        _LOG.warning("journal in %s: %s", self.path, what)

    def _cut(self, at: int, size: int) -> None:
        """Cut the torn end off; what is cut is kept in a file beside it."""
        fd = self._writable()
        stem = f"{self._segment}.torn-{max(0, int(self._clock()))}"
        taken = set(os.listdir(self._dir))
        name = next(name for n in range(len(taken) + 1) if (name := f"{stem}-{n}" if n else stem) not in taken)
        evidence = self._disk.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, dir_fd=self._dir)
        try:
            for start in range(at, size, 1 << 20):
                self._disk.write(evidence, self._disk.read(fd, min(1 << 20, size - start), start))
            self._disk.sync(evidence)
        finally:
            os.close(evidence)
        self._disk.truncate(fd, at)
        self._disk.sync(fd)
        self._note(
            f"{size - at} bytes behind record {self.seq} of {self._segment} were torn off while they were written; kept in {name}"
        )

    # Segments

    def _writable(self) -> int:
        """The segment's descriptor; raises what the disk says when it was opened for reading only."""
        if fcntl.fcntl(self._fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            fd = self._disk.open(self._segment, os.O_RDWR | os.O_APPEND, dir_fd=self._dir)
            os.close(self._fd)
            self._fd = fd
        return self._fd

    def _create(self, name: str) -> None:
        fd = self._disk.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, dir_fd=self._dir)
        try:
            self._sync(self._dir)
        except OSError:
            os.close(fd)
            self._disk.unlink(name, dir_fd=self._dir)
            raise
        self._fd = fd
        self._segment, self._offset, self._open_line, self._checkpoint = name, 0, False, None

    def _rotate_if_full(self, news: News) -> None:
        # Twice the checkpoint, or a fleet larger than a segment would rotate at every commit.
        full = max(self._sizes.segment_bytes, 2 * self._checkpoint_end, self._rotate_at)
        if self._fd < 0 or self._offset < full:
            return
        try:
            self._rotate(news)
        except (OSError, JournalError) as error:
            self._rotate_at = self._offset + self._sizes.segment_bytes // 4
            _LOG.warning("cannot begin a new segment in %s, going on with the old one: %s", self.path, error)
        else:
            self._retain()

    def _rotate(self, news: News) -> None:
        """Begin a new segment with every machine as it is. It gets its name only when it is whole and durable."""
        kept = self._remembered()
        at = self._clock()
        events: list[Event] = [
            Checkpointed(seq=self.seq + n, at=at, id=machine.id, machine=machine) for n, machine in enumerate(kept, 1)
        ]
        data = b"".join(line_of(event)[1] for event in events)
        if self.quarantined or _QUARANTINE in os.listdir(self._dir):
            held = json.dumps(self.quarantined, indent=1).encode() + b"\n"
            write_whole(self._disk, _QUARANTINE, held, dir_fd=self._dir, durable=True)
        name = segment_name(self.seq + 1)
        self.syncs += 2
        try:
            write_whole(self._disk, name, data, dir_fd=self._dir, durable=True)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                self._disk.unlink(name, dir_fd=self._dir)  # renamed but not synced: two segments must not grow
            raise
        with contextlib.suppress(OSError):
            self._disk.utime(self._segment, at, dir_fd=self._dir)  # its age, on the clock that retention goes by
        self._switch(name)
        self._offset = self._checkpoint_end = len(data)
        self.seq += len(events)
        self._checkpoint = {event.id for event in events}
        self._end_checkpoint(news)
        for event in events:
            self.machines[event.id] = news.machines[event.id] = self.machines[event.id].apply(event)
        news.events += events
        self.project(self.machines.values())

    def _remembered(self) -> list[Machine]:
        alive = [machine for machine in self.machines.values() if machine.state is not State.ABSENT]
        since = self._clock() - _ABSENT_SECONDS
        gone = [machine for machine in self.machines.values() if machine.state is State.ABSENT and machine.at >= since]
        return sorted(
            alive + sorted(gone, key=lambda machine: machine.seq)[-_ABSENT_MOST:], key=lambda machine: machine.seq
        )

    def _retain(self) -> None:
        """Delete what is too old or too much, never the segment that grows."""
        with contextlib.suppress(OSError):
            now, total = self._clock(), 0
            for name in reversed(segments_in(self._dir)):
                stat = os.stat(name, dir_fd=self._dir)
                total += stat.st_size
                if name != self._segment and (
                    total > self._sizes.keep_bytes or now - stat.st_mtime > self._sizes.keep_seconds
                ):
                    for beside in [
                        entry for entry in os.listdir(self._dir) if entry == name or entry.startswith(f"{name}.torn-")
                    ]:
                        self._disk.unlink(beside, dir_fd=self._dir)

    def _read_quarantine(self) -> None:
        data = read_small(self._disk, _QUARANTINE, dir_fd=self._dir, most=16 << 20)
        if data is None:
            return
        try:
            self.quarantined |= msgspec.json.decode(data, type=dict[str, str])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._note(f"{_QUARANTINE} cannot be read: {error}")


def _rebuilt(event: Event) -> bool:
    return isinstance(event, Observed) and event.rebuilt


def _refusal(path: str, error: Exception) -> JournalError:
    if isinstance(error, JournalError):
        return JournalError(*error.args)
    return JournalError(f"the journal in {path} cannot be written, so nothing new is begun: {error}")

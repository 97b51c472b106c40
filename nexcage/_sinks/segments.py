"""The journal's file format: records as lines, lines in segments.

A line is the event's JSON with one more member at its end, ``"crc":"xxxxxxxx"``: the CRC-32 of the object as it stands in the
line without that member. So ``jq`` reads it, ``tail -f`` shows it, and a flipped bit is found.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple, cast

import msgspec

from nexcage._core.machine import Event
from nexcage.errors import JournalError, escaped

__all__ = [
    "LONGEST",
    "Record",
    "Sequence",
    "first_of",
    "folder_of",
    "line_of",
    "read_journal",
    "records",
    "segment_name",
    "segments_in",
    "shared",
]

_LOG = logging.getLogger("nexcage")
LONGEST = 8 << 20
"""Bytes of one line. Nothing we write comes near it, so a longer one is damage and is not kept in memory."""
_CHUNK = 1 << 18
_NAME = re.compile(r"[0-9]{20}\.jsonl")
_CRC = re.compile(rb',"crc":"([0-9a-f]{8})"\}')
_CRC_LONG = len(b',"crc":"00000000"}')
_ID = re.compile(rb'"id":"([A-Za-z0-9_][A-Za-z0-9_+.-]{0,127})"')


class _Head(msgspec.Struct, frozen=True):
    """What every record has, also one of a version that knows more kinds of events."""

    event: str = ""
    seq: int = 0
    id: str = ""


_event = msgspec.json.Decoder(Event)
_head = msgspec.json.Decoder(_Head)


class Record(NamedTuple):
    """One line as it was found at bytes ``start`` to ``end``.

    ``fault`` says what is wrong with it ("" = nothing); without an event and without a fault it is of a kind that this version
    does not know. ``whole``: it ends as a record ends, so it was not torn off while being written. ``closed``: its newline is
    there.
    """

    start: int
    end: int
    seq: int
    id: str
    event: Event | None
    fault: str
    whole: bool
    closed: bool


def segment_name(seq: int) -> str:
    """The file whose first record is ``seq``."""
    return f"{seq:020d}.jsonl"


def segments_in(directory: int | str) -> list[str]:
    """The names of the segments, oldest first."""
    return sorted(name for name in os.listdir(directory) if _NAME.fullmatch(name))


def line_of(event: Event) -> tuple[Event, bytes]:
    """The line of ``event``, and the event as reading the line gives it.

    Text that is no Unicode (a lone surrogate out of an odd file name) is kept as an escape. Raises JournalError for what JSON
    cannot carry and for records that would be too long.
    """
    try:
        try:
            body = msgspec.json.encode(event)
        except UnicodeEncodeError:
            body = msgspec.json.encode(_spelled(msgspec.to_builtins(event)))
            event = _event.decode(body)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise JournalError(f"cannot write {type(event).__name__.lower()} of {escaped(event.id)}: {error}") from None
    if len(body) + _CRC_LONG >= LONGEST:
        raise JournalError(
            f"cannot write {type(event).__name__.lower()} of {escaped(event.id)}: longer than {LONGEST} bytes"
        )
    return event, b'%s,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body))


def _spelled(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_spelled(key): _spelled(item) for key, item in cast("dict[object, object]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_spelled(item) for item in cast("list[object]", value)]
    return value


def records(read: Callable[[int, int], bytes], start: int = 0, stop: int | None = None) -> Iterator[Record]:
    """The lines from byte ``start`` on, good or not, as far as the file (or ``stop``) goes. ``read(size, offset)`` gives bytes.

    Empty lines are no records. Never raises because of what the bytes are.
    """
    held = b""
    at = offset = start
    skipping = False
    while chunk := read(_CHUNK if stop is None else min(_CHUNK, stop - offset), offset):
        base, offset, done = offset, offset + len(chunk), 0
        while (newline := chunk.find(b"\n", done)) >= 0:
            line, end = held + chunk[done:newline], base + newline + 1
            if skipping or len(line) > LONGEST:
                yield _overlong(at, end, True)
            elif line:
                yield _record(line, at, end, True)
            held, skipping, at, done = b"", False, end, newline + 1
        if not skipping:
            held += chunk[done:]
        if len(held) >= LONGEST:
            held, skipping = b"", True
    if skipping:
        yield _overlong(at, offset, False)
    elif held:
        yield _record(held, at, at + len(held), False)


def _overlong(start: int, end: int, closed: bool) -> Record:
    return Record(start, end, 0, "", None, f"a line longer than {LONGEST} bytes", False, closed)


def _record(line: bytes, start: int, end: int, closed: bool) -> Record:
    crc = _CRC.fullmatch(line, max(0, len(line) - _CRC_LONG))
    head = _head_of(line)
    if crc is None:
        return Record(start, end, 0, _id_of(line, head), None, "not a record", False, closed)
    if zlib.crc32(b"}", zlib.crc32(line[:-_CRC_LONG])) != int(crc[1], 16):
        return Record(start, end, 0, _id_of(line, head), None, "its checksum is wrong", True, closed)
    try:
        event = _event.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        if head is not None and head.seq > 0 and "at `$.event`" in str(error):
            return Record(start, end, head.seq, head.id, None, "", True, closed)
        return Record(
            start, end, head.seq if head else 0, _id_of(line, head), None, f"cannot be read: {error}", True, closed
        )
    return Record(start, end, event.seq, event.id, event, "" if event.seq > 0 else "it has no number", True, closed)


def _head_of(line: bytes) -> _Head | None:
    try:
        return _head.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _id_of(line: bytes, head: _Head | None) -> str:
    if head is not None:
        return head.id
    found = _ID.search(line)
    return found[1].decode() if found else ""


class Sequence:
    """Takes records in order and says what is wrong between them: bad ones, gaps, numbers that come twice."""

    def __init__(self, seq: int = 0) -> None:
        self.seq: int = seq
        """The number of the last record that was taken; 0 before the first, which may have any."""
        self._bad = False

    def take(self, record: Record) -> tuple[Event | None, str]:
        """The event to go on with, if any, and the complaint, if any."""
        if record.fault:
            self._bad = True
            return None, f"a bad record at byte {record.start}: {record.fault}"
        if record.seq <= self.seq:
            return None, f"record {record.seq} comes after record {self.seq}"
        complaint = ""
        if self.seq and record.seq > self.seq + 1 and not self._bad:
            complaint = f"records {self.seq + 1} to {record.seq - 1} are missing before byte {record.start}"
        elif record.event is None:
            complaint = f"record {record.seq} is of a kind that this version does not know"
        self.seq, self._bad = record.seq, False
        return record.event, complaint


@contextlib.contextmanager
def shared(folder: str) -> Generator[None]:
    """Holds the journal's lock shared: no writer is between its write and its sync. A copy without a lock file has no writers."""
    try:
        fd = os.open(os.path.join(folder, "lock"), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


def read_journal(path: str | os.PathLike[str], *, since: int = 0, strict: bool = False) -> Iterator[Event]:
    """The events of a state directory, a journal directory or one segment, in order, as they are now: those above ``since``.

    What is damaged is skipped and named in the log; with ``strict`` it raises JournalError, as does a path that cannot be read.
    A reader takes the lock only to see how far the files go, so writers go on while it iterates.
    """
    name = os.fspath(path)
    try:
        found = _spans(name)
    except OSError as error:
        raise JournalError(f"cannot read the journal {name}: {error}") from None
    return _events(found, since, strict)


def folder_of(path: str) -> str:
    """The directory of segments that ``path`` means: itself, or ``journal`` in it."""
    inner = os.path.join(path, "journal")
    return inner if os.path.isdir(inner) else path


def _spans(path: str) -> list[tuple[str, int]]:
    """The segments and how far each goes; all of that is durable."""
    if not os.path.isdir(path):
        with shared(os.path.dirname(path) or "."):
            return [(path, os.stat(path).st_size)]
    folder = folder_of(path)
    with shared(folder):
        paths = [os.path.join(folder, name) for name in segments_in(folder)]
        return [(path, os.stat(path).st_size) for path in paths]


def first_of(name: str) -> int:
    """The number that a segment's name promises for its first record; 0 for other files."""
    base = os.path.basename(name)
    return int(base[:20]) if _NAME.fullmatch(base) else 0


def _events(spans: list[tuple[str, int]], since: int, strict: bool) -> Iterator[Event]:
    begin = max((n for n, (path, _) in enumerate(spans) if first_of(path) <= since + 1), default=0)
    sequence = Sequence()
    for path, stop in spans[begin:]:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # retention was faster
            _complain(path, "was deleted while it was being read", strict)
            continue
        except OSError as error:
            raise JournalError(f"cannot read the journal {path}: {error}") from None
        try:
            for record in records(_reader(fd, path), 0, stop):
                event, complaint = sequence.take(record)
                if complaint:
                    _complain(path, complaint, strict)
                if event is not None and event.seq > since:
                    yield event
        finally:
            os.close(fd)


def _reader(fd: int, path: str) -> Callable[[int, int], bytes]:
    def read(size: int, offset: int) -> bytes:
        try:
            return os.pread(fd, size, offset)
        except OSError as error:
            raise JournalError(f"cannot read the journal {path}: {error}") from None

    return read


def _complain(path: str, what: str, strict: bool) -> None:
    if strict:
        raise JournalError(f"{path}: {what}")
    _LOG.warning("%s: %s", path, what)

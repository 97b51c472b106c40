"""The journal's file format: records as lines, lines in segments.

A line is the event's JSON with one more member at its end, ``"crc":"xxxxxxxx"``: the CRC-32 of the object as it stands in the
line without that member. So ``jq`` reads it, ``tail -f`` shows it, and a flipped bit is found.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

import msgspec

from nexcage._core.machine import Event
from nexcage.errors import JournalError, escaped

__all__ = ["LONGEST", "Record", "line_of", "records", "segment_name", "segments_in"]

LONGEST = (
    8 << 20
)  # bytes of one line: nothing we write comes near it, so a longer one is damage and is not kept in memory
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
            if skipping:
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

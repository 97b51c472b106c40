"""Events as lines for people and programs, and as log records. None of this can change an operation: what breaks is unplugged."""

from __future__ import annotations

import logging
import os
import re
from datetime import UTC, datetime
from typing import Literal, TextIO

import anyio
import anyio.to_thread
import msgspec

from nexcage._core.events import (
    Attempted,
    Began,
    Failed,
    Interrupted,
    NodeFound,
    NodeLost,
    Observed,
    Succeeded,
    TakenOver,
)
from nexcage._core.machine import Checkpointed, Event
from nexcage.errors import SinkError

__all__ = ["LineSink", "LogSink", "json_line", "log_event", "text_line", "words"]

_LOG = logging.getLogger("nexcage")
_NOT_ASCII = re.compile(r"[^\x20-\x7e]")


def text_line(event: Event) -> str:
    """One line for people: number, time (UTC), container or node, and what happened in the event's words. Always printable."""
    return _plain(f"{event.seq} {_time(event.at)} {words(event)}")


def words(event: Event) -> str:
    """What happened: ``web-1 began start on pve-01``, ``web-1 failed start: ...``."""
    who = event.id or getattr(event, "node", "") or "-"
    return _plain(f"{who} {type(event).__name__.lower()} {_rest(event)}".rstrip())


def _rest(event: Event) -> str:
    match event:
        case Began():
            return f"{event.op}{_place(event.backend, event.vmid, event.node)}"
        case Attempted():
            tries = ", ".join(f"{key} {value}" for key, value in event.tries.items())
            return f"{event.op}, step {event.step}: {event.tool}{f' ({tries})' if tries else ''}"
        case TakenOver():
            return f"{event.op} by {event.owner}"
        case Succeeded():
            pid = f", pid {event.pid}" if event.pid else f", exit {event.exit}" if event.exit is not None else ""
            how = "" if event.changed else ", already so"
            how += f", found by {event.resolved_by}" if event.resolved_by else ""
            return f"{event.op}: {event.state}{pid}{_place(event.backend, event.vmid, event.node)}{how}, {event.seconds:.1f} s"
        case Failed():
            return f"{event.op}: {event.error} (it is {event.state})"
        case Interrupted():
            return f"{event.op}: {event.error}"
        case Observed():
            pid = f", pid {event.pid}" if event.pid else ""
            return f"{event.state}{pid}{_place('', event.vmid, event.node)}{f': {event.why}' if event.why else ''}"
        case NodeLost():
            return str(event.error)
        case NodeFound():
            return ""
        case Checkpointed():
            return str(event.machine.state)


def _place(backend: str, vmid: int, node: str) -> str:
    what = f" {backend or 'guest'} {vmid}" if vmid else ""
    return f",{what} on {node}" if what and node else f" on {node}" if node else f",{what}" if what else ""


def _time(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return str(at)


def _plain(text: str) -> str:
    """Without anything that a terminal would obey: what nodes say must not move cursors or reorder text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def json_line(event: Event, *, ascii: bool = False) -> str:
    """The event as one JSON object; characters that do not print (``ascii``: all but ASCII) as JSON's own escapes."""
    text = msgspec.json.encode(event).decode()
    if text.isascii() and text.isprintable():
        return text
    return _NOT_ASCII.sub(lambda found: found[0] if not ascii and found[0].isprintable() else _escape(found[0]), text)


def _escape(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[n]:02x}{units[n + 1]:02x}" for n in range(0, len(units), 2))


class LineSink:
    """A line per event, to a text stream or to a file that it opens (appended to, mode 0600).

    The first trouble (nobody reads any more, disk full, closed, cannot be opened) is logged once, and from then on it takes
    events and does nothing. A stream is left open when the sink closes; it is flushed after every line.
    """

    def __init__(
        self, to: TextIO | str | os.PathLike[str], *, output: Literal["jsonl", "text"] = "jsonl", inline: bool = False
    ) -> None:
        """``inline``: write on the loop, for streams that cannot block and for simulations."""
        self.broken: str = ""
        """Why it was unplugged; empty while it works."""
        self._json = output == "jsonl"
        self._inline = inline
        self._limiter = anyio.CapacityLimiter(1)
        self._own = isinstance(to, (str, os.PathLike))
        self._stream: TextIO | None = None
        try:
            self._stream = _opened(to) if isinstance(to, (str, os.PathLike)) else to
        except (OSError, ValueError) as error:
            self._unplug(error)

    async def put(self, event: Event) -> None:
        """Write it. Never raises because of the stream; waits while the reader of a pipe is slow."""
        if self.broken or self._stream is None:
            return
        if self._inline:
            self.write(event)
        else:
            await anyio.to_thread.run_sync(self.write, event, limiter=self._limiter, abandon_on_cancel=True)

    def write(self, event: Event) -> None:
        """The same, at once."""
        if self.broken or self._stream is None:
            return
        try:
            self._put(self._stream, event)
        except (OSError, ValueError) as error:  # ValueError: the stream was closed, or its encoding has no word for it
            self._unplug(error)

    def _put(self, stream: TextIO, event: Event) -> None:
        line = json_line(event) if self._json else text_line(event)
        try:
            line.encode(stream.encoding or "utf-8")
        except (UnicodeEncodeError, LookupError):
            line = json_line(event, ascii=True) if self._json else line.encode("ascii", "backslashreplace").decode()
        stream.write(line + "\n")
        stream.flush()

    def _unplug(self, error: Exception) -> None:
        self.broken = str(error) or type(error).__name__
        _LOG.warning("%s", SinkError(f"the event log was unplugged: {self.broken}"))

    async def aclose(self) -> None:
        """Close the file, if it is the sink's own."""
        stream, self._stream = self._stream, None
        if stream is not None and self._own:
            try:
                stream.close()
            except (OSError, ValueError) as error:
                if not self.broken:
                    self._unplug(error)


def _opened(path: str | os.PathLike[str]) -> TextIO:
    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_CLOEXEC, 0o600)

    return open(path, "a", encoding="utf-8", errors="backslashreplace", opener=opener)


def log_event(event: Event, log: logging.Logger = _LOG) -> None:
    """The event as a log record: its words as the message, itself as ``record.event``."""
    level = logging.INFO
    if isinstance(event, (Failed, Interrupted, NodeLost)):
        level = logging.WARNING
    elif isinstance(event, (Attempted, Checkpointed)):
        level = logging.DEBUG
    if log.isEnabledFor(level):
        log.log(level, "%s", words(event), extra={"event": event})


class LogSink:
    """Every event on the logger ``nexcage``, for fleets whose program has its own logging."""

    def __init__(self, log: logging.Logger = _LOG) -> None:
        self._log = log

    async def put(self, event: Event) -> None:
        log_event(event, self._log)

    async def aclose(self) -> None:
        """Nothing to close: handlers belong to whoever configured them."""

"""Log lines for people: to standard error with ``--debug`` or NEXCAGE_LOG_LEVEL, to a file with ``--log-file`` or ``--log``.

A file that cannot be written is told once on standard error, and work goes on.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from nexcage._cli.streams import Streams, one_line

if TYPE_CHECKING:
    from nexcage._cli.parser import Call

__all__ = ["Logs", "level_of", "runc_line"]

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}
_LONGEST = 600  # of a line on standard error


def level_of(call: Call, environ: Mapping[str, str]) -> int | None:
    """The level asked for by options, else by NEXCAGE_LOG_LEVEL or NEXCAGE_DEBUG; None when nobody asked."""
    if call.flag("debug"):
        return logging.DEBUG
    word = call.text("log_level") or ("info" if call.flag("verbose") else "") or environ.get("NEXCAGE_LOG_LEVEL", "")
    if not word and environ.get("NEXCAGE_DEBUG", "0") not in ("", "0", "false", "no"):
        word = "debug"
    return _LEVELS.get(word.lower())


def runc_line(message: str, level: str, format: str) -> str:
    """One log line as runc writes it."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    message = one_line(message)
    if format == "json":
        return json.dumps({"level": level, "msg": message, "time": at}, separators=(",", ":"))
    return f"time={json.dumps(at)} level={level} msg={json.dumps(message)}"


class Logs:
    """The handlers of one run on the logger ``nexcage``; a context manager that takes them off again."""

    def __init__(self, call: Call, streams: Streams, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._streams: Streams = streams
        self._logger: logging.Logger = logging.getLogger("nexcage")
        self._before: int = self._logger.level
        self._handlers: list[logging.Handler] = []
        self._oci: _ToFile | None = None
        level = level_of(call, environ)
        path = call.text("log_file") or environ.get("NEXCAGE_LOG_FILE")
        people = level if not path or call.flag("debug") or call.flag("verbose") else None
        self._add(_ToStreams(streams, quiet=people is None), logging.WARNING if people is None else people)
        if people is None and not call.oci and _terminal(streams):
            progress = _ToStreams(streams, quiet=True)
            progress.addFilter(lambda record: record.name == "nexcage.progress")
            self._add(progress, logging.INFO)
        if path:
            self._add(_ToFile(path, streams, _Plain()), logging.INFO if level is None else level)
        if oci := call.text("log"):
            self._oci = _ToFile(oci, streams, _Runc(call.text("log_format") or "text"))
            self._add(self._oci, logging.WARNING if level is None else level)
        self._level: int = min(handler.level for handler in self._handlers)

    def _add(self, handler: logging.Handler, level: int) -> None:
        handler.setLevel(level)
        self._handlers.append(handler)

    def _tell_engine(self, message: str, format: str) -> bool:
        if self._oci is None or self._oci.broken:
            return False
        self._oci.put(runc_line(message, "error", format))
        return True

    def __enter__(self) -> Self:
        self._logger.setLevel(self._level)
        for handler in self._handlers:
            self._logger.addHandler(handler)
        self._streams.tell_engine = self._tell_engine
        return self

    def __exit__(self, *_: object) -> None:
        self._streams.tell_engine = None
        for handler in self._handlers:
            self._logger.removeHandler(handler)
            handler.close()
        self._logger.setLevel(self._before)


def _terminal(streams: Streams) -> bool:
    try:
        return streams.stderr is not None and streams.stderr.isatty()
    except (OSError, ValueError):
        return False


class _Plain(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return one_line(f"{at}.{int(record.msecs):03d}Z {super().format(record)}")


class _Runc(logging.Formatter):
    def __init__(self, format: str) -> None:
        super().__init__()
        self._format: str = format

    def format(self, record: logging.LogRecord) -> str:
        return runc_line(record.getMessage(), record.levelname.lower(), self._format)


class _ToStreams(logging.Handler):
    """To standard error. ``quiet``: nobody asked, so only warnings come, worded as errors are, and what an outcome says anyway
    is left out.
    """

    def __init__(self, streams: Streams, *, quiet: bool) -> None:
        super().__init__()
        self._streams: Streams = streams
        self._quiet: bool = quiet
        self.setFormatter(logging.Formatter("nexcage: %(message)s") if quiet else _Plain())

    def emit(self, record: logging.LogRecord) -> None:
        if self._quiet and hasattr(record, "event"):
            return
        try:
            self._streams.say(_shortened(one_line(self.format(record))))
        except Exception:  # a record that cannot be formatted costs only itself
            self._streams.say("nexcage: a log record could not be formatted")


def _shortened(line: str) -> str:
    # The scripts that look at a node are long; a log file has them whole.
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} [...] {line[-_LONGEST // 2 :]}"


class _ToFile(logging.Handler):
    """Appends with one write a line, so that several processes may share the file."""

    def __init__(self, path: str, streams: Streams, formatter: logging.Formatter) -> None:
        super().__init__()
        self._path: str = path
        self._streams: Streams = streams
        self._fd: int = -1
        self.broken: bool = False
        self.setFormatter(formatter)
        try:
            self._fd = os.open(
                path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK, 0o600
            )
        except (OSError, ValueError) as error:
            self._give_up(error)

    def emit(self, record: logging.LogRecord) -> None:
        if self.broken:
            return
        try:
            text = self.format(record)
        except Exception as error:
            text = f"a log record could not be formatted: {type(error).__name__}"
        self.put(text)

    def put(self, text: str) -> None:
        if self.broken:
            return
        data = f"{text}\n".encode("utf-8", "backslashreplace")
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self.broken = True
        super().close()

    def _give_up(self, error: Exception) -> None:
        self.broken = True
        why = getattr(error, "strerror", None) or str(error)
        self._streams.say(f"nexcage: cannot write the log file {self._path!a}: {why}; going on without it")

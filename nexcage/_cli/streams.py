"""Standard output and error that never change what an operation did.

A reader that went away (``| head``) ends the output quietly; a full disk below standard output is an error of its own, told on
standard error; a standard error that is closed, full or broken is given up. Letters that the locale cannot show become escapes.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import TextIO

__all__ = ["Guarded", "Streams", "hold_standard_descriptors", "one_line"]

_LARGEST = 1 << 20  # characters of a document that a command line names


def hold_standard_descriptors() -> None:
    """Put /dev/null behind closed descriptors 0, 1 and 2, so that no journal is ever opened as one of them."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:  # pragma: no cover - the lowest free one is always taken
                os.dup2(opened, number)
                os.close(opened)


def one_line(text: str) -> str:
    """``text`` on one line, whatever a node put into it: control characters and line breaks as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Streams:
    """Where results go (`write`, `line`) and where people are told things (`say`)."""

    def __init__(self, stdin: TextIO | None, stdout: TextIO | None, stderr: TextIO | None) -> None:
        self.stdin: TextIO | None = stdin
        self.stdout: TextIO | None = stdout
        self.stderr: TextIO | None = stderr
        self.reader_gone: bool = False
        self.refused: str = ""
        """Why results could not be written, empty while they could."""
        self.tell_engine: Callable[[str, str], bool] | None = None
        """Writes an error to the log file that an OCI engine reads, in a format; False when there is none."""
        self.heard: bool = False
        """Whether a runtime that was given our standard error has said there what is wrong."""
        for stream in (stdout, stderr):
            reconfigure = getattr(stream, "reconfigure", None)
            if reconfigure is not None:
                reconfigure(errors="backslashreplace")

    @classmethod
    def standard(cls) -> Streams:
        """The process's own."""
        return cls(sys.stdin, sys.stdout, sys.stderr)

    @property
    def unicode(self) -> bool:
        """Whether standard output can show any letter."""
        encoding: str | None = getattr(self.stdout, "encoding", None)
        return (encoding or "utf-8").lower().replace("-", "") == "utf8"

    def document(self, path: str) -> str:
        """What a file says, up to a million characters; ``-`` is standard input. Raises OSError, and ValueError for what is no text."""
        if path == "-":
            return self.stdin.read(_LARGEST) if self.stdin is not None else ""
        with open(path, encoding="utf-8") as file:
            return file.read(_LARGEST)

    def write(self, text: str) -> None:
        """A result, as it is."""
        if self.stdout is None or self.reader_gone or self.refused:
            if text and self.stdout is None:
                self.refused = "it is closed"
            return
        try:
            self.stdout.write(text)
        except (OSError, ValueError) as error:
            self._broken(error)

    def line(self, text: str) -> None:
        """A result on a line of its own, handed on at once: somebody may be following."""
        self.write(f"{text}\n")

    def flush(self) -> None:
        if self.stdout is None or self.reader_gone or self.refused:
            return
        try:
            self.stdout.flush()
        except (OSError, ValueError) as error:
            self._broken(error)

    def say(self, text: str) -> None:
        """Something for people, on standard error, on one line; nobody hears of it when that is broken."""
        if self.stderr is None:
            return
        try:
            self.stderr.write(f"{text}\n")
            self.stderr.flush()
        except (OSError, ValueError):
            _silence(self.stderr)
            self.stderr = None

    def _broken(self, error: Exception) -> None:
        if isinstance(error, BrokenPipeError):
            self.reader_gone = True
        else:
            self.refused = getattr(error, "strerror", None) or str(error)
        if self.stdout is not None:
            _silence(self.stdout)


class Guarded(io.TextIOBase):
    """A stream for those who do not expect that one breaks: what cannot be written is dropped, at once and for good."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream: TextIO | None = stream

    def write(self, text: str, /) -> int:
        if self._stream is not None:
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):
                self._stream = None
        return len(text)

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        if self._stream is None:
            raise OSError("it is closed")
        return self._stream.fileno()


def _silence(stream: TextIO) -> None:
    # What is still buffered would be written again when the interpreter ends, and fail there loudly.
    if stream not in (sys.stdout, sys.stderr):
        return
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except (OSError, ValueError):
        pass

"""How far a fleet operation has come, on standard error: a bar on a terminal, else a counter line now and then."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO, cast

from nexcage._cli.render import colourful
from nexcage._cli.streams import Guarded, Streams

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

__all__ = ["Progress"]

_QUIET_BELOW = 10  # fewer than these are over before a bar is worth looking at
_LINES = 10  # counter lines per operation where there is no terminal


class Progress:
    """A context manager; `advance` once per outcome."""

    def __init__(self, streams: Streams, what: str, total: int) -> None:
        self._streams: Streams = streams
        self._what: str = what
        self._total: int = total
        self._done: int = 0
        self._failed: int = 0
        self._bar: tuple[RichProgress, TaskID] | None = None
        self._in_place: bool = False
        self._told: int = 0

    def __enter__(self) -> Self:
        if self._total >= _QUIET_BELOW and colourful(self._streams.stderr):
            self._bar = self._rich()
            self._in_place = self._bar is None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar[0].stop()
        elif self._in_place:
            self._raw("\r\x1b[K")

    def advance(self, failed: bool) -> None:
        """One more came to its end."""
        self._done += 1
        self._failed += failed
        if self._bar is not None:
            bar, task = self._bar
            bar.update(task, advance=1, failed=self._failed)
        elif self._in_place:
            self._raw(f"\r{self._line()}\x1b[K")
        elif self._total >= _QUIET_BELOW and self._done * _LINES // self._total > self._told:
            self._told = self._done * _LINES // self._total
            self._streams.say(self._line())

    def _line(self) -> str:
        failed = f", {self._failed} failed" if self._failed else ""
        return f"nexcage: {self._what}: {self._done} of {self._total}{failed}"

    def _raw(self, text: str) -> None:
        Guarded(self._streams.stderr).write(text)

    def _rich(self) -> tuple[RichProgress, TaskID] | None:
        try:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        except ImportError:
            return None
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]} failed"),
            TimeElapsedColumn(),
            console=Console(file=cast("TextIO", Guarded(self._streams.stderr))),
            transient=True,
        )
        task = bar.add_task(self._what, total=self._total, failed=0)
        bar.start()
        return bar, task

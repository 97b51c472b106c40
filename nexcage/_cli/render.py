"""Rows as a table, JSON, JSON lines or names. Plain text unless a terminal and ``rich`` are there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from nexcage._cli.streams import Streams, one_line

__all__ = ["as_json", "colourful", "print_rows"]

Row = Mapping[str, Any]  # Any: whatever JSON can say
_WHOLE = 40  # columns of a terminal that one of the first two columns of a table has at least, where it needs them


def as_json(streams: Streams, value: object, *, indent: int | None = None) -> str:
    """``value`` as JSON; ASCII only where standard output cannot show more, and escapes for what a terminal might obey."""
    separators = (",", ":") if indent is None else None
    written = json.dumps(value, indent=indent, ensure_ascii=not streams.unicode, separators=separators)
    return (
        "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in written)
        if _odd(written)
        else written
    )


def _odd(text: str) -> bool:
    return not text.replace("\n", "").isprintable()


def print_rows(streams: Streams, rows: Iterable[Row], output: str, columns: Sequence[str], *, name: str = "id") -> None:
    """``rows`` as ``output`` says: a table of ``columns``, all of them as ``json`` or ``jsonl``, or ``name`` of each."""
    if output == "jsonl":
        for row in rows:
            streams.line(as_json(streams, row))
    elif output == "json":
        streams.line(as_json(streams, list(rows), indent=2))
    elif output == "name":
        for row in rows:
            streams.line(one_line(str(row[name])))
    else:
        cells = [
            [_cell(row.get(column) or (None if column == "vmid" else row.get(column))) for column in columns]
            for row in rows
        ]
        _table(streams, cells, [column.upper() for column in columns])


def colourful(stream: TextIO | None) -> bool:
    """Whether to show colours and moving things on ``stream``: a capable terminal, and nobody asked not to."""
    if stream is None or os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
        return False
    try:
        return stream.isatty()
    except (OSError, ValueError):
        return False


def _cell(value: object) -> str:
    match value:
        case None | "" | ():
            return "-"
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return one_line(",".join(str(item) for item in value)) or "-"  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case float():
            return f"{value:.1f}"
        case _:
            return one_line(str(value))


def _table(streams: Streams, rows: list[list[str]], header: list[str]) -> None:
    if colourful(streams.stdout) and _rich_table(streams, rows, header):
        return
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        streams.line("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


_STYLES = {
    "running": "green",
    "PASS": "green",
    "done": "green",
    "WARN": "yellow",
    "paused": "yellow",
    "unknown": "bold red",
    "FAIL": "bold red",
    "failed": "bold red",
}


def _rich_table(streams: Streams, rows: list[list[str]], header: list[str]) -> bool:
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, cells in zip(header, zip(header, *rows, strict=True), strict=True):
        whole = (
            min(_WHOLE, max(map(len, cells))) if name in header[:2] else None
        )  # ids, fields and verdicts are not broken
        table.add_column(name, overflow="fold", min_width=whole)
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    console = Console(file=streams.stdout, highlight=False, soft_wrap=False)
    with console.capture() as captured:
        console.print(table)
    streams.write(captured.get())
    return True

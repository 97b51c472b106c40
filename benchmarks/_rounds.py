"""What the benchmarks have in common: interleaved rounds, their medians, one table, one JSON file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

Numbers = Mapping[str, float]


def options(doc: str, rounds: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--json", type=Path, default=None, help="write the numbers there too")
    return parser


def interleaved(ways: Mapping[str, Callable[[], Numbers]], rounds: int) -> dict[str, dict[str, float]]:
    """The medians of what each way measured. All ways take turns, so that a slow minute of the machine meets them alike."""
    found: dict[str, list[Numbers]] = {name: [] for name in ways}
    for round in range(rounds + 1):
        for name, way in ways.items():
            numbers = way()
            if round:  # the first one warms up
                found[name].append(numbers)
    return {
        name: {column: statistics.median(row[column] for row in rows) for column in rows[0]}
        for name, rows in found.items()
    }


def add_ratio(results: dict[str, dict[str, float]], column: str, to: str) -> None:
    """A column more: how many times as much of ``column`` as ``to`` has."""
    for row in results.values():
        row[f"{column} ÷ {to}"] = row[column] / results[to][column]


def show(
    name: str,
    results: Mapping[str, Numbers],
    *,
    packages: Sequence[str],
    method: str,
    json_file: Path | None,
    **more: object,
) -> None:
    about: dict[str, object] = {
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        **more,
        "method": method,
    }
    columns = list(next(iter(results.values())))
    first = max(map(len, results))
    lines = [", ".join(f"{key} {value}" for key, value in about.items())]
    widths = {column: max(len(column), 9) for column in columns}
    lines.append("  ".join([" " * first, *(f"{column:>{widths[column]}}" for column in columns)]))
    lines += [
        "  ".join([f"{way:{first}}", *(f"{_shown(row[column]):>{widths[column]}}" for column in columns)])
        for way, row in results.items()
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    if json_file is not None:
        json_file.write_text(json.dumps({"benchmark": name, "about": about, "results": results}, indent=1) + "\n")


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"

"""What a run of the suite has to say, as Markdown for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

__all__ = ["Result", "as_json", "as_markdown", "exit_status", "write"]


class Result(NamedTuple):
    """How one test ended. ``message``: what was seen, or what was wrong."""

    number: int
    name: str
    command: str
    status: Literal["PASS", "FAIL", "SKIP"]
    ms: int
    message: str


def write(directory: Path, results: Sequence[Result], environment: Mapping[str, str]) -> None:
    """``report.md`` and ``report.json`` in ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.md").write_text(as_markdown(results, environment), encoding="utf-8")
    (directory / "report.json").write_text(f"{as_json(results, environment)}\n", encoding="utf-8")


def as_json(results: Sequence[Result], environment: Mapping[str, str]) -> str:
    tests = [{key: getattr(one, key) for key in ("number", "name", "status", "ms", "message")} for one in results]
    return json.dumps({"tests": tests, **_counts(results), "environment": dict(environment)}, indent=2)


def as_markdown(results: Sequence[Result], environment: Mapping[str, str]) -> str:
    counts = _counts(results)
    seconds = sum(one.ms for one in results) / 1000
    lines = [
        "# nexcage end-to-end report",
        "",
        f"{environment.get('date', '')}: {environment.get('node', '')}, nexcage {environment.get('nexcage', '')}".strip(
            ": "
        ),
        "",
        "| # | test | command | status | ms | message |",
        "| ---: | --- | --- | --- | ---: | --- |",
        *(
            f"| {one.number} | {one.name} | `{_cell(one.command)}` | {one.status} | {one.ms} | {_cell(one.message)} |"
            for one in results
        ),
        "",
        "## Summary",
        "",
        f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped of {len(results)} in {seconds:.1f} s.",
        "",
        "## Environment",
        "",
        *(f"- {key}: {_cell(value)}" for key, value in environment.items()),
    ]
    return "\n".join([*lines, ""])


def exit_status(results: Sequence[Result]) -> int:
    """0 when every test passed; one that was skipped has not."""
    return 0 if results and all(one.status == "PASS" for one in results) else 1


def _counts(results: Sequence[Result]) -> dict[str, int]:
    words = {"passed": "PASS", "failed": "FAIL", "skipped": "SKIP"}
    return {word: sum(one.status == status for one in results) for word, status in words.items()}


def _cell(text: str) -> str:
    """One line that breaks no table."""
    flat = " ".join(text.split())
    return "".join(c if c.isprintable() else "?" for c in flat).replace("|", "\\|")

"""Draws docs/states.md from `nexcage._core.states.TABLE`: the lifecycle as a diagram, and the whole table.

scripts/diagram            # writes it
scripts/diagram --check    # exit 1 when it is not what the table says
"""

from __future__ import annotations

import sys
from pathlib import Path

from nexcage._core import states
from nexcage._core.states import OBSERVABLE, TABLE, Op, Rule, State

PAGE = Path(__file__).parents[1] / "docs" / "states.md"

LEGEND = """\
| in the table | what it means |
| --- | --- |
| *via → to* | legal; the container is *via* while commands run and *to* when they succeeded |
| `--force` | legal, with force only |
| keep | legal; the state stays |
| already | an answer: nothing runs, the outcome says `changed=False` |
| queue | waits for the running operation, then the table is asked again |
| look | looks first, then the table is asked again |
| exists | raises `AlreadyExists` |
| missing | raises `NotFound` |
| · | raises `IllegalTransition`, whose notes say what is allowed now |
"""


def page() -> str:
    """The whole page."""
    return "\n".join(
        [
            "# States",
            "",
            "Drawn by `scripts/diagram` from the table in `nexcage/_core/states.py`; edit that, not this page.",
            "",
            *(line for line in (states.__doc__ or "").strip().splitlines()[2:]),
            "",
            "## The lifecycle",
            "",
            "```mermaid",
            *diagram(),
            "```",
            "",
            "Left out, so that it can be read: an answer that is lost leads from every transitional state to `unknown`, and",
            f"looking leads from there to {', '.join(f'`{state}`' for state in State if state in OBSERVABLE)}.",
            "",
            "## The table",
            "",
            LEGEND,
            *table(),
            "",
        ]
    )


def diagram() -> list[str]:
    """The legal changes as a Mermaid state diagram; a running operation is an arrow to its transitional state and out of it."""
    lines = ["stateDiagram-v2", "    [*] --> absent"]
    begun: dict[tuple[State, State], list[str]] = {}
    ended: dict[tuple[State, State], None] = {}
    for (state, op), rule in TABLE.items():
        if rule.via is not None and rule.to is not None:
            begun.setdefault((state, rule.via), []).append(f"{op} --force" if rule.forced else str(op))
            ended[rule.via, rule.to] = None
    lines += [f"    {state} --> {via}: {', '.join(ops)}" for (state, via), ops in begun.items()]
    lines += [f"    {via} --> {to}" for via, to in ended]
    return lines


def table() -> list[str]:
    """Every cell of State × Op."""
    head = ["state", *(str(op) for op in Op)]
    rows = [[f"**{state}**", *(cell(TABLE[state, op]) for op in Op)] for state in State]
    return [_row(head), _row(["---"] * len(head)), *(_row(row) for row in rows)]


def cell(rule: Rule) -> str:
    if rule.kind == "go":
        return f"{rule.via} → {rule.to}" + (" `--force`" if rule.forced else "")
    return "·" if rule.kind == "refuse" else rule.kind


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main(arguments: list[str]) -> int:
    wanted = page()
    if arguments == ["--check"]:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != wanted:
            print(f"{PAGE.name} is not what the table says: run scripts/diagram", file=sys.stderr)
            return 1
        return 0
    if arguments:
        print("usage: scripts/diagram [--check]", file=sys.stderr)
        return 2
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""How intents ended, for people and programs: rows, a summary per node, an exit status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nexcage import Done, Outcome
from nexcage._cli.main import exit_status
from nexcage._cli.render import as_json, print_rows
from nexcage._cli.streams import Streams

__all__ = ["COLUMNS", "print_outcomes", "row", "status_of"]

COLUMNS = ("id", "result", "state", "node", "vmid", "pid", "seconds")


def row(outcome: Outcome) -> Mapping[str, Any]:  # Any: whatever JSON can say
    """An outcome as a JSON object."""
    common: dict[str, Any] = {
        "id": outcome.id,
        "op": str(outcome.op),
        "result": "failed",
        "state": str(outcome.state),
        "node": outcome.node,
        "vmid": outcome.vmid,
        "pid": 0,
        "op_id": outcome.op_id,
        "seconds": round(outcome.seconds, 3),
        "retries": outcome.retries,
    }
    if isinstance(outcome, Done):
        common |= {"result": "done" if outcome.changed else "unchanged", "pid": outcome.pid}
        common |= {"notes": list(outcome.notes)} if outcome.notes else {}
        return common
    error = outcome.error
    notes = [str(note) for note in getattr(error, "__notes__", ())]
    common["error"] = {"type": type(error).__name__, "message": str(error), "notes": notes}
    common["error"] |= {"retryable": error.retryable, "uncertain": error.uncertain}
    return common


def status_of(outcomes: Iterable[Outcome]) -> int:
    """0 when all is done; else what every failure agrees on (2 input, 3 nodes), and 1 when they differ."""
    statuses = {exit_status(outcome.error) for outcome in outcomes if not isinstance(outcome, Done)}
    return 0 if not statuses else statuses.pop() if len(statuses) == 1 else 1


def print_outcomes(
    streams: Streams, outcomes: Sequence[Outcome], output: str, *, single: bool = False, summary: bool = False
) -> None:
    """Each outcome as ``output`` says, ``json`` without brackets for a ``single`` one; the table of a fleet operation
    (``summary``) has a line per node instead.
    """
    if output == "table" and summary:
        print_rows(streams, _per_node(outcomes), "table", ("node", "done", "unchanged", "failed", "p50", "p99"))
    elif output == "table":
        print_rows(streams, [row(outcome) for outcome in outcomes], "table", COLUMNS)
    elif output == "json" and single:
        streams.line(as_json(streams, row(outcomes[0]), indent=2))
    else:
        done = outcomes if output != "name" else [outcome for outcome in outcomes if isinstance(outcome, Done)]
        print_rows(streams, [row(outcome) for outcome in done], output, COLUMNS)


def _per_node(outcomes: Sequence[Outcome]) -> list[Mapping[str, Any]]:
    nodes: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        nodes.setdefault(outcome.node or "-", []).append(outcome)
    return [_summed(node, nodes[node]) for node in sorted(nodes)] + (
        [_summed("all", outcomes)] if len(nodes) > 1 else []
    )


def _summed(node: str, outcomes: Sequence[Outcome]) -> Mapping[str, Any]:
    results = [row(outcome)["result"] for outcome in outcomes]
    times = sorted(outcome.seconds for outcome in outcomes)
    return {
        "node": node,
        **{result: str(results.count(result)) for result in ("done", "unchanged", "failed")},
        "p50": _seconds(times[len(times) // 2]),
        "p99": _seconds(times[min(len(times) - 1, len(times) * 99 // 100)]),
    }


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"

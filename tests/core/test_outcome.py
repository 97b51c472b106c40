"""Reports count truthfully and name the nodes that were lost."""

from __future__ import annotations

import pytest

from nexcage import (
    CommandFailed,
    Done,
    Failure,
    NodeTimeout,
    NodeUnreachable,
    Op,
    Outcome,
    Report,
    Start,
    State,
    Uncertain,
)


def done(id: str) -> Done:
    return Done(intent=Start(id), op_id="o", state=State.RUNNING)


def failure(id: str, error: Exception, node: str = "") -> Failure:
    return Failure(intent=Start(id), error=error, node=node)  # type: ignore[arg-type]


REFUSED = CommandFailed("pve-03", ("pct", "start", "104"), 255, "no")


def test_a_report_is_its_outcomes_in_order() -> None:
    outcomes: list[Outcome] = [done("a"), failure("b", REFUSED), done("c")]
    report = Report(iter(outcomes))
    assert list(report) == outcomes
    assert (len(report), report[1], report[-1], list(report[:2])) == (3, outcomes[1], outcomes[2], outcomes[:2])
    assert (report.done, report.failures, report.ok) == ((outcomes[0], outcomes[2]), (outcomes[1],), False)
    assert repr(report) == "<Report: 2 done, 1 failed>"
    assert (report[0].id, report[0].op) == ("a", Op.START)


def test_an_empty_report_is_all_right() -> None:
    assert Report([]).ok
    assert Report([]).lost_nodes == set()
    Report([]).raise_for_failures()


def test_lost_nodes_are_those_that_failures_blame_and_those_that_nothing_was_given_to() -> None:
    report = Report(
        [
            done("a"),
            failure("b", NodeUnreachable("pve-01", "x"), "pve-01"),
            failure("c", NodeTimeout("pve-02", "x")),
            failure("d", REFUSED, "pve-03"),
            failure("e", Uncertain("o", "x"), "pve-04"),
            failure("f", Uncertain("o", "x")),
        ],
        ["pve-05"],
    )
    assert report.lost_nodes == {"pve-01", "pve-02", "pve-04", "pve-05"}


def test_raising_gives_every_error_and_counts() -> None:
    report = Report([done("a"), failure("b", REFUSED), failure("c", NodeUnreachable("pve-01", "x"))])
    with pytest.raises(ExceptionGroup, match="2 of 3 failed") as group:
        report.raise_for_failures()
    assert group.value.exceptions == (REFUSED, report.failures[1].error)

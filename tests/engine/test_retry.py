"""When to try again: spread out, within a budget, and never at a node that said no for good."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import AuthRejected, HostKeyRejected, Limits, NexcageError, NodeNotUsable, NodeUnreachable
from nexcage._engine.retry import Breaker, Budget, again, pause

LIMITS = Limits(breaker_failures=3, breaker_seconds=10.0)


class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def breaker() -> tuple[Breaker, Clock]:
    clock = Clock()
    return Breaker("pve-01", LIMITS, clock, Random(1)), clock


@given(st.integers(0, 10_000), st.integers())
def test_a_pause_is_never_longer_than_the_longest(attempt: int, seed: int) -> None:
    assert (
        0 <= pause(attempt, LIMITS, Random(seed)) <= min(LIMITS.retry_most, LIMITS.retry_base * 2.0 ** min(attempt, 20))
    )


@given(st.lists(st.booleans(), max_size=400), st.floats(0, 1))
def test_retries_are_ten_and_a_share_of_the_operations(moves: list[bool], share: float) -> None:
    budget = Budget(Limits(retry_share=share))
    operations = retries = 0
    for earn in moves:
        if earn:
            budget.earn()
            operations += 1
        else:
            retries += budget.spend()
        assert retries <= 10 + operations * share + 1e-6


def test_a_node_is_left_alone_after_failures_in_a_row_and_then_one_try_passes() -> None:
    node, clock = breaker()
    error = NodeUnreachable("pve-01", "refused")
    assert [node.failed(error) for _ in range(3)] == [False, False, True]
    assert node.open
    with pytest.raises(NodeUnreachable, match="left alone") as alone:
        node.admit()
    assert "refused" in str(alone.value)

    clock.now += 12.1
    node.admit()
    with pytest.raises(NodeUnreachable):  # the others wait for that one
        node.admit()
    assert node.failed(error) is False
    with pytest.raises(NodeUnreachable):
        node.admit()
    clock.now += 12.1
    node.admit()
    assert node.answered()
    node.admit()
    assert not node.open


def test_an_answer_in_between_begins_the_count_again() -> None:
    node, _ = breaker()
    for _ in range(5):
        node.failed(NodeUnreachable("pve-01", "x"))
        node.failed(NodeUnreachable("pve-01", "x"))
        assert node.answered() is False
    assert not node.open


@pytest.mark.parametrize("kind", [AuthRejected, HostKeyRejected])
def test_a_login_that_was_refused_is_final_until_somebody_resets_it(kind: type[NexcageError]) -> None:
    node, clock = breaker()
    assert node.failed(kind("pve-01", "no"))
    clock.now += 1e6
    for _ in range(3):
        with pytest.raises(kind):
            node.admit()
    node.reset()
    node.admit()


def test_a_node_that_answers_but_lacks_something_is_not_lost() -> None:
    node, _ = breaker()
    for _ in range(9):
        assert node.failed(NodeNotUsable("pve-01", "no pct")) is False
    assert not node.open


def test_a_copy_to_raise_has_neither_the_traceback_nor_the_notes_of_another() -> None:
    error = NodeUnreachable("pve-01", "x")
    error.noted("seen by all")
    try:
        raise error
    except NodeUnreachable:
        first, second = again(error), again(error)
    first.noted("only mine")
    assert first.__traceback__ is None
    assert getattr(second, "__notes__", []) == error.__notes__ == ["seen by all"]
    assert (type(first), str(first)) == (type(error), str(error))

"""The table, as a matrix."""

from __future__ import annotations

from itertools import product

import pytest

from nexcage import Op, State
from nexcage._core.states import DRIVEN, LIFECYCLE, OBSERVABLE, TABLE, TRANSITIONAL, allowed, rule

CELLS = list(product(State, Op))
EXISTING = [state for state in State if state not in {State.ABSENT, State.UNKNOWN}]
CHANGES = [Op.CREATE, Op.START, Op.STOP, Op.PAUSE, Op.RESUME, Op.DELETE]


def test_the_table_answers_every_question():
    assert set(TABLE) == set(CELLS)


@pytest.mark.parametrize("state, op", CELLS, ids=str)
def test_only_a_change_has_a_way_and_an_end(state, op):
    cell = TABLE[state, op]
    assert (cell.via is not None) == (cell.to is not None) == (cell.kind == "go")
    if cell.kind == "go":
        assert cell.via in TRANSITIONAL
        assert cell.to in OBSERVABLE


@pytest.mark.parametrize("state", list(State))
def test_every_state_has_a_way_out(state):
    ways = {TABLE[state, op].kind for op in Op}
    assert ways & {"go", "queue", "look"}


@pytest.mark.parametrize("state", [state for state in State if state not in TRANSITIONAL | {State.UNKNOWN}])
def test_every_settled_state_reaches_every_other_by_operations(state):
    reached = {state}
    while more := {cell.to for (at, _), cell in TABLE.items() if at in reached and cell.to} - reached:
        reached |= more
    assert reached >= OBSERVABLE - {State.CREATED} | {State.ABSENT}
    assert State.CREATED in reached


@pytest.mark.parametrize("state", sorted(TRANSITIONAL))
def test_while_something_runs_stop_and_delete_are_taken(state):
    assert rule(state, Op.STOP).kind == "queue"
    assert rule(state, Op.DELETE).kind == "queue"
    assert rule(state, Op.DELETE, force=True).kind == "queue"


@pytest.mark.parametrize("state", sorted(TRANSITIONAL))
def test_while_something_runs_nothing_else_begins(state):
    assert not [op for op in Op if TABLE[state, op].kind in ("go", "keep")]


@pytest.mark.parametrize("op", list(Op))
def test_what_is_unknown_is_looked_at_first(op):
    assert rule(State.UNKNOWN, op).kind == "look"
    assert rule(State.UNKNOWN, op, force=True, strict_oci=True).kind == "look"


@pytest.mark.parametrize("op", [op for op in Op if op not in (Op.CREATE, Op.ADOPT)])
def test_of_a_container_that_nobody_knows_everything_but_create_and_adopt_is_missing(op):
    assert rule(State.ABSENT, op).kind == "missing"


@pytest.mark.parametrize("state", EXISTING)
def test_create_and_adopt_are_never_already_so(state):
    assert rule(state, Op.CREATE).kind == "exists"
    assert rule(state, Op.ADOPT).kind == "exists"


@pytest.mark.parametrize("state", EXISTING)
def test_already_so_is_said_only_where_it_is_so(state):
    ends = {Op.START: State.RUNNING, Op.PAUSE: State.PAUSED, Op.RESUME: State.RUNNING}
    for op in CHANGES:
        if TABLE[state, op].kind == "already":
            assert state in ({State.CREATED, State.STOPPED} if op is Op.STOP else {ends[op]})


@pytest.mark.parametrize("state", [State.RUNNING, State.PAUSED])
def test_what_runs_is_deleted_only_by_force(state):
    assert rule(state, Op.DELETE).kind == "refuse"
    assert rule(state, Op.DELETE, force=True).to is State.ABSENT


@pytest.mark.parametrize("state", list(State))
def test_strict_oci_only_takes_away(state):
    for op in Op:
        strict = rule(state, op, strict_oci=True)
        assert strict in (rule(state, op), rule(state, op, force=True)) or strict.kind == "refuse"
        assert strict.kind != "already"
    if state is not State.CREATED:
        assert rule(state, Op.START, strict_oci=True).kind != "go"


@pytest.mark.parametrize("state", list(State))
def test_the_hint_names_what_the_table_takes_and_nothing_else(state):
    words = allowed(state)
    if state is State.UNKNOWN:
        assert words == ("reconcile",)
        return
    assert words
    for op in Op:
        taken = op in LIFECYCLE and rule(state, op, force=True).kind in ("go", "keep", "queue")
        assert (str(op) in words or f"{op} --force" in words) == taken


def test_the_table_cannot_be_changed():
    with pytest.raises(TypeError):
        TABLE[State.ABSENT, Op.CREATE] = TABLE[State.ABSENT, Op.START]  # type: ignore[index]


def test_what_is_allowed_names_only_operations_that_intents_exist_for() -> None:
    from typing import get_args

    from nexcage._core.intents import Intent

    assert {kind.op for kind in get_args(Intent)} == DRIVEN

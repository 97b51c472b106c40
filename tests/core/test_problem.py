"""Errors as values: what the journal keeps is what comes back, for every class and every hostile text."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import errors
from nexcage._core.events import Problem
from nexcage.errors import NexcageError

KINDS = sorted(
    (kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, NexcageError)),
    key=lambda kind: kind.__name__,
)
texts = st.text(st.characters(), max_size=20)  # lone surrogates too
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "allowed": st.lists(texts, max_size=3).map(tuple),
    "argv": st.lists(texts, max_size=3).map(tuple),
    "refused": st.lists(texts, max_size=3).map(tuple),
    "reasons": st.lists(texts, max_size=3).map(tuple),
    "exit": st.integers(0, 255),
    "vmid": st.integers(0, 999_999_999),
    "since": st.integers(0, 2**63),
    "missed": st.integers(0, 2**70),
    "value": st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | texts
    | st.binary(max_size=5)
    | st.lists(st.integers(), max_size=2),
}


@st.composite
def raised(draw: st.DrawFn) -> NexcageError:
    kind = draw(st.sampled_from(KINDS))
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        error = kind(draw(texts))
    else:
        error = kind(**{p.name: draw(VALUES.get(p.name, texts)) for p in parameters})
    error.noted(*draw(st.lists(texts, max_size=2)))
    if draw(st.booleans()):
        error.uncertain = True
    return error


@given(raised())
def test_what_the_journal_keeps_of_an_error_makes_it_again(error: NexcageError) -> None:
    problem = Problem.of(error)
    read = msgspec.json.decode(msgspec.json.encode(problem), type=Problem)
    assert read == problem

    again = read.error()

    assert type(again) is type(error)
    assert (str(again), again.retryable, again.uncertain) == (problem.message, error.retryable, error.uncertain)
    assert tuple(getattr(again, "__notes__", ())) == problem.notes
    assert Problem.of(again) == problem
    for name in type(error).fields:
        kept, given_ = getattr(again, name), getattr(error, name)
        if isinstance(given_, int) and -(2**63) <= given_ < 2**63:
            assert kept == given_
        if isinstance(given_, str) and given_.isprintable():
            assert kept == given_


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_class_is_known_to_the_journal_by_its_name(kind: type[NexcageError]) -> None:
    assert kind.__name__ in errors.__all__
    assert type(Problem(kind.__name__, "x").error()) is kind


@pytest.mark.parametrize("name", ["NoSuchClass", "escaped", "Any", "annotations", "__all__", "Exception", ""])
def test_a_class_that_nobody_knows_is_a_plain_error(name: str) -> None:
    assert type(Problem(name, "x").error()) is NexcageError


def test_a_foreign_exception_is_kept_with_its_class_in_the_message() -> None:
    problem = Problem.of(OSError(28, "No space left", "/var/\udce4"))
    assert problem.type == "OSError"
    assert problem.message.startswith("OSError: ")
    assert type(msgspec.json.decode(msgspec.json.encode(problem), type=Problem).error()) is NexcageError


@given(raised())
def test_copies_and_pickles_are_the_error_with_notes_of_their_own(error: NexcageError) -> None:
    before = list(getattr(error, "__notes__", ()))
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(again) is type(error)
        assert (str(again), again.args) == (str(error), error.args)
        assert list(getattr(again, "__notes__", ())) == before
        again.add_note("only here")
        assert list(getattr(error, "__notes__", ())) == before


def test_one_line_says_it_whatever_the_value_was() -> None:
    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError

    for value in ("a\nb", b"\x00", "\ud800", "é" * 500, Hostile(), 10**50):
        message = str(errors.InvalidName("x", value, "y"))
        assert message.isascii()
        assert message.isprintable()
        assert len(message) < 200

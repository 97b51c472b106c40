"""Bytes of a node as text and numbers: nothing they hold can pass for something else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import Command, CommandFailed, Result, failed, number, shown, text


@given(st.binary(max_size=200), st.integers(1, 250))
def test_what_people_are_shown_has_no_control_characters(data: bytes, limit: int) -> None:
    for char in shown(data, limit):
        assert char.isprintable() or char in "\n\t"


@given(st.text(st.characters(exclude_categories=("C", "Z")), max_size=50))
def test_printable_text_is_shown_as_it_is(words: str) -> None:
    assert shown(words.encode()) == words
    assert text(Result(0, words.encode() + b"\n\n")) == words


@given(st.integers(0, 10**19 - 1), st.sampled_from(["", " ", "\n"]))
def test_a_number_is_read(value: int, blank: str) -> None:
    assert number(Result(0, f"{blank}{value}{blank}".encode())) == value


@pytest.mark.parametrize("data", [b"", b"-1", b"1 2", b"0x10", b"1_0", "٣".encode(), b"1" * 20, b"\xff", b"1\x00"])
def test_what_is_no_number_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a number"):
        number(Result(0, data))


def test_a_failure_says_what_was_run_where_and_what_it_said() -> None:
    command = Command(("pct", "start", "104", "a\nb"), number)
    error = failed(command, Result(2, b"out", b"one\n\x1b[31mtwo\n"), "pve-01")
    assert isinstance(error, CommandFailed)
    assert str(error) == "pct start on pve-01 failed: \\x1b[31mtwo"
    assert (error.exit, error.node, error.argv) == (2, "pve-01", command.argv)
    assert all("\x1b" not in note for note in error.__notes__)
    assert str(failed(command, Result(7), "n")) == "pct start on n failed: exit status 7, no message"

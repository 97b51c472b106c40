"""What lxc-monitor prints, and what is not from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage.tools.monitor import Change, Lines, change, monitor

# As LXC 5.0.2 printed them for a container that was started, paused, resumed and killed.
PRINTED = b"""\
'104' changed state to [STARTING]
'104' changed state to [RUNNING]
'104' changed state to [FREEZING]
'104' changed state to [FROZEN]
'104' changed state to [FROZEN]
'104' changed state to [THAWED]
'104' changed state to [THAWED]
'104' changed state to [RUNNING]
'104' exited with status [0]
'104' changed state to [STOPPING]
'104' changed state to [STOPPED]
"""


def test_every_line_of_a_life_is_read() -> None:
    changes = [change(line) for line in Lines().feed(PRINTED)]

    assert all(one is not None and one.vmid == 104 for one in changes)
    assert changes[0] == Change(104, "STARTING")
    assert changes[8] == Change(104, exit=0)


@pytest.mark.parametrize(
    "line",
    [b"", b"'web' changed state to [RUNNING]", b"'104' changed", b"x'104' exited with status [0]", b"'12345678901' exited with status [0]",
     b"'104' changed state to [RUNNING] or so", b"'042' exited with status [1]", b"\xff\xfe"],
)  # fmt: skip
def test_what_is_not_about_a_container_of_pve_says_nothing(line: bytes) -> None:
    assert change(line) is None


@given(st.binary(max_size=400))
def test_no_bytes_break_it(data: bytes) -> None:
    lines = Lines()
    for one in lines.feed(data) + lines.feed(b"\n"):
        change(one)


@given(st.lists(st.integers(min_value=1, max_value=60)))
def test_it_does_not_matter_in_which_pieces_lines_come(sizes: list[int]) -> None:
    lines, found, rest = Lines(), [], PRINTED
    for size in [*sizes, len(PRINTED)]:
        found += lines.feed(rest[:size])
        rest = rest[size:]

    assert found == PRINTED.splitlines()


def test_a_line_without_an_end_takes_no_memory() -> None:
    lines = Lines()
    for _ in range(10_000):
        assert lines.feed(b"x" * 1000) == []

    assert len(lines._rest) <= 4096


def test_following_changes_nothing_and_may_be_repeated() -> None:
    assert (monitor().argv, monitor().safe, monitor().timeout) == (("lxc-monitor", "-n", ".*"), True, None)

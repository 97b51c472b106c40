"""The HA manager's words."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import InvalidName, Result
from nexcage.tools import ha

STATUS = b"""quorum OK
master pve-01 (active, Mon Nov 23 03:00:00 2026)
lrm pve-01 (active, Mon Nov 23 03:00:01 2026)
lrm pve-02 (maintenance mode, Mon Nov 23 03:00:02 2026)
service ct:104 (pve-01, started)
service vm:9000 (pve-02, clearing error flag)
fencing something that nobody has seen
"""


def test_a_status_is_read_with_its_nodes_and_services() -> None:
    seen = ha.status().parse(Result(0, STATUS))

    assert (seen.quorate, seen.master) == (True, "pve-01")
    assert seen.nodes["pve-02"].startswith("maintenance mode")
    assert seen.services == {
        104: ha.Service(104, "ct", "pve-01", "started"),
        9000: ha.Service(9000, "vm", "pve-02", "clearing error flag"),
    }


def test_a_cluster_without_quorum_says_so() -> None:
    assert not ha.status().parse(Result(0, b"quorum No quorum on node 'pve-01'!\n")).quorate


def test_what_does_not_speak_of_a_quorum_is_no_status() -> None:
    with pytest.raises(ValueError, match="quorate"):
        ha.status().parse(Result(0, b"service ct:104 (pve-01, started)\n"))


@given(st.binary(max_size=200))
def test_no_bytes_break_a_reader(data: bytes) -> None:
    assert ha.maintained(data) in (True, False)
    assert ha.was_asked(data) in (True, False)
    with suppress(ValueError):
        ha.status().parse(Result(0, data))


def test_a_tool_that_only_asked_is_known_by_its_words() -> None:
    assert ha.was_asked(b"some warning\nRequesting HA start for CT 104\n")
    assert not ha.was_asked(b"not Requesting HA start for CT 104\n")


@pytest.mark.parametrize(
    "text, so",
    [(b'{"mode":"maintenance"}', True), (b'{"mode":"active"}', False), (b"{}", False), (b"", False), (b"[", False)],
)
def test_maintenance_is_what_the_nodes_own_manager_says(text: bytes, so: bool) -> None:
    assert ha.maintained(text) is so


def test_a_node_goes_into_maintenance_by_its_name_and_by_nothing_else() -> None:
    assert ha.maintenance("pve-01", on=True).argv == tuple(
        "ha-manager crm-command node-maintenance enable pve-01".split()
    )
    assert ha.to_leave_maintenance("pve 01;x") == "ha-manager crm-command node-maintenance disable 'pve 01;x'"
    with pytest.raises(InvalidName):
        ha.maintenance("pve-01 --all", on=True)

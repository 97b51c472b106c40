"""What ``pct`` shows is read from the recorded runs, and agrees with the config files that lay there."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import Result
from nexcage.tools import config, pct

CASES = Path(__file__).parent.parent / "cases" / "pct"
NODE = "/etc/pve/nodes/pve1/lxc/"


def recorded(verb: str) -> Iterator[Any]:
    for line in (CASES / f"{verb}.jsonl").read_text().splitlines():
        case = json.loads(line)
        if case["exit"] == 0:
            yield pytest.param(case, id=case["name"])


def before(case: dict[str, Any], vmid: str) -> config.Config:
    return config.parse(case["before"]["configs"][f"{NODE}{vmid}.conf"])


@pytest.mark.parametrize("case", list(recorded("list")))
def test_a_list_names_every_container_with_its_lock(case: dict[str, Any]) -> None:
    rows = pct.parse_list(case["stdout"].removesuffix("\n"))

    configs = {
        int(path[len(NODE) : -5]): config.parse(text)
        for path, text in case["before"]["configs"].items()
        if path.startswith(NODE)
    }
    assert [row.vmid for row in rows] == sorted(configs)
    assert [row.vmid for row in rows if row.running] == sorted(case["before"]["running"])
    assert [row.lock for row in rows] == [configs[row.vmid].get("lock") or "" for row in rows]
    assert [row.name for row in rows] == [configs[row.vmid].get("hostname") or f"CT{row.vmid}" for row in rows]


def test_a_long_lock_moves_the_name_but_not_its_meaning() -> None:
    head = "VMID       Status     Lock         Name                \n"
    rows = pct.parse_list(f"{head}100        stopped    snapshot-delete web2                ")

    assert rows == (pct.Row(100, False, "snapshot-delete", "web2"),)


@pytest.mark.parametrize("case", list(recorded("status")))
def test_a_status_says_whether_it_runs(case: dict[str, Any]) -> None:
    status = pct.parse_status(case["stdout"].removesuffix("\n"))

    assert status.running == (int(case["argv"][2]) in case["before"]["running"])
    if "--verbose" in case["argv"]:
        assert status.number("vmid") == int(case["argv"][2])
        assert (status.number("pid") is not None) == status.running


@pytest.mark.parametrize("case", list(recorded("config")))
def test_a_shown_config_is_the_one_in_the_file(case: dict[str, Any]) -> None:
    shown = pct.parse_config(case["stdout"].removesuffix("\n"))

    argv = case["argv"]
    known = before(case, argv[2])
    if "--snapshot" in argv:
        part = known.snapshots[argv[argv.index("--snapshot") + 1]]
        values, description = part.values, part.description
    else:
        values = known.values if "--current" in argv else known.effective()
        description = known.description
    assert shown.values == values
    assert shown.description.rstrip("\n") == description.rstrip("\n")


@pytest.mark.parametrize("case", list(recorded("pending")))
def test_what_waits_for_the_next_start_is_shown(case: dict[str, Any]) -> None:
    changes = {change.key: change for change in pct.parse_pending(case["stdout"].removesuffix("\n"))}

    known = before(case, case["argv"][2])
    waiting = dict(known.pending.values) if known.pending else {}
    dropped = set(waiting.pop("delete", "").split(",")) - {""}
    current = {key: one.current for key, one in changes.items() if one.current is not None and key != "description"}
    assert current == known.values
    assert {key: one.new for key, one in changes.items() if one.new is not None} == waiting
    assert {key for key, one in changes.items() if one.deleted} == dropped & set(known.values)


def test_an_empty_node_and_one_without_running_containers_are_no_errors() -> None:
    assert pct.parse_list("") == ()
    assert pct.parse_cpusets("no running containers") == {}
    assert pct.parse_cpusets("----------\n100:  0 1   3\n----------") == {100: (0, 1, 3)}


@pytest.mark.parametrize("case", list(recorded("listsnapshot")))
def test_a_tree_of_snapshots_is_read_with_its_parents(case: dict[str, Any]) -> None:
    tree = pct.parse_snapshots(case["stdout"].removesuffix("\n"))

    known = before(case, case["argv"][2]).snapshots
    assert {one.name: one.parent for one in tree} == {name: s.values.get("parent", "") for name, s in known.items()}
    for one in tree:
        assert one.description == known[one.name].description.rstrip("\n").split("\n")[0]


def test_branches_of_snapshots_hang_where_they_were_taken() -> None:
    tree = pct.parse_snapshots(
        "`-> a                          2026-11-22 17:56:40     one  two\n"
        " `-> b                         2026-11-22 17:56:41     no-description\n"
        " `-> c                         2026-11-22 17:56:42     no-description\n"
        "  `-> current                                          You are here!"
    )

    assert [(one.name, one.parent) for one in tree] == [("a", ""), ("b", "a"), ("c", "a")]
    assert tree[0].description == "one  two"


@pytest.mark.parametrize("case", list(recorded("df")))
def test_how_full_volumes_are_is_read_by_columns(case: dict[str, Any]) -> None:
    usage = pct.parse_usage(case["stdout"].removesuffix("\n"))

    values = before(case, case["argv"][2]).values
    assert [one.key for one in usage] == [key for key in ("rootfs", "mp0", "mp1") if key in values]
    assert [one.volume for one in usage] == [values[one.key].split(",")[0] for one in usage]
    assert all(one.path.startswith("/") for one in usage)


def test_a_bound_directory_with_blanks_is_one_volume() -> None:
    row = "{:<6} {:<13} {:>4} {:>4} {:>5} {:>4} {}".format
    lines = (
        row("MP", "Volume", "Size", "Used", "Avail", "Use%", "Path"),
        row("rootfs", "local:1", "1.9G", "2.3M", "1.8G", "0.1", "/"),
        row("mp0", "/srv/my files", "1.9G", "2.3M", "1.8G", "0.1", "/my files"),
    )
    usage = pct.parse_usage("\n".join(lines))

    assert [(one.volume, one.path) for one in usage] == [("local:1", "/"), ("/srv/my files", "/my files")]
    assert usage[1].percent == 0.1


PARSERS: list[Callable[[str], object]] = [
    pct.parse_list, pct.parse_status, pct.parse_config, pct.parse_pending, pct.parse_snapshots, pct.parse_usage,
    pct.parse_cpusets,
]  # fmt: skip


@given(st.sampled_from(PARSERS), st.text(max_size=80))
def test_other_text_is_an_error_of_the_answer_and_nothing_else(parse: Callable[[str], object], text: str) -> None:
    with contextlib.suppress(ValueError):  # the node reports it as an answer that cannot be read
        parse(text)


def test_several_variables_arrive_with_what_is_between_them() -> None:
    shown = pct.config(100).parse(Result(0, b"arch: amd64\nenv: A=1\0B=2\nlxc.signal.halt: SIGTERM\n"))

    assert shown.values["env"] == "A=1\0B=2"
    assert shown.raw == (("lxc.signal.halt", "SIGTERM"),)


def test_commands_that_only_look_are_safe_to_repeat() -> None:
    for command in (
        pct.list_(), pct.status(100, verbose=True), pct.config(100, current=True), pct.pending(100),
        pct.listsnapshot(100), pct.df(100), pct.cpusets(),
    ):  # fmt: skip
        assert (command.safe, command.weight, command.cancel) == (True, "read", "term")
        assert command.timeout

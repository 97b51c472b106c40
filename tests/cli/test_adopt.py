"""``nexcage adopt``."""

from __future__ import annotations

import json
from collections.abc import Callable

from .conftest import IMAGE, PveNode, Ran

Run = Callable[..., Ran]


def ok(ran: Ran) -> str:
    assert (ran.status, ran.err) == (0, "")
    return ran.out


def theirs(pve: PveNode) -> None:
    pve.tool("pct", "create", "777", IMAGE, "--hostname", "theirs", "--description", "keep this")


def test_an_adopted_guest_is_managed_from_then_on(pve: PveNode, run: Run) -> None:
    theirs(pve)

    assert json.loads(ok(run("adopt", "777", "--id", "db-1", "--output", "json")))["state"] == "stopped"
    ok(run("start", "db-1"))
    (row,) = [json.loads(line) for line in ok(run("list", "--all-guests", "--output", "jsonl")).splitlines()]
    assert (row["id"], row["vmid"], row["state"], row["managed"]) == ("db-1", 777, "running", True)
    assert "keep this" in pve.tool("pct", "config", "777")


def test_a_refused_change_names_the_way_to_adopt(pve: PveNode, run: Run) -> None:
    theirs(pve)

    for argv in (
        ["stop", "777"],
        ["delete", "777", "--force"],
        ["update", "777", "--memory", "1G"],
        ["snapshot", "777", "s1"],
    ):
        refused = run(*argv)
        assert refused.status == 1, argv
        assert "nexcage adopt 777 --id ID" in refused.err, argv


def test_a_dry_run_of_adopting_prints_the_command_and_changes_nothing(pve: PveNode, run: Run) -> None:
    theirs(pve)
    before = pve.tool("pct", "config", "777")

    assert ok(run("adopt", "777", "--id", "db-1", "--dry-run")).startswith("local: pct set 777 --description ")
    assert pve.tool("pct", "config", "777") == before


def test_what_cannot_be_adopted_is_said(pve: PveNode, run: Run) -> None:
    theirs(pve)

    unknown = run("adopt", "778", "--id", "db-1")
    assert (unknown.status, "guest 778 is not on local; the nearest: 777" in unknown.err) == (1, True)
    for argv in (
        ["adopt", "777"],
        ["adopt", "--id", "db-1"],
        ["adopt", "web-1", "--id", "db-1"],
        ["adopt", "777", "--id", "-x"],
    ):
        assert run(*argv).status == 2, argv

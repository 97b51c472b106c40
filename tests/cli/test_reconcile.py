"""``nexcage reconcile`` as people and programs see it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import IMAGE, PveNode, Ran

Run = Callable[..., Ran]


@pytest.fixture
def two(run: Run, pve: PveNode) -> dict[str, str]:
    """Two running containers; their VMIDs."""
    for id in ("web-1", "web-2"):
        assert run("run", id, "--image", IMAGE).status == 0
    return {row["id"]: str(row["vmid"]) for row in json.loads(run("list", "--output", "json").out)}


def rows(ran: Ran) -> list[dict[str, object]]:
    return [json.loads(line) for line in ran.out.splitlines()]


def test_nothing_differs_prints_nothing_and_exits_0(run: Run, two: dict[str, str]) -> None:
    assert run("reconcile") == Ran(0, "", "")
    assert run("reconcile", "--all", "--output", "json") == Ran(0, "[]\n", "")
    assert run("reconcile", "web-1", "--dry-run") == Ran(0, "", "")


def test_a_dry_run_says_what_differs_changes_nothing_and_exits_1(run: Run, two: dict[str, str], pve: PveNode) -> None:
    pve.tool("pct", "stop", two["web-2"])
    for _ in range(2):
        ran = run("reconcile", "--dry-run", "--output", "jsonl")
        assert ran.status == 1
        (row,) = rows(ran)
        assert (row["id"], row["was"], row["state"]) == ("web-2", "running", "stopped")
        assert (row["result"], row["action"], row["why"]) == ("would", "record", "somebody stopped it")
    assert run("reconcile", "web-1", "--dry-run").status == 0


def test_what_somebody_changed_is_a_row_in_every_format(run: Run, two: dict[str, str], pve: PveNode) -> None:
    pve.tool("pct", "stop", two["web-2"])
    table = run("reconcile", "-n")
    assert table.out.splitlines()[0].split() == ["ID", "WAS", "STATE", "NODE", "VMID", "RESULT", "ACTION", "WHY"]
    assert table.out.splitlines()[1].startswith("web-2")
    assert run("reconcile", "-n", "--output", "name").out == "web-2\n"
    assert [row["id"] for row in json.loads(run("reconcile", "-n", "-o", "json").out)] == ["web-2"]


def test_one_that_was_destroyed_is_recorded_once_and_then_forgotten(
    run: Run, two: dict[str, str], pve: PveNode
) -> None:
    pve.tool("pct", "stop", two["web-1"])
    pve.tool("pct", "destroy", two["web-1"])
    (foreseen,) = rows(run("reconcile", "-n", "--output", "jsonl"))
    assert (foreseen["result"], foreseen["action"], foreseen["state"]) == ("would", "record", "absent")
    ran = run("reconcile", two["web-1"], "--output", "jsonl")
    assert (ran.status, [row["state"] for row in rows(ran)]) == (0, ["absent"])
    assert run("reconcile").out == ""
    assert run("list", "--quiet").out == "web-2\n"


@pytest.mark.parametrize(("policy", "state"), [("adopt", "stopped"), ("revert", "running")])
def test_the_policy_of_the_configuration_is_carried_out(
    run: Run, two: dict[str, str], pve: PveNode, tmp_path: Path, policy: str, state: str
) -> None:
    config = tmp_path / "policy.toml"
    config.write_text(f'on_drift = "{policy}"\n')
    pve.tool("pct", "stop", two["web-2"])
    ran = run("--config", str(config), "reconcile", "--output", "jsonl")
    (row,) = rows(ran)
    assert (ran.status, row["result"]) == (0, "done")
    assert run("reconcile").out == ""
    (shown,) = json.loads(run("list", "-l", "id=web-2", "--output", "json").out)
    assert shown["state"] == state


def test_ids_and_selectors_choose_which_are_compared(run: Run, two: dict[str, str], pve: PveNode) -> None:
    for vmid in two.values():
        pve.tool("pct", "stop", vmid)
    assert [row["id"] for row in rows(run("reconcile", "-n", "-o", "jsonl", "-l", "id=web-2"))] == ["web-2"]
    assert [row["id"] for row in rows(run("reconcile", "-n", "-o", "jsonl", "--name", "web-1"))] == ["web-1"]
    assert len(rows(run("reconcile", "-n", "-o", "jsonl"))) == 2


def test_what_nobody_knows_and_what_cannot_be_understood_is_refused(run: Run, two: dict[str, str]) -> None:
    unknown = run("reconcile", "web-9")
    assert (unknown.status, unknown.out) == (1, "")
    assert "web-9" in unknown.err
    assert run("reconcile", "web-1", "--all").status == 2
    assert run("reconcile", "bad/id").status == 2
    assert run("reconcile", "-l", "nonsense").status == 2


def test_a_node_that_is_away_exits_3(run: Run, two: dict[str, str], pve: PveNode) -> None:
    pve.script("sh", 'echo "sh: cannot run" >&2; exit 126')
    alone = run("reconcile", "web-1")
    assert alone.status in (1, 3)
    assert alone.err
    every = run("reconcile", "--output", "jsonl")
    assert every.status == alone.status
    assert {row["result"] for row in rows(every)} == {"failed"}

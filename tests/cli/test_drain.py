"""``nexcage drain`` on a node that is alone, and on a simulated cluster."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from .conftest import IMAGE, PveNode, Ran


def test_a_node_without_others_cannot_be_drained_and_says_so(run: Callable[..., Ran], pve: PveNode) -> None:
    assert run("drain", "local").status == 0
    assert run("uncordon", "local").status == 0
    assert run("create", "web-1", "--image", IMAGE, "--storage", "local-zfs").status == 0

    ran = run("drain", "local")

    assert (ran.status, ran.err) == (
        1,
        "nexcage: drain: no other node of the cluster of local is in this fleet and can take its 1 containers\n",
    )


def test_a_drain_moves_what_its_dry_run_says(run: Callable[..., Ran], tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = str(tmp_path_factory.mktemp("sim"))
    assert run("sim", "up", "--dir", directory, "--nodes", "2", "--detach").status == 0
    try:
        fleet = ("--config", f"{directory}/config.toml")
        for id in ("web-1", "web-2"):
            made = run(*fleet, "create", id, "--image", IMAGE, "--storage", "local-zfs", "--node", "pve-01")
            assert made.status == 0, made.err
        plan = json.loads(run(*fleet, "drain", "pve-01", "--dry-run", "--output", "json").out)
        assert plan == [{"id": id, "from": "pve-01", "to": "pve-02"} for id in ("web-1", "web-2")]

        moved = run(*fleet, "drain", "pve-01", "--output", "json")

        assert (moved.status, moved.err) == (0, "")
        assert {row["node"] for row in json.loads(moved.out)} == {"pve-02"}
        plan = json.loads(run(*fleet, "route", "web-3", "--output", "json").out)
        assert plan[0]["nodes"] == ["pve-02"]
        assert "pve-01 is cordoned and takes no new containers" in plan[0]["why"]
    finally:
        run("sim", "down", "--dir", directory)


def test_a_cordoned_node_refuses_creates_and_health_shows_it_until_it_is_uncordoned(
    run: Callable[..., Ran], pve: PveNode
) -> None:
    create = ("create", "web-1", "--image", IMAGE, "--storage", "local-zfs")
    assert [run("cordon", "local"), run("cordon", "local")] == [Ran(0, "", "")] * 2

    refused = run(*create)
    assert refused.status == 1
    assert refused.err.splitlines() == [
        "nexcage: create: no node for container 'web-1': local is cordoned and takes no new containers",
        "  nexcage uncordon local",
    ]
    assert run("route", "web-1").err.startswith("nexcage: route: no node for container 'web-1'")
    assert {"node": "local", "check": "cordon", "verdict": "WARN"}.items() <= next(
        row.items() for row in json.loads(run("health", "--output", "json").out) if row["check"] == "cordon"
    )

    assert run("uncordon", "local") == Ran(0, "", "")
    assert run("uncordon", "local") == Ran(0, "", "")
    assert run(*create).status == 0


def test_a_node_that_is_not_there_can_be_neither_cordoned_nor_uncordoned(run: Callable[..., Ran], pve: PveNode) -> None:
    for verb in ("cordon", "uncordon"):
        assert run(verb, "pve-09").err == f"nexcage: {verb}: node 'pve-09' is not in this fleet\n"
        assert run(verb).status == 2

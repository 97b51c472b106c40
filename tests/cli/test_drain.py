"""``nexcage drain`` on a node that is alone, and on a simulated cluster."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from .conftest import IMAGE, PveNode, Ran


def test_a_node_without_others_cannot_be_drained_and_says_so(run: Callable[..., Ran], pve: PveNode) -> None:
    assert run("drain", "local").status == 0
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
    finally:
        run("sim", "down", "--dir", directory)

"""Checks and commands of plugins, on a node."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import PveNode, Ran

CHECKS = """
from nexcage import Command, text
from nexcage.tools.health import Check
class Kernel:
    async def check(self, node):
        return [Check("kernel", "PASS", await node.run(Command(("uname", "-s"), text, safe=True)))]
class Broken:
    async def check(self, node):
        raise ValueError("no idea")
"""


@pytest.fixture
def checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "site" / "checks-0.1.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "site" / "checks_of_a_plugin.py").write_text(CHECKS)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: checks\nVersion: 0.1\n")
    entries = "kernel = checks_of_a_plugin:Kernel\nbroken = checks_of_a_plugin:Broken"
    (info / "entry_points.txt").write_text(f"[nexcage.health]\n{entries}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


def test_checks_of_plugins_are_rows_of_health_and_a_broken_one_is_named(
    run: Callable[..., Ran], pve: PveNode, checks: None
) -> None:
    rows = {row["check"]: row for row in json.loads(run("health", "--output", "json").out)}

    assert (rows["kernel"]["verdict"], rows["kernel"]["value"]) == ("PASS", "Linux")
    assert (rows["broken"]["verdict"], "ValueError: no idea" in rows["broken"]["value"]) == ("WARN", True)
    assert rows["broken"]["todo"] == "[plugins.broken] enabled = false"


def test_the_version_of_nodes_comes_with_their_tools(run: Callable[..., Ran], pve: PveNode) -> None:
    said = json.loads(run("version", "--output", "json", "--hosts", "local").out)

    assert {"nexcage", "python", "anyio", "msgspec"} <= set(said)
    assert said["nodes"]["local"]["pve-manager"] == "9.1.1"
    assert said["nodes"]["local"]["zfsutils-linux"] == "2.3.4-pve1"
    assert run("version", "--hosts", "local").out.splitlines()[1].startswith("local: pve-manager 9.1.1, ")


def test_the_version_of_a_node_that_is_no_pve_says_so_and_exits_1(run: Callable[..., Ran]) -> None:
    ran = run("version", "--output", "json", "--hosts", "local")

    assert (ran.status, list(json.loads(ran.out)["nodes"]["local"])) == (1, ["error"])


def test_the_version_alone_asks_no_node_and_opens_nothing(run: Callable[..., Ran], places: Path) -> None:
    assert "nodes" not in json.loads(run("version", "--output", "json").out)
    assert list(places.iterdir()) == []

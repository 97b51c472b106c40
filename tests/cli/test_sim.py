"""``nexcage sim``: a cluster behind SSH servers, driven through the same command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nexcage._cli.commands import COMMANDS

from .conftest import Ran
from .test_streams import DEADLINE, started

Run = Callable[..., Ran]


@pytest.fixture
def up(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Three nodes that are up; ``run`` with their config."""
    monkeypatch.delenv("NEXCAGE_STATE_DIR")
    monkeypatch.delenv("NEXCAGE_RUN_DIR")
    directory = str(tmp_path / "sim")
    ran = run("sim", "up", "--nodes", "3", "--dir", directory, "--seed", "7", "--detach")
    try:
        assert ran == Ran(0, f"{directory}/config.toml\n", "")
        yield lambda *argv: run("--config", f"{directory}/config.toml", *argv)
    finally:
        assert run("sim", "down", "--dir", directory) == Ran(0, "", "")


def ok(ran: Ran) -> str:
    assert (ran.status, ran.err) == (0, "")
    return ran.out


def test_the_whole_life_of_a_fleet_through_the_command_line(up: Run, tmp_path: Path) -> None:
    directory = str(tmp_path / "sim")
    for number in range(3):
        node = f"pve-0{number + 1}"
        ok(up("create", f"web-{number}", "--image", "debian:12", "--runtime", "lxc", "--node", node, "--tag", "web"))
    summary = ok(up("start", "-l", "tag=web"))
    assert [line.split()[:2] for line in summary.splitlines()[1:]] == [
        ["pve-01", "1"],
        ["pve-02", "1"],
        ["pve-03", "1"],
        ["all", "3"],
    ]
    rows = [json.loads(line) for line in ok(up("list", "--output", "jsonl")).splitlines()]
    assert [(row["id"], row["state"], row["node"]) for row in rows] == [
        ("web-0", "running", "pve-01"),
        ("web-1", "running", "pve-02"),
        ("web-2", "running", "pve-03"),
    ]
    assert ok(up("list", "-l", "node=pve-0[12]", "-q")) == "web-0\nweb-1\n"
    assert json.loads(ok(up("state", str(rows[1]["vmid"]))))["pid"] == rows[1]["pid"]
    ok(up("kill", "--all", "HUP"))
    ok(up("stop", "--all", "--timeout", "20"))
    ok(up("delete", "--all"))

    assert ok(up("list", "--output", "json")) == "[]\n"
    effects = [
        json.loads(line) for line in ok(up("sim", "effects", "--dir", directory, "--output", "jsonl")).splitlines()
    ]
    assert [effect["seq"] for effect in effects] == sorted(effect["seq"] for effect in effects)
    assert all(list(effect)[:5] == ["seq", "at", "node", "op_id", "step"] and effect["op_id"] for effect in effects)


def test_a_node_that_is_away_costs_only_its_own_containers_and_exits_3(up: Run, tmp_path: Path) -> None:
    directory = str(tmp_path / "sim")
    for node in ("pve-01", "pve-02"):
        ok(up("create", f"on-{node}", "--image", "debian:12", "--runtime", "lxc", "--node", node))

    ok(up("sim", "fault", "--dir", directory, "--node", "pve-02", "crash"))
    away = up("start", "--all")
    state = up("state", "on-pve-02")

    assert away.status == 3
    assert "on-pve-02" in away.err
    assert "1 of 2 done, 1 failed" in away.err
    assert (state.status, json.loads(state.out)["annotations"]["org.nexcage.stale"]) == (3, "true")
    assert json.loads(ok(up("state", "on-pve-01")))["status"] == "running"
    health = up("health", "--output", "jsonl")
    rows = [json.loads(line) for line in health.out.splitlines()]
    assert (health.status, {row["node"] for row in rows if row["verdict"] == "FAIL"}) == (3, {"pve-02"})
    (runner,) = [row for row in rows if (row["node"], row["check"]) == ("pve-01", "runner")]
    assert (runner["verdict"], "fencing is on" in runner["value"]) == ("PASS", True)
    examined = up("doctor", "--output", "jsonl")
    wrong = {row["where"] for row in map(json.loads, examined.out.splitlines()) if row["verdict"] == "error"}
    assert (examined.status, wrong) == (3, {"pve-02"})

    ok(up("sim", "fault", "--dir", directory, "--node", "pve-02", "restart"))
    ok(up("start", "--all"))
    assert json.loads(ok(up("state", "on-pve-02")))["status"] == "running"


def test_the_sim_path_makes_this_shell_that_node(up: Run, tmp_path: Path) -> None:
    ok(up("create", "web-1", "--image", "debian:12", "--runtime", "lxc", "--node", "pve-03"))

    listed = {}
    for node in ("pve-01", "pve-03"):
        (path,) = ok(up("sim", "path", "--dir", str(tmp_path / "sim"), "--node", node)).splitlines()
        env = {**os.environ, "PATH": f"{path}{os.pathsep}{os.environ['PATH']}"}
        listed[node] = subprocess.run(
            ["pct", "list"], env=env, capture_output=True, text=True, timeout=120, check=True
        ).stdout

    assert "web-1" in listed["pve-03"]
    assert "web-1" not in listed["pve-01"]


def test_in_the_foreground_it_prints_one_line_and_ends_on_sigterm(run: Run, tmp_path: Path) -> None:
    directory = tmp_path / "sim"
    with started("sim", "up", "--nodes", "1", "--dir", str(directory)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{directory}/config.toml\n"
        busy = run("sim", "up", "--dir", str(directory))
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=DEADLINE)

    assert (process.returncode, out, err) == (0, "", "")
    assert busy.status == 1
    assert "is up" in busy.err
    assert run("sim", "effects", "--dir", str(directory)) == Ran(0, "", "")


def test_faults_are_understood_as_people_say_them() -> None:
    from nexcage.testing.faults import kind_of

    said = ["wrong exit", "non-UTF-8", "lock_held", "changed host key", "drop before", "endless output"]
    assert [kind_of(word) for word in said] == [
        "wrong-exit",
        "non-utf8",
        "lock-held",
        "host-key",
        "drop-before",
        "endless",
    ]


def test_the_words_for_faults_are_those_of_the_test_kit() -> None:
    from nexcage.testing import FAULTS

    assert set(COMMANDS["sim fault"].choices) == set(FAULTS)


@pytest.mark.parametrize(
    "argv",
    [
        ["sim", "up"],
        ["sim", "up", "--dir", "x", "--nodes", "many"],
        ["sim", "up", "--dir", "x", "--nodes", "0"],
        ["sim", "down", "--dir", "/no/such/dir"],
        ["sim", "path", "--dir", "x"],
        ["sim", "fault", "--dir", "x", "--node", "pve-01"],
        ["sim", "fault", "--dir", "x", "--node", "pve-01", "crsh"],
        ["sim", "effects", "--dir", "x", "more"],
        ["sim", "up", "--dir", "/usr"],
    ],
)
def test_wrong_sim_calls_are_refused(
    argv: list[str], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    ran = run(*argv)

    assert (ran.status, ran.out) == (2, "")
    assert len(ran.err.splitlines()) == 1

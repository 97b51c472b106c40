"""Virtual machines through the command line, on this machine as a simulated PVE node."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import IMAGE, PveNode, Ran

Run = Callable[..., Ran]
UBUNTU = "local:import/ubuntu-20.04-server-cloudimg-amd64.qcow2"


@pytest.fixture
def nexcage(pve: PveNode, run: Run, tmp_path: Path) -> Run:
    """The command with an alias that means something else to each backend."""
    config = tmp_path / "config.toml"
    config.write_text(f'[images]\n"ubuntu:20.04" = {{ lxc = "{IMAGE}", vm = "{UBUNTU}" }}\n')
    return lambda *argv, **more: run("--config", str(config), *argv, **more)


def test_an_alias_makes_what_the_runtime_says_and_nothing_without_one(nexcage: Run) -> None:
    assert nexcage("create", "--name", "test-vm", "--image", "ubuntu:20.04", "--runtime", "vm") == (0, "", "")
    assert nexcage("create", "--name", "test-ct", "--image", "ubuntu:20.04", "--runtime", "lxc") == (0, "", "")
    refused = nexcage("create", "--name", "none", "--image", "ubuntu:20.04")

    rows = {row["id"]: row["backend"] for row in json.loads(nexcage("list", "--output", "json").out)}

    assert (refused.status, "name a backend" in refused.err) == (2, True)
    assert rows == {"test-vm": "vm", "test-ct": "lxc"}


def test_a_virtual_machine_lives_as_a_container_does(nexcage: Run) -> None:
    keys = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMjK ada@x\n"
    options = ("--size", "4", "--ci-user", "ada", "--cpu", "host", "--ssh-public-keys", "-")
    assert nexcage("create", "db-1", "--image", UBUNTU, *options, stdin=keys) == (0, "", "")
    assert nexcage("start", "db-1") == (0, "", "")
    assert nexcage("pause", "db-1") == (0, "", "")
    state = json.loads(nexcage("state", "db-1").out)
    assert (state["status"], state["annotations"]["org.nexcage.backend"]) == ("paused", "vm")
    assert nexcage("resume", "db-1") == (0, "", "")
    refused = nexcage("kill", "db-1", "HUP")
    assert (refused.status, "KILL, which pulls its plug" in refused.err) == (2, True)
    assert nexcage("kill", "db-1", "KILL").status == 0
    assert json.loads(nexcage("state", "db-1").out)["status"] == "stopped"
    assert nexcage("delete", "db-1") == (0, "", "")


def test_a_drain_says_which_machines_stay(run: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = str(tmp_path_factory.mktemp("sim"))
    assert run("sim", "up", "--dir", directory, "--nodes", "2", "--detach").status == 0
    try:
        fleet = ("--config", f"{directory}/config.toml")
        for id, image in (("web-1", IMAGE), ("db-1", UBUNTU)):
            made = run(*fleet, "create", id, "--image", image, "--storage", "local-zfs", "--node", "pve-01")
            assert made.status == 0, made.err
        why = "backend 'vm' has no way to move it"
        plan = run(*fleet, "drain", "pve-01", "--dry-run", "--output", "json")
        assert json.loads(plan.out) == [
            {"id": "web-1", "from": "pve-01", "to": "pve-02"},
            {"id": "db-1", "from": "pve-01", "to": "", "stays": why},
        ]
        assert why in run(*fleet, "drain", "pve-01", "--dry-run").out

        drained = run(*fleet, "drain", "pve-01", "--output", "json")

        assert (drained.status, drained.err) == (1, f"nexcage: drain: 'db-1' stays: {why}\n")
        assert [row["id"] for row in json.loads(drained.out)] == ["web-1"]
    finally:
        run("sim", "down", "--dir", directory)


def test_exec_collects_what_a_program_in_a_machine_prints_and_ends_as_it_does(nexcage: Run) -> None:
    assert nexcage("create", "db-1", "--image", UBUNTU, "--agent").status == 0
    assert nexcage("start", "db-1").status == 0

    assert nexcage("exec", "db-1", "--", "cat", stdin="through\n") == (0, "through\n", "")
    assert nexcage("exec", "db-1", "--", "sh", "-c", "echo out; echo err >&2; exit 7") == (7, "out\n", "err\n")
    assert nexcage("exec", "--all", "--", "echo", "here").out == "db-1: here\n"
    for option, name in ((("--env", "A=secret"), "env"), (("--cwd", "/srv"), "cwd"), (("--user", "ada"), "user")):
        refused = nexcage("exec", *option, "db-1", "--", "true")
        assert (refused.status, name in refused.err, "secret" in refused.err) == (255, True, False)
    terminal = nexcage("exec", "--tty", "db-1", "--", "true")
    assert (terminal.status, "has no terminals" in terminal.err) == (255, True)


def test_exec_in_a_machine_without_an_agent_says_what_to_do(nexcage: Run) -> None:
    assert nexcage("create", "db-1", "--image", UBUNTU).status == 0
    assert nexcage("start", "db-1").status == 0

    ran = nexcage("exec", "db-1", "--", "true")

    assert (ran.status, ran.out) == (255, "")
    assert "--agent 1" in ran.err
    assert "install and start qemu-guest-agent inside" in ran.err

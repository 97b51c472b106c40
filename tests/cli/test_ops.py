"""Snapshots, settings, disks and places through the command line, on this machine as a simulated PVE node."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from .conftest import IMAGE, PveNode, Ran

Run = Callable[..., Ran]


def ok(ran: Ran) -> str:
    assert (ran.status, ran.err) == (0, "")
    return ran.out


def vmid_of(run: Run, id: str = "web-1") -> str:
    return str(json.loads(ok(run("state", id)))["annotations"]["org.nexcage.vmid"])


@pytest.fixture
def web(pve: PveNode, run: Run) -> str:
    ok(run("create", "web-1", "--image", IMAGE, "--storage", "local-zfs", "--tag", "web"))
    return vmid_of(run)


def test_a_snapshot_is_taken_listed_rolled_back_to_and_forgotten(pve: PveNode, run: Run, web: str) -> None:
    assert ok(run("snapshot", "web-1", "s1", "--description", "before the upgrade")) == ""
    (row,) = json.loads(ok(run("snapshots", "web-1", "--output", "json")))
    assert (row["name"], row["state"], row["description"]) == ("s1", "whole", "before the upgrade")
    assert "s1" in pve.tool("pct", "listsnapshot", web)

    ok(run("start", "web-1"))
    ok(run("update", "web-1", "--memory", "1G"))
    assert ok(run("rollback", "web-1", "s1", "--start")) == ""
    assert "memory: 512" in pve.tool("pct", "config", web)
    assert "running" in pve.tool("pct", "status", web)
    assert ok(run("delsnapshot", "web-1", "s1")) == ""
    assert ok(run("snapshots", "web-1", "--output", "name")) == ""


def test_a_snapshot_of_all_that_match_takes_the_name_last(pve: PveNode, run: Run, web: str) -> None:
    ok(run("create", "web-2", "--image", IMAGE, "--storage", "local-zfs", "--tag", "web"))

    ok(run("snapshot", "-l", "tag=web", "nightly", "--output", "name"))

    for id in ("web-1", "web-2"):
        assert ok(run("snapshots", id, "--output", "name")) == "nightly\n"


def test_what_cannot_be_is_said_in_one_line(pve: PveNode, run: Run, web: str) -> None:
    ok(run("snapshot", "web-1", "s1"))
    for argv, status, line in (
        (("snapshot", "web-1", "s1"), 1, "nexcage: snapshot: snapshot 's1' of container 'web-1' already exists\n"),
        (("rollback", "web-1", "no"), 1, "nexcage: rollback: snapshot 'no' of container 'web-1' does not exist\n"),
        (
            ("resize", "web-1", "rootfs", "1G"),
            2,
            "nexcage: resize: invalid size '1G': at least 4G: a disk never shrinks\n",
        ),
        (("template", "web-1"), 1, "nexcage: cannot template container 'web-1': it has snapshots\n"),
    ):
        ran = run(*argv)
        assert (ran.status, ran.out, ran.err) == (status, "", line)
    assert run("snapshot", "web-1").status == 2


def test_an_update_says_first_what_it_would_change_and_does_it_once(pve: PveNode, run: Run, web: str) -> None:
    ok(run("start", "web-1"))
    dry = ok(run("update", "web-1", "--memory", "1G", "--tag", "a;b", "--dry-run"))
    assert dry.startswith("web-1: memory: 512 -> 1024\nweb-1: tags: nexcage;web -> a;b;nexcage\n")
    assert f": pct set {web} --memory 1024 --tags 'a;b;nexcage' --digest " in dry
    assert "memory: 512" in pve.tool("pct", "config", web)

    ok(run("update", "web-1", "--memory", "1G", "--tag", "a;b"))
    assert json.loads(ok(run("update", "web-1", "--memory", "1G", "--output", "json")))["result"] == "unchanged"
    assert "tags: a;b;nexcage" in pve.tool("pct", "config", web)
    assert ok(run("list", "-l", "tag=a", "--output", "name")) == "web-1\n"


def test_update_takes_the_options_of_runc(pve: PveNode, run: Run, web: str) -> None:
    ok(
        run(
            "update",
            "web-1",
            "--memory",
            "1G",
            "--memory-swap",
            "1536M",
            "--cpu-quota",
            "150000",
            "--cpu-share",
            "1024",
        )
    )

    config = pve.tool("pct", "config", web)
    for line in ("memory: 1024", "swap: 512", "cpulimit: 1.5", "cpuunits: 39"):
        assert line in config.splitlines()


def test_an_update_for_another_config_is_refused(pve: PveNode, run: Run, web: str) -> None:
    ran = run("update", "web-1", "--memory", "1G", "--digest", "0" * 40)

    assert ran.status == 1
    assert "was changed meanwhile" in ran.err


def test_a_disk_grows_by_what_is_asked_for(pve: PveNode, run: Run, web: str) -> None:
    ok(run("resize", "web-1", "rootfs", "+1G"))
    assert "size=5G" in pve.tool("pct", "config", web)
    assert json.loads(ok(run("resize", "web-1", "rootfs", "5G", "--output", "json")))["result"] == "unchanged"


def test_a_volume_moves_and_a_template_is_made(pve: PveNode, run: Run, web: str) -> None:
    ok(run("move-volume", "web-1", "rootfs", "local", "--delete"))
    assert "rootfs: local:" in pve.tool("pct", "config", web)
    ok(run("template", "web-1"))
    assert "template: 1" in pve.tool("pct", "config", web)


@pytest.mark.parametrize(
    ("argv", "typed"),
    [
        (("start",), "pct start {}"),
        (("delete",), "pct destroy {}"),
        (("snapshot", "s1"), "pct snapshot {} s1 --description 'nexcage op=OPERATION'"),
        (("template",), "pct template {}"),
    ],
)
def test_a_dry_run_prints_the_commands_and_runs_none(
    pve: PveNode, run: Run, web: str, argv: tuple[str, ...], typed: str
) -> None:
    before = pve.tool("pct", "config", web)

    out = ok(run(argv[0], "web-1", *argv[1:], "--dry-run"))

    assert out == f"local: {typed.format(web)}\n"
    assert pve.tool("pct", "config", web) == before


def test_containers_are_made_as_copies_of_a_template(pve: PveNode, run: Run, web: str) -> None:
    ok(run("clone", "web-1", "full"))
    ok(run("template", "web-1"))
    ok(run("clone", "web-1", "linked-1", "--linked", "--description", "a copy"))
    ok(run("create", "linked-2", "--from", "web-1", "--linked"))

    for id, volume in (
        ("full", "subvol-"),
        ("linked-1", f"basevol-{web}-disk-0/"),
        ("linked-2", f"basevol-{web}-disk-0/"),
    ):
        config = pve.tool("pct", "config", vmid_of(run, id))
        assert f"rootfs: local-zfs:{volume}" in config
        assert "tags: nexcage;web" in config
    assert run("doctor").status == 0
    ok(run("start", "linked-1"))


def test_what_a_copy_cannot_have_of_its_own_is_refused(pve: PveNode, run: Run, web: str) -> None:
    ran = run("create", "web-2", "--from", "web-1", "--memory", "1G")

    assert ran.status == 2
    assert "--memory is not for a copy" in ran.err
    assert run("clone", "nobody", "web-2").err == "nexcage: clone: container 'nobody' does not exist\n"

"""The scripts that remove what a killed snapshot or clone left, in real shells: they touch nothing that is not provably ours."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nexcage import Mark, Settled
from nexcage._core.command import Command, Result
from nexcage.tools import mend_clone, mend_lock, mend_snapshot

SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]
MARK = Mark("f1", "web-1", 104, "made")
MAIN = f"#{MARK}\narch: amd64\n"
PREPARE = "\n[s1]\n#nexcage op=op.1\narch: amd64\nsnapstate: prepare\n"
AT = 0x6AA00000
PROOF = Settled(kind="lost", at=AT, started=5)
Run = Callable[[Command[None]], tuple[int, list[str], str]]


class Node:
    """A tree with configs and tasks, and a ``pct`` that only says how it was called."""

    def __init__(self, root: Path, shell: str) -> None:
        self.root = root
        self.shell = shell
        for name in ("etc/pve/lxc", "var/log/pve/tasks", "bin", f"proc/{os.getpid()}"):
            (root / name).mkdir(parents=True)
        pct = root / "bin" / "pct"
        pct.write_text('#!/bin/sh\necho "$@"\n')
        pct.chmod(0o755)

    def config(self, vmid: int, text: str) -> None:
        (self.root / f"etc/pve/lxc/{vmid}.conf").write_text(text)

    def task(self, vmid: int, kind: str, *, alive: bool = False, at: int = AT) -> None:
        pid = os.getpid() if alive else 0x7FFFFFF0
        with (self.root / "var/log/pve/tasks/active").open("a") as file:
            file.write(f"UPID:pve1:{pid:08X}:00000009:{at:08X}:{kind}:{vmid}:root@pam: 1\n")

    def run(self, command: Command[None]) -> tuple[int, list[str], str]:
        argv = [self.shell, *command.argv[1:]]
        env = {"PATH": f"{self.root}/bin:{os.environ['PATH']}", "NEXCAGE_NODE_ROOT": str(self.root)}
        ran = subprocess.run(argv, capture_output=True, text=True, timeout=20, env=env, check=False)
        return ran.returncode, ran.stdout.splitlines(), ran.stderr


@pytest.fixture(params=SHELLS)
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Node:
    return Node(tmp_path, str(request.param))


@pytest.mark.parametrize("lock", ["lock: snapshot\n", ""])
def test_an_incomplete_snapshot_of_ours_goes_with_its_lock(node: Node, lock: str) -> None:
    node.config(104, MAIN + lock + PREPARE)
    node.task(104, "vzsnapshot")

    status, calls, said = node.run(mend_snapshot.mend(MARK, "s1", "snapshot", "op.1"))

    assert (status, said) == (0, "")
    assert calls == (["unlock 104"] if lock else []) + ["delsnapshot 104 s1 --force 1"]


def test_a_removal_goes_on_where_it_stopped(node: Node) -> None:
    node.config(104, MAIN + "lock: snapshot-delete\n\n[s1]\narch: amd64\nsnapstate: delete\n")
    assert node.run(mend_snapshot.mend(MARK, "s1", "snapshot-delete", "op.1"))[1] == [
        "unlock 104",
        "delsnapshot 104 s1 --force 1",
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("arch: amd64\nlock: snapshot\n" + PREPARE, "does not carry our mark"),
        (MAIN + "lock: backup\n" + PREPARE, "its lock is backup"),
        (MAIN + PREPARE.replace("op.1", "op.10"), "of another operation"),
        (MAIN + PREPARE.replace("snapstate: prepare\n", ""), "is whole"),
        ("arch: amd64\n\n[s0]\n" + MAIN + PREPARE, "does not carry our mark"),
    ],
)
def test_a_snapshot_that_is_not_provably_ours_stays(node: Node, text: str, why: str) -> None:
    node.config(104, text)
    status, calls, said = node.run(mend_snapshot.mend(MARK, "s1", "snapshot", "op.1"))
    assert (status, calls) == (9, [])
    assert why in said


def test_while_a_task_works_on_it_nothing_is_removed(node: Node) -> None:
    node.config(104, MAIN + "lock: snapshot\n" + PREPARE)
    node.task(104, "vzsnapshot", alive=True)
    assert node.run(mend_snapshot.mend(MARK, "s1", "snapshot", "op.1"))[:2] == (9, [])


def test_what_is_gone_already_is_well(node: Node) -> None:
    assert node.run(mend_snapshot.mend(MARK, "s1", "snapshot", "op.1")) == (0, [], "")
    assert node.run(mend_clone.mend("web-2", 105, MARK, PROOF)) == (0, [], "")


def test_a_half_made_copy_goes_and_its_source_is_unlocked(node: Node) -> None:
    node.config(104, MAIN + "lock: disk\n")
    node.config(105, "lock: create\n")
    node.task(104, "vzclone")

    assert node.run(mend_clone.mend("web-2", 105, MARK, PROOF)) == (
        0,
        ["unlock 104", "unlock 105", "destroy 105 --destroy-unreferenced-disks 1"],
        "",
    )


@pytest.mark.parametrize(
    ("tasks", "text", "calls", "why"),
    [
        ([(104, "vzclone", True)], "lock: create\n", [], "a task works on it"),
        ([(105, "vzcreate", True)], "lock: create\n", [], "a task works on it"),
        ([(105, "vzcreate", False)], "lock: create\n", [], "somebody has made another one"),
        ([], "arch: amd64\nlock: create\n", ["unlock 104"], "more than a lock"),
    ],
)
def test_a_copy_that_is_not_provably_ours_stays(
    node: Node, tasks: list[tuple[int, str, bool]], text: str, calls: list[str], why: str
) -> None:
    node.config(104, MAIN + "lock: disk\n")
    node.config(105, text)
    for vmid, kind, alive in tasks:
        node.task(vmid, kind, alive=alive)

    status, called, said = node.run(mend_clone.mend("web-2", 105, MARK, PROOF))

    assert (status, called) == (9, calls)
    assert why in said


def test_a_source_of_somebody_else_keeps_its_lock(node: Node) -> None:
    node.config(104, "arch: amd64\nlock: disk\n")
    node.config(105, "lock: create\n")
    assert node.run(mend_clone.mend("web-2", 105, MARK, PROOF))[1] == [
        "unlock 105",
        "destroy 105 --destroy-unreferenced-disks 1",
    ]


MOVE = Settled(kind="ended", result=Result(255, seconds=20.0), at=AT, started=5)


@pytest.mark.parametrize(
    ("tasks", "config", "why"),
    [
        ((("vzmigrate", AT),), MAIN + "lock: migrate\n", ""),
        ((("vzmigrate", AT), ("vzcreate", AT - 90)), MAIN + "lock: migrate\n", ""),
        ((), MAIN + "lock: migrate\n", "0 migrations began since ours"),
        ((("vzmigrate", AT), ("vzmigrate", AT + 5)), MAIN + "lock: migrate\n", "2 migrations began since ours"),
        ((("vzmigrate", AT),), MAIN + "lock: backup\n", "it is another one"),
        ((("vzmigrate", AT),), "arch: amd64\nlock: migrate\n", "it does not carry our mark"),
        ((("vzmigrate", AT),), f"lock: migrate\n[s1]\n#{MARK}\n", "it does not carry our mark"),
    ],
)
def test_only_the_lock_of_our_own_failed_migration_is_taken_away(
    node: Node, tasks: tuple[tuple[str, int], ...], config: str, why: str
) -> None:
    node.config(104, config)
    for kind, at in tasks:
        node.task(104, kind, at=at)
    status, calls, said = node.run(mend_lock.mend(MARK, MOVE))
    assert (status, calls) == ((9, []) if why else (0, ["unlock 104"]))
    assert why in said


def test_a_migration_that_began_when_ours_was_over_keeps_its_lock(node: Node) -> None:
    node.config(104, MAIN + "lock: migrate\n")
    node.task(104, "vzmigrate", at=AT + 900)  # 9 ticks after boot: not while ours ran
    late = Settled(kind="ended", result=Result(255, seconds=20.0), at=AT, started=5000)
    assert node.run(mend_lock.mend(MARK, late))[0] == 9


def test_a_lock_stays_while_a_task_works_under_it(node: Node) -> None:
    node.config(104, MAIN + "lock: migrate\n")
    node.task(104, "vzmigrate", alive=True)
    status, calls, said = node.run(mend_lock.mend(MARK, MOVE))
    assert (status, calls) == (9, [])
    assert "a task works on it" in said


def test_one_without_a_lock_or_that_is_elsewhere_now_is_left_alone(node: Node) -> None:
    assert node.run(mend_lock.mend(MARK, MOVE))[:2] == (0, [])
    node.config(104, MAIN)
    assert node.run(mend_lock.mend(MARK, MOVE))[:2] == (0, [])

"""The driver for event loops: in memory and over a directory, interrupted, dropped, waiting for each other."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from nexcage.testing._model import TOOLS
from nexcage.testing._model.drive import DiskLocks, Handle, Locks, drive
from nexcage.testing._model.files import DiskFiles
from nexcage.testing._model.node import Node
from nexcage.testing._model.tool import Ctx
from nexcage.testing._model.world import disk_node, make_cluster, make_disk_cluster

from .conftest import DEBIAN

CREATE = ("pct", "create", "100", DEBIAN, "--storage", "local-zfs")

pytestmark = pytest.mark.both_loops


def memory(_: Path, pace: float) -> tuple[Node, Locks | DiskLocks]:
    return make_cluster(["pve-01"], clock=time.time, pace=pace)["pve-01"], Locks()


def disk(directory: Path, pace: float) -> tuple[Node, Locks | DiskLocks]:
    make_disk_cluster(directory, ["pve-01"], pace=pace)
    node = disk_node(directory, "pve-01")
    assert isinstance(node.files, DiskFiles)
    return node, DiskLocks(node.files)


Make = Callable[[Path, float], tuple[Node, Locks | DiskLocks]]
both = pytest.mark.parametrize("make", [memory, disk])


@both
async def test_a_tool_runs_to_its_end(make: Make, tmp_path: Path) -> None:
    node, locks = make(tmp_path, 0.0)

    assert await drive(TOOLS["pct"], Ctx(node, CREATE), locks=locks) == 0
    listed = Ctx(node, ("pct", "list"))
    assert await drive(TOOLS["pct"], listed, locks=locks) == 0
    assert b"100        stopped" in listed.stdout


async def reserved(node: Node) -> None:
    """Return when the create has written its first config."""
    with anyio.fail_after(20):
        while node.config(100) is None:
            await anyio.sleep(0.01)


@both
@pytest.mark.parametrize("how", ["interrupt", "drop", "cancel"])
async def test_interrupted_it_cleans_up_and_dropped_it_does_not(make: Make, how: str, tmp_path: Path) -> None:
    node, locks = make(tmp_path, 0.7)
    handle, ctx = Handle(), Ctx(node, CREATE)
    status: list[int] = []

    async def run() -> None:
        status.append(await drive(TOOLS["pct"], ctx, locks=locks, handle=handle))

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await reserved(node)
        match how:
            case "interrupt":
                handle.interrupt()
            case "drop":
                handle.drop()
            case _:
                group.cancel_scope.cancel()

    assert status == {"interrupt": [255], "drop": [137], "cancel": []}[how]
    assert node.config(100) == (None if how == "interrupt" else "lock: create\n")
    assert node.tasks("vzcreate", 100) == []
    assert locks.take("/run/lock/lxc/pve-config-100.lock", object())


@both
async def test_two_calls_on_one_container_take_turns(make: Make, tmp_path: Path) -> None:
    node, locks = make(tmp_path, 0.05)
    await drive(TOOLS["pct"], Ctx(node, CREATE), locks=locks)
    calls = [Ctx(node, ("pct", "start", "100")), Ctx(node, ("pct", "start", "100"))]
    statuses: list[int] = []

    async def run(ctx: Ctx) -> None:
        statuses.append(await drive(TOOLS["pct"], ctx, locks=locks))

    async with anyio.create_task_group() as group:
        for ctx in calls:
            group.start_soon(run, ctx)

    assert sorted(statuses) == [0, 255]
    assert b"CT 100 already running\n" in [bytes(ctx.stderr) for ctx in calls]

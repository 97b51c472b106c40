"""After many operations and many faults everything is back where it was: tasks, descriptors, processes, memory."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest

import nexcage
from nexcage import Create, Delete, Intent, Kill, Limits, Pause, Resume, Spec, Start, Stop
from nexcage.testing import SimCluster, faults
from nexcage.testing._model.node import EFFECTS
from nexcage.testing.real_sshd import missing
from tests.real.conftest import Site

SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", storage="local-zfs")
OPS = int(os.environ.get("LEAK_OPS", "10000"))
IDS = [f"web-{n}" for n in range(20)]
KINDS = ("drop-before", "drop-during", "drop-after", "slow", "wrong-exit", "lock-held", "garbage", "endless", "stall")


def intent(chance: Random, id: str) -> Intent:
    make: Any = chance.choice([Create, Create, Start, Start, Stop, Kill, Pause, Resume, Delete])
    more: dict[Any, dict[str, Any]] = {
        Create: {"spec": SPEC},
        Stop: {"timeout": 5.0, "force": chance.random() < 0.5},
        Kill: {"signal": "USR2"},
        Delete: {"force": chance.random() < 0.5},
    }
    wanted: Intent = make(id, **more.get(make, {}))
    return wanted


def descriptors() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:  # the one that listed them
            continue
    return sorted(found)


def children() -> list[str]:
    found: list[str] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
            found += (task / "children").read_text().split()
    return found


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def heal(sim: SimCluster) -> None:
    for node in sim:
        with node.step():
            faults.update(node.model, faults=[])
        if node.partitioned:
            node.heal()
        if node.down:
            node.restart()


async def churn(sim: SimCluster, fleet: nexcage.Fleet, chance: Random, ops: int, at_once: int) -> int:
    """So many operations, with faults before every batch and a cancel now and then; how many ended well."""
    done = 0
    while ops > 0:
        batch = [intent(chance, id) for id in chance.sample(IDS, at_once)]
        ops -= len(batch)
        node = chance.choice(list(sim))
        if chance.random() < 0.5:
            options = {"seconds": 20} if (kind := chance.choice(KINDS)) in ("stall", "slow") else {}
            node.fault(kind, on=chance.choice(["pct", "lxc-freeze", "kill"]), **options)
        if chance.random() < 0.05:
            node.restart()
        if chance.random() < 0.03:
            node.partition()
        with anyio.move_on_after(chance.uniform(0.5, 30) if chance.random() < 0.2 else None):
            done += len((await fleet.run(batch)).done)
        heal(sim)
    return done


def swept(sim: SimCluster) -> None:
    """Forget what may grow: the simulated nodes' own logs, and caches that have a bound."""
    for node in sim:
        for path in ("/var/log/pve/tasks", EFFECTS, "/run/nexcage-ops"):
            node.files.remove(path)
    gc.collect()
    for cache in [one for one in gc.get_objects() if isinstance(one, functools._lru_cache_wrapper)]:
        if cache.__module__.startswith("nexcage"):
            cache.cache_clear()
    gc.collect()


async def quiet(before: set[asyncio.Task[Any]]) -> list[str]:
    """What still runs once everybody has had the time to end."""
    for _ in range(300):
        left = [task for task in asyncio.all_tasks() - before if not task.done()]
        if not left:
            return []
        await anyio.sleep(0.1)
    return [repr(task) for task in left]


async def settled(wanted: list[str]) -> list[str]:
    """The descriptors, as soon as they are those wanted: a connection is closed a moment after its task has ended."""
    for _ in range(300):
        if descriptors() == wanted:
            break
        await anyio.sleep(0.1)
    return descriptors()


@pytest.mark.timeout(1800)
@pytest.mark.sim(nodes=4)
async def test_ten_thousand_operations_with_faults_leave_nothing_behind(sim: SimCluster) -> None:
    chance = Random(11)
    config = nexcage.Config(limits=Limits(op_timeout=120, settle_timeout=5, probe_timeout=20, retry_most=2))
    tasks, files, threads = asyncio.all_tasks(), descriptors(), threading.active_count()

    async with sim.fleet(config=config) as fleet:
        done = await churn(
            sim, fleet, chance, OPS // 5, 10
        )  # warm: caches, the journal's segments, remembered outcomes
        swept(sim)
        base_tasks, base_files = len(asyncio.all_tasks()), descriptors()
        base_blocks, base_bytes = sys.getallocatedblocks(), resident()
        done += await churn(sim, fleet, chance, OPS - OPS // 5, 10)
        await anyio.sleep(300)
        await fleet.reconcile()
        swept(sim)
        blocks, grown = sys.getallocatedblocks() - base_blocks, resident() - base_bytes
        assert len(asyncio.all_tasks()) <= base_tasks
        assert len(descriptors()) <= len(base_files)
    gc.collect()

    assert done > OPS // 5, "hardly anything worked, so this shows nothing"
    assert blocks < 30_000  # the simulated nodes remember about two for each operation
    assert grown < 64 << 20
    assert await quiet(tasks) == []
    assert descriptors() == files
    assert threading.active_count() <= threads + 1
    assert children() == []
    assert {node.name: list(node.calls) for node in sim if node.calls} == {}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    if missing():
        pytest.skip(missing())
    site = Site(tmp_path, 2, {})
    for server in site.servers.values():
        server.start()
    yield site
    for server in site.servers.values():
        server.stop()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("runner", ["auto", "off"])
async def test_five_hundred_operations_over_ssh_leave_nothing_behind(here: Site, runner: str) -> None:
    chance = Random(12)
    limits = Limits(op_timeout=60, settle_timeout=3, probe_timeout=10, retry_base=0.05, retry_most=0.5)
    config = nexcage.Config(
        ssh_config="none", runner=runner, limits=limits, state_dir=str(here.dir / "state"), run_dir=str(here.dir / "run")  # type: ignore[arg-type]
    )  # fmt: skip
    hosts = [server.host for server in here.servers.values()]
    tasks, before = asyncio.all_tasks(), descriptors()
    sizes: list[int] = []
    for _ in range(5):
        async with nexcage.open_fleet(hosts, config=config) as fleet:
            for _ in range(10):
                if chance.random() < 0.5:
                    kind = chance.choice(["drop-before", "drop-during", "drop-after", "wrong-exit", "garbage"])
                    here.sim["pve-01"].fault(kind, on="pct")
                with anyio.move_on_after(chance.uniform(0.05, 1.0) if chance.random() < 0.3 else None):
                    await fleet.run([intent(chance, id) for id in chance.sample(IDS, 10)])
                if chance.random() < 0.1:
                    next(iter(here.servers.values())).drop()
        assert await quiet(tasks) == []
        gc.collect()
        sizes.append(resident())
        assert await settled(before) == before
        assert children() == [str(server._process.pid) for server in here.servers.values() if server._process]
    assert sizes[-1] - sizes[1] < 24 << 20, [size >> 20 for size in sizes]
    with anyio.fail_after(30):
        while here.processes():
            await anyio.sleep(0.1)

"""Durable appends per second: one writer, a thousand waiting writers, and a bare fdatasync per append beside them.

Rounds are interleaved, so that a slow minute of the disk meets all ways alike; numbers are medians of rounds. An operation is two
appends (it began, it ended).

    python benchmarks/journal.py [--rounds 7] [--dir DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path

import anyio

from nexcage import Create, Machine, Op, Spec, State, Succeeded
from nexcage._sinks.journal import open_journal

SPEC = Spec(image="local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst")
ALONE = 200  # appends of a round with one writer
CROWD = 1000  # waiting writers, one operation each


async def bare(folder: Path) -> tuple[float, int, int]:
    """What a program without group commit would do with lines of the same length."""
    line = b"x" * 219 + b"\n"
    fd = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    began = time.perf_counter()
    for _ in range(ALONE):
        os.write(fd, line)
        os.fdatasync(fd)
    took = time.perf_counter() - began
    os.close(fd)
    return took, ALONE, ALONE


async def writers(folder: Path, count: int, each: int, run_dir: Path | None = None) -> tuple[float, int, int]:
    async with open_journal(folder / "state", owner="bench", run_dir=run_dir) as journal:
        before, seq = journal.syncs, journal.seq

        async def life(first: int) -> None:
            for n in range(first, first + each):
                id, key = f"web-{n}", f"op-{n}"
                await journal.append(lambda machines, id=id, key=key: begun(machines.get(id) or Machine(id), key))
                await journal.append(Succeeded(id=id, op=Op.CREATE, op_id=key, state=State.CREATED, vmid=104))

        began = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for n in range(count):
                tasks.start_soon(life, n * each)
        return time.perf_counter() - began, journal.seq - seq, journal.syncs - before


async def with_state_files(folder: Path, top: Path) -> tuple[float, int, int]:
    """They belong on /run; a disk's file system flushes each file that a rename replaces."""
    with tempfile.TemporaryDirectory(prefix="nexcage-bench-", dir=top) as run_dir:
        return await writers(folder, CROWD, 1, Path(run_dir))


def begun(machine: Machine, key: str):  # noqa: ANN201
    return machine.begin(Create(machine.id, SPEC), op_id=key, node="pve-01", backend="lxc", owner="bench")


WAYS: dict[str, Callable[[Path], Awaitable[tuple[float, int, int]]]] = {
    "bare fdatasync per append": bare,
    "journal, 1 writer": lambda folder: writers(folder, 1, ALONE // 2),
    "journal, 1,000 writers": lambda folder: writers(folder, CROWD, 1),
    "the same with state files on tmpfs": lambda folder: with_state_files(folder, Path("/dev/shm")),
    "the same with state files on the disk": lambda folder: with_state_files(folder, folder),
}


async def measure(rounds: int, top: Path) -> dict[str, dict[str, float]]:
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    syncs: dict[str, list[float]] = {name: [] for name in WAYS}
    for round in range(rounds + 1):
        for name, way in WAYS.items():
            folder = Path(tempfile.mkdtemp(dir=top))
            took, appends, synced = await way(folder)
            shutil.rmtree(folder)
            if round:  # the first one warms up
                rates[name].append(appends / took)
                syncs[name].append(synced / (appends / 2) * 1000)
    floor = statistics.median(rates["bare fdatasync per append"])
    return {
        name: {
            "appends_per_second": statistics.median(rates[name]),
            "ratio_to_bare": statistics.median(rates[name]) / floor,
            "syncs_per_1000_operations": statistics.median(syncs[name]),
            "lowest": min(rates[name]),
            "highest": max(rates[name]),
        }
        for name in WAYS
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--dir", type=Path, default=None, help="where to write; a tmpfs would show a disk that nobody has"
    )
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nexcage-bench-", dir=options.dir) as top:
        found = anyio.run(measure, options.rounds, Path(top))
        where = os.stat(top).st_dev
    about = {
        "python": platform.python_version(),
        "anyio": version("anyio"),
        "msgspec": version("msgspec"),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "device": f"{os.major(where)}:{os.minor(where)}",
        "rounds": options.rounds,
        "method": f"medians of interleaved rounds after one to warm up; {ALONE} appends alone, {2 * CROWD} in the crowd",
    }
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(f"{'':40} {'appends/s':>10} {'x bare':>7} {'syncs/1,000 ops':>16}   lowest-highest")
    for name, row in found.items():
        print(
            f"{name:40} {row['appends_per_second']:10,.0f} {row['ratio_to_bare']:7.2f} {row['syncs_per_1000_operations']:16,.1f}"
            f"   {row['lowest']:,.0f}-{row['highest']:,.0f}"
        )
    if options.json:
        options.json.write_text(json.dumps({"benchmark": "journal", "about": about, "results": found}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())

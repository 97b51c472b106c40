"""Two driver processes on one state directory, and one cluster on disk that a third process serves over SSH."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nexcage import Op, State, fold, read_journal
from nexcage._core.events import Began, Succeeded
from nexcage.testing import SimCluster, simctl

HERE = Path(__file__).parent
SHARED = {f"web-{n:03}" for n in range(30, 50)}  # of web-000 to 049 and web-030 to 079


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Path]:
    """The config file of four nodes on disk."""
    ready: list[Path] = []
    dir = tmp_path / "sim"
    simctl.up(4, dir, seed=5, detach=True, ready=ready.append)
    yield ready[0]
    simctl.down(dir)


def driver(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / "driver.py"), *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(HERE.parents[1])},
    )


def race(*drivers: subprocess.Popen[str]) -> list[dict[tuple[str, str], str]]:
    """Start them together; for each what it said about (op, id)."""
    try:
        for process in drivers:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in drivers:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.communicate(timeout=200)[0] for process in drivers]
    finally:
        for process in drivers:
            process.kill()
            process.wait()
    assert [process.returncode for process in drivers] == [0] * len(drivers)
    lines = [[line.split() for line in text.splitlines()] for text in said]
    return [{(op, id): how for op, id, how in words} for words in lines]


@pytest.mark.parametrize("wait", ["busy", "wait"])
def test_what_two_drivers_want_happens_once(served: Path, wait: str) -> None:
    one, two = race(driver(served, 0, 50, wait), driver(served, 30, 50, wait))

    sim = SimCluster(dir=served.parent)
    made = sum(len(node.model.containers()) for node in sim)
    assert made == len({f"web-{n:03}" for n in range(80)})
    effects: list[dict[str, Any]] = sim.effects()
    assert Counter(effect["argv"][1] for effect in effects if effect["argv"][0] == "pct" and effect["exit"] == 0) == {
        "create": 80,
        "start": 80,
    }
    events = list(read_journal(served.parent / "state", strict=True))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert Counter((event.op, event.id) for event in events if isinstance(event, Began)) == {
        (op, f"web-{n:03}"): 1 for op in (Op.CREATE, Op.START) for n in range(80)
    }
    assert sum(isinstance(event, Succeeded) for event in events) == 160
    assert {machine.state for machine in fold(events).values()} == {State.RUNNING}

    losers = (
        {"AlreadyExists", "already"} if wait == "wait" else {"AlreadyExists", "already", "Busy", "IllegalTransition"}
    )
    for id in SHARED:
        for op in ("create", "start"):
            hows = [one[op, id], two[op, id]]
            assert hows.count("done") == 1, (op, id, hows)
            assert set(hows) - {"done"} <= losers, (op, id, hows)
    alone = [how for said in (one, two) for (_, id), how in said.items() if id not in SHARED]
    assert set(alone) == {"done"}

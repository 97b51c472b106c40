"""A driver is killed at random moments and started again, over a real sshd: nothing is lost, nothing happens twice."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

import nexcage
from nexcage import Config, State
from nexcage._core.events import Began, Interrupted, Succeeded

HERE = Path(__file__).parent
LIVES: list[tuple[tuple[str, ...], State]] = [
    (("create", "start", "stop", "start"), State.RUNNING),
    (("create", "start", "pause", "resume", "stop"), State.STOPPED),
    (("create", "start", "stop", "delete"), State.ABSENT),
]
KILLS = int(os.environ.get("KILLS", "100"))  # in each mode
SEED = 20


def wanted(count: int) -> dict[str, tuple[str, ...]]:
    return {f"web-{n}": LIVES[n % len(LIVES)][0] for n in range(count)}


class Drivers:
    """Forks of one program, one at a time, and what they say."""

    def __init__(self, site: Any, options: dict[str, Any]) -> None:
        self.said: queue.Queue[list[str]] = queue.Queue()
        self.lines: list[str] = []
        self._site = site
        self._options = options
        self.program = subprocess.Popen(
            [sys.executable, str(HERE / "kill9_driver.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(HERE.parents[1])},
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.program.stdout is not None
        for line in self.program.stdout:
            self.lines.append(line.decode().rstrip("\n"))
            self.said.put(self.lines[-1].split(" "))

    def until(self, word: str, patience: float = 60.0) -> list[str]:
        """The next line that begins with ``word``, or with `ended`."""
        gives_up = time.monotonic() + patience
        while True:
            try:
                words = self.said.get(timeout=max(0.0, gives_up - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no driver said {word}: {self.tail()}") from None
            if words[0] in (word, "ended"):
                return words

    def tail(self) -> str:
        return "\n".join(self.lines[-60:])

    def begin(self, count: int, **more: Any) -> int:
        """A new driver with the first ``count`` containers to bring where they are to be."""
        order = {
            "hosts": msgspec.to_builtins([server.host for server in self._site.servers.values()]),
            "dir": str(self._site.dir),
            "wanted": wanted(count),
            "options": self._options,
            **more,
        }
        assert self.program.stdin is not None
        self.program.stdin.write(msgspec.json.encode(order) + b"\n")
        self.program.stdin.flush()
        return int(self.until("born")[1])

    def close(self) -> None:
        assert self.program.stdin is not None
        self.program.stdin.close()
        if self.program.poll() is None:
            try:
                self.program.wait(1)
            except subprocess.TimeoutExpired:
                self.program.kill()
        self.program.wait()
        self._reader.join(5)
        assert self.program.stdout is not None
        self.program.stdout.close()


def journal_bytes(state: Path) -> int:
    try:
        return sum(path.stat().st_size for path in (state / "journal").glob("*.jsonl"))
    except OSError:
        return 0


def strike(drivers: Drivers, pid: int, chance: Random, state: Path) -> str:
    """Kill it at a moment drawn by chance: while it opens, some time later, or just when the journal grows."""
    how = chance.choice(["opening", "time", "journal", "journal"])
    if how == "opening":
        drivers.until("opening")
        time.sleep(chance.uniform(0, 0.12))
    elif how == "time":
        drivers.until("open")
        time.sleep(chance.uniform(0, 1.2))
    else:
        drivers.until("open")
        size, records = journal_bytes(state), chance.randint(1, 9)
        gives_up = time.monotonic() + 1.5
        while records and time.monotonic() < gives_up:
            now = journal_bytes(state)
            records -= now > size
            size = now
            time.sleep(0.0005)
        time.sleep(chance.choice([0.0, chance.uniform(0, 0.1)]))
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        how = "finished"
    ended = drivers.until("ended")
    return how if ended[2] == "-9" else "finished" if ended[2] == "0" else "broke"


def state_on_node(site: Any, id: str) -> list[State]:
    """Where the container is, once for each time that it exists."""
    found: list[State] = []
    for node in site.sim:
        for vmid in node.model.containers():
            text = node.model.config(vmid) or ""
            if f" id={id} vmid={vmid} " in text:
                assert "\nlock:" not in text, text
                up = node.model.is_running(vmid)
                found.append(State.STOPPED if not up else State.PAUSED if node.model.is_frozen(vmid) else State.RUNNING)
    return found


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", ["runner", "exec"])
def test_a_driver_that_is_killed_a_hundred_times_loses_nothing_and_does_nothing_twice(site: Any, mode: str) -> None:
    here = site(2)
    here.sim.pace = 0.1
    chance = Random(f"{SEED}:{mode}")
    options = {"runner": "auto" if mode == "runner" else "off"} if "runner" in Config.__struct_fields__ else {}
    drivers = Drivers(here, options)
    count, hits = 4, Counter[str]()
    started = time.monotonic()
    try:
        while hits.total() - hits["finished"] < KILLS:
            how = strike(drivers, drivers.begin(count), chance, here.dir / "state")
            assert how != "broke", drivers.tail()
            hits[how] += 1
            count += 2 if how == "finished" else hits.total() % 5 == 0
        killed = time.monotonic() - started
        drivers.begin(count)
        assert drivers.until("finished", 200)[0] == "finished", drivers.tail()
        assert drivers.until("ended")[2] == "0", drivers.tail()
        told = journal_bytes(here.dir / "state")
        drivers.begin(count)  # who comes next finds nothing to do, and sweeps the owners that the dead left behind
        assert drivers.until("finished", 200)[0] == "finished", drivers.tail()
        assert drivers.until("ended")[2] == "0", drivers.tail()
        assert journal_bytes(here.dir / "state") - told < 1000, drivers.tail()
    finally:
        drivers.close()
    print(
        f"{mode}: {dict(hits)} kills in {killed:.0f} s, {time.monotonic() - started:.0f} s in all, {count} containers"
    )

    events = list(nexcage.read_journal(here.dir / "state", strict=True))
    machines = nexcage.fold(events)
    for n, id in enumerate(wanted(count)):
        goal = LIVES[n % len(LIVES)][1]
        assert machines[id].state is goal, (id, machines[id], drivers.tail())
        assert state_on_node(here, id) == ([] if goal is State.ABSENT else [goal]), id
    assert sum(len(node.model.containers()) for node in here.sim) == sum(
        machine.state is not State.ABSENT for machine in machines.values()
    )
    effects = here.sim.effects()
    twice = {
        key: n
        for key, n in Counter((effect["op_id"], effect["step"]) for effect in effects).items()
        if n > 1 and key[0]
    }
    assert twice == {}
    resolved = Counter(event.resolved_by for event in events if isinstance(event, Succeeded) and event.resolved_by)
    lost = sum(isinstance(event, Interrupted) for event in events)
    print(f"{mode}: {len(effects)} effects, {len(events)} records, resolved by {dict(resolved)}, {lost} interrupted")
    assert lost + resolved.total() > KILLS // 10, "the kills hit nothing"
    assert list((here.dir / "state" / "owners").iterdir()) == []
    gives_up = time.monotonic() + 30
    while here.processes() and time.monotonic() < gives_up:
        time.sleep(0.05)
    assert here.processes() == []


@pytest.mark.timeout(900)
def test_a_driver_that_sleeps_through_its_lease_changes_nothing_when_it_wakes(site: Any) -> None:
    here = site(1)
    here.sim.pace = 0.1
    lease = {"kind": "file", "path": str(here.dir / "lease"), "ttl": 10}
    settings = {"runner": "auto", "fleet": "f1", "lease": lease}
    one, two = Drivers(here, settings), Drivers(here, settings)
    try:
        sleeper = one.begin(6, state="one")
        one.until("web-0")
        os.kill(sleeper, signal.SIGSTOP)
        other = {f"job-{n}": LIVES[1][0] for n in range(3)}
        two.begin(0, state="two", wanted=other)  # it waits until the lease has run out
        assert two.until("finished", 120)[0] == "finished", two.tail()
        seen = len(here.sim.effects())
        os.kill(sleeper, signal.SIGCONT)
        ended = one.until("ended")
        while ended[0] != "ended":
            ended = one.until("ended")
    finally:
        one.close()
        two.close()
    assert "Fenced" in one.tail(), one.tail()
    assert ended[2] == "1"
    late = [effect for effect in here.sim.effects()[seen:] if effect["op_id"].startswith("web-")]
    assert late == [], "the sleeper changed something"
    epochs = [
        max(event.epoch for event in nexcage.read_journal(here.dir / name) if isinstance(event, Began))
        for name in ("one", "two")
    ]
    assert epochs[0] < epochs[1]

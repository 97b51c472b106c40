"""Several processes, one journal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from nexcage import State, fold, read_journal
from nexcage._core.events import Began
from nexcage._sinks.journal import open_journal
from nexcage._sinks.owners import owner_alive

WRITER = Path(__file__).with_name("writer.py")
ROOT = Path(__file__).parents[2]


def writer(state_dir: Path, owner: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(WRITER), str(state_dir), owner, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pipesize=4096,  # one that nobody hears waits before it has come to its end
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def test_of_two_processes_that_want_the_same_containers_exactly_one_begins_each(tmp_path):
    both = [writer(tmp_path, owner, 50) for owner in ("one", "two")]
    try:
        for process in both:
            assert process.stdout.readline() == "ready\n"
        for process in both:
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [line for process in both for line in process.communicate(timeout=120)[0].splitlines()]
    finally:
        for process in both:
            process.kill()
            process.wait()
    events = list(read_journal(tmp_path, strict=True))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    began = Counter(event.id for event in events if isinstance(event, Began))
    assert began == {f"web-{n}": 1 for n in range(50)}
    assert Counter(line.split()[0] for line in said)["won"] == 50
    assert {machine.state for machine in fold(events).values()} == {State.CREATED}
    fleets = {(tmp_path / "fleet").read_text(), (tmp_path / "run" / ".fleet").read_text()}
    assert len(fleets) == 1


async def test_a_process_killed_while_it_appends_leaves_a_journal_that_goes_on(tmp_path, life):
    for round in range(3):
        process = writer(tmp_path, f"victim-{round}", 4000)
        try:
            assert process.stdout.readline() == "ready\n"
            process.stdin.write("go\n")
            process.stdin.flush()
            folder = tmp_path / "journal"
            while not any(path.stat().st_size > round * 4000 for path in folder.glob("*.jsonl")):
                assert process.poll() is None
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert not owner_alive(tmp_path, f"victim-{round}")

        async with open_journal(tmp_path, owner="after", run_dir=tmp_path / "run") as journal:
            assert journal.quarantined == {}
            await journal.append(life.create(f"after-{round}"))
            assert fold(read_journal(tmp_path)) == dict(journal.machines)
            numbers = [event.seq for event in read_journal(tmp_path, strict=True)]
            assert numbers == list(range(1, len(numbers) + 1))
            there = {path.name for path in (tmp_path / "run").iterdir() if (path / "state.json").exists()}
            assert there == set(journal.machines)

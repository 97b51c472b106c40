"""Broken streams, full disks, odd locales and Ctrl-C never change what an operation did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import nexcage

from .conftest import IMAGE, ROOT, PveNode, Ran

Run = Callable[..., Ran]
Spawn = Callable[..., subprocess.CompletedProcess[str]]
DEADLINE = 60.0


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that another process brings about."""
    patience = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < patience, "it did not happen"
        time.sleep(0.02)


@contextmanager
def started(*argv: str) -> Iterator[subprocess.Popen[str]]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "nexcage", *argv], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def state_of(places: Path, id: str) -> str:
    return str(nexcage.fold(nexcage.read_journal(places / "state"))[id].state)


@pytest.mark.parametrize(
    "shell",
    [
        '"$@" 2>&-',
        '"$@" >&- 2>&-',
        '"$@" <&- >&- 2>&-',
        '"$@" 2>/dev/full',
        '"$@" 2>&1 | head -c 1 >/dev/null; exit ${PIPESTATUS[0]}',
    ],
)
def test_standard_streams_that_are_closed_full_or_gone_change_nothing(
    shell: str, pve: PveNode, spawn: Spawn, places: Path
) -> None:
    ran = spawn("create", "web-1", "--image", IMAGE, "--debug", shell=shell)

    assert ran.returncode == 0
    assert state_of(places, "web-1") == "created"
    assert "Traceback" not in ran.stderr
    assert not any(b"nexcage.command" in path.read_bytes() for path in (places / "state").rglob("*") if path.is_file())


def test_a_failure_keeps_its_exit_status_when_nobody_can_hear_it(spawn: Spawn) -> None:
    assert spawn("start", "nobody", shell='"$@" 2>&-').returncode == 1
    assert spawn("crate", shell='"$@" 2>&- >&-').returncode == 2
    assert spawn("crate", shell='"$@" 2>/dev/full').returncode == 2


def test_a_reader_that_goes_away_ends_the_output_quietly(spawn: Spawn) -> None:
    for command in ("man", "--help"):
        ran = spawn(command, shell='"$@" | head -n 1; exit ${PIPESTATUS[0]}')

        assert (ran.returncode, ran.stderr, len(ran.stdout.splitlines())) == (0, "", 1)


def test_a_result_that_cannot_be_written_is_an_error_that_is_told(spawn: Spawn) -> None:
    full = spawn("version", shell='"$@" >/dev/full')
    assert full.returncode == 1
    assert full.stderr == "nexcage: cannot write the result to standard output: No space left on device\n"

    closed = spawn("version", shell='"$@" >&-')
    assert closed.returncode == 1
    assert closed.stderr == "nexcage: cannot write the result to standard output: it is closed\n"


def test_an_operation_is_done_though_its_result_cannot_be_written(pve: PveNode, spawn: Spawn, places: Path) -> None:
    ran = spawn("create", "web-1", "--image", IMAGE, "--output", "json", shell='"$@" >/dev/full')

    assert (ran.returncode, state_of(places, "web-1")) == (1, "created")


@pytest.mark.parametrize("path", ["/dev/full", "/no/such/directory/log", "/", ""])
def test_a_log_file_that_cannot_be_written_is_told_once_and_work_goes_on(
    path: str, pve: PveNode, run: Run, places: Path
) -> None:
    ran = run("create", "web-1", "--image", IMAGE, "--log-file", path)

    assert (ran.status, state_of(places, "web-1")) == (0, "created")
    if path:
        assert ran.err.count("cannot write the log file") == len(ran.err.splitlines()) == 1
    engine = run("--log", path or "/dev/full", "start", "web-1")
    assert (engine.status, state_of(places, "web-1")) == (0, "running")


def test_a_log_file_that_is_a_pipe_without_reader_does_not_hang(pve: PveNode, run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    ran = run("create", "web-1", "--image", IMAGE, "--log-file", str(tmp_path / "fifo"))

    assert ran.status == 0
    assert "going on without it" in ran.err


@pytest.mark.parametrize(
    "env",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C.UTF-8"},
    ],
)
def test_letters_that_the_locale_cannot_show_become_escapes(env: dict[str, str], pve: PveNode, spawn: Spawn) -> None:
    made = spawn("create", "web-1", "--image", IMAGE, "--description", "grün ☃", "--debug", env=env)
    assert made.returncode == 0

    events = spawn("events", "--output", "jsonl", env=env)
    first = json.loads(events.stdout.splitlines()[0])
    assert (events.returncode, first["intent"]["spec"]["description"]) == (0, "grün ☃")
    assert spawn("start", "grün", env=env).returncode == 2


def test_arguments_that_are_no_text_are_refused_on_one_line(spawn: Spawn) -> None:
    for script in ('"$@" start $(printf "\\377\\376")', '"$@" create $(printf "\\033[31m")', '"$@" $(printf "\\377")'):
        ran = spawn(shell=script)

        assert (ran.returncode, ran.stdout) == (2, "")
        assert len(ran.stderr.splitlines()) == 1
        assert ran.stderr.isascii()
        assert "\x1b" not in ran.stderr


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_is_recorded_as_interrupted_and_state_finds_out(
    number: signal.Signals, status: int, pve: PveNode, run: Run, places: Path
) -> None:
    assert run("create", "web-1", "--image", IMAGE).status == 0
    pve.instead("start", "exec sleep 60")

    with started("start", "web-1") as process:
        until(lambda: (places / "pve").exists() and _attempted(places, "start"))
        process.send_signal(number)
        out, err = process.communicate(timeout=DEADLINE)

    assert (process.returncode, out) == (status, "")
    assert err.splitlines()[-1].startswith("nexcage: start: interrupted")
    assert state_of(places, "web-1") == "unknown"
    assert json.loads(run("state", "web-1").out)["status"] == "created"


def _attempted(places: Path, op: str) -> bool:
    return any(
        isinstance(event, nexcage.Attempted) and event.op == op for event in nexcage.read_journal(places / "state")
    )


def test_events_can_be_followed_from_another_process(pve: PveNode, run: Run, places: Path) -> None:
    assert run("create", "web-1", "--image", IMAGE).status == 0

    with started("events", "--follow", "--output", "jsonl", "--op", "start") as process:
        assert process.stdout is not None
        assert run("start", "web-1").status == 0
        first = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE)

    assert (first["event"], first["op"], first["id"]) == ("began", "start", "web-1")
    assert (process.returncode, err) == (130, "")


def test_results_are_ascii_tables_when_no_terminal_is_there(pve: PveNode, run: Run) -> None:
    assert run("create", "web-1", "--image", IMAGE).status == 0

    table = run("list").out

    assert table.isascii()
    assert "\x1b" not in table
    assert table.splitlines()[0].split() == [
        "ID",
        "STATE",
        "PID",
        "VMID",
        "NODE",
        "BACKEND",
        "ADDRESSES",
        "IMAGE",
        "TAGS",
    ]


def test_a_container_that_another_command_works_on_is_waited_for_unless_asked_not_to(
    pve: PveNode, run: Run, places: Path
) -> None:
    assert run("create", "web-1", "--image", IMAGE).status == 0
    go = places / "go"
    pve.instead("start", f"while [ ! -e {go} ]; do sleep 0.05; done")

    with started("start", "web-1") as first:
        until(lambda: _attempted(places, "start"))
        refused = run("pause", "--no-wait", "web-1")
        with started("start", "web-1") as second:
            go.touch()
            for process in (first, second):
                _, err = process.communicate(timeout=DEADLINE)
                assert (process.returncode, err) == (0, "")

    assert refused.status == 1
    assert "busy" in refused.err
    began = [event for event in nexcage.read_journal(places / "state") if isinstance(event, nexcage.Began)]
    assert [event.op for event in began] == ["create", "start"]

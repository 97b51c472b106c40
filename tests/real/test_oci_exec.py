"""``exec`` and ``update`` of the OCI command line with real runtimes: with all that the caller gave, and in the journal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .oci_bundle import Cli, bundle, missing

pytestmark = pytest.mark.skipif(bool(missing("runc")), reason=missing("runc"))
NAME = f"inside-{os.getpid()}"
ODD = bytes(byte for byte in range(1, 256))


@pytest.fixture(params=["runc", "crun"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cli]:
    if why := missing(request.param):
        pytest.skip(why)
    cli = Cli(tmp_path, request.param)
    assert cli("run", "-d", "--bundle", str(bundle(tmp_path / "b")), NAME).returncode == 0
    yield cli
    cli.close()


def events(cli: Cli, op: str) -> list[dict[str, Any]]:  # Any: whatever JSON can say
    """What the journal has of an operation."""
    lines = [
        line for file in sorted((cli.root / ".nexcage" / "journal").iterdir()) for line in file.read_text().splitlines()
    ]
    found = [json.loads(line) for line in lines]
    return [event for event in found if event.get("op") == op and event["event"] != "attempted"]


def test_every_byte_and_every_signal_arrives_and_what_ran_is_in_the_journal(running: Cli) -> None:
    argv = [*map(os.fsencode, running.head), b"exec", NAME.encode()]
    words = [ODD, b"", b"a b", b"-n", b"%s"]

    done = subprocess.run(
        [*argv, "sh", "-c", 'printf "%s|" "$@"; exit 9', "sh", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=200,
        env=running.env(),
        check=False,
    )

    assert done.returncode == 9, done.stderr
    assert done.stdout == b"|".join(words) + b"|"
    began, ended = events(running, "exec")
    assert began["intent"]["argv"][:2] == ["sh", "-c"]
    assert (ended["event"], ended["exit"]) == ("succeeded", 9)

    waits = [*running.head, "exec", NAME, "sh", "-c", "trap 'exit 5' USR1; echo up; while :; do sleep 0.05; done"]
    with subprocess.Popen(waits, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=running.env()) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"up\n"
        run.send_signal(signal.SIGUSR1)
        assert run.wait(30) == 5
    assert [event.get("exit") for event in events(running, "exec")] == [None, 9, None, 5]


def test_an_update_is_an_operation_like_others_and_a_refusal_is_in_the_runtimes_words(running: Cli) -> None:
    done = running("update", "--pids-limit", "77", "--memory=33554432", NAME)

    assert (done.returncode, done.stderr) == (0, "")
    began, ended = events(running, "update")
    assert began["intent"]["limits"] == {"pids-limit": "77", "memory": "33554432"}
    assert ended["event"] == "succeeded"

    refused = running("update", "--memory", "many", NAME)
    assert refused.returncode == 1
    assert "memory" in refused.stderr or "invalid limits" in refused.stderr
    assert [event["event"] for event in events(running, "update")[2:]] == ["began", "failed"]

    assert running("pause", NAME).returncode == 0
    paused = running("exec", NAME, "true")
    assert paused.returncode not in (0, 126, 127)
    assert "paused" in paused.stderr
    assert events(running, "exec") == []
    assert running("resume", NAME).returncode == 0

"""``nexcage watch`` as people and programs see it; docs/watch.md shows it at work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable

from .conftest import IMAGE, ROOT, PveNode, Ran

Run = Callable[..., Ran]


def test_what_it_does_not_take_is_refused_before_anything_runs(run: Run, pve: PveNode) -> None:
    assert run("watch", "pve-01") == Ran(2, "", "nexcage: watch: does not take the word 'pve-01'; --node pve-01\n")
    assert run("watch", "--node", "nope") == Ran(1, "", "nexcage: watch: node 'nope' is not in this fleet\n")


def test_it_prints_what_somebody_does_and_ends_quietly_when_interrupted(run: Run, pve: PveNode) -> None:
    assert run("run", "web-1", "--image", IMAGE).status == 0
    (row,) = json.loads(run("list", "--output", "json").out)
    watching = subprocess.Popen(
        [sys.executable, "-m", "nexcage", "watch", "--output", "jsonl"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert watching.stdout is not None
        pve.tool("pct", "stop", str(row["vmid"]))  # before or after it listens: it is noticed either way
        event = json.loads(watching.stdout.readline())
        watching.send_signal(signal.SIGINT)
        _, said = watching.communicate(timeout=60)
    finally:
        watching.kill()
        watching.communicate()

    assert (event["event"], event["id"], event["state"]) == ("observed", "web-1", "stopped")
    assert (watching.returncode, said) == (130, b"")

"""What the README and the documents tell about speed comes from programs that still run, here with as little to do as they can."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SSHD = pytest.mark.skipif(not os.access("/usr/sbin/sshd", os.X_OK), reason="needs sshd: apt-get install openssh-server")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("commands", ()),
        ("documents", ("--rounds", "1", "--calls", "1")),
        ("engine", ("--rounds", "1", "--nodes", "2", "--each", "2")),
        ("journal", ("--rounds", "1")),
        ("memory", ("--rounds", "1", "--nodes", "2", "--containers", "10")),
        pytest.param("runner", ("--rounds", "1", "--nodes", "1", "--each", "1"), marks=SSHD),
        pytest.param("ssh", ("--rounds", "1", "--nodes", "1", "--each", "1"), marks=SSHD),
    ],
)
def test_it_runs_and_writes_its_numbers(tmp_path: Path, name: str, options: tuple[str, ...]) -> None:
    file = tmp_path / "numbers.json"
    argv = [sys.executable, "-m", f"benchmarks.{name}", *options, "--json", str(file)]

    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=280)

    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    rows = found if isinstance(found, list) else list(found["results"].values())
    assert len(rows) > 1
    for row in rows:
        numbers = [value for value in row.values() if isinstance(value, (int, float))]
        assert numbers
        assert all(number >= 0 for number in numbers)

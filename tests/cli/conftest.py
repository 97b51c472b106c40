"""The command line as tests use it: in process where that is enough, as a process where streams are the subject."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from nexcage._cli.main import main

ROOT = Path(__file__).parents[2]


class Ran(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """State and run directories of this test's own; nothing else of the environment says where they are."""
    monkeypatch.setenv("NEXCAGE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("NEXCAGE_RUN_DIR", str(tmp_path / "run"))
    return tmp_path


@pytest.fixture
def run(places: Path) -> Callable[..., Ran]:
    """One command line in this process."""

    def run(*argv: str, stdin: str = "") -> Ran:
        out, err = io.StringIO(), io.StringIO()
        status = main(argv, stdin=io.StringIO(stdin), stdout=out, stderr=err)
        return Ran(status, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def spawn(places: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """One command line as a process of its own; ``shell`` is a script in which ``"$@"`` is the command."""

    def spawn(
        *argv: str, shell: str = '"$@"', env: dict[str, str] | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        command: Sequence[str] = ["bash", "-c", shell, "bash", sys.executable, "-m", "nexcage", *argv]
        path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        return subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=50,
            env={**os.environ, "PYTHONPATH": path, **(env or {})},
            check=False,
        )

    return spawn

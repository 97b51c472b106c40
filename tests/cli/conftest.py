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
            timeout=120,
            env={**os.environ, "PYTHONPATH": path, **(env or {})},
            check=False,
        )

    return spawn


IMAGE = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
_REAL = {"cat", "date", "echo", "env", "false", "hostname", "id", "sh", "sleep", "true", "uname", "which"}


class PveNode:
    """This machine as a simulated PVE node: its pretend tools on PATH, its tree below a directory."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from nexcage.testing._model import TOOLS
        from nexcage.testing._model.world import make_disk_cluster

        self.directory: Path = directory
        self.root: Path = directory / "nodes" / "pve-01" / "root"
        make_disk_cluster(directory, ["pve-01"], seed=1, pace=0)
        self.bin: Path = directory / "bin"
        self.bin.mkdir()
        self._export = f"export NEXCAGE_NODE_ROOT={self.root} PYTHONPATH={ROOT}"
        for tool in set(TOOLS) - _REAL:
            self.script(tool, f'exec {sys.executable} -m nexcage.testing._model {directory} pve-01 {tool} "$@"')
        self.script("sh", 'exec /bin/sh "$@"')
        monkeypatch.setenv("PATH", f"{self.bin}{os.pathsep}{os.environ['PATH']}")

    def script(self, tool: str, body: str) -> None:
        """Put a shell script in the place of a tool."""
        path = self.bin / tool
        path.write_text(f"#!/bin/sh\n{self._export}\n{body}\n")
        path.chmod(0o755)

    def instead(self, words: str, body: str) -> None:
        """Let ``pct`` do ``body`` when it is called with ``words`` first."""
        (self.bin / "pct").rename(self.bin / "pct.real")
        self.script("pct", f'case "$1" in {words}) {body} ;; esac\nexec "$0.real" "$@"')

    def tool(self, *argv: str) -> str:
        """Call a tool by hand, as somebody at that node."""
        return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.fixture
def pve(tmp_path: Path, places: Path, monkeypatch: pytest.MonkeyPatch) -> PveNode:
    return PveNode(tmp_path / "pve", monkeypatch)

"""The guards of the test suite itself: they are only worth having when they bite."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sniffio

ROOT = Path(__file__).parents[2]


async def test_an_async_test_runs_on_asyncio() -> None:
    assert sniffio.current_async_library() == "asyncio"


@pytest.mark.both_loops
async def test_a_test_marked_for_both_loops_runs_on_each(anyio_backend: str) -> None:
    assert sniffio.current_async_library() == anyio_backend


def test_no_home_or_setting_of_the_user_reaches_a_test() -> None:
    assert not any(Path.home().iterdir())
    assert not [name for name in os.environ if name.startswith(("NEXCAGE_", "XDG_", "SSH_")) and name != "NEXCAGE_VENV"]


def test_a_test_that_leaves_a_child_process_fails(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_leaves.py").write_text(
        "import atexit, subprocess\n"
        "def test_leaves_one():\n"
        "    child = subprocess.Popen(['sleep', '300'])\n"
        "    atexit.register(child.kill)\n"
    )
    options = ["-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.returncode == 1
    assert "child processes left behind: " in run.stdout
    assert "(sleep 300)" in run.stdout


def test_a_library_that_sleeps_on_the_loop_fails_its_test(tmp_path: Path) -> None:
    tests, library = tmp_path / "tests", tmp_path / "nexcage"
    tests.mkdir()
    library.mkdir()
    (library / "lazy.py").write_text("import time\nasync def nap():\n    time.sleep(0.001)\n")
    (tests / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tests / "test_naps.py").write_text(
        "import runpy, pathlib\n"
        "lazy = runpy.run_path(str(pathlib.Path(__file__).parents[1] / 'nexcage' / 'lazy.py'))\n"
        "async def test_naps():\n    await lazy['nap']()\n"
    )
    options = ["-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tests)], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert run.returncode == 1
    assert "the event loop was blocked: time.sleep(0.001) at " in run.stdout

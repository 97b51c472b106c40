"""What holds for every test: a home of its own, no child process left behind, asyncio unless it asks for both loops."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Installed, the plugin comes by its entry point; from a bare checkout it is named here.
_installed = any(entry.name == "nexcage" for entry in entry_points(group="pytest11"))
pytest_plugins = [] if _installed or find_spec("nexcage.testing.plugin") is None else ["nexcage.testing.plugin"]

# Machines that run tests are busy and differ; a law is not slower code. `--hypothesis-profile=long` looks further.
settings.register_profile("nexcage", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("long", settings.get_profile("nexcage"), max_examples=2000)
settings.register_profile("quick", settings.get_profile("nexcage"), max_examples=30)
settings.load_profile("nexcage")

_OURS = ("NEXCAGE_", "XDG_", "SSH_", "GIT_", "LC_", "LANG")
_KEPT = ("NEXCAGE_VENV",)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all-crashes", action="store_true", help="die at every point of every scenario, however long it takes"
    )


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Async tests run on asyncio, unless they say more."""
    return "asyncio"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("both_loops"):
        metafunc.parametrize("anyio_backend", ["asyncio", "trio"], scope="module")


@pytest.fixture(scope="session", autouse=True)
def _home_of_its_own() -> Iterator[None]:
    """No user's config, known_hosts, agent or locale reaches a test; what a test writes into its home is thrown away."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="nexcage-home-") as home:
        for name in [n for n in os.environ if n.startswith(_OURS) and n not in _KEPT]:
            del os.environ[name]
        os.environ["HOME"] = home
        os.environ["LC_ALL"] = "C.UTF-8"
        yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def _no_process_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every child process that a test started has ended and was waited for."""
    before = _children()
    yield
    if request.node.get_closest_marker("leaves_processes"):
        return
    left = _children() - before
    patience = time.monotonic() + 20.0  # an executor's thread may be about to reap the last one
    while left and time.monotonic() < patience:
        time.sleep(0.01)
        left = _children() - before
    if left:
        pytest.fail("child processes left behind: " + "; ".join(_described(pid) for pid in sorted(left)), pytrace=False)


_LIBRARY = str(Path(__file__).parents[1] / "nexcage") + os.sep
_TESTING = _LIBRARY + "testing" + os.sep
_waited: list[str] = []


def _by_library() -> str:
    """Where nexcage (its test kit aside) called this, on a loop's own thread; empty when it was somebody else."""
    if asyncio._get_running_loop() is None:
        return ""
    frame = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename == subprocess.__file__:
        frame = frame.f_back
    name = frame.f_code.co_filename if frame is not None else ""
    if frame is None or not name.startswith(_LIBRARY) or name.startswith(_TESTING):
        return ""
    return f"{name}:{frame.f_lineno}"


def _watched_sleep(sleep: Callable[[float], None]) -> Callable[[float], None]:
    def watched(seconds: float) -> None:
        if place := _by_library():
            _waited.append(f"time.sleep({seconds}) at {place}")
        sleep(seconds)

    return watched


def _watched_wait(wait: Callable[..., int]) -> Callable[..., int]:
    def watched(process: Any, timeout: float | None = None) -> int:
        if timeout != 0 and process.poll() is None and (place := _by_library()):
            _waited.append(f"waiting for process {process.pid} at {place}")
        return wait(process, timeout)

    return watched


@pytest.fixture(scope="session", autouse=True)
def _waits_are_watched() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", _watched_sleep(time.sleep))
        patch.setattr(subprocess.Popen, "wait", _watched_wait(subprocess.Popen.wait))
        yield


@pytest.fixture(autouse=True)
def _no_loop_is_blocked() -> Iterator[None]:
    """The library neither sleeps nor waits for a process on the thread of a running loop."""
    _waited.clear()
    yield
    if _waited:
        pytest.fail("the event loop was blocked: " + "; ".join(_waited), pytrace=False)


def _children() -> set[int]:
    """The pids of this process's children, the unreaped ones too."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            found.update(int(pid) for pid in (task / "children").read_text().split())
        except OSError:  # the thread ended meanwhile, or this kernel has no such file
            continue
    return found


def _described(pid: int) -> str:
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        argv = "gone"
    return f"{pid} ({argv or 'a zombie: it ended and nobody waited for it'})"

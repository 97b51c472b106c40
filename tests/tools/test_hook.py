"""Hooks as a node runs them, by the script itself on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexcage._core.bundle_plan.model import Call
from nexcage._core.command import Result
from nexcage.errors import CommandFailed
from nexcage.tools import hook
from tests.transports.commands import alive

pytestmark = pytest.mark.skipif(shutil.which("perl") is None, reason="hooks need perl: apt-get install perl-base")
STATE = b'{"ociVersion":"1.3.0","id":"web-1","status":"creating","pid":7}'


def run(call: Call, state: bytes = STATE, *, cwd: str = "/", pid: int = 0, inside: bool = False) -> Result:
    command = hook.run("createRuntime", 0, call, state, cwd=cwd, pid=pid, inside=inside)
    env = {"PATH": os.environ["PATH"], "HOME": "/root", "LC_ALL": "C"}
    done = subprocess.run(command.argv, input=command.stdin, capture_output=True, env=env, timeout=30)
    return Result(done.returncode, done.stdout, done.stderr)


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def shell(text: str, *words: str, env: tuple[str, ...] = (), timeout: int | None = None) -> Call:
    return Call("/bin/sh", ("a name", "-c", text, *words), env, timeout)


words = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    argv=st.lists(words | st.sampled_from(["", " ", "'", '"', "\n", "-"]), max_size=8),
    values=st.lists(words, max_size=5),
)
def test_every_byte_of_argv_and_environment_arrives(tmp_path: Path, argv: list[str], values: list[str]) -> None:
    env = [f"V{n}={value}" for n, value in enumerate(values)]
    text = f"cat /proc/$$/cmdline >{tmp_path}/argv; cat /proc/$$/environ >{tmp_path}/env"

    assert run(shell(text, "name", *argv, env=("PATH=/usr/bin:/bin", *env))).exit == 0

    shown = (tmp_path / "argv").read_bytes().split(b"\0")[:-1]
    environ = (tmp_path / "env").read_bytes().split(b"\0")[:-1]
    assert shown == [word.encode() for word in ("a name", "-c", text, "name", *argv)]
    assert sorted(environ) == sorted(word.encode() for word in ("PATH=/usr/bin:/bin", *env))


def test_its_environment_is_empty_when_it_names_none(tmp_path: Path) -> None:
    assert run(shell(f"/usr/bin/env >{tmp_path}/env")).exit == 0
    assert (tmp_path / "env").read_text() == f"PWD={Path('/')}\n"


@pytest.mark.parametrize("size", [0, 10, 70_000, 1_000_000])
def test_the_state_arrives_whole_on_standard_input(tmp_path: Path, size: int) -> None:
    state = b"s" * size
    assert run(shell(f"/bin/cat >{tmp_path}/state"), state).exit == 0
    assert (tmp_path / "state").read_bytes() == state


def test_one_that_reads_nothing_is_not_waited_for(tmp_path: Path) -> None:
    assert run(shell("exit 0"), b"s" * 1_000_000).exit == 0


def test_it_runs_in_its_bundle_where_the_node_has_that(tmp_path: Path) -> None:
    assert run(shell(f"pwd >{tmp_path}/where"), cwd=str(tmp_path)).exit == 0
    assert (tmp_path / "where").read_text() == f"{tmp_path}\n"
    assert run(shell(f"pwd >{tmp_path}/where"), cwd=str(tmp_path / "nosuch")).exit == 0
    assert (tmp_path / "where").read_text() == "/\n"


def test_a_hook_without_arguments_gets_its_path_as_its_name(tmp_path: Path) -> None:
    path = script(tmp_path / "hook", f"tr '\\0' , </proc/$$/cmdline >{tmp_path}/argv")
    assert run(Call(path, env=("PATH=/usr/bin:/bin",))).exit == 0
    assert (tmp_path / "argv").read_text() == f"/bin/sh,{path},"


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (shell("echo out; echo err >&2; exit 3"), "exit status 3"),
        (shell("kill -9 $$"), "signal 9"),
        (Call("/nosuch"), "no such file or directory"),
        (Call("/etc/passwd"), "permission denied"),
        (Call("/etc"), "permission denied"),
    ],
)
def test_why_it_failed_is_said(call: Call, why: str) -> None:
    result = run(call)
    command = hook.run("createRuntime", 0, call, STATE, cwd="/")
    error = command.classify(command, result, "pve-01")
    assert result.exit == 7
    assert result.stderr.endswith(f'nexcage: createRuntime hook "{call.path}" failed: {why}\n'.encode())
    assert isinstance(error, CommandFailed)
    assert not error.retryable


def test_what_it_printed_is_told_when_it_fails(tmp_path: Path) -> None:
    result = run(shell("echo out; printf err >&2; exit 3"))
    assert result.stdout == b""
    assert result.stderr.splitlines()[:2] == [b"out", b"err"]


def test_when_its_time_is_over_the_whole_group_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    for seconds in (1, 5, 20):  # how soon it is under way is the machine's affair
        result = run(shell(f"trap '' TERM; /bin/sleep 300 & echo $! >{file}; /bin/sleep 300", timeout=seconds))
        assert result.exit == 7
        assert result.stderr.endswith(b"failed: it took longer than its timeout of %d s\n" % seconds)
        if file.exists() and file.read_text().endswith("\n"):
            break
    _until_gone(int(file.read_text()))


def _until_gone(pid: int) -> None:
    """What is killed ends in its own time."""
    gives_up = time.monotonic() + 20
    while alive(pid):
        assert time.monotonic() < gives_up
        time.sleep(0.005)


def test_what_it_leaves_running_is_neither_killed_nor_waited_for(tmp_path: Path) -> None:
    result = run(shell(f"echo said; /bin/sleep 300 & echo $! >{tmp_path}/pid", timeout=20))
    pid = int((tmp_path / "pid").read_text())
    try:
        assert result.exit == 0  # whoever is waited for until the timeout fails
        assert alive(pid)
    finally:
        os.kill(pid, 9)


def test_it_ends_with_the_one_who_asked_for_it(tmp_path: Path) -> None:
    call = shell(f"echo $$ >{tmp_path}/made; mv {tmp_path}/made {tmp_path}/pid; /bin/sleep 300", env=("PATH=/bin",))
    command = hook.run("prestart", 0, call, STATE, cwd="/")
    with subprocess.Popen(command.argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as asking:
        assert asking.stdin is not None
        asking.stdin.write(command.stdin)
        asking.stdin.close()
        gives_up = time.monotonic() + 30
        while not (tmp_path / "pid").exists():
            assert time.monotonic() < gives_up
            time.sleep(0.005)
        asking.terminate()
        assert asking.wait(30) == 7
    _until_gone(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(os.geteuid() != 0, reason="it enters namespaces, which takes root")
def test_inside_means_the_namespaces_of_the_container(tmp_path: Path) -> None:
    holder = subprocess.Popen(["unshare", "--net", "--uts", "--ipc", "cat"], stdin=subprocess.PIPE)
    try:
        gives_up = time.monotonic() + 30
        while os.readlink(f"/proc/{holder.pid}/ns/ipc") == os.readlink("/proc/self/ns/ipc"):
            assert time.monotonic() < gives_up
            time.sleep(0.005)
        text = f"readlink /proc/$$/ns/net /proc/$$/ns/uts /proc/$$/ns/ipc /proc/$$/ns/mnt >{tmp_path}/spaces"
        call = shell(text, env=("PATH=/usr/bin:/bin",))
        assert run(call, pid=holder.pid, inside=True).exit == 0
        inside = [os.readlink(f"/proc/{holder.pid}/ns/{kind}") for kind in ("net", "uts", "ipc")]
        assert (tmp_path / "spaces").read_text().split() == [*inside, os.readlink("/proc/self/ns/mnt")]
    finally:
        holder.communicate()


def test_one_that_was_cut_off_does_not_run(tmp_path: Path) -> None:
    given = hook.records("prestart", shell(f"touch {tmp_path}/ran", env=("PATH=/bin",)), STATE, cwd="/")
    argv = hook.run("prestart", 0, Call("/bin/true"), b"", cwd="/").argv
    for end in range(0, len(given) - 1, 7):
        done = subprocess.run(argv, input=given[:end], capture_output=True)
        assert done.returncode == 6
    assert not (tmp_path / "ran").exists()

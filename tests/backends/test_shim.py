"""The init of containers that are made from a bundle, run on this machine as it is packaged and as its source builds here."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexcage._backends import shim
from nexcage._core.bundle_plan.model import Call, Launch

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the packaged program is for x86_64")
ROOT = os.geteuid() == 0
PATH = b"PATH=/usr/bin:/bin"
SHOW = (b"sh", b"-c", b"cat /proc/$$/cmdline; echo; echo; cat /proc/$$/environ", b"name")


@pytest.fixture(scope="module", params=["as packaged", "as built here"])
def init(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("init") / "init"
    if request.param == "as packaged":
        path.write_bytes(shim.program())
        path.chmod(0o755)
        return path
    if shutil.which("gcc") is None:
        pytest.skip("no gcc: apt-get install gcc")
    source = path.with_name("init.c")
    source.write_bytes(shim.source())
    subprocess.run(["gcc", *shim.BUILD, "-o", path, source], check=True)
    return path


class Waiting:
    """A process of it, at its gate or past it."""

    def __init__(self, init: Path, directory: Path, launch: Launch | bytes, *before: str, gate: bool = True) -> None:
        directory.mkdir()
        data = launch if isinstance(launch, bytes) else shim.launch_file(launch, b'{"id":"web-1","pid":1}')
        (directory / "launch").write_bytes(data)
        os.mkfifo(directory / "gate")
        os.mkfifo(directory / "said")
        if not gate:
            (directory / "open").touch()
        self.directory = directory
        self.said = os.open(directory / "said", os.O_RDONLY | os.O_NONBLOCK)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [*before, init, directory], stdin=pipe, stdout=pipe, stderr=pipe, env={"X": "1"}
        )

    def until_at_gate(self) -> None:
        gives_up = time.monotonic() + 30
        while (name := self.name()) != "nexcage-gate":
            assert time.monotonic() < gives_up, name
            time.sleep(0.002)

    def name(self) -> str:
        return Path(f"/proc/{self.process.pid}/comm").read_text("utf-8").strip()

    def say(self, *words: bytes) -> None:
        for word in words:
            with open(self.directory / "gate", "wb", buffering=0) as gate:
                gate.write(word)

    def ended(self) -> tuple[int, bytes, str]:
        out, _ = self.process.communicate(timeout=30)
        with suppress(BlockingIOError):
            return self.process.returncode, out, os.read(self.said, 4096).decode("ascii")
        return self.process.returncode, out, ""


@contextmanager
def waiting(init: Path, tmp_path: Path, launch: Launch | bytes, *before: str, gate: bool = True) -> Iterator[Waiting]:
    directory = tmp_path / f"run-{time.monotonic_ns()}"
    one = Waiting(init, directory, launch, *before, gate=gate)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.communicate()
        os.close(one.said)
        shutil.rmtree(directory)


def run(init: Path, tmp_path: Path, launch: Launch | bytes, *before: str) -> tuple[int, bytes, str]:
    with waiting(init, tmp_path, launch, *before, gate=False) as one:
        return one.ended()


words = st.binary(max_size=40).map(lambda data: data.replace(b"\0", b""))
odd = words | st.sampled_from(
    [b"", b" ", b"'", b'"', b"a b", b"\n", b"\\", b"$HOME", b"-", b"--", b"a\tb", b"\xff\xfe"]
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(argv=st.lists(odd, max_size=30), values=st.lists(odd, max_size=10))
def test_every_byte_of_argv_and_environment_arrives(
    init: Path, tmp_path: Path, argv: list[bytes], values: list[bytes]
) -> None:
    env = (PATH, *(b"V%d=%s" % pair for pair in enumerate(values)))

    status, out, said = run(init, tmp_path, Launch((*SHOW, *argv), env))

    assert (status, said) == (0, "")
    assert out == b"".join(word + b"\0" for word in (*SHOW, *argv)) + b"\n\n" + b"".join(word + b"\0" for word in env)


def test_thousands_of_long_arguments_arrive(init: Path, tmp_path: Path) -> None:
    argv = tuple(b"%d" % n * 50 for n in range(3000))
    status, out, _ = run(init, tmp_path, Launch((b"/bin/sh", b"-c", b'printf "%s," "$@"', b"sh", *argv), (PATH,)))
    assert (status, out) == (0, b"".join(word + b"," for word in argv))


def test_it_waits_until_the_gate_is_opened_with_a_whole_line(init: Path, tmp_path: Path) -> None:
    with waiting(init, tmp_path, Launch((b"echo", b"ran"), (PATH,))) as one:
        one.until_at_gate()
        assert os.path.samefile(f"/proc/{one.process.pid}/exe", init)
        one.say(
            b"",
            b"\n",
            b"open\n",
            b"open \n",
            b"open a b\n",
            b"shut op-1\n",
            b"open a/b\n",
            b"x" * 3000 + b"open op-1\n",
        )
        one.say(b"open op-1")  # cut off, and what another one says does not complete it
        one.say(b"\0open op-1\n")
        assert one.process.poll() is None
        assert one.name() == "nexcage-gate"

        one.say(b"open op-1\n")

        assert one.ended() == (0, b"ran\n", "")


def test_what_is_started_again_does_not_wait(init: Path, tmp_path: Path) -> None:
    assert run(init, tmp_path, Launch((b"echo", b"ran"), (PATH,)))[:2] == (0, b"ran\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGPWR, signal.SIGRTMIN + 3])
def test_a_signal_at_the_gate_ends_it(init: Path, tmp_path: Path, number: int) -> None:
    with waiting(init, tmp_path, Launch((b"echo", b"ran"), (PATH,))) as one:
        one.until_at_gate()
        for harmless in (signal.SIGCHLD, signal.SIGCONT, signal.SIGWINCH):
            one.process.send_signal(harmless)
        one.process.send_signal(number)
        assert one.ended() == (128 + number, b"", "")


def test_the_program_begins_with_every_signal_as_it_is_by_itself(init: Path, tmp_path: Path) -> None:
    status, out, _ = run(init, tmp_path, Launch((b"/bin/cat", b"/proc/self/status"), (PATH,)))
    masks = [line for line in out.decode().splitlines() if line.startswith(("SigBlk", "SigIgn", "SigCgt"))]
    assert (status, [mask.split()[1] for mask in masks]) == (0, ["0" * 16] * 3)


@pytest.mark.parametrize(
    ("argv", "env", "status", "reason"),
    [
        (b"nosuch", (PATH,), 127, 'exec: "nosuch": executable file not found in $PATH'),
        (b"nosuch", (), 127, 'exec: "nosuch": executable file not found in $PATH'),
        (b"", (PATH,), 127, 'exec: "": executable file not found in $PATH'),
        (b"/nosuch/x", (PATH,), 127, 'exec: "/nosuch/x": stat /nosuch/x: no such file or directory'),
        (b"/etc/passwd", (PATH,), 126, 'exec: "/etc/passwd": permission denied'),
        (b"/etc", (PATH,), 126, 'exec: "/etc": permission denied'),
        (b"passwd", (b"PATH=/etc",), 126, 'exec: "passwd": permission denied'),
        (b"a\nb\x1b", (PATH,), 127, 'exec: "a?b?": executable file not found in $PATH'),
    ],
)
def test_why_a_program_does_not_run(
    init: Path, tmp_path: Path, argv: bytes, env: tuple[bytes, ...], status: int, reason: str
) -> None:
    assert run(init, tmp_path, Launch((argv,), env)) == (status, b"", f"failed {status} {reason}\n")


def test_a_file_that_is_no_program_says_so(init: Path, tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"\0junk")
    (tmp_path / "junk").chmod(0o755)
    where = str(tmp_path).encode()
    reason = 'failed 126 exec: "junk": exec format error\n'
    assert run(init, tmp_path, Launch((b"junk",), (b"PATH=/nosuch::" + where,))) == (126, b"", reason)


def test_the_directory_is_made_when_it_is_not_there(init: Path, tmp_path: Path) -> None:
    where = tmp_path / "a" / "b c"
    status, out, _ = run(init, tmp_path, Launch((b"pwd",), (PATH,), cwd=str(where).encode()))
    assert (status, out) == (0, f"{where}\n".encode())

    (tmp_path / "file").touch()
    status, _, said = run(init, tmp_path, Launch((b"pwd",), (PATH,), cwd=str(tmp_path / "file").encode()))
    assert (status, said) == (123, f'failed 123 chdir to cwd "{tmp_path}/file": not a directory\n')


@pytest.mark.skipif(not ROOT, reason="it changes its user, which takes root")
def test_user_groups_umask_and_no_new_privileges_are_set(init: Path, tmp_path: Path) -> None:
    status_file = (b"sh", b"-c", b"umask; cat /proc/self/status")
    launch = Launch(status_file, (PATH,), uid=4711, gid=4712, groups=(4, 4713), umask=0o27, no_new_privs=True)

    status, out, _ = run(init, tmp_path, launch)

    lines = out.decode().splitlines()
    shown = dict(line.split(":\t", 1) for line in lines[1:] if ":\t" in line)
    assert (status, lines[0]) == (0, "0027")
    assert (shown["Uid"].split(), shown["Gid"].split()) == (["4711"] * 4, ["4712"] * 4)
    assert (shown["Groups"].split(), shown["NoNewPrivs"]) == (["4", "4713"], "1")
    assert shown["CapEff"] == "0" * 16


@pytest.mark.skipif(not ROOT, reason="it makes a process namespace, which takes root")
def test_as_pid_1_it_hides_its_directory_and_takes_signals_at_the_gate(init: Path, tmp_path: Path) -> None:
    tried = subprocess.run(["unshare", "-pmf", "true"], capture_output=True)
    if tried.returncode:
        pytest.skip("no process namespace to be had here")
    bind = 'mkdir "$0" && mount --bind "$2" "$0" && exec "$1" "$0"'
    place = tmp_path / "place"
    launch = Launch((b"sh", b"-c", b'echo $$; ls -a "$0"', os.fsencode(place)), (PATH,))
    one = Waiting(init, tmp_path / "there", launch, "unshare", "-pmf", "--kill-child", "sh", "-c", bind, str(place))
    try:
        gives_up = time.monotonic() + 30
        while not (pid := _child_named("nexcage-gate", one.process.pid)):
            assert time.monotonic() < gives_up
            time.sleep(0.005)
        assert os.path.samefile(f"/proc/{pid}/exe", init)
        one.say(b"open op-1\n")
        status, out, _ = one.ended()
        assert status == 0
        assert out.split() == [b"1", b".", b".."]
    finally:
        one.process.kill()
        one.process.communicate()
        os.close(one.said)


def _child_named(name: str, parent: int) -> int:
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text("utf-8").split():
        if Path(f"/proc/{child}/comm").read_text("utf-8").strip() == name:
            return int(child)
    return 0


def hook(script: str, *, timeout: int | None = None) -> Call:
    return Call("/bin/sh", ("a name", "-c", script, "", "b c"), ("A=1", "B="), timeout)


def test_hooks_run_in_order_with_state_on_standard_input_before_the_program(init: Path, tmp_path: Path) -> None:
    first = hook('echo "1 $0 $1 $# $A $B"; cat; echo')
    second = hook("readlink /proc/self/cwd; echo 2")
    launch = Launch((b"echo", b"program"), (PATH,), start_container=(first, second))

    status, out, _ = run(init, tmp_path, launch)

    assert (status, out.decode().splitlines()) == (
        0,
        ["1  b c 1 1 ", '{"id":"web-1","pid":1}', "/", "2", "program"],
    )


def test_a_hook_without_arguments_gets_its_path_as_its_name(init: Path, tmp_path: Path) -> None:
    script = tmp_path / "hook"
    script.write_text('#!/bin/sh\ntr "\\0" "," </proc/$$/cmdline; env\n')
    script.chmod(0o755)
    status, out, _ = run(init, tmp_path, Launch((b"true",), (PATH,), start_container=(Call(str(script)),)))
    assert status == 0
    assert out.startswith(f"/bin/sh,{script},".encode())
    assert b"PATH=" not in out


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (hook("exit 3"), '"/bin/sh" failed: exit status 3'),
        (hook("kill -9 $$"), '"/bin/sh" failed: signal 9'),
        (Call("/nosuch/hook"), '"/nosuch/hook" failed: no such file or directory'),
        (Call("/etc/passwd"), '"/etc/passwd" failed: permission denied'),
        (hook("sleep 60 & sleep 60", timeout=1), '"/bin/sh" failed: it took longer than its timeout in seconds, 1'),
    ],
)
def test_a_failing_hook_ends_it_before_the_program_runs(init: Path, tmp_path: Path, call: Call, reason: str) -> None:
    launch = Launch((b"echo", b"program"), (PATH,), start_container=(call, hook("echo never")))
    status, out, said = run(init, tmp_path, launch)
    assert (status, out, said) == (121, b"", f"failed 121 startContainer hook {reason}\n")


def test_a_hook_that_reads_nothing_of_a_long_state_does_not_stall_it(init: Path, tmp_path: Path) -> None:
    launch = Launch((b"echo", b"program"), (PATH,), start_container=(hook("exit 0"), hook("wc -c")))
    data = shim.launch_file(launch, b"x" * 300_000)
    status, out, _ = run(init, tmp_path, data)
    assert (status, out.split()) == (0, [b"300000", b"program"])


def test_a_launch_file_that_is_cut_anywhere_is_refused(init: Path, tmp_path: Path) -> None:
    whole = shim.launch_file(Launch((b"echo", b"ran"), (PATH,), groups=(1, 2), start_container=(hook("true"),)))
    for end in range(len(whole)):
        status, out, said = run(init, tmp_path, whole[:end])
        assert (status, out) == (122, b"")
        assert said.startswith("failed 122 the launch file ")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.binary(max_size=200), keep=st.booleans())
def test_no_launch_file_breaks_it(init: Path, tmp_path: Path, data: bytes, keep: bool) -> None:
    status, out, said = run(init, tmp_path, (b"NEXCAGE1" if keep else b"") + data)
    assert (status, out) == (122, b"")
    assert said.startswith("failed 122 ")


def test_a_word_with_a_nul_is_not_written() -> None:
    with pytest.raises(ValueError, match="NUL"):
        shim.launch_file(Launch((b"a\0b",)))

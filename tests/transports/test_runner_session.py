"""One session of a runner: what ends it, what becomes of its commands then, and what it may cost."""

import asyncio
import fcntl
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexcage._transports import frames
from nexcage._transports.boot import Greeting, program, words
from nexcage._transports.runner import Runner
from nexcage.errors import NexcageError, NodeNotUsable, NodeUnreachable
from tests.transports.commands import alive, command, pid_in, shell, until, written
from tests.transports.nodes import Machine, claim


@pytest.fixture
async def machine(tmp_path):
    machine = Machine("runner", tmp_path / "node", patience=5.0)
    yield machine
    await machine.aclose()


@pytest.fixture
def node(machine):
    return machine.link()


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


# The node's side.


def spoken(data: bytes, root: Path, heartbeat=0.0) -> list[frames.Frame]:
    """What a runner says that is told ``data`` and then nothing more; it has ended afterwards."""
    env = {"PATH": os.environ["PATH"], "NEXCAGE_NODE_ROOT": str(root)}
    done = subprocess.run(
        words("n1", heartbeat=heartbeat), input=program() + data, capture_output=True, env=env, timeout=50
    )
    assert done.stderr == b""
    decoder = frames.Decoder(frames.FROM_NODE)
    said = decoder.feed(Greeting("n1").feed(done.stdout))
    assert decoder.whole
    assert said[0][0] == frames.HELLO
    return said[1:]


RUN = frames.run(1, command("true"), patience=1)


@pytest.mark.parametrize(
    "data",
    [
        frames.frame(ord("?")),
        frames.frame(frames.RESULT, 1),
        b"\0\0\0\0",
        b"\0\0\0\4R",
        b"\xff\xff\xff\xff",
        (frames.TO_NODE + 1).to_bytes(4),
        frames.frame(frames.RUN, 1),
        frames.frame(frames.RUN, 1, b"1\0"),
        frames.frame(frames.RUN, 1, b"999999\0"),
        frames.frame(frames.RUN, 1, b"0\x000\x000\0"),
        frames.frame(frames.RUN, 1, b"0\x000\x001\0\0"),
        frames.frame(frames.RUN, 1, b"1\0later=1\x000\x001\0true\0"),
        frames.frame(frames.RUN, 1, b"1\0timeout=soon\x000\x001\0true\0"),
        frames.frame(frames.RUN, 1, b"0\x001\0A\x001\0true\0"),
        frames.frame(frames.RUN, 0, RUN[9:]),
        frames.run(1, command("sleep", "9"), patience=1) + RUN,
        frames.run(1, command("sleep", "9"), patience=1) + frames.frame(frames.INPUT, 1, b"x"),
        frames.run(1, command("sleep", "9"), patience=1, stream=True) + frames.frame(frames.CREDIT, 1, b"9\0"),
        frames.run(1, command("sleep", "9"), patience=1, stream=True) + frames.frame(frames.CREDIT, 1, b"-1\0"),
    ],
)
def test_what_is_not_the_protocol_ends_the_session_with_a_reason(data, tmp_path):
    *_, (kind, number, payload) = spoken(data, tmp_path)

    assert (kind, number) == (frames.QUIT, 0)
    assert frames.one(payload)


@pytest.mark.parametrize("cut", [1, 3, 4, 8, 9, len(RUN) - 1])
def test_a_frame_that_is_cut_off_begins_nothing(cut, tmp_path):
    assert spoken(RUN[:cut], tmp_path) == []


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.binary(max_size=100) | st.binary(max_size=60).map(lambda data: frames.frame(frames.RUN, 1, data)))
def test_random_bytes_end_the_session_and_never_hang_it(data, tmp_path):
    said = spoken(data, tmp_path)

    assert all(kind in {frames.QUIT, frames.PONG, frames.RESULT, frames.REFUSED} for kind, _, _ in said)


def test_numbers_that_are_over_are_no_error(tmp_path):
    late = b"".join(frames.frame(kind, 77, b"1\0") for kind in (frames.INPUT, frames.EOF, frames.CREDIT, frames.END))

    assert spoken(late + frames.frame(frames.PING, 5), tmp_path) == [(frames.PONG, 5, b"")]


@pytest.mark.leaves_processes
async def test_a_driver_that_falls_silent_is_gone(tmp_path):
    env = {"PATH": os.environ["PATH"], "NEXCAGE_NODE_ROOT": str(tmp_path)}
    pipe = subprocess.PIPE
    with subprocess.Popen(words("n1", heartbeat=0.1), stdin=pipe, stdout=pipe, env=env) as runner:
        runner.stdin.write(
            program() + frames.run(1, shell('echo $$ > "$1"; exec sleep 600', str(tmp_path / "pid")), patience=1)
        )
        runner.stdin.flush()
        pid = await pid_in(tmp_path / "pid")

        await until(lambda: runner.poll() is not None)

    assert runner.returncode == 0
    await until(lambda: not alive(pid))


# What becomes of the commands.


@pytest.mark.leaves_processes
@pytest.mark.parametrize("cancel", ["kill", "term"])
async def test_commands_without_a_claim_end_with_a_runner_that_was_killed(node, tmp_path, cancel):
    results = []

    async def one():
        results.append(await node.run(shell('sleep 600 & echo $$ > "$1"; wait', str(tmp_path / "pid"), cancel=cancel)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        pid = await pid_in(tmp_path / "pid")
        held = children(pid)
        assert len(held) == 1
        os.kill(node.pid, signal.SIGKILL)

    assert [(result.exit, result.lost) for result in results] == [(None, "link")]
    await until(lambda: not alive(pid))
    if cancel == "kill":
        await until(lambda: not any(map(alive, held)))
    for left in filter(alive, held):
        os.kill(left, signal.SIGKILL)


@pytest.mark.leaves_processes
async def test_what_ignores_term_ends_with_a_runner_that_was_killed(node, tmp_path):
    script = 'trap "" TERM; echo $$ > "$1"; while :; do sleep 0.1; done'

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node.run, shell(script, str(tmp_path / "pid")))
        pid = await pid_in(tmp_path / "pid")
        os.kill(node.pid, signal.SIGKILL)

    await until(lambda: not alive(pid))


async def test_a_warden_that_is_behind_misses_no_command(node, tmp_path):
    await node.run(command("true"))
    (warden,) = children(node.pid)
    os.kill(warden, signal.SIGSTOP)
    small = 4096
    for fd in Path(f"/proc/{warden}/fd").iterdir():
        if str(fd.readlink()).startswith("pipe:"):
            with fd.open("rb", buffering=0) as pipe:
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, small)
    for _ in range(small // 20):  # two lines of more than ten bytes for each
        await node.run(command("true"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node.run, shell('echo $$ > "$1"; exec sleep 600', str(tmp_path / "late")))
        pid = await pid_in(tmp_path / "late")
        os.kill(warden, signal.SIGCONT)
        await node.run(command("true"))  # with this it is told of all
        os.kill(node.pid, signal.SIGKILL)

    await until(lambda: not alive(pid))


def reading(pid: int) -> set[bool]:
    """Whether those pipes that a process reads would keep it waiting."""
    flags = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if str(fd.readlink()).startswith("pipe:"):
                flags.append(int(Path(f"/proc/{pid}/fdinfo/{fd.name}").read_text().split()[3], 8))
    return {not each & os.O_NONBLOCK for each in flags if each & os.O_ACCMODE == os.O_RDONLY}


@pytest.mark.parametrize("step", [None, claim()])
async def test_a_command_that_takes_its_output_back_does_not_keep_who_reads_it(node, tmp_path, step):
    script = 'echo $$ > "$1"; while :; do echo x; read x < /proc/self/fd/1; done'

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node.run, shell(script, str(tmp_path / "pid"), claim=step))
        pid = await pid_in(tmp_path / "pid")
        reader = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        assert (reader == node.pid) == (step is None)
        await until(lambda: reading(reader) == {False})  # the one that told of the exec may be there a moment longer
        tasks.cancel_scope.cancel()


@pytest.mark.leaves_processes
async def test_a_runner_that_is_killed_while_it_begins_commands_leaves_none(machine, tmp_path):
    for moment in range(40):
        node = machine.link()
        await node.run(command("true"))
        file = tmp_path / str(moment)
        async with anyio.create_task_group() as tasks:
            for _ in range(24):
                tasks.start_soon(node.run, shell('echo $$ >> "$1"; exec sleep 600', str(file)))
            await anyio.sleep(moment * 0.0005)  # no promise hangs on it: it spreads the moments over the beginning
            os.kill(node.pid, signal.SIGKILL)
        pids = [int(word) for word in file.read_text().split()] if file.exists() else []
        await until(lambda pids=pids: not any(map(alive, pids)))


@pytest.mark.leaves_processes
async def test_claimed_commands_go_on_when_their_runner_is_closed(machine, node, tmp_path):
    script = 'echo $$ > "$1"; while [ ! -e "$1.go" ]; do sleep 0.02; done; echo over'
    wanted = shell(script, str(tmp_path / "pid"), claim=claim())
    results = []

    async def one():
        results.append(await node.run(wanted))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        pid = await pid_in(tmp_path / "pid")
        await node.aclose()

    assert [(result.exit, result.lost) for result in results] == [(None, "link")]
    assert alive(pid)
    (tmp_path / "pid.go").touch()
    assert (await machine.link().run(wanted)).stdout == b"over\n"


async def test_closing_ends_what_has_no_claim(node, tmp_path):
    results = []

    async def one(cancel):
        file = str(tmp_path / cancel)
        results.append(await node.run(shell('echo $$ > "$1"; exec sleep 600', file, cancel=cancel)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one, "kill")
        tasks.start_soon(one, "term")
        pids = [await pid_in(tmp_path / "kill"), await pid_in(tmp_path / "term")]
        await node.aclose()

    await until(lambda: not any(map(alive, pids)))
    assert [result.lost for result in results] == ["link", "link"]
    with pytest.raises(NodeUnreachable, match="closed"):
        await node.run(command("true"))


async def test_a_runner_that_has_ended_is_followed_by_another(node):
    await node.run(command("true"))
    first = node.pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: not alive(first))

    results = []
    with suppress(NodeUnreachable):  # the call that finds out
        results.append(await node.run(command("true")))
    results.append(await node.run(command("true")))

    assert results[-1].exit == 0
    assert node.pid != first


async def test_a_runner_that_does_not_answer_has_lost_its_link(tmp_path):
    from nexcage._transports.local_runner import LocalRunner

    node = LocalRunner(patience=0.1, heartbeat=0.1)
    while (await node.run(command("true"))).exit != 0:
        pass  # with such a heartbeat a slow machine is a lost link as well
    pid = node.pid
    os.kill(pid, signal.SIGSTOP)

    with anyio.fail_after(20):
        result = await node.run(command("sleep", "600"))

    os.kill(pid, signal.SIGCONT)
    await node.aclose()
    assert (result.exit, result.lost) == (None, "link")


async def test_without_perl_the_reason_is_said(tmp_path):
    from nexcage._transports.local_runner import LocalRunner

    for name in ("sh", "env"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    node = LocalRunner(env={"PATH": str(tmp_path)})

    with pytest.raises(NodeNotUsable) as caught:
        await node.run(command("true"))

    await node.aclose()
    assert "perl: not found" in "\n".join([str(caught.value), *caught.value.__notes__])


async def test_what_does_not_greet_is_ended_and_not_waited_for(tmp_path, monkeypatch):
    from nexcage._transports import local_runner

    (tmp_path / "perl").write_text(f'#!/bin/sh\necho $$ > "{tmp_path}/pid"\nexec sleep 600\n')
    (tmp_path / "perl").chmod(0o755)
    node, greeting = local_runner.LocalRunner(env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}), 0.5

    while not written(tmp_path / "pid"):  # one that was ended before it had written is no proof
        greeting *= 2
        monkeypatch.setattr(local_runner, "GREETING", greeting)
        with pytest.raises(NodeNotUsable, match="did not greet"), anyio.fail_after(30):
            await node.run(command("true"))

    await node.aclose()
    assert not alive(await pid_in(tmp_path / "pid"))


# What it may cost.


def peak(pid: int) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1])


async def test_memory_stays_bounded_whatever_a_command_prints(node):
    result = await node.run(command("head", "-c", str(1 << 30), "/dev/zero"))

    assert (result.exit, len(result.stdout) + result.dropped) == (0, 1 << 30)
    assert peak(node.pid) < 64 * 1024


async def test_memory_stays_bounded_when_nobody_reads_a_stream(node):
    async with node.stream(command("yes")) as stream:
        await anext(stream)
        for _ in range(20):
            await node.run(command("true"))

        assert peak(node.pid) < 64 * 1024


@pytest.mark.leaves_processes
async def test_nothing_is_left_after_hundreds_of_commands(node, tmp_path):
    await node.run(command("true"))
    await node.run(shell("true", claim=claim(9999)))
    runner = node.pid
    await until(lambda: len(children(runner)) == 1)  # the warden
    await node.run(command("sleep", "2.2"))  # the first sweep has begun
    await node.run(command("true"))
    await until(lambda: len(children(runner)) == 1)  # and is over
    await node.run(command("true"))
    before = len(os.listdir(f"/proc/{runner}/fd"))

    async def one(number):
        with anyio.move_on_after(0.05 if number % 5 == 4 else None):
            wanted = claim(number) if number % 3 == 0 else None
            await node.run(shell("echo $1; [ $2 != 4 ] || sleep 9", str(number), str(number % 5), claim=wanted))

    for start in range(0, 300, 30):
        async with anyio.create_task_group() as tasks:
            for number in range(start, start + 30):
                tasks.start_soon(one, number)

    await until(lambda: len(children(runner)) == 1)
    await until(lambda: len(os.listdir(f"/proc/{runner}/fd")) == before)
    assert peak(runner) < 64 * 1024


# The driver's side.


class Told:
    """A runner whose other end is the test."""

    def __init__(self) -> None:
        self.written = b""
        self.aborted = False
        self.runner = Runner("pve-01", "n1", write=self._write, abort=self._abort)

    def _write(self, data):
        self.written += data

    def _abort(self):
        self.aborted = True

    def greet(self):
        self.runner.data_received(b"motd\n\x1enexcage-runner n1\n" + frames.Hello(protocol=1).encode())


async def test_what_one_turn_of_the_loop_says_is_one_write():
    told = Told()
    told.greet()
    writes = []
    told.runner._write = writes.append

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(told.runner.run, command("true"))
        await until(lambda: writes)
        told.runner.data_received(b"".join(frames.result(number, 0) for number in range(1, 51)))

    assert len(writes) == 1


@pytest.mark.parametrize(
    "kind, message, error",
    [
        ("fenced", "7 9", "Fenced"),
        ("rebooted", "it was rebooted", "NodeUnreachable"),
        ("void", "called off", "NodeUnreachable"),
        ("full", "no process", "NodeUnreachable"),
        ("claims", "cannot make it", "NodeNotUsable"),
        ("invalid", "no such name", "InvalidInput"),
        ("later", "not known yet", "NodeUnreachable"),
    ],
)
async def test_a_refusal_is_the_error_that_says_so(kind, message, error):
    told = Told()
    told.greet()

    asked = asyncio.ensure_future(told.runner.run(command("true", claim=claim())))
    await until(lambda: told.written)
    told.runner.data_received(frames.Refused(kind, message).encode(1))

    with pytest.raises(NexcageError) as caught:
        await asked
    assert type(caught.value).__name__ == error


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    data=st.lists(
        st.binary(max_size=40)
        | st.tuples(st.sampled_from(list(b"HXCoeBNpQW?")), st.integers(0, 3), st.binary(max_size=30)).map(
            lambda parts: frames.frame(*parts)
        ),
        max_size=6,
    )
)
def test_random_bytes_from_a_node_lose_the_link_and_never_hang(data):
    async def main():
        told = Told()
        told.greet()
        ran = asyncio.ensure_future(told.runner.run(command("true")))
        streamed = asyncio.ensure_future(_streamed(told.runner))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for piece in data:
            told.runner.data_received(piece)
        told.runner.lost("the end")
        for one in (ran, streamed):
            try:
                result = await asyncio.wait_for(one, 10)
            except NexcageError:
                continue
            assert result.exit is not None or result.lost

    asyncio.run(main())


async def _streamed(runner):
    async with runner.stream(command("true")) as stream:
        return await stream.wait()


@pytest.mark.parametrize(
    "data, why",
    [
        (frames.Hello(protocol=2).encode(), "version 2"),
        (frames.frame(frames.PONG), "does not greet"),
        (frames.frame(frames.QUIT, 0, b"no room\0"), "no room"),
        (b"Permission denied", "protocol"),
    ],
)
async def test_a_runner_that_is_none_is_not_usable(data, why):
    told = Told()
    told.runner.data_received(b"\x1enexcage-runner n1\n" + data)

    with pytest.raises(NodeNotUsable, match=why):
        await told.runner.greeted()

    assert told.aborted


async def test_what_was_not_sent_yet_when_the_link_went_surely_did_not_begin():
    told = Told()
    told.greet()
    sent = asyncio.ensure_future(told.runner.run(command("true")))
    await until(lambda: told.written)
    not_sent = asyncio.ensure_future(told.runner.run(command("true")))
    told.runner._loop.call_soon(told.runner.lost, "gone")  # comes before the write of that turn
    await asyncio.sleep(0)

    assert (await sent).lost == "link"
    with suppress(NodeUnreachable):
        assert (await not_sent).lost == "link"
    with pytest.raises(NodeUnreachable, match="gone"):
        await told.runner.run(command("true"))

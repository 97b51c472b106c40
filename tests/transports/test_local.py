import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from nexcage._transports.local import LocalTransport
from nexcage.errors import InvalidInput
from tests.transports.commands import alive, command, overrun, pid_in, shell, until

pytestmark = pytest.mark.both_loops


@pytest.fixture
def local():
    return LocalTransport()


async def test_a_command_answers_with_its_output_and_exit_status(local):
    result = await local.run(shell("cat; echo wrong >&2; exit 3", stdin=b"in\0put\n"))

    assert (result.exit, result.stdout, result.stderr, result.dropped, result.lost) == (
        3,
        b"in\0put\n",
        b"wrong\n",
        0,
        "",
    )
    assert result.seconds > 0


async def test_words_reach_the_program_as_they_are(local):
    words = ("", "a b", "'\"", "$HOME", "*", "new\nline", "é", b"\xff".decode("utf-8", "surrogateescape"))

    result = await local.run(command("printf", "%s\\0", *words))

    assert result.stdout == b"".join(os.fsencode(word) + b"\0" for word in words)


async def test_the_environment_is_small_and_its_own():
    os.environ["NEXCAGE_SECRET"] = "1"

    result = await LocalTransport(env={"PATH": "/usr/bin:/bin", "A": "1", "B": "1"}).run(
        command("env", env={"B": "2 3"})
    )

    del os.environ["NEXCAGE_SECRET"]
    env = dict(line.split("=", 1) for line in result.stdout.decode().splitlines())
    assert env == {"PATH": "/usr/bin:/bin", "HOME": os.environ["HOME"], "LC_ALL": "C", "A": "1", "B": "2 3"}


async def test_programs_are_found_on_the_path_that_the_command_gets(tmp_path):
    tool = tmp_path / "pct"
    tool.write_text("#!/bin/sh\necho pretend\n")
    tool.chmod(0o755)

    result = await LocalTransport(env={"PATH": str(tmp_path)}).run(command("pct"))

    assert result.stdout == b"pretend\n"


@pytest.mark.parametrize(
    "program, exit, said", [("no-such-tool", 127, b"not found"), ("/etc/passwd", 126, b"Permission denied")]
)
async def test_a_program_that_cannot_be_run_answers_as_a_shell_would(local, program, exit, said):
    result = await local.run(command(program))

    assert result.exit == exit
    assert result.stderr == program.encode() + b": " + said + b"\n"


@pytest.mark.parametrize("argv, env", [(("true", "a\0"), {}), (("true",), {"A": "\0"}), (("true",), {"A=B": ""})])
async def test_what_cannot_be_sent_is_refused_before_it_runs(local, argv, env):
    with pytest.raises(InvalidInput):
        await local.run(command(*argv, env=env))


async def test_a_death_by_signal_is_an_answer(local):
    assert (await local.run(shell("kill -9 $$"))).exit == 128 + signal.SIGKILL


async def test_it_runs_in_a_session_of_its_own(local):
    result = await local.run(shell("cut -d' ' -f1,6 /proc/$$/stat; echo $$"))

    pid, session, same = result.stdout.split()
    assert pid == session == same


async def test_input_larger_than_a_pipe_arrives_whole(local):
    data = bytes(range(256)) * 8192

    result = await local.run(command("cat", stdin=data, cap=len(data)))

    assert result.stdout == data


async def test_a_program_that_does_not_read_its_input_loses_nothing(local):
    result = await local.run(shell("echo done", stdin=bytes(1_000_000)))

    assert (result.exit, result.stdout) == (0, b"done\n")


async def test_endless_output_is_kept_within_the_cap():
    script = """
import anyio, resource, sys
from nexcage import Command
from nexcage._core.command import nothing
from nexcage._transports.local import LocalTransport
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
command = Command(("sh", "-c", "echo begin; head -c 200M /dev/zero; echo end"), parse=nothing, cap=100_000)
result = anyio.run(LocalTransport().run, command)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert result.stdout.startswith(b"begin\\n") and result.stdout.endswith(b"end\\n")
assert len(result.stdout) + result.dropped == 200 * 2**20 + 10
assert grown < 30_000, grown
"""
    await anyio.to_thread.run_sync(lambda: subprocess.run([sys.executable, "-c", script], check=True))


async def test_both_streams_have_their_own_cap(local):
    result = await local.run(shell("head -c 5000 /dev/zero; head -c 5000 /dev/zero >&2", cap=1000))

    assert (len(result.stdout), len(result.stderr), result.dropped) == (1000, 1000, 8000)


async def test_a_deadline_ends_the_whole_group(local, tmp_path):
    result, file = await overrun(local, 'sleep 600 & echo $! > "$1"; wait', tmp_path)

    assert (result.exit, result.lost) == (None, "deadline")
    pid = await pid_in(file)
    await until(lambda: not alive(pid))


async def test_what_ignores_term_is_killed_a_second_later(local, tmp_path):
    script = 'echo begun; trap "" TERM; sh -c "echo \\$\\$ > $1; while :; do sleep 1; done"'

    result, file = await overrun(local, script, tmp_path)

    assert (result.exit, result.lost, result.stdout) == (None, "deadline", b"begun\n")
    pid = await pid_in(file)
    await until(lambda: not alive(pid))


async def test_in_class_term_the_answer_after_the_deadline_counts(local, tmp_path):
    script = 'trap "echo cleaned up; exit 9" TERM; echo begun; echo $$ > "$1"; while :; do sleep 0.05; done'

    result, _ = await overrun(local, script, tmp_path, cancel="term")

    assert (result.exit, result.lost, result.stdout) == (9, "deadline", b"begun\ncleaned up\n")


async def test_in_class_term_dying_of_the_signal_is_no_answer(local):
    result = await local.run(shell("exec sleep 600", timeout=0.2, cancel="term"))

    assert (result.exit, result.lost) == (None, "deadline")


async def test_in_class_term_only_the_tool_is_signalled(local, tmp_path):
    inner = 'trap "echo TERM > $1.signal" TERM; echo $$ > "$1"; while [ ! -e "$1.end" ]; do sleep 0.02; done'
    outer = 'trap "touch $1.end; wait; exit 5" TERM; sh -c "$2" sh "$1" & while :; do sleep 0.02; done'
    file = tmp_path / "pid"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(local.run, shell(outer, str(file), inner, cancel="term"))
        pid = await pid_in(file)
        tasks.cancel_scope.cancel()

    await until(lambda: not alive(pid))
    assert not (tmp_path / "pid.signal").exists()


@pytest.mark.leaves_processes  # on purpose: nobody may kill a tool that is still cleaning up
async def test_a_tool_that_does_not_end_is_left_running_and_never_killed(tmp_path):
    local = LocalTransport(patience=0.3)
    script = 'trap "" TERM; echo $$ > "$1"; while [ ! -e "$1.end" ]; do echo still here; sleep 0.02; done; echo over > "$1.over"'

    result, file = await overrun(local, script, tmp_path, cancel="term")

    assert (result.exit, result.lost) == (None, "deadline")
    pid = await pid_in(file)
    assert alive(pid)
    file.with_name(f"{file.name}.end").touch()
    await until(file.with_name(f"{file.name}.over").exists)  # it went on printing and was not ended by a closed pipe
    await until(lambda: not Path(f"/proc/{pid}").exists())  # and was reaped


async def test_a_cancelled_call_ends_its_command_before_it_returns(local, tmp_path):
    file = tmp_path / "pid"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(local.run, shell('echo $$ > "$1"; sleep 600', str(file)))
        pid = await pid_in(file)
        tasks.cancel_scope.cancel()

    assert not Path(f"/proc/{pid}").exists()


async def test_something_that_keeps_the_pipe_open_does_not_keep_the_caller(local, tmp_path):
    file = tmp_path / "pid"

    with anyio.fail_after(20):
        result = await local.run(shell('sleep 600 & echo $! > "$1"; echo done', str(file)))

    assert (result.exit, result.stdout) == (0, b"done\n")
    os.kill(await pid_in(file), signal.SIGKILL)


async def test_a_conversation_by_stream(local):
    async with local.stream(shell("while read line; do echo got $line; done; echo bye >&2; exit 4")) as stream:
        await stream.send(b"one\n")
        assert await anext(aiter(stream)) == ("stdout", b"got one\n")
        await stream.send(b"two\n")
        assert await anext(aiter(stream)) == ("stdout", b"got two\n")
        await stream.send_eof()
        result = await stream.wait()

    assert (result.exit, result.stdout, result.stderr) == (4, b"", b"bye\n")


async def test_iterating_a_stream_ends_with_the_command(local):
    async with local.stream(shell("echo 1; echo 2 >&2")) as stream:
        await stream.send_eof()
        seen = [item async for item in stream]
        result = await stream.wait()

    assert sorted(seen) == [("stderr", b"2\n"), ("stdout", b"1\n")]
    assert (result.exit, result.stdout) == (0, b"")


async def test_a_stream_that_nobody_reads_makes_the_command_wait(local, tmp_path):
    file = tmp_path / "done"

    async with local.stream(shell('head -c 5000000 /dev/zero; echo > "$1"', str(file))) as stream:
        total = len((await anext(stream))[1])
        assert not file.exists()
        async for _, data in stream:
            total += len(data)

    assert total == 5_000_000


async def test_leaving_a_stream_ends_its_command(local, tmp_path):
    async with local.stream(shell('echo $$ > "$1"; sleep 600', str(tmp_path / "pid"))):
        pid = await pid_in(tmp_path / "pid")

    assert not Path(f"/proc/{pid}").exists()


async def test_an_error_inside_a_stream_comes_out_bare(local):
    with pytest.raises(KeyError):
        async with local.stream(command("sleep", "600")):
            raise KeyError("mine")


async def test_two_tasks_may_use_one_stream(local):
    data = bytes(3_000_000)
    received = 0

    async def send(stream):
        await stream.send(data)
        await stream.send_eof()

    async with local.stream(command("cat")) as stream, anyio.create_task_group() as tasks:
        tasks.start_soon(send, stream)
        async for _, piece in stream:
            received += len(piece)

    assert received == len(data)


async def test_many_at_once(local):
    results = []

    async def one(number):
        results.append(await local.run(shell("echo $1", str(number))))

    async with anyio.create_task_group() as tasks:
        for number in range(30):
            tasks.start_soon(one, number)

    assert sorted(int(result.stdout) for result in results) == list(range(30))

"""What a runner and an exec channel with POSIX sh both promise, claims apart (test_claims.py): one suite for the two."""

import os
import signal

import anyio
import pytest

from nexcage.errors import InvalidInput
from tests.transports.commands import alive, command, overrun, pid_in, shell, until
from tests.transports.nodes import Machine

MIB = 1 << 20


@pytest.fixture(params=["runner", "sh"])
async def machine(request, tmp_path):
    machine = Machine(request.param, tmp_path / "node", patience=5.0)
    yield machine
    await machine.aclose()


@pytest.fixture
def node(machine):
    return machine.link()


async def test_a_command_answers_with_its_output_and_exit_status(node):
    result = await node.run(shell("cat; echo wrong >&2; exit 3", stdin=b"in\0put\n"))

    assert (result.exit, result.stdout, result.stderr, result.dropped, result.lost) == (
        3,
        b"in\0put\n",
        b"wrong\n",
        0,
        "",
    )
    assert result.seconds > 0


@pytest.mark.parametrize("status", [0, 1, 2, 126, 127, 128, 129, 143, 255])
async def test_every_exit_status_is_the_tools_own(node, status):
    assert (await node.run(shell(f"exit {status}"))).exit == status


@pytest.mark.parametrize("name", ["TERM", "KILL", "HUP", "PIPE", "SEGV"])
async def test_a_death_by_signal_is_an_answer(node, name):
    result = await node.run(shell(f"kill -s {name} $$"))

    assert (result.exit, result.lost) == (128 + getattr(signal, f"SIG{name}"), "")


async def test_words_reach_the_program_as_they_are(node):
    every = bytes(range(1, 256)).decode("utf-8", "surrogateescape")
    words = ("", "a b", "'\"", "$HOME", "*", "new\nline", "é", every)

    result = await node.run(command("printf", "%s\\0", *words))

    assert result.stdout == b"".join(os.fsencode(word) + b"\0" for word in words)


async def test_the_environment_is_small_and_its_own(node):
    os.environ["NEXCAGE_SECRET"] = "1"

    result = await node.run(command("env", env={"B": "2 3\n=é"}))

    del os.environ["NEXCAGE_SECRET"]
    assert b"NEXCAGE_SECRET" not in result.stdout
    assert b"B=2 3\n=\xc3\xa9\n" in result.stdout
    assert b"LC_ALL=C\n" in result.stdout
    names = {line.split(b"=")[0] for line in result.stdout.splitlines()}
    assert names == {b"PATH", b"HOME", b"LC_ALL", b"NEXCAGE_NODE_ROOT", b"B", b""}


async def test_signals_and_the_umask_reach_the_program_as_usual(node):
    mask = os.umask(0o027)
    os.umask(mask)

    result = await node.run(shell("umask; grep -E 'Sig(Ign|Blk)' /proc/self/status"))

    assert int(result.stdout.split()[0], 8) == mask
    assert int(result.stdout.split()[2], 16) == int(result.stdout.split()[4], 16) == 0


async def test_nothing_but_its_three_descriptors_reaches_a_program(node):
    async with node.stream(command("sleep", "600")):  # one more whose pipes are open
        result = await node.run(command("ls", "/proc/self/fd"))

    assert result.stdout.split() == [b"0", b"1", b"2", b"3"]  # the last one is the directory that it reads


@pytest.mark.parametrize(
    "program, exit, said", [("no-such-tool", 127, b"not found"), ("/etc/passwd", 126, b"Permission denied")]
)
async def test_a_program_that_cannot_be_run_answers_as_a_shell_would(node, program, exit, said):
    result = await node.run(command(program))

    assert (result.exit, result.stdout) == (exit, b"")
    assert result.stderr == program.encode() + b": " + said + b"\n"


@pytest.mark.parametrize(
    "argv, env", [((), {}), (("",), {}), (("true", "a\0"), {}), (("true",), {"A": "\0"}), (("true",), {"A=B": ""})]
)
async def test_what_cannot_be_sent_is_refused_before_it_runs(node, argv, env):
    with pytest.raises(InvalidInput):
        await node.run(command(*argv, env=env))


@pytest.mark.parametrize("size", [0, 1, 4095, 65535, 65536, 65537, 1_048_576, 5 * MIB])
async def test_input_of_any_size_arrives_whole(node, size):
    data = (bytes(range(256)) * (size // 256 + 1))[:size]

    result = await node.run(command("cat", stdin=data, cap=max(2 * size, 1)))

    assert (result.exit, result.stdout == data, result.dropped) == (0, True, 0)


async def test_a_program_that_does_not_read_its_input_loses_nothing(node):
    result = await node.run(shell("echo done", stdin=bytes(3_000_000)))

    assert (result.exit, result.stdout) == (0, b"done\n")


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 65536, MIB, 50 * MIB])
async def test_output_of_any_size_is_kept_within_the_cap(node, size):
    result = await node.run(
        shell('printf "%s" "$(head -c 10 /dev/zero | tr \\\\0 a)" >&2; head -c $1 /dev/zero', str(size), cap=1000)
    )

    assert len(result.stdout) == min(size, 1000)
    assert result.dropped == max(0, size - 1000)
    assert result.stderr == b"a" * 10


async def test_the_head_and_the_tail_are_kept(node):
    result = await node.run(shell("echo begin; head -c 3000000 /dev/zero; echo end", cap=100))

    assert result.stdout.startswith(b"begin\n\0") and result.stdout.endswith(b"\0end\n")
    assert len(result.stdout) + result.dropped == 3_000_010


@pytest.mark.parametrize("size", [64_000, 200_000, 20 * MIB])
async def test_a_long_answer_arrives_whole(node, size):
    result = await node.run(shell("head -c $1 /dev/zero; echo end; echo wrong >&2", str(size), cap=64 * MIB))

    assert (len(result.stdout), result.stdout[-5:], result.stderr) == (size + 4, b"\0end\n", b"wrong\n")


async def test_a_cap_of_nothing_keeps_nothing(node):
    result = await node.run(shell("echo out; echo err >&2", cap=0))

    assert (result.stdout, result.stderr, result.dropped) == (b"", b"", 8)


async def test_a_hundred_at_once_each_get_their_own_answer(node):
    results = []

    async def one(number):
        result = await node.run(shell("cat; exit $1", str(number), stdin=b"%d" % number))
        results.append((result.exit, result.stdout))

    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(one, number)

    assert sorted(results) == [(number, b"%d" % number) for number in range(100)]


async def test_one_that_prints_a_lot_does_not_keep_the_others(node):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node.run, shell("exec yes"))
        for number in range(20):
            assert (await node.run(command("echo", str(number)))).stdout == b"%d\n" % number
        tasks.cancel_scope.cancel()


async def test_a_deadline_ends_the_whole_group(node, tmp_path):
    result, file = await overrun(node, 'sleep 600 & echo $! > "$1"; wait', tmp_path)

    assert (result.exit, result.lost) == (None, "deadline")
    pid = await pid_in(file)
    await until(lambda: not alive(pid))


async def test_what_ignores_term_is_killed_a_second_later(node, tmp_path):
    script = 'echo begun; trap "" TERM; sh -c "echo \\$\\$ > $1; while :; do sleep 1; done"'

    result, file = await overrun(node, script, tmp_path)

    assert (result.exit, result.lost, result.stdout) == (None, "deadline", b"begun\n")
    pid = await pid_in(file)
    await until(lambda: not alive(pid))


async def test_in_class_kill_no_answer_counts_after_the_deadline(node, tmp_path):
    result, _ = await overrun(node, 'trap "exit 0" TERM; echo $$ > "$1"; while :; do sleep 0.02; done', tmp_path)

    assert (result.exit, result.lost) == (None, "deadline")


async def test_in_class_term_the_answer_after_the_deadline_counts(node, tmp_path):
    script = 'trap "echo cleaned up; exit 9" TERM; echo begun; echo $$ > "$1"; while :; do sleep 0.05; done'

    result, _ = await overrun(node, script, tmp_path, cancel="term")

    assert (result.exit, result.lost, result.stdout) == (9, "deadline", b"begun\ncleaned up\n")


async def test_in_class_term_dying_of_the_signal_is_no_answer(node):
    result = await node.run(shell("exec sleep 600", timeout=0.2, cancel="term"))

    assert (result.exit, result.lost) == (None, "deadline")


async def test_in_class_term_only_the_tool_is_signalled(node, tmp_path):
    inner = 'trap "echo TERM > $1.signal" TERM; echo $$ > "$1"; while [ ! -e "$1.end" ]; do sleep 0.02; done'
    outer = 'trap "touch $1.end; wait; exit 5" TERM; sh -c "$2" sh "$1" & while :; do sleep 0.02; done'
    file = tmp_path / "pid"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node.run, shell(outer, str(file), inner, cancel="term"))
        pid = await pid_in(file)
        tasks.cancel_scope.cancel()

    await until(lambda: not alive(pid))
    assert not (tmp_path / "pid.signal").exists()


@pytest.mark.leaves_processes  # on purpose: nobody may kill a tool that is still cleaning up
@pytest.mark.parametrize("kind", ["runner", "sh"])
async def test_a_tool_that_does_not_end_is_left_running_and_never_killed(kind, tmp_path):
    machine = Machine(kind, tmp_path / "node", patience=0.3)
    script = 'trap "" TERM; echo $$ > "$1"; while [ ! -e "$1.end" ]; do echo still here; sleep 0.02; done; echo over > "$1.over"'

    result, file = await overrun(machine.link(), script, tmp_path, cancel="term")

    assert (result.exit, result.lost) == (None, "deadline")
    pid = await pid_in(file)
    await machine.aclose()
    assert alive(pid)
    file.with_name(f"{file.name}.end").touch()
    await until(file.with_name(f"{file.name}.over").exists)  # it went on printing and was not ended by a closed pipe
    await until(lambda: not alive(pid))


@pytest.mark.parametrize("cancel", ["kill", "term"])
async def test_a_cancelled_call_ends_its_command_before_it_returns(node, tmp_path, cancel):
    file = tmp_path / "pid"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node.run, shell('echo $$ > "$1"; exec sleep 600', str(file), cancel=cancel))
        pid = await pid_in(file)
        tasks.cancel_scope.cancel()

    assert not alive(pid)


async def test_a_call_that_is_cancelled_at_once_leaves_nothing(node, tmp_path):
    script, file = 'while [ ! -e "$1.go" ]; do sleep 0.02; done; echo $$ > "$1"', str(tmp_path / "late")
    await node.run(command("true"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node.run, shell(script, file))
        tasks.start_soon(node.run, shell(script, file, cancel="term"))
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()

    (tmp_path / "late.go").touch()
    assert (await node.run(command("sleep", "0.3"))).exit == 0
    assert not (tmp_path / "late").exists()


async def test_something_that_keeps_the_pipe_open_does_not_keep_the_caller(node, tmp_path):
    file = tmp_path / "pid"

    with anyio.fail_after(20):
        result = await node.run(shell('sleep 600 & echo $! > "$1"; echo done', str(file)))

    assert (result.exit, result.stdout) == (0, b"done\n")
    os.kill(await pid_in(file), signal.SIGKILL)


async def test_something_that_goes_on_printing_does_not_keep_the_caller_for_ever(node, tmp_path):
    file = tmp_path / "pid"
    endless = 'while :; do echo more; sleep 0.1; done & echo $! > "$1"; echo done'

    with anyio.fail_after(30):
        result = await node.run(shell(endless, str(file)))

    assert result.exit == 0
    assert result.stdout.startswith((b"done\n", b"more\n"))
    os.kill(await pid_in(file), signal.SIGKILL)


async def test_a_conversation_by_stream(node):
    async with node.stream(shell("while read line; do echo got $line; done; echo bye >&2; exit 4")) as stream:
        await stream.send(b"one\n")
        assert await anext(aiter(stream)) == ("stdout", b"got one\n")
        await stream.send(b"two\n")
        assert await anext(aiter(stream)) == ("stdout", b"got two\n")
        await stream.send_eof()
        result = await stream.wait()

    assert (result.exit, result.stdout, result.stderr) == (4, b"", b"bye\n")


async def test_iterating_a_stream_ends_with_the_command(node):
    async with node.stream(shell("echo 1; echo 2 >&2")) as stream:
        await stream.send_eof()
        seen = [item async for item in stream]
        result = await stream.wait()

    assert sorted(seen) == [("stderr", b"2\n"), ("stdout", b"1\n")]
    assert (result.exit, result.stdout) == (0, b"")


@pytest.mark.parametrize("size", [10, 70_000, 600_000])
async def test_a_stream_begins_with_the_input_of_its_command(node, size):
    async with node.stream(shell("wc -c", stdin=bytes(size))) as stream:
        await stream.send(b"12345")
        await stream.send_eof()
        result = await stream.wait()

    assert int(result.stdout) == size + 5


async def test_a_stream_that_nobody_reads_makes_the_command_wait(node, tmp_path):
    file = tmp_path / "done"

    async with node.stream(shell('head -c 5000000 /dev/zero; echo > "$1"', str(file))) as stream:
        total = len((await anext(stream))[1])
        for _ in range(5):  # others run meanwhile
            assert (await node.run(command("true"))).exit == 0
        assert not file.exists()
        async for _, data in stream:
            total += len(data)

    assert total == 5_000_000


async def test_a_streamed_command_that_has_ended_keeps_its_output_for_a_slow_reader(node):
    async with node.stream(shell("head -c 300000 /dev/zero; echo end")) as stream:
        total = len((await anext(stream))[1])
        assert (
            await node.run(command("sleep", "2.5"))
        ).exit == 0  # longer than output is waited for that somebody holds back
        async for _, data in stream:
            total += len(data)

    assert total == 300_004


async def test_waiting_for_a_stream_keeps_what_was_not_taken_within_the_cap(node):
    async with node.stream(shell("head -c 3000000 /dev/zero; echo end", cap=1000)) as stream:
        first = len((await anext(stream))[1])
        result = await stream.wait()

    assert (result.exit, len(result.stdout), result.stdout[-5:]) == (0, 1000, b"\0end\n")
    assert first + len(result.stdout) + result.dropped == 3_000_004


async def test_a_streamed_command_has_its_deadline(node):
    seen, timeout = [], 0.3
    while not seen and timeout < 60:  # a machine that is slow comes to the first word later
        async with node.stream(shell("echo begun; exec sleep 600", timeout=timeout)) as stream:
            seen = [item async for item in stream]
            result = await stream.wait()
        assert (result.exit, result.lost) == (None, "deadline")
        timeout *= 4

    assert seen == [("stdout", b"begun\n")]


async def test_leaving_a_stream_ends_its_command(node, tmp_path):
    async with node.stream(shell('echo $$ > "$1"; sleep 600', str(tmp_path / "pid"))):
        pid = await pid_in(tmp_path / "pid")

    assert not alive(pid)


async def test_an_error_inside_a_stream_comes_out_bare(node):
    with pytest.raises(KeyError):
        async with node.stream(command("sleep", "600")):
            raise KeyError("mine")


async def test_two_tasks_may_use_one_stream(node):
    data = bytes(3_000_000)
    received = 0

    async def send(stream):
        await stream.send(data)
        await stream.send_eof()

    async with node.stream(command("cat")) as stream, anyio.create_task_group() as tasks:
        tasks.start_soon(send, stream)
        async for _, piece in stream:
            received += len(piece)

    assert received == len(data)


async def test_sending_to_a_program_that_does_not_read_waits_and_ends_with_it(node, tmp_path):
    script = 'while [ ! -e "$1" ]; do sleep 0.02; done'
    sent = anyio.Event()

    async def send(stream):
        await stream.send(bytes(5_000_000))
        sent.set()

    async with node.stream(shell(script, str(tmp_path / "go"))) as stream, anyio.create_task_group() as tasks:
        tasks.start_soon(send, stream)
        for _ in range(5):
            assert (await node.run(command("true"))).exit == 0
        assert not sent.is_set()
        (tmp_path / "go").touch()
        result = await stream.wait()

    assert result.exit == 0
    assert sent.is_set()

"""A program inside gets exactly what was sent, and what it says arrives exactly, whatever lies between."""

from __future__ import annotations

import random

import anyio
import pytest

import nexcage
from nexcage import State
from tests.inside.conftest import Inside, until

MIB = 1 << 20


async def test_every_byte_of_an_argument_arrives(inside: Inside) -> None:
    # asyncssh's server, unlike sshd, takes command lines as UTF-8 only.
    every = bytes(range(1, 256)) if inside.way != "asyncssh-exec" else bytes(range(1, 128)) + "äöü€".encode()

    done = await inside.web.exec([b"printf", b"%s\n", every, "a 'b' $HOME `id` \\ \" ;|&"])

    assert done.stdout == every + b"\na 'b' $HOME `id` \\ \" ;|&\n"
    assert (done.exit, done.stderr) == (0, b"")


async def test_the_streams_are_apart_and_the_status_is_the_programs(inside: Inside) -> None:
    done = await inside.web.exec(["sh", "-c", "echo out; echo err >&2; exit 9"])

    assert (done.exit, done.stdout, done.stderr) == (9, b"out\n", b"err\n")


@pytest.mark.parametrize("size", [0, 1, 5 * MIB])
async def test_input_comes_back_byte_for_byte(inside: Inside, size: int) -> None:
    data = random.Random(size).randbytes(size)

    done = await inside.web.exec(["cat"], stdin=data, cap=2 * size + 1000)

    assert done.stdout == data
    assert (done.exit, done.stderr, done.dropped) == (0, b"", 0)


async def test_a_stream_answers_while_it_is_written_to(inside: Inside) -> None:
    async with inside.web.exec_stream(["cat"]) as stream:
        for word in (b"one", b"\x00\xff", b"three"):
            await stream.send(word)
            with anyio.fail_after(20):
                assert await anext(stream) == ("stdout", word)
        await stream.send_eof()
        assert (await stream.wait()).exit == 0


async def test_more_output_than_is_kept_is_counted(inside: Inside) -> None:
    done = await inside.web.exec(["head", "-c", "300000", "/dev/zero"], cap=1000)

    assert len(done.stdout) <= 1100
    assert len(done.stdout) + done.dropped == 300000


async def test_variables_arrive_and_are_in_no_command_line_and_no_file(inside: Inside) -> None:
    secret = "s3cr3t 'quoted' \\0101 \n\x01 \x81\x88 end"
    env = {"TOKEN": secret, "LANG": "C", "PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": "/nowhere"}

    done = await inside.web.exec(["env"], env=env)

    said = dict(
        line.split(b"=", 1) for line in done.stdout.replace(b"\n\x01", b"\x02\x01").splitlines() if b"=" in line
    )
    assert said[b"TOKEN"].replace(b"\x02", b"\n") == secret.encode()
    assert (said[b"PATH"], said[b"container"], said[b"HOME"]) == (b"/usr/bin:/bin", b"lxc", b"/root")
    assert said[b"LD_LIBRARY_PATH"] == b"/nowhere"
    assert set(said) - {b"SHLVL", b"PWD", b"_", b"INIT"} == {
        b"TOKEN",
        b"LANG",
        b"PATH",
        b"LD_LIBRARY_PATH",
        b"HOME",
        b"container",
    }
    assert b"s3cr3t" not in inside.journal()
    assert not any("s3cr3t" in " ".join(effect["argv"]) for effect in inside.sim.effects())


async def test_user_and_directory(inside: Inside) -> None:
    assert (await inside.web.exec(["id", "-u"], user="1000:1000")).stdout == b"1000\n"
    assert (await inside.web.exec(["id", "-u"], user="root")).stdout == b"0\n"
    assert (await inside.web.exec(["pwd"])).stdout == b"/\n"
    assert (await inside.web.exec(["pwd"], cwd="/etc")).stdout == b"/etc\n"
    nowhere = await inside.web.exec(["pwd"], cwd="/no where")
    assert nowhere.exit == 126
    with pytest.raises(nexcage.InvalidInput, match="nosuchuser"):
        await inside.web.exec(["pwd"], user="nosuchuser")


async def test_a_program_that_is_not_there_is_127(inside: Inside) -> None:
    done = await inside.web.exec(["/no/such-program", "x"])

    assert done.exit == 127
    assert b"such-program" in done.stderr


async def test_leaving_a_stream_kills_the_program(inside: Inside) -> None:
    async with inside.web.exec_stream(["sleep", "1000"]):
        await until(lambda: bool(inside.attached()))

    await until(lambda: not inside.attached())
    assert inside.web.machine.beside == ()
    assert inside.web.machine.state is State.RUNNING


async def test_a_cancel_kills_the_program(inside: Inside) -> None:
    before = inside.fleet.seq
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(inside.web.exec, ["sleep", "1000"])
            await until(lambda: bool(inside.attached()))
            scope.cancel()

    await until(lambda: not inside.attached())
    began, ended = inside.since(before)
    assert isinstance(began, nexcage.Began)
    assert isinstance(ended, nexcage.Interrupted)
    assert ended.op is nexcage.Op.EXEC
    assert inside.web.machine.state is State.RUNNING


async def test_a_deadline_kills_the_program(inside: Inside) -> None:
    for timeout in (1.0, 4.0, 16.0):  # before it was sent nothing is uncertain
        with pytest.raises(nexcage.NodeTimeout) as late:
            await inside.web.exec(["sleep", "1000"], timeout=timeout)
        if late.value.uncertain:
            break

    assert late.value.uncertain
    await until(lambda: not inside.attached())


async def test_a_terminal_has_a_size_that_may_change(inside: Inside) -> None:
    said = b""
    async with inside.web.exec_stream(["sh"], size=(31, 97), env={"TERM": "dumb", "PS1": ""}) as stream:
        for size, typed in ((b"31 97", (31, 97)), (b"50 120", (50, 120))):
            await stream.resize(*typed)
            with anyio.fail_after(30):
                while size not in said:
                    await stream.send(b"stty size\n")
                    with anyio.move_on_after(0.3):
                        while size not in said:
                            said += (await anext(stream))[1]
        await stream.send(b"exit 5\n")
        assert (await stream.wait()).exit == 5

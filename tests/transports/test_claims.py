"""Claims on a real machine, kept by a runner and by POSIX sh: one suite, and the two with each other. Fences: the runner only."""

import os
import random
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import anyio
import msgspec
import pytest

from nexcage.errors import Fenced, NexcageError, NodeError, NodeNotUsable, NodeUnreachable
from nexcage.tools.claims import SWEEP
from tests.transports.commands import alive, command, overrun, pid_in, shell, until
from tests.transports.nodes import BOOT, Machine, claim


@pytest.fixture(params=["runner", "sh"])
async def machine(request, tmp_path):
    machine = Machine(request.param, tmp_path / "node", patience=5.0)
    yield machine
    await machine.aclose()


@pytest.fixture
async def runner(tmp_path):
    machine = Machine("runner", tmp_path / "node", patience=5.0)
    yield machine
    await machine.aclose()


def counted(tmp_path: Path, script="echo out; echo err >&2; exit 3", **options):
    """A command that leaves a line for each time that it ran, and how often that was."""
    file = tmp_path / "ran"
    options.setdefault("claim", claim())
    return shell(
        f'echo $$ >> "$1"; {script}', str(file), **options
    ), lambda: len(file.read_text().splitlines()) if file.exists() else 0


ENDED = {128 + signal.SIGTERM, 128 + signal.SIGKILL}
"""How class kill ends a program that takes signals as usual: the second one is for what has not come to the first in a second."""


class Claiming:
    """A way whose commands each have a step of their own."""

    def __init__(self, link):
        self._link, self.last = link, claim(0)

    async def run(self, command):
        self.last = claim(self.last.step + 1)
        return await self._link.run(msgspec.structs.replace(command, claim=self.last))


def end_now(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


async def test_a_claimed_command_answers_like_any_other(machine, tmp_path):
    command, ran = counted(tmp_path, "cat; echo err >&2; exit 3", stdin=bytes(range(256)) * 1000)

    result = await machine.link().run(command)

    assert (result.exit, result.stdout, result.stderr) == (3, bytes(range(256)) * 1000, b"err\n")
    assert (result.dropped, result.lost, ran()) == (0, "", 1)


async def test_a_second_start_runs_nothing_and_gets_the_same_answer(machine, tmp_path):
    command, ran = counted(tmp_path)
    first = await machine.link().run(command)

    same = await machine.link().run(command)
    other = await machine.link().run(shell("echo something else", claim=claim()))

    for result in (same, other):
        assert (
            (result.exit, result.stdout, result.stderr)
            == (first.exit, first.stdout, first.stderr)
            == (3, b"out\n", b"err\n")
        )
    assert ran() == 1


async def test_who_comes_while_it_runs_waits_for_the_same_answer(machine, tmp_path):
    command, ran = counted(tmp_path, f'while [ ! -e "{tmp_path}/go" ]; do sleep 0.02; done; echo over')
    results = []

    async def one(link):
        results.append((await link.run(command)).stdout)

    link = machine.link()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one, link)
        await until(lambda: ran() == 1)
        tasks.start_soon(one, link)
        tasks.start_soon(one, machine.link())
        await anyio.wait_all_tasks_blocked()
        (tmp_path / "go").touch()

    assert results == [b"over\n"] * 3
    assert ran() == 1


async def test_steps_and_operations_are_their_own(machine, tmp_path):
    link = machine.link()

    for number, step in enumerate((claim(1), claim(2), claim(1, op="op2")), 1):
        command, ran = counted(tmp_path, claim=step)
        await link.run(command)
        assert ran() == number


async def test_fifty_racing_starts_of_one_step_run_it_once(machine, tmp_path):
    command, ran = counted(tmp_path)
    links = [machine.link() for _ in range(4)]
    results = []

    async def one(link):
        results.append(await link.run(command))

    with anyio.fail_after(50):
        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(one, links[number % 4])

    assert {(result.exit, result.stdout, result.stderr) for result in results} == {(3, b"out\n", b"err\n")}
    assert ran() == 1


async def test_asking_tells_an_ended_step_from_one_that_runs(machine, tmp_path):
    command, ran = counted(tmp_path, f'echo out; while [ ! -e "{tmp_path}/go" ]; do sleep 0.02; done')
    link = machine.link()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(link.run, command)
        await until(lambda: ran() == 1)
        running = await machine.settled(claim())
        (tmp_path / "go").touch()
    ended = await machine.settled(claim())

    assert (running.kind, running.result, running.boot_id) == ("running", None, BOOT)
    assert (ended.kind, ended.result.exit, ended.result.stdout) == ("ended", 0, b"out\n")
    assert ended.at > 0


async def test_a_step_that_was_asked_for_before_it_began_never_begins(machine, tmp_path):
    command, ran = counted(tmp_path)

    asked = await machine.settled(claim())
    with pytest.raises(NodeUnreachable, match="called it off"):
        await machine.link().run(command)

    assert (asked.kind, asked.result, ran()) == ("void", None, 0)


async def test_a_step_from_before_a_reboot_is_refused_and_may_be_asked_for(machine, tmp_path):
    command, ran = counted(tmp_path, claim=claim(boot_id="00000000-0000-0000-0000-000000000000"))

    with pytest.raises(NodeUnreachable, match="rebooted"):
        await machine.link().run(command)

    assert ran() == 0
    command, ran = counted(tmp_path, claim=claim(boot_id=BOOT))
    assert (await machine.link().run(command)).exit == 3


async def test_a_node_that_cannot_keep_claims_says_so_and_runs_nothing(machine, tmp_path):
    command, ran = counted(tmp_path)
    (tmp_path / "node/run").write_text("in the way")

    with pytest.raises(NodeNotUsable, match="claims cannot be kept"):
        await machine.link().run(command)

    assert ran() == 0


async def test_a_missing_program_is_an_answer_that_is_kept(machine):
    for _ in range(2):
        result = await machine.link().run(command("no-such-tool", claim=claim()))
        assert (result.exit, result.lost) == (127, "")
        assert b"no-such-tool: not found" in result.stderr


async def test_output_is_capped_and_what_is_kept_is_in_the_directory_only(machine):
    command = shell("head -c 3000000 /dev/zero; echo err >&2", claim=claim(), cap=1000)

    result = await machine.link().run(command)

    assert (len(result.stdout), result.stderr, result.dropped) == (1000, b"err\n", 2_999_000)
    assert (machine.ops(claim()) / "out").stat().st_size == 1000
    assert {path.name for path in machine.ops(claim()).iterdir()} == {"go", "out", "err", "status"}


async def test_what_is_kept_is_only_for_its_owner(machine):
    await machine.link().run(shell("echo secret; umask", claim=claim()))

    for path in (machine.ops(claim()), machine.ops(claim()).parent, machine.ops(claim()).parent.parent):
        assert path.stat().st_mode & 0o777 == 0o700
    for path in machine.ops(claim()).iterdir():
        assert path.is_symlink() or path.stat().st_mode & 0o777 == 0o600


async def test_the_command_has_the_usual_umask(machine):
    mask = os.umask(0o022)
    os.umask(mask)

    result = await machine.link().run(shell("umask", claim=claim()))

    assert int(result.stdout, 8) == mask


@pytest.mark.parametrize("cancel", ["kill", "term"])
async def test_a_deadline_ends_it_by_its_class(machine, tmp_path, cancel):
    script = 'sleep 600 & trap "kill $!; echo cleaned up; exit 9" TERM; echo $! > "$1"; wait'
    way = Claiming(machine.link())

    result, file = await overrun(way, script, tmp_path, cancel=cancel)

    asked = await machine.settled(way.last)
    assert result.lost == asked.result.lost == "deadline"
    assert result.exit == asked.result.exit == (9 if cancel == "term" else None)
    pid = await pid_in(file)
    await until(lambda: not alive(pid))


async def test_what_ignores_term_is_killed_in_class_kill(machine, tmp_path):
    script = 'trap "" TERM; echo $$ > "$1"; while :; do sleep 0.1; done'

    result, file = await overrun(Claiming(machine.link()), script, tmp_path)

    assert (result.exit, result.lost) == (None, "deadline")
    pid = await pid_in(file)
    await until(lambda: not alive(pid))


@pytest.mark.parametrize("cancel", ["kill", "term"])
async def test_cancelling_ends_it_by_its_class_and_keeps_the_answer(machine, tmp_path, cancel):
    command = shell('echo $$ > "$1"; exec sleep 600', str(tmp_path / "pid"), claim=claim(), cancel=cancel)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(machine.link().run, command)
        pid = await pid_in(tmp_path / "pid")
        tasks.cancel_scope.cancel()

    assert not alive(pid)
    asked = await machine.settled(claim())
    assert (asked.kind, asked.result.exit in (ENDED if cancel == "kill" else {143})) == ("ended", True)


async def test_cancelling_one_who_only_waits_ends_it_as_well(machine, tmp_path):
    command = shell('echo $$ > "$1"; exec sleep 600', str(tmp_path / "pid"), claim=claim())
    results = []

    async def keep(link):
        results.append((await link.run(command)).exit)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep, machine.link())
        await pid_in(tmp_path / "pid")
        link, wait = machine.link(), 0.3
        while not results and wait < 60:  # who gives up before the node has heard of it was not waiting there
            with anyio.move_on_after(wait):
                await link.run(command)
            wait *= 4

    assert len(results) == 1
    assert results[0] in ENDED


async def test_a_background_child_that_holds_the_output_loses_none_of_it(machine, tmp_path):
    script = 'echo begun; sleep 600 & echo $! > "$1"; echo wrong >&2; echo done'

    with anyio.fail_after(30):
        result = await machine.link().run(shell(script, str(tmp_path / "pid"), claim=claim()))

    assert (result.exit, result.stdout, result.stderr) == (0, b"begun\ndone\n", b"wrong\n")
    end_now(await pid_in(tmp_path / "pid"))


@pytest.mark.leaves_processes  # a supervisor that was somebody's child is init's now
async def test_losing_the_link_ends_nothing_and_the_answer_is_read_later(machine, tmp_path):
    command, ran = counted(tmp_path, f'while [ ! -e "{tmp_path}/go" ]; do sleep 0.02; done; echo over')
    link = machine.link()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_lost, link, command)
        await until(lambda: ran() == 1)
        supervisor = machine.supervisor(claim())
        end_now(link.pid if machine.kind == "runner" else _wrapper(command))

    assert alive(supervisor)
    (tmp_path / "go").touch()
    result = await machine.link().run(command)
    assert (result.exit, result.stdout, ran()) == (0, b"over\n", 1)


async def _lost(link, command):
    result = await link.run(command)
    assert result.exit != 0


def _wrapper(command) -> int:
    """The pid of the shell that waits for the claim, a child of ours."""
    found = subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", command.claim.path], capture_output=True, text=True)
    (pid,) = found.stdout.split()
    return int(pid)


async def test_a_supervisor_that_was_killed_leaves_a_step_that_nobody_knows(machine, tmp_path):
    command, ran = counted(tmp_path, "exec sleep 600")
    results = []

    async def one():
        results.append(await machine.link().run(command))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        await until(lambda: ran() == 1)
        end_now(machine.supervisor(claim()))

    assert [(result.exit, result.lost) for result in results] == [(None, "link")]
    assert (await machine.settled(claim())).kind == "lost"
    again = await machine.link().run(command)
    assert (again.exit, again.lost, ran()) == (None, "link", 1)
    end_now(int((tmp_path / "ran").read_text()))


@pytest.mark.parametrize("kinds", [("runner", "sh"), ("sh", "runner")])
async def test_the_two_kinds_keep_the_same_directories(tmp_path, kinds):
    machine = Machine(kinds[0], tmp_path / "node", patience=5.0)
    command, ran = counted(tmp_path, f'echo begun; while [ ! -e "{tmp_path}/go" ]; do sleep 0.02; done; exit 7')
    results = []

    async def one(link):
        result = await link.run(command)
        results.append((result.exit, result.stdout))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one, machine.link())
        await until(lambda: ran() == 1)
        machine.kind = kinds[1]
        tasks.start_soon(one, machine.link())
        assert (await machine.settled(claim())).kind == "running"
        (tmp_path / "go").touch()
    results += [(done.exit, done.stdout) for done in [(await machine.settled(claim())).result]]

    await machine.aclose()
    assert results == [(7, b"begun\n")] * 3
    assert ran() == 1


async def test_old_claims_are_swept_and_young_ones_stay(machine):
    link = machine.link()
    for step in (1, 2, 3):
        await link.run(shell("echo out", claim=claim(step)))
    await machine.settled(claim(4))
    old = machine.ops(claim(1)) / "status"
    old.write_text(old.read_text().rsplit(" ", 1)[0] + " -999999\n")

    swept = await link.run(shell(SWEEP, "fleet", "21600"))

    assert swept.stdout.split() == [b"op1.1"]
    assert sorted(path.name for path in machine.ops(claim()).parent.iterdir()) == ["op1.2", "op1.3", "op1.4"]


async def test_a_runner_sweeps_when_it_starts(runner):
    await runner.link().run(shell("echo out", claim=claim(1)))
    await runner.link().run(shell("echo out", claim=claim(2)))
    old = runner.ops(claim(1)) / "status"
    old.write_text(old.read_text().rsplit(" ", 1)[0] + " -999999\n")

    await runner.link().run(shell("true"))

    await until(lambda: not runner.ops(claim(1)).exists())
    await until(lambda: [path.name for path in runner.ops(claim()).parent.iterdir()] == ["op1.2"])


# Random deaths.


@pytest.mark.leaves_processes
@pytest.mark.parametrize("seed", range(5))
async def test_whoever_is_killed_when_a_step_runs_at_most_once_and_all_get_one_answer(machine, tmp_path, seed):
    chance = random.Random(seed)
    command, ran = counted(tmp_path, "sleep 0.05; echo out", timeout=20.0)
    answers = []

    async def one(link):
        try:
            answers.append(await link.run(command))
        except NexcageError as error:
            assert isinstance(error, NodeError)

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            link = machine.link()
            tasks.start_soon(one, link)
            await anyio.sleep(chance.uniform(0, 0.06))
            if machine.kind == "runner" and link.pid and chance.random() < 0.5:
                end_now(link.pid)

    asked = await machine.settled(claim())
    while asked.kind == "running":
        asked = await machine.settled(claim())
    assert ran() <= 1
    assert (asked.kind == "ended") == (ran() == 1)
    assert {(a.exit, a.stdout) for a in answers if a.exit is not None} <= {(0, b"out\n")}


# Fences.


async def fenced(machine, tmp_path, step, id="web-1", **pair) -> bool:
    command, _ = counted(tmp_path, claim=claim(step, id=id, **pair))
    try:
        assert (await machine.link().run(command)).exit == 3
    except Fenced as error:
        assert error.fleet == "fleet"
        return True
    return False


async def test_a_lower_pair_is_refused_and_begins_nothing(runner, tmp_path):
    assert not await fenced(runner, tmp_path, 1, epoch=2, seq=50)
    ran = (tmp_path / "ran").read_text()

    assert await fenced(runner, tmp_path, 2, epoch=1, seq=99)
    assert await fenced(runner, tmp_path, 3, epoch=2, seq=49)

    assert (tmp_path / "ran").read_text() == ran
    assert (await runner.settled(claim(2))).kind == "void"


async def test_the_same_and_higher_pairs_pass(runner, tmp_path):
    for step, (epoch, seq) in enumerate([(1, 9), (1, 9), (1, 10), (2, 3), (10, 1), (10, 100)]):
        assert not await fenced(runner, tmp_path, step, epoch=epoch, seq=seq)

    assert (runner.root / "run/nexcage-ops/fleet/fence/web-1").read_text() == "10 100\n"
    assert (runner.root / "run/nexcage-ops/fleet/fence/web-1").stat().st_mode & 0o777 == 0o600


async def test_containers_have_fences_of_their_own(runner, tmp_path):
    assert not await fenced(runner, tmp_path, 1, epoch=5, seq=5)
    assert not await fenced(runner, tmp_path, 2, id="web-2", epoch=1, seq=1)


async def test_the_newer_epoch_is_named(runner, tmp_path):
    await fenced(runner, tmp_path, 1, epoch=7, seq=1)

    with pytest.raises(Fenced, match="epoch 7") as caught:
        await runner.link().run(shell("true", claim=claim(2, epoch=6, seq=100)))

    assert (caught.value.fleet, caught.value.epoch) == ("fleet", 7)


async def test_an_older_driver_may_still_read_what_it_began(runner, tmp_path):
    command, ran = counted(tmp_path, claim=claim(1, epoch=1, seq=1))
    await runner.link().run(command)
    await fenced(runner, tmp_path, 2, epoch=2, seq=1)

    assert (await runner.link().run(command)).exit == 3
    assert ran() == 2


async def test_of_racing_pairs_the_highest_runs_and_the_fence_stays_there(runner, tmp_path):
    log = tmp_path / "log"
    links = [runner.link() for _ in range(3)]
    pairs = [(epoch, seq) for epoch in (1, 2, 3) for seq in range(1, 9)]
    random.Random(3).shuffle(pairs)

    async def one(number, epoch, seq):
        command = shell(
            'echo "$2 $3" >> "$1"', str(log), str(epoch), str(seq), claim=claim(number, epoch=epoch, seq=seq)
        )
        with suppress(Fenced):
            await links[number % 3].run(command)

    async with anyio.create_task_group() as tasks:
        for number, pair in enumerate(pairs):
            tasks.start_soon(one, number, *pair)

    assert max(tuple(map(int, line.split())) for line in log.read_text().splitlines()) == (3, 8)
    assert (runner.root / "run/nexcage-ops/fleet/fence/web-1").read_text() == "3 8\n"


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "new\nline"])
async def test_names_that_lead_elsewhere_are_refused(runner, tmp_path, name):
    command, ran = counted(tmp_path, claim=claim(1, id=name, epoch=1, seq=1))

    with pytest.raises(NexcageError, match="no such claim name"):
        await runner.link().run(command)

    command, ran = counted(tmp_path, claim=claim(1, op=name))
    with pytest.raises(NexcageError, match="no such claim name"):
        await runner.link().run(command)
    assert ran() == 0


async def test_a_supervisor_that_is_told_to_stop_as_it_starts_ends_its_command(tmp_path):
    # A process that was just forked forgets a signal until it execs; `date` is the supervisor's last word before it forks.
    machine = Machine("sh", tmp_path / "node", patience=30.0)
    early = tmp_path / "bin/date"
    early.parent.mkdir()
    early.write_text('#!/bin/sh\nkill -s TERM $PPID\nexec /bin/date "$@"\n')
    early.chmod(0o755)
    path = {"PATH": f"{early.parent}:{os.environ['PATH']}"}

    for number, cancel in enumerate(("kill", "term") * 5, 1):
        with anyio.fail_after(30):
            result = await machine.link().run(
                command("sleep", "1000", cancel=cancel, claim=claim(number), env=path),
            )
        assert (result.exit in (ENDED if cancel == "kill" else {143}), result.lost) == (True, "")
    await machine.aclose()


HELD = """
mine=$(readlink /proc/$$/fd/1) looks=0
while [ $looks -lt 1000 ]; do
    held=no
    for fd in /proc/$PPID/fd/*; do
        [ "$(readlink "$fd")" = "$mine" ] && grep -q 'flags:.*1$' "/proc/$PPID/fdinfo/${fd##*/}" && held=yes
    done
    [ $held = yes ] || exit 0
    looks=$((looks + 1))
    sleep 0.02
done
exit 1
"""


async def test_the_output_of_a_claimed_command_ends_with_it_whatever_else_runs(runner):
    link = runner.link()
    async with link.stream(shell("cat")) as first, link.stream(shell("cat")) as second:
        result = await link.run(shell(HELD, claim=claim()))
        for stream in (first, second):
            await stream.send_eof()
            await stream.wait()

    assert result.exit == 0

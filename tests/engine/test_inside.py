"""What runs inside when things go wrong: it is never run twice, never in another container, and it is always said how it ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import anyio
import pytest

import nexcage
from nexcage import Spec, State
from nexcage._engine import insight
from nexcage._engine.inside import ExecStream
from nexcage._sinks.journal import open_journal
from nexcage.testing import SimCluster
from nexcage.testing._model.others import swap
from nexcage.tools.attach import BEGUN

SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", storage="local-zfs")
pytestmark = pytest.mark.sim(nodes=1)


def ran(sim: SimCluster) -> list[dict[str, Any]]:
    """What ran inside."""
    return [one for effect in sim.effects() for one in effect["changed"] if one["kind"] == "exec"]


async def running(fleet: nexcage.Fleet) -> nexcage.Container:
    web = fleet["web-1"]
    await web.create(SPEC)
    await web.start()
    return web


def since(fleet: nexcage.Fleet, seq: int) -> list[str]:
    return [type(event).__name__ for event in nexcage.read_journal(fleet.state_dir, since=seq)]


@pytest.mark.parametrize("fault", ["drop-during", "drop-after"])
async def test_a_program_whose_answer_is_lost_is_never_repeated(sim: SimCluster, fault: str) -> None:
    async with sim.fleet() as fleet:
        web = await running(fleet)
        before = fleet.seq
        sim["pve-01"].fault(fault, on="sh")

        with pytest.raises(nexcage.Uncertain):
            await web.exec(["echo", "once"])

        assert len(ran(sim)) == 1
        assert since(fleet, before)[:2] == ["Began", "Interrupted"]
        assert web.machine.beside == ()
        assert web.machine.state is State.RUNNING
        assert (await web.exec(["echo", "twice"])).exit == 0


async def test_a_program_that_surely_did_not_begin_is_told_so(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        web = await running(fleet)
        before = fleet.seq
        sim["pve-01"].fault("drop-open", on="sh")

        with pytest.raises(nexcage.NodeUnreachable) as error:
            await web.exec(["true"])

        assert not error.value.uncertain
        assert ran(sim) == []
        assert since(fleet, before)[:2] == ["Began", "Failed"]


async def test_the_same_op_id_gives_the_same_status_and_nothing_runs(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        web = await running(fleet)
        first = await web.exec(["sh", "-c", "echo x; exit 3"], op_id="job-1")
    async with sim.fleet() as fleet:
        second = await fleet["web-1"].exec(["sh", "-c", "echo x; exit 3"], op_id="job-1")

        assert (first.exit, first.stdout, first.repeated) == (3, b"x\n", False)
        assert (second.exit, second.stdout, second.repeated) == (3, b"", True)
        assert len(ran(sim)) == 1
        with pytest.raises(nexcage.IllegalTransition):
            await fleet["web-1"].stop(op_id="job-1")


async def test_nothing_runs_in_a_container_that_took_the_place_of_ours(sim: SimCluster, tmp_path: Path) -> None:
    async with sim.fleet() as fleet:
        web = await running(fleet)
        swap(sim["pve-01"].model, web.machine.vmid, mark="edited", running=True)

        for call in (web.exec(["true"]), web.push(b"x", "/etc/x"), web.pull("/etc/hosts", tmp_path / "x"), web.ps()):
            with pytest.raises(nexcage.NotOurs):
                await call
        with pytest.raises(nexcage.NotOurs):
            async with web.exec_stream(["true"]):
                raise AssertionError("it began")
        assert ran(sim) == []


async def test_one_that_was_stopped_behind_our_back_is_seen(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        web = await running(fleet)
        sim["pve-01"].model.end_container(web.machine.vmid)

        with pytest.raises(nexcage.IllegalTransition, match="no process"):
            await web.exec(["true"])

        assert web.machine.state is State.STOPPED
        with pytest.raises(nexcage.IllegalTransition, match="it is stopped"):
            await web.exec(["true"])


async def test_a_stop_does_not_wait_for_what_runs_inside(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        web = await running(fleet)
        async with web.exec_stream(["sleep", "1000"]) as one, web.exec_stream(["sleep", "1000"]) as other:
            assert len(web.machine.beside) == 2
            await web.stop(force=True)
            assert [(await one.wait()).exit, (await other.wait()).exit] == [137, 137]

        assert web.machine.state is State.STOPPED
        assert web.machine.beside == ()


async def test_what_a_dead_driver_ran_is_said_to_be_unknown_once(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        machine, place = (await running(fleet)).machine, fleet.state_dir
    intent = nexcage.Exec("web-1", argv=("sleep", "1000"))
    began = nexcage.Began(
        id="web-1", op=intent.op, op_id="lost-1", before=machine.state, via=machine.state, intent=intent, owner="1-dead"
    )
    async with open_journal(place, owner="1-dead") as journal:
        await journal.append(began)
        assert [one.op_id for one in journal.machines["web-1"].beside] == ["lost-1"]

    for _ in range(2):
        async with sim.fleet() as fleet:
            assert fleet["web-1"].machine.beside == ()
            assert fleet["web-1"].machine.state is State.RUNNING

    ended = [event for event in nexcage.read_journal(place) if isinstance(event, nexcage.Interrupted)]
    assert [(event.op_id, event.error.type) for event in ended] == [("lost-1", "Uncertain")]


@pytest.mark.parametrize("fault", ["drop-during", "drop-after"])
async def test_a_push_whose_answer_is_lost_is_found_by_its_checksum(sim: SimCluster, fault: str) -> None:
    async with sim.fleet() as fleet:
        web = await running(fleet)
        sim["pve-01"].fault(fault, on="sh")
        before = fleet.seq

        try:
            await web.push(b"new", "/etc/x")
            told = True
        except nexcage.NodeUnreachable:
            told = False

        there = await web.exec(["cat", "/etc/x"])
        assert told is (there.stdout == b"new")
        ended = next(
            e for e in nexcage.read_journal(fleet.state_dir, since=before) if not isinstance(e, nexcage.Began) and e.id
        )
        assert isinstance(ended, nexcage.Succeeded if told else nexcage.Failed)
        assert ended.resolved_by == ("probe" if told else "")


async def test_many_programs_run_at_once_and_each_is_recorded(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        web = await running(fleet)
        found: list[nexcage.Executed] = []

        async def one(number: int) -> None:
            found.append(await web.exec(["sh", "-c", f"exit {number}"]))

        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(one, number)

        assert sorted(done.exit for done in found) == list(range(50))
        exits = [
            e.exit
            for e in nexcage.read_journal(fleet.state_dir)
            if isinstance(e, nexcage.Succeeded) and e.exit is not None
        ]
        assert sorted(exits) == list(range(50))


@pytest.mark.parametrize(
    "options",
    [
        {"argv": []},
        {"argv": "true"},
        {"argv": ["a\0b"]},
        {"argv": ["true"], "env": {"A=B": "x"}},
        {"argv": ["true"], "env": {"nexcage_attach": "x"}},
        {"argv": ["true"], "env": {"A": "x\0"}},
        {"argv": ["true"], "cwd": "relative"},
        {"argv": ["true"], "user": "root; reboot"},
        {"argv": ["true"], "user": "$(id)"},
        {"argv": 1.5},
        {"argv": ["true"], "stdin": None},
        {"argv": ["true"], "stdin": "text"},
        {"argv": ["true"], "env": ["A=B"]},
        {"argv": ["true"], "env": {1: "x"}},
        {"argv": ["true"], "cwd": None},
        {"argv": ["true"], "user": 1000},
        {"argv": ["true"], "timeout": "5"},
        {"argv": ["true"], "timeout": float("nan")},
        {"argv": ["true"], "cap": 1.5},
        {"argv": ["true"], "cap": None},
        {"argv": ["true"], "cap": -1},
    ],
)
async def test_what_cannot_be_run_is_refused_before_anything_is_written(
    sim: SimCluster, options: dict[str, Any]
) -> None:
    async with sim.fleet() as fleet:
        web = await running(fleet)
        before = fleet.seq

        with pytest.raises(nexcage.InvalidInput):
            await web.exec(**options)

        assert fleet.seq == before


async def test_the_value_of_a_variable_that_is_refused_is_not_shown(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        web = await running(fleet)

        with pytest.raises(nexcage.InvalidInput, match="TOKEN") as error:
            await web.exec(["true"], env={"TOKEN": "s3cr3t\0"})

        assert "s3cr3t" not in f"{error.value!s}{error.value!r}{vars(error.value)}"


class Said:
    """A program that has printed this, in this order."""

    def __init__(self, *pieces: tuple[str, bytes]) -> None:
        self._pieces = list(pieces)

    def __aiter__(self) -> Said:
        return self

    async def __anext__(self) -> tuple[str, bytes]:
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.pop(0)

    async def wait(self) -> nexcage.Result:
        return nexcage.Result(0, b"", b"")


class Ended:
    """What becomes of a result is the result itself."""

    class began:  # noqa: N801 (stands for an event)
        op_id = "op"

    def executed(self, result: nexcage.Result) -> nexcage.Result:
        return result


async def test_what_a_program_prints_before_its_beginning_was_heard_of_is_not_lost() -> None:
    pieces = (("stdout", b"one "), ("stderr", BEGUN[:5]), ("stdout", b"two"), ("stderr", BEGUN[5:] + b"oops"))
    read = ExecStream(cast("Any", Said(*pieces)), cast("Any", Ended()), terminal=False)
    unread = ExecStream(cast("Any", Said(*pieces)), cast("Any", Ended()), terminal=False)

    await read.begin()
    await unread.begin()

    assert [piece async for piece in read] == [("stdout", b"one "), ("stdout", b"two"), ("stderr", b"oops")]
    done = await unread.wait()
    assert (done.stdout, done.stderr) == (b"one two", BEGUN + b"oops")


async def test_a_line_of_a_log_that_does_not_end_comes_in_pieces() -> None:
    piece = ("stdout", b"x" * 40_000)
    lines = insight._lines(cast("Any", None), cast("Any", Said(piece, piece, piece, ("stdout", b"y\nz"))))

    assert [len(line) async for line in lines] == [65536, 120_001 - 65536, 1]


@pytest.mark.parametrize("local", ["x\0y", None, 5, "x" * 5000, "\ud800"])
async def test_a_path_here_that_cannot_be_is_refused(sim: SimCluster, local: Any) -> None:
    async with sim.fleet() as fleet:
        web = await running(fleet)
        with pytest.raises(nexcage.InvalidPath):
            await web.push(local, "/root/x")
        with pytest.raises(nexcage.InvalidPath):
            await web.pull("/etc/hostname", local)


@pytest.mark.parametrize("wrong", [{"timeout": "5"}, {"timeout": float("nan")}, {"port": "80"}, {"port": 1.5}])
async def test_waiting_for_what_cannot_be_is_refused(sim: SimCluster, wrong: dict[str, Any]) -> None:
    async with sim.fleet() as fleet:
        web = await running(fleet)
        with pytest.raises(nexcage.InvalidInput):
            await web.wait_ready(**wrong)

"""The scripts for claims in real shells and their twins: over the same node on disk they say the same and read each other's claims."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import pytest
from msgspec import structs

from nexcage import Command, Result
from nexcage._core.command import Claim, nothing
from nexcage._core.seen import Settled
from nexcage.testing import SimCluster, SimNode
from nexcage.testing._model.claims import OPS
from nexcage.tools import claims

ROOT = Path(__file__).parents[2]
DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]
STEP = Claim(fleet="f1", op="op-1", step=1, id="web")
CREATE = ("pct", "create", "100", DEBIAN, "--storage", "local-zfs")

Way: TypeAlias = Callable[[Command[Any]], Awaitable[Result]]


class OnDisk:
    """A simulated node on disk, reached by a real shell or by the twin in this process."""

    def __init__(self, sim: SimCluster, directory: Path, shell: str) -> None:
        self.node: SimNode = sim["pve-01"]
        self.root = directory / "nodes" / "pve-01" / "root"
        self.shell = shell
        programs = directory / "bin"
        programs.mkdir()
        words = f'{sys.executable} -m nexcage.testing._model {directory} pve-01 pct "$@"'
        (programs / "pct").write_text(f"#!/bin/sh\nexport PYTHONPATH={ROOT}\nexec {words}\n")
        (programs / "pct").chmod(0o755)
        self.environ = {
            **os.environ,
            "NEXCAGE_NODE_ROOT": str(self.root),
            "PATH": f"{programs}:{os.environ['PATH']}",
        }

    async def twin(self, command: Command[Any]) -> Result:
        return await self.node.run(command.argv, stdin=command.stdin, env=dict(command.env))

    async def real(self, command: Command[Any]) -> Result:
        done = await anyio.run_process(
            [self.shell, *command.argv[1:]], input=command.stdin, env={**self.environ, **command.env}, check=False
        )
        return Result(done.returncode, done.stdout, done.stderr)

    @property
    def ways(self) -> tuple[Way, Way]:
        return self.real, self.twin


@pytest.fixture(params=SHELLS)
async def disk(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[OnDisk]:
    with SimCluster(1, seed=3, dir=tmp_path / "sim", pace=0) as sim:
        yield OnDisk(sim, tmp_path / "sim", request.param)


def claimed(*argv: str, claim: Claim = STEP, **options: Any) -> Command[None]:
    return claims.claimed(Command(argv, parse=nothing, claim=claim, **options))


def step(number: int, **more: str) -> Claim:
    return structs.replace(STEP, step=number, **more)


def timeless(text: bytes) -> bytes:
    """A report without seconds, moments, rates, and the number of a failing pct, which means nothing."""
    moments = rb" ".join([rb"[0-9.]+"] * 3)
    head = rb"(@nexcage claim \w+) (\S+) (\d \d+ \d) " + moments + rb" (\S+) [0-9.]+ \d+ (\d+)"
    failed = re.sub(rb"(@nexcage claim \w+ )(?:2|4|25|255) ", rb"\g<1>F ", text)
    whole = re.sub(head, rb"\1 \2 \3 T T T \4 T L \5", failed)
    return re.sub(rb"SHA256:\S+|UPID:\S+|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9.]+.iB/s", b"*", whole)


def same(real: Result, twin: Result) -> None:
    assert timeless(real.stdout) == timeless(twin.stdout)
    assert (real.exit, real.stderr) == (twin.exit, twin.stderr)


async def known(way: Way, *steps: Claim) -> tuple[Settled, ...]:
    command = claims.settle(*steps)
    return command.parse(await way(command))


async def test_a_step_that_nobody_began_is_void_for_both(disk: OnDisk) -> None:
    for first, second, number in ((disk.real, disk.twin, 1), (disk.twin, disk.real, 2)):
        command = claims.settle(step(number))
        same(await first(command), await second(command))
        assert (await known(second, step(number)))[0].kind == "void"
        assert os.readlink(disk.root / OPS[1:] / f"f1/op-1.{number}/go") == "void"
        for way in disk.ways:
            assert b"@nexcage claim void" in (await way(claimed("pct", "list", claim=step(number)))).stdout


@pytest.mark.parametrize("argv", [CREATE, ("pct", "start", "999"), ("no-such-tool",)])
async def test_a_claimed_command_reports_the_same(disk: OnDisk, argv: tuple[str, ...]) -> None:
    second = tuple("101" if word == "100" else word for word in argv)
    real = await disk.real(claimed(*argv, claim=step(1)))
    twin = await disk.twin(claimed(*second, claim=step(2)))
    normal = structs.replace(twin, stdout=twin.stdout.replace(b"101", b"100"))
    if argv[0] == "no-such-tool":  # each shell has its own words for that
        assert timeless(real.stdout).split(b" ")[:8] == timeless(twin.stdout).split(b" ")[:8]
        return
    same(real, normal)


async def test_each_gives_the_answer_that_the_other_kept(disk: OnDisk) -> None:
    for first, second, number in ((disk.real, disk.twin, 1), (disk.twin, disk.real, 2)):
        before = await first(claimed("pct", "start", "999", claim=step(number)))
        after = await second(claimed("pct", "start", "999", claim=step(number)))
        assert claims.unclaimed(before, "n").stderr == claims.unclaimed(after, "n").stderr
        assert claims.unclaimed(before, "n").exit == claims.unclaimed(after, "n").exit
        (settled,) = await known(second, step(number))
        assert settled.kind == "ended"
        assert settled.result == (await known(first, step(number)))[0].result


async def test_another_boot_is_refused_by_both(disk: OnDisk) -> None:
    command = claimed(*CREATE, claim=structs.replace(STEP, boot_id="another"))
    same(await disk.real(command), await disk.twin(command))
    assert disk.node.model.config(100) is None


async def test_input_that_was_cut_begins_nothing_for_both(disk: OnDisk) -> None:
    command = structs.replace(claimed("pct", "list", stdin=b"abcdef"), stdin=b"abc")
    real, twin = await disk.real(command), await disk.twin(command)
    same(real, twin)
    assert real.stdout == b"@nexcage claim cut\n"


async def test_where_claims_cannot_be_kept_both_say_so(disk: OnDisk) -> None:
    (disk.root / "run").mkdir(exist_ok=True)
    (disk.root / OPS[1:]).write_text("a file in the way")
    for command in (claimed(*CREATE), claims.settle(STEP)):
        real, twin = await disk.real(command), await disk.twin(command)
        same(real, twin)
        assert b"claim unusable" in real.stdout


@pytest.mark.parametrize(
    "rubbish",
    [
        "echo hello world > status",
        "echo 99999 7 x y z 5 > status",
        ": > status",
        "rm status && mkdir status",
        "rm go && echo x > go",
        "rm go && ln -s x go",
        f"rm go status && ln -s run:{'9' * 99}:x:1 go",
        "cd .. && rm -r op-1.2 && echo a file > op-1.2",
    ],
)
async def test_a_claim_that_is_rubbish_costs_only_itself_for_both(disk: OnDisk, rubbish: str) -> None:
    for number in (1, 2, 3):
        await disk.real(claimed("pct", "config", "100", claim=step(number)))
    await anyio.run_process(["sh", "-c", rubbish], cwd=disk.root / OPS[1:] / "f1/op-1.2")

    for way in disk.ways:
        assert [one.kind for one in await known(way, step(1), step(2), step(3))] == ["ended", "lost", "ended"]
    same(await disk.real(claims.settle(step(2))), await disk.twin(claims.settle(step(2))))


async def test_the_end_of_long_output_comes_along_for_both(disk: OnDisk) -> None:
    await disk.real(claimed(*CREATE))
    argv = ("sh", "-c", claims.SETTLE, "nexcage", "7", STEP.path)
    command = Command(argv, parse=nothing)
    real, twin = await disk.real(command), await disk.twin(command)
    same(real, twin)
    assert re.search(rb" 7 \d\n", real.stdout)


async def test_both_sweep_the_same(disk: OnDisk) -> None:
    for fleet, way in (("f1", disk.real), ("f2", disk.twin)):
        old, void, lost, young = (Claim(fleet=fleet, op="op", step=n, id="web") for n in (1, 2, 3, 4))
        await known(disk.twin, old, void, lost, young)
        place = disk.root / OPS[1:] / fleet
        for name, status in (("op.1", "0 0 0 0 1 -30000.5"), ("op.4", "0 0 0 0 1 99999999.5")):
            (place / name / "go").unlink()
            (place / name / "go").symlink_to("run:1:2:3")
            (place / name / "status").write_text(f"{status}\n")
        (place / "op.3/go").unlink()
        (place / "op.3/go").symlink_to("run:1:2:3")
        (place / "fence").mkdir()
        result = await way(claims.sweep(fleet))
        assert (result.exit, result.stdout) == (0, b"op.1\n")
        assert sorted(os.listdir(place)) == ["fence", "op.2", "op.3", "op.4"]
        assert (place / "op.2/status").read_text().startswith("- 0 0 0 0 ")
        assert (await way(claims.sweep("no-such-fleet"))).stdout == b""


async def test_the_twin_sees_a_real_supervisor_at_work_and_what_became_of_it(disk: OnDisk, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    command = claimed("sh", "-c", 'echo $$ > "$0.new" && mv "$0.new" "$0" && exec sleep 60', str(pid), timeout=100.0)
    async with await anyio.open_process([disk.shell, *command.argv[1:]], env=disk.environ) as process:
        with anyio.fail_after(20):
            while not pid.exists():
                await anyio.sleep(0.02)
            (settled,) = await known(disk.twin, STEP)
            assert settled.kind == "running"
            os.kill(int(pid.read_text()), signal.SIGTERM)
            await process.wait()
    (settled,) = await known(disk.twin, STEP)
    assert settled == structs.replace((await known(disk.real, STEP))[0], uptime=settled.uptime)
    assert settled.result is not None
    assert settled.result.exit == 143


async def test_programs_on_disk_know_their_claim_and_lose_their_supervisor(tmp_path: Path) -> None:
    with SimCluster(1, seed=3, dir=tmp_path / "sim", pace=0) as sim:
        environ = {**os.environ, "PATH": f"{sim.path('pve-01')}:{os.environ['PATH']}", "NEXCAGE_OP_ID": "op-1"}

        async def run(number: int) -> Settled:
            argv = claimed("pct", "create", str(100 + number), DEBIAN, claim=step(number)).argv
            await anyio.run_process(argv, env=environ, check=False)
            command = claims.settle(step(number))
            (settled,) = command.parse(await sim["pve-01"].run(command.argv))
            return settled

        assert (await run(1)).kind == "ended"
        sim["pve-01"].fault("kill-supervisor", on="pct create")
        assert (await run(2)).kind == "lost"
        sim["pve-01"].fault("kill-worker", on="pct create")
        settled = await run(3)
        assert settled.result is not None
        assert settled.result.exit == 137
        assert [effect["claim"] for effect in sim.effects()] == ["f1/op-1.1", "f1/op-1.2", "f1/op-1.3"]
        assert "lock: create" in (sim["pve-01"].model.config(102) or "")

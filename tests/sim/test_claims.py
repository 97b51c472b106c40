"""Claims on simulated nodes: a step runs at most once, outlives its link, and whoever asks gets the same answer."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import pytest

from nexcage import Command, Result
from nexcage._core.command import Claim, nothing
from nexcage._core.seen import Settled
from nexcage.abc import Transport
from nexcage.errors import Fenced, NodeError, NodeNotUsable, NodeUnreachable
from nexcage.testing import SimCluster, SimNode
from nexcage.testing._model.claims import FULL, OPS
from nexcage.tools import claims

DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
CREATE = ("pct", "create", "100", DEBIAN, "--storage", "local-zfs")
STEP = Claim(fleet="f1", op="op-1", step=1, id="web")
both = pytest.mark.parametrize("runner", [True, False], ids=["runner", "scripts"])


class Driver:
    """What the engine does with a command that has a claim, over one link."""

    def __init__(self, sim: SimCluster, runner: bool) -> None:
        sim.runner = runner
        sim.pace = 1.0
        self.sim = sim
        self.transport: Transport = sim.transport("pve-01")

    @property
    def node(self) -> SimNode:
        return self.sim["pve-01"]

    def another(self) -> Driver:
        return Driver(self.sim, self.sim.runner)

    async def run(self, *argv: str, claim: Claim = STEP, **options: Any) -> Result:
        env = {"NEXCAGE_OP_ID": claim.op, "NEXCAGE_STEP": str(claim.step), "NEXCAGE_EPOCH": str(claim.epoch)}
        command = Command(argv, parse=nothing, claim=claim, env=env, **options)
        if self.sim.runner:
            return await self.transport.run(command)
        return claims.unclaimed(await self.transport.run(claims.claimed(command)), "pve-01")

    async def settle(self, *steps: Claim) -> tuple[Settled, ...]:
        command = claims.settle(*steps or (STEP,))
        return command.parse(await self.transport.run(command))

    def effects(self) -> Counter[tuple[str, int]]:
        """How many calls changed something, per step."""
        return Counter((effect["op_id"], effect["step"]) for effect in self.sim.effects())


@pytest.fixture
def driver(sim: SimCluster, runner: bool) -> Driver:
    return Driver(sim, runner)


@both
async def test_a_claimed_command_gives_its_answer(driver: Driver) -> None:
    result = await driver.run(*CREATE)
    assert (result.exit, result.lost) == (0, "")
    assert b"Creating SSH host key" in result.stdout
    assert driver.node.model.config(100) is not None


@both
async def test_a_second_start_runs_nothing_and_gets_the_same_answer(driver: Driver) -> None:
    first = await driver.run("pct", "start", "100")
    again = await driver.another().run("pct", "start", "100")
    assert (first.exit, first.stdout, first.stderr) == (again.exit, again.stdout, again.stderr)
    assert first.exit != 0

    await driver.run(*CREATE, claim=Claim(fleet="f1", op="op-2", step=1, id="web"))
    await driver.run(*CREATE, claim=Claim(fleet="f1", op="op-2", step=1, id="web"))
    assert driver.effects() == {("op-2", 1): 1}


@both
async def test_two_who_start_at_once_share_one_command(driver: Driver) -> None:
    results: list[Result] = []

    async def one() -> None:
        results.append(await driver.another().run(*CREATE))

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(one)
    assert {(result.exit, result.stdout) for result in results} == {(0, results[0].stdout)}
    assert driver.effects() == {("op-1", 1): 1}


@both
@pytest.mark.parametrize("kind", ["drop-during", "drop-after", "half-open"])
async def test_a_lost_answer_is_read_later(driver: Driver, kind: str) -> None:
    driver.node.fault(kind, on="pct create")
    result = await driver.run(*CREATE)
    assert (result.exit, result.lost) == (None, "link")

    again = await driver.run(*CREATE)

    assert (again.exit, again.lost) == (0, "")
    assert driver.effects() == {("op-1", 1): 1}


@both
async def test_a_command_that_was_lost_on_its_way_is_called_off_for_ever(driver: Driver) -> None:
    driver.node.fault("drop-before", on="pct create")
    assert (await driver.run(*CREATE)).exit is None

    (settled,) = await driver.settle()

    assert (settled.kind, settled.result, settled.at) == ("void", None, 0)
    with pytest.raises(NodeUnreachable, match="called it off"):
        await driver.run(*CREATE)
    assert driver.node.model.config(100) is None


@both
async def test_a_link_lost_at_open_sends_nothing(driver: Driver) -> None:
    driver.node.fault("drop-open", on="pct create")
    if driver.sim.runner:
        with pytest.raises(NodeUnreachable, match="before the command was sent"):
            await driver.run(*CREATE)
    else:
        with pytest.raises(NodeError):
            await driver.run(*CREATE)
    assert (await driver.run(*CREATE)).exit == 0
    assert driver.effects() == {("op-1", 1): 1}


@both
async def test_asking_while_it_runs_changes_nothing(driver: Driver) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: driver.run(*CREATE))
        await anyio.sleep(1.5)
        (settled,) = await driver.another().settle()
    assert settled.kind == "running"
    assert settled.at > 0
    (settled,) = await driver.settle()
    assert settled.kind == "ended"
    assert settled.result is not None
    assert settled.result.exit == 0


@both
async def test_many_claims_are_asked_for_at_once(driver: Driver) -> None:
    steps = [Claim(fleet="f1", op="op-1", step=n, id="web") for n in (1, 2, 3)]
    await driver.run(*CREATE, claim=steps[1])
    assert [known.kind for known in await driver.settle(*steps)] == ["void", "ended", "void"]


@both
async def test_what_a_command_prints_may_be_any_bytes(driver: Driver) -> None:
    data = bytes(range(256)) * 3
    driver.sim.teach("spit", lambda argv, stdin: (3, data, stdin[::-1]))
    result = await driver.run("spit", stdin=data)
    assert (result.exit, result.stdout, result.stderr) == (3, data, data[::-1])
    (settled,) = await driver.settle()
    assert settled.result is not None
    assert (settled.result.stdout, settled.result.stderr) == (data, data[::-1])


@both
async def test_output_beyond_the_cap_is_counted(driver: Driver) -> None:
    driver.sim.teach("spit", lambda argv: "x" * 1000)
    result = await driver.run("spit", cap=100)
    assert (len(result.stdout), result.dropped) == (100, 900)


@both
async def test_a_missing_program_is_said_to_be_missing(driver: Driver) -> None:
    assert (await driver.run("no-such-tool")).exit == 127


@both
@pytest.mark.parametrize("kind", ["crash", "restart"])
async def test_a_reboot_voids_claims_and_ends_what_ran(driver: Driver, kind: str) -> None:
    boot = driver.node.files.read("/proc/sys/kernel/random/boot_id")
    assert boot is not None
    claim = Claim(fleet="f1", op="op-1", step=1, id="web", boot_id=boot.strip())
    driver.node.fault(kind, on="pct create")
    assert (await driver.run(*CREATE, claim=claim)).exit is None
    driver.node.restart()
    await anyio.sleep(1)
    assert not driver.node.calls
    assert not driver.node.files.exists(OPS)

    with pytest.raises(NodeUnreachable, match="rebooted"):
        await driver.run(*CREATE, claim=claim)
    (settled,) = await driver.settle(claim)
    assert (settled.kind, settled.boot_id == claim.boot_id) == ("void", False)


@both
async def test_with_its_supervisor_killed_nobody_knows(driver: Driver) -> None:
    driver.node.fault("kill-supervisor", on="pct create")
    result = await driver.run(*CREATE)
    assert (result.exit, result.lost) == (None, "link")

    (settled,) = await driver.settle()

    assert (settled.kind, settled.at > 0) == ("lost", True)
    assert "lock: create" in (driver.node.model.config(100) or "")
    assert (await driver.run(*CREATE)).exit is None
    assert driver.effects() == {("op-1", 1): 1}


@both
async def test_a_worker_killed_half_way_leaves_its_traces_and_a_status(driver: Driver) -> None:
    driver.node.fault("kill-worker", on="pct create")
    result = await driver.run(*CREATE)
    assert result.exit == 137
    assert "lock: create" in (driver.node.model.config(100) or "")
    made = [change["kind"] for change in driver.sim.effects()[0]["changed"] if change["change"] == "created"]
    assert "dataset" in made
    (settled,) = await driver.settle()
    assert settled.kind == "ended"


@both
async def test_the_deadline_is_kept_on_the_node(driver: Driver) -> None:
    driver.node.fault("stall", on="pct create", deaf=True)
    began = anyio.current_time()
    result = await driver.run(*CREATE, timeout=20.0)
    assert (result.exit, result.lost) == (None, "deadline")
    assert anyio.current_time() - began < 30
    assert not driver.node.calls


@both
async def test_a_tool_that_cleans_up_after_its_deadline_has_its_say(driver: Driver) -> None:
    driver.node.fault("stall", on="pct create")
    result = await driver.run(*CREATE, timeout=20.0, cancel="term")
    assert result.lost == "deadline"
    assert driver.node.model.config(100) is None
    assert not driver.node.calls


@both
async def test_cancelling_ends_it_by_its_class(driver: Driver) -> None:
    driver.node.fault("slow", on="pct create", seconds=50.0)
    with anyio.move_on_after(10):
        await driver.run(*CREATE, cancel="term")
    assert driver.node.model.config(100) is None
    assert not driver.node.calls
    (settled,) = await driver.settle()
    assert settled.kind == "ended"


@both
async def test_it_outlives_a_driver_that_goes_away(driver: Driver) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: driver.run(*CREATE))
        await anyio.sleep(1.2)
        await driver.transport.aclose()
    await anyio.sleep(60)
    result = await driver.another().run(*CREATE)
    assert result.exit == 0
    assert driver.effects() == {("op-1", 1): 1}


@both
async def test_a_node_that_cannot_keep_claims_says_so(driver: Driver) -> None:
    driver.node.files.write(FULL, "")
    with pytest.raises(NodeNotUsable, match="claims cannot be kept"):
        await driver.run(*CREATE)
    assert driver.node.model.config(100) is None


@both
async def test_old_claims_are_swept_and_young_ones_stay(driver: Driver) -> None:
    old, void, young = (Claim(fleet="f1", op="op", step=n, id="web") for n in (1, 2, 3))
    await driver.run("true", claim=old)
    await driver.settle(void)
    sweep = claims.sweep("f1")
    await driver.transport.run(sweep)
    await anyio.sleep(claims.KEPT + 60)
    await driver.run("true", claim=young)

    result = await driver.transport.run(sweep)

    assert result.stdout == b"op.1\nop.2\n"
    assert driver.node.files.names(f"{OPS}/f1") == ["op.3"]


@both
async def test_effects_say_under_which_claim_they_came_about(driver: Driver) -> None:
    await driver.run(*CREATE, claim=Claim(fleet="f1", op="op-7", step=3, id="web", epoch=4, seq=9))
    (effect,) = driver.sim.effects()
    assert (effect["op_id"], effect["step"], effect["epoch"], effect["claim"]) == ("op-7", 3, 4, "f1/op-7.3")


def fenced(op: str, epoch: int, seq: int, id: str = "web") -> Claim:
    return Claim(fleet="f1", op=op, step=1, id=id, epoch=epoch, seq=seq)


@pytest.mark.parametrize("runner", [True])
async def test_a_lower_pair_is_refused_and_others_pass(driver: Driver) -> None:
    await driver.run("true", claim=fenced("a", 2, 10))
    await driver.run("true", claim=fenced("b", 2, 10))
    await driver.run("true", claim=fenced("c", 2, 11))
    await driver.run("true", claim=fenced("d", 3, 1))
    for late in (fenced("e", 2, 99), fenced("f", 3, 0)):
        with pytest.raises(Fenced) as refused:
            await driver.run("true", claim=late)
        assert refused.value.epoch == 3
        assert driver.node.files.read(f"{OPS}/{late.path}/go") is None
    await driver.run("true", claim=fenced("g", 1, 1, id="db"))
    await driver.run("true", claim=Claim(fleet="f1", op="h", step=1, id="web"))
    assert driver.node.files.read(f"{OPS}/f1/fence/web") == "3 1\n"


@both
async def test_the_same_run_twice_is_the_same(runner: bool) -> None:
    histories = [_history(seed=5, runner=runner) for _ in range(2)]
    assert histories[0] == histories[1]


def _history(seed: int, runner: bool) -> list[dict[str, Any]]:
    from concurrent.futures import ThreadPoolExecutor

    from nexcage.testing import virtual_run

    async def main() -> list[dict[str, Any]]:
        with SimCluster(2, seed=seed, runner=runner) as sim:
            driver = Driver(sim, runner)
            driver.node.fault("drop-during", on="pct create")
            await driver.run(*CREATE)
            await driver.run(*CREATE)
            await driver.run("pct", "start", "100", claim=Claim(fleet="f1", op="op-2", step=1, id="web"))
            return sim.effects()

    with ThreadPoolExecutor(1) as pool:  # a loop of its own
        return pool.submit(virtual_run, main).result()

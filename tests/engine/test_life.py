"""One container through its life on a simulated node, and what the table promises on the way."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import nexcage
from nexcage import Op, State
from nexcage.testing import SimCluster

DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
SPEC = nexcage.Spec(DEBIAN, storage="local-zfs")


def ran(sim: SimCluster, *words: str) -> list[dict[str, Any]]:
    """The effects of commands whose argv has these words."""
    return [effect for effect in sim.effects() if all(word in effect["argv"] for word in words)]


@pytest.mark.sim(nodes=1)
async def test_a_container_goes_through_its_whole_life(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        web = fleet["web-1"]
        steps = (
            web.create(SPEC), web.start(), web.pause(), web.resume(), web.kill("HUP"), web.stop(timeout=30), web.start(),
            web.stop(force=True), web.delete(),
        )  # fmt: skip

        assert [str((await step).state) for step in steps] == [
            "created", "running", "paused", "running", "running", "stopped", "running", "stopped", "absent",
        ]  # fmt: skip
        assert sim["pve-01"].model.containers() == []
        assert not (fleet.run_dir / "web-1").exists()


@pytest.mark.sim(nodes=1)
async def test_the_repr_is_a_status_line(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        done = await web.start()

        assert repr(web) == f"<Container web-1: running, pid {done.pid}, lxc {done.vmid} on pve-01>"


@pytest.mark.sim(nodes=1)
async def test_already_so_is_an_answer_and_runs_nothing(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        assert not (await web.stop()).changed
        await web.start()
        before = len(sim.effects())

        assert not (await web.start()).changed
        assert not (await web.resume()).changed
        assert len(sim.effects()) == before


@pytest.mark.sim(nodes=1)
async def test_an_illegal_operation_says_what_is_allowed_and_changes_nothing(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        before, seq = sim.effects(), fleet.seq

        with pytest.raises(nexcage.IllegalTransition) as refused:
            await web.pause()
        with pytest.raises(nexcage.IllegalTransition):
            await web.kill("TERM")  # a created PVE container has no process
        with pytest.raises(nexcage.AlreadyExists):
            await web.create(SPEC)

        assert str(refused.value) == "cannot pause container 'web-1': it is created"
        assert "start" in refused.value.allowed
        assert (sim.effects(), fleet.seq) == (before, seq)


@pytest.mark.sim(nodes=1)
async def test_what_nobody_knows_is_not_found_and_forced_delete_of_it_is_already_so(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        ghost = fleet["ghost"]
        for verb in (ghost.start, ghost.stop, ghost.kill, ghost.pause, ghost.resume, ghost.delete, ghost.state):
            with pytest.raises(nexcage.NotFound):
                await verb()

        assert not (await ghost.delete(force=True)).changed
        assert sim.effects() == []


@pytest.mark.sim(nodes=1)
async def test_a_running_container_is_deleted_only_by_force(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        await web.start()
        with pytest.raises(nexcage.IllegalTransition, match="it is running"):
            await web.delete()

        assert (await web.delete(force=True)).state is State.ABSENT


@pytest.mark.sim(nodes=1)
async def test_a_paused_container_stops_gracefully(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        await web.start()
        await web.pause()

        assert (await web.stop(timeout=20)).state is State.STOPPED


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize("later", [0.0, 0.001, 0.01, 0.05, 5.0])  # seconds: before it begins, while it does, and after
async def test_a_forced_stop_ends_a_graceful_one_that_waits(sim: SimCluster, later: float) -> None:
    sim.inits("stubborn")
    async with sim.fleet() as fleet, anyio.create_task_group() as tasks:
        web = fleet["web-1"]
        await web.create(SPEC)
        await web.start()
        start = anyio.current_time()
        tasks.start_soon(web.stop, 600)
        await anyio.sleep(later)

        await web.stop(force=True)

        assert web.machine.state is State.STOPPED
        assert anyio.current_time() - start < 60


@pytest.mark.sim(nodes=1)
async def test_a_forced_stop_ends_a_graceful_one_whose_turn_has_not_come(sim: SimCluster) -> None:
    sim.inits("stubborn")
    async with sim.fleet() as fleet, anyio.create_task_group() as tasks:
        web = fleet["web-1"]
        await web.create(SPEC)
        tasks.start_soon(web.start)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(web.stop, 600)
        await anyio.sleep(0.5)
        running = web.machine.running
        assert running is not None
        assert running.op is nexcage.Op.START
        start = anyio.current_time()

        await web.stop(force=True)

        assert web.machine.state is State.STOPPED
        assert anyio.current_time() - start < 60


@pytest.mark.sim(nodes=1)
async def test_a_stop_takes_the_place_of_a_start_that_has_not_begun(sim: SimCluster) -> None:
    async with sim.fleet(limits=nexcage.Limits(per_node=1)) as fleet:
        busy, web = fleet["busy"], fleet["web-1"]
        await busy.create(SPEC)
        await web.create(SPEC)
        outcomes: list[BaseException] = []

        async def start() -> None:
            try:
                await web.start()
            except nexcage.NexcageError as error:
                outcomes.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(busy.start)  # holds the only slot
            await anyio.sleep(0.1)
            tasks.start_soon(start)
            await anyio.sleep(0.1)
            await web.stop()

        assert [type(error) for error in outcomes] == [nexcage.IllegalTransition]
        assert web.machine.state is State.CREATED


@pytest.mark.sim(nodes=1)
async def test_the_same_op_id_gives_the_same_outcome_and_one_effect(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        web = fleet["web-1"]
        first = await web.create(SPEC, op_id="order-17")
        again = await web.create(SPEC, op_id="order-17")

        assert (again.vmid, again.state, again.op_id) == (first.vmid, first.state, first.op_id)
        assert len(ran(sim, "pct", "create")) == 1


@pytest.mark.sim(nodes=1)
async def test_strict_oci_starts_only_what_was_created(sim: SimCluster) -> None:
    async with sim.fleet(strict_oci=True) as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        await web.start()
        with pytest.raises(nexcage.IllegalTransition):
            await web.start()
        await web.stop(timeout=30)
        with pytest.raises(nexcage.IllegalTransition):
            await web.start()


@pytest.mark.sim(nodes=1)
async def test_every_effect_carries_its_operation_and_step(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        web = fleet["web-1"]
        ops = [
            (await step).op_id
            for step in (web.create(SPEC), web.start(), web.kill("USR1"), web.stop(timeout=30), web.delete())
        ]

        effects = sim.effects()

        assert {effect["op_id"] for effect in effects} == set(ops)
        assert all(effect["step"] == 1 for effect in effects)


@pytest.mark.sim(nodes=1)
async def test_began_is_in_the_journal_before_the_first_effect(sim: SimCluster) -> None:
    seen: list[tuple[str, int]] = []
    async with sim.fleet() as fleet, fleet.events.subscribe() as events, anyio.create_task_group() as tasks:

        async def watch() -> None:
            async for event in events:
                seen.append((type(event).__name__, len(sim.effects())))  # noqa: PERF401 (looked at as each one comes)

        tasks.start_soon(watch)
        await fleet["web-1"].create(SPEC)
        await anyio.sleep(1)
        tasks.cancel_scope.cancel()

    assert seen == [("Began", 0), ("Attempted", 0), ("Succeeded", 1)]


@pytest.mark.sim(nodes=1)
async def test_kill_reaches_init_by_its_host_pid(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        pid = (await web.start()).pid
        await web.kill("sigusr1")

        signals = [change for effect in sim.effects() for change in effect["changed"] if change["kind"] == "signal"]

        assert len(signals) == 1
        assert str(pid) in str(signals) or str(web.machine.vmid) in str(signals)


@pytest.mark.sim(nodes=1)
async def test_a_killed_container_is_seen_as_stopped(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        await web.start()
        await web.kill("KILL")

        assert await web.wait(timeout=30) is State.STOPPED
        assert (await web.state()).pid == 0


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize(
    ("spec", "error", "names"),
    [
        ({"image": "ubuntu:20.04"}, nexcage.UnsupportedImage, ["pull", "[images]"]),
        ({"image": "./bundle"}, nexcage.InvalidPath, ["./bundle", "exists on this machine"]),
        ({"image": DEBIAN, "backend": "nosuch"}, nexcage.InvalidSpec, ["lxc"]),
        ({"image": DEBIAN, "node": "pve-99"}, nexcage.NoRoute, ["pve-99"]),
    ],
)
async def test_a_bad_spec_is_refused_before_anything_runs(
    sim: SimCluster, spec: dict[str, Any], error: type[Exception], names: list[str]
) -> None:
    async with sim.fleet() as fleet:
        with pytest.raises(error) as refused:
            await fleet["web-1"].create(nexcage.Spec(**spec))

        assert all(name in str(refused.value) for name in names)
        assert fleet.seq == 0
        assert sim.effects() == []


@pytest.mark.sim(nodes=1)
async def test_an_id_that_is_no_host_name_needs_one(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        with pytest.raises(nexcage.InvalidSpec, match="--hostname"):
            await fleet["web_1"].create(SPEC)

        made = nexcage.Spec(DEBIAN, storage="local-zfs", hostname="web-1")
        assert (await fleet["web_1"].create(made)).op is Op.CREATE


@pytest.mark.sim(nodes=1)
async def test_every_option_of_a_spec_reaches_the_config(sim: SimCluster) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDyHCanaryKeyThatMustNeverBeInArgv me@example"
    spec = nexcage.Spec(
        DEBIAN, memory=1024, swap=256, cores=2, hostname="front.example.org", storage="local-zfs", size=6,
        nets=(nexcage.Net(ip="10.0.0.5/24", gw="10.0.0.1", tag=7), nexcage.Net(name="eth1", ip=None)),
        ssh_public_keys=(key,), tags=("Web", "prod"), description="first line\nsecond: line", onboot=True,
    )  # fmt: skip
    async with sim.fleet() as fleet:
        done = await fleet["web-1"].create(spec)
        text = sim["pve-01"].model.config(done.vmid) or ""

    for line in (
        "memory: 1024", "swap: 256", "cores: 2", "hostname: front.example.org", "onboot: 1", "unprivileged: 1",
        "tags: nexcage;prod;web", f"rootfs: local-zfs:subvol-{done.vmid}-disk-0,size=6G", "#first line", "#second%3A line",
        f"#nexcage fleet={fleet.id} id=web-1 vmid={done.vmid} op={done.op_id}",
    ):  # fmt: skip
        assert line in text.split("\n")
    assert "ip=10.0.0.5/24" in text
    assert "tag=7" in text
    assert "CanaryKey" not in str(sim.effects())


@pytest.mark.sim(nodes=1)
async def test_state_json_follows_every_step_and_fits_the_schema(sim: SimCluster) -> None:
    import json

    async with sim.fleet() as fleet:
        web = fleet["web-1"]
        path = fleet.run_dir / "web-1" / "state.json"
        await web.create(SPEC)
        created = json.loads(path.read_text())
        pid = (await web.start()).pid
        running = json.loads(path.read_text())

    assert (created["status"], created["pid"], created["ociVersion"]) == ("created", 0, "1.3.0")
    assert (running["status"], running["pid"], running["id"]) == ("running", pid, "web-1")
    assert running["bundle"] == str(fleet.run_dir / "web-1")
    assert running["annotations"]["org.nexcage.node"] == "pve-01"

"""Operations that keep the state, when things go wrong: killed workers, lost answers, somebody else at the same time."""

from __future__ import annotations

import anyio
import pytest

import nexcage
from nexcage import (
    Blocked,
    Busy,
    Changed,
    CommandFailed,
    IllegalTransition,
    NexcageError,
    NotFound,
    Op,
    Spec,
    State,
    Uncertain,
    Unsupported,
)
from nexcage._core.states import KEEPING
from nexcage.testing import SimCluster
from nexcage.testing.cluster import SimNode

SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", node="pve-01", storage="local-zfs")


def config(sim: SimCluster, fleet: nexcage.Fleet) -> str:
    text = sim["pve-01"].model.config(fleet.machines["web-1"].vmid)
    assert text is not None
    return text


def tries(sim: SimCluster, words: str) -> int:
    return sum(words in " ".join(effect["argv"]) for effect in sim.effects())


async def web(fleet: nexcage.Fleet, *, start: bool = True) -> nexcage.Container:
    web = fleet["web-1"]
    await web.create(SPEC)
    if start:
        await web.start()
    return web


@pytest.mark.sim(nodes=2)
@pytest.mark.parametrize("kind", ["drop-before", "drop-during", "drop-after", "kill-supervisor"])
@pytest.mark.parametrize("verb", ["snapshot", "delsnapshot", "set", "resize"])
async def test_losing_the_answer_never_makes_two(sim: SimCluster, kind: str, verb: str) -> None:
    async with sim.fleet() as fleet:
        one = await web(fleet)
        await one.snapshot("s0")
        sim["pve-01"].fault(kind, on=f"pct {verb}", times=1)

        match verb:
            case "snapshot":
                done = await one.snapshot("s1")
                assert "[s1]" in config(sim, fleet)
            case "delsnapshot":
                done = await one.delsnapshot("s0")
                assert "[s0]" not in config(sim, fleet)
            case "set":
                done = await one.update(memory=1024)
                assert "memory: 1024" in config(sim, fleet)
            case _:
                done = await one.resize("rootfs", "+1G")
                assert "size=5G" in config(sim, fleet).split("[s0]")[0]

        assert done.state is State.RUNNING
        assert tries(sim, f"pct {verb}") <= (3 if verb == "snapshot" else 2)  # the first one made s0
        assert "lock:" not in config(sim, fleet)


@pytest.mark.sim(nodes=2)
@pytest.mark.parametrize("verb", ["snapshot", "delsnapshot"])
async def test_what_a_killed_worker_left_of_a_snapshot_is_removed(sim: SimCluster, verb: str) -> None:
    async with sim.fleet() as fleet:
        one = await web(fleet)
        await one.snapshot("s0")
        sim["pve-01"].fault("kill-worker", on=f"pct {verb}", times=1)

        if verb == "snapshot":
            with pytest.raises(CommandFailed):
                await one.snapshot("s1")
        else:
            await one.delsnapshot("s0")

        assert [snap.name for snap in await one.snapshots()] == (["s0"] if verb == "snapshot" else [])
        assert "snapstate" not in config(sim, fleet)
        assert "lock:" not in config(sim, fleet)


@pytest.mark.sim(nodes=2)
@pytest.mark.parametrize("driver", ["waits", "is gone"])
async def test_a_snapshot_that_its_node_did_not_live_to_finish_is_removed(sim: SimCluster, driver: str) -> None:
    node = sim["pve-01"]

    async def down() -> None:
        for _ in range(1000):  # it can be seen half made, so it is
            await anyio.sleep(0.01)
            if "snapstate" in config(sim, fleet):
                node.crash()
                return

    async with sim.fleet() as fleet:
        one = await web(fleet, start=False)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(down)
            if driver == "waits":  # and makes it again
                tasks.start_soon(_up_later, node)
                await one.snapshot("s0")
            else:
                with pytest.raises(Uncertain):
                    await one.snapshot("s0")
    if driver == "is gone":
        node.restart()
    async with sim.fleet() as fleet:
        await fleet.recover(wait=True)

        assert "snapstate" not in config(sim, fleet)
        assert "lock:" not in config(sim, fleet)
        assert len(await fleet["web-1"].snapshots()) == (1 if driver == "waits" else 0)


async def _up_later(node: SimNode) -> None:
    await anyio.sleep(20)
    node.restart()


@pytest.mark.sim(nodes=2)
@pytest.mark.parametrize("kind", ["drop-during", "drop-after"])
async def test_a_rollback_whose_answer_the_node_has_kept_is_done(sim: SimCluster, kind: str) -> None:
    async with sim.fleet() as fleet:
        one = await web(fleet)
        await one.snapshot("s0")
        sim["pve-01"].fault(kind, on="pct rollback", times=1)

        done = await one.rollback("s0")

        assert (done.state, done.resolved_by) == (State.STOPPED, "claim")
        assert tries(sim, "pct rollback") == 1


@pytest.mark.sim(nodes=2)
async def test_a_rollback_is_never_repeated_when_nobody_knows_what_became_of_it(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        one = await web(fleet)
        await one.snapshot("s0")
        sim["pve-01"].fault("kill-worker", on="pct rollback", times=1)

        with pytest.raises(Uncertain):
            await one.rollback("s0")

        assert one.machine.state is State.UNKNOWN
        assert tries(sim, "pct rollback") == 1


@pytest.mark.sim(nodes=2)
async def test_a_rollback_that_is_refused_changes_nothing(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        one = await web(fleet)
        await one.snapshot("s0")
        await one.snapshot("s1")

        with pytest.raises(Blocked, match="most recent"):
            await one.rollback("s0")
        assert one.machine.state is State.RUNNING
        with pytest.raises(NotFound, match="snapshot 's9'"):
            await one.rollback("s9")


@pytest.mark.sim(nodes=2)
async def test_after_a_rollback_it_is_wanted_as_it_was_left(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        one = await web(fleet)
        await one.snapshot("s0")
        await one.rollback("s0")
        assert (one.machine.state, one.machine.wanted) == (State.STOPPED, State.STOPPED)
        assert await fleet.reconcile() == []
        done = await one.rollback("s0", start=True)
        assert (done.state, one.machine.wanted) == (State.RUNNING, State.RUNNING)
        assert done.pid


@pytest.mark.sim(nodes=2)
async def test_an_update_that_somebody_was_faster_than_is_refused(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        one = await web(fleet)
        digest = (await one.details()).digest
        await sim["pve-01"].run(["pct", "set", str(one.machine.vmid), "--swap", "64"])

        with pytest.raises(Changed):
            await one.update(memory=1024, digest=digest)

        assert "memory: 512" in config(sim, fleet)


@pytest.mark.sim(nodes=2)
async def test_the_digest_is_what_pct_takes_for_it(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        one = await web(fleet)
        await one.snapshot("s0", "with text: and 100 %")
        digest = (await one.details()).digest
        ran = await sim["pve-01"].run(["pct", "set", str(one.machine.vmid), "--swap", "64", "--digest", digest])
        assert ran.exit == 0


@pytest.mark.sim(nodes=2)
async def test_an_update_keeps_our_mark_and_our_tag(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        one = await web(fleet, start=False)
        await one.update(description="somebody else's words", tags=("blue",))

        assert (await fleet.doctor()) == []
        assert one.machine.spec is not None
        assert (one.machine.spec.tags, one.machine.spec.description) == (("blue",), "somebody else's words")
        assert fleet.select("tag=blue") == ["web-1"]
        assert "tags: blue;nexcage" in config(sim, fleet)
        await one.start()


@pytest.mark.sim(nodes=2)
async def test_what_is_so_already_runs_nothing(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        one = await web(fleet, start=False)
        before = len(sim.effects())
        for intent in (
            nexcage.Update("web-1", memory=512),
            nexcage.Resize("web-1", "rootfs", "4G"),
            nexcage.MoveVolume("web-1", "rootfs", "local-zfs"),
            nexcage.Migrate("web-1", "pve-01"),
        ):
            assert not (await fleet.do(intent)).changed
        assert len(sim.effects()) == before
        assert one.machine.state is State.CREATED


@pytest.mark.sim(nodes=2)
async def test_a_backend_without_the_verb_is_named_before_anything_begins(
    sim: SimCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sim.fleet() as fleet:
        one = await web(fleet)
        seq = fleet.seq
        monkeypatch.setattr("nexcage._backends.keeping.Keeps.snapshot", None)
        with pytest.raises(Unsupported, match="cannot snapshot container 'web-1': backend 'lxc'"):
            await one.snapshot("s0")
        assert fleet.seq == seq


@pytest.mark.sim(nodes=2)
async def test_many_are_kept_at_once(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        made = [nexcage.Create(f"web-{n}", Spec(SPEC.image, storage="local-zfs", tags=("web",))) for n in range(20)]
        (await fleet.run(made)).raise_for_failures()
        report = await fleet.run(nexcage.Snapshot(id, "nightly") for id in fleet.select("tag=web"))
        assert report.ok
        assert len(report) == 20


@pytest.mark.parametrize("op", sorted(KEEPING))
def test_what_keeps_the_state_ends_in_the_state_that_is_seen(op: Op) -> None:
    from nexcage._core.states import TABLE

    for state in State:
        assert TABLE[state, op].kind in ("keep", "refuse", "queue", "look", "missing")
        assert TABLE[state, op].to is None


@pytest.mark.sim(nodes=2)
async def test_what_the_state_forbids_names_what_is_allowed(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        one = await web(fleet)
        with pytest.raises(IllegalTransition, match="cannot move-volume container 'web-1': it is running"):
            await one.move_volume("rootfs", "local")


@pytest.mark.sim(nodes=2)
@pytest.mark.parametrize("start", [False, True])
async def test_after_a_migration_it_is_driven_where_it_is(sim: SimCluster, start: bool) -> None:
    async with sim.fleet() as fleet:
        one = await web(fleet, start=start)
        if start:
            with pytest.raises(IllegalTransition, match="restart"):
                await one.migrate("pve-02")

        done = await one.migrate("pve-02", restart=start)

        assert (done.node, done.state) == ("pve-02", State.RUNNING if start else State.CREATED)
        assert one.machine.node == "pve-02"
        assert bool(done.pid) is start
        assert await fleet.reconcile() == []
        assert not (await one.migrate("pve-02")).changed
        await one.delete(force=True)


@pytest.mark.sim(nodes=2)
@pytest.mark.parametrize("kind", ["drop-during", "drop-after", "kill-supervisor"])
async def test_a_migration_whose_answer_is_lost_is_found_where_it_went(sim: SimCluster, kind: str) -> None:
    async with sim.fleet() as fleet:
        one = await web(fleet, start=False)
        sim["pve-01"].fault(kind, on="pct migrate", times=1)

        done = await one.migrate("pve-02")

        assert (done.node, one.machine.node, done.state) == ("pve-02", "pve-02", State.CREATED)
        assert tries(sim, "pct migrate") == (2 if kind == "kill-supervisor" else 1)  # that one kills pct too


@pytest.mark.sim(nodes=1)
async def test_a_template_with_linked_clones_is_not_deleted(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        await fleet["base"].create(SPEC)
        await fleet.do(nexcage.MakeTemplate("base"))
        await fleet["web-1"].create(Spec.from_container("base", linked=True))
        before = sim["pve-01"].model.config(fleet.machines["base"].vmid)

        with pytest.raises(Blocked, match=r"container 'base' is blocked by its linked clones web-1 \([0-9]+\)"):
            await fleet["base"].delete()

        assert before is not None
        assert sim["pve-01"].model.config(fleet.machines["base"].vmid) == before
        assert tries(sim, "pct destroy") == 0
        await fleet["web-1"].delete()
        await fleet["base"].delete()
        assert sim["pve-01"].model.containers() == []


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize("later", [0.0, 0.3, 0.6, 0.9])
async def test_a_template_is_not_deleted_while_a_linked_clone_is_made_of_it(sim: SimCluster, later: float) -> None:
    async with sim.fleet() as fleet, sim.fleet() as other:
        await fleet["base"].create(SPEC)
        await fleet.do(nexcage.MakeTemplate("base"))
        await other.refresh()
        outcomes: list[NexcageError | None] = []

        async def delete() -> None:
            await anyio.sleep(later)
            try:
                await other["base"].delete()
            except NexcageError as error:
                outcomes.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(delete)
            await fleet["web-1"].create(Spec.from_container("base", linked=True))

        (error,) = outcomes
        assert isinstance(error, (Busy, Blocked))
        assert (sim["pve-01"].model.config(fleet.machines["base"].vmid) or "").count("template: 1") == 1
        await fleet["web-1"].delete()
        await fleet["base"].delete()


@pytest.mark.sim(nodes=1)
async def test_no_linked_clone_is_made_of_a_template_while_it_is_deleted(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        await fleet["base"].create(SPEC)
        await fleet.do(nexcage.MakeTemplate("base"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fleet["base"].delete)
            await anyio.sleep(0.3)
            with pytest.raises(Busy, match="container 'base' is busy"):
                await fleet["web-1"].create(Spec.from_container("base", linked=True))

        assert sim["pve-01"].model.containers() == []


@pytest.mark.sim(nodes=1)
async def test_what_pct_refuses_is_told_by_the_id_and_what_is_in_the_way(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        one = await web(fleet)
        with pytest.raises(IllegalTransition) as refused:
            await fleet["web-2"].create(Spec.from_container("web-1"))
        assert (
            str(refused.value) == "cannot clone container 'web-1': it is running: name one of its snapshots, or stop it"
        )

        await one.stop()
        with pytest.raises(Blocked, match=r"is blocked by its storage: Linked clone feature for '.*' is not available"):
            await fleet["web-2"].create(Spec.from_container("web-1", linked=True))

        await one.snapshot("s0")
        await one.snapshot("s1")
        with pytest.raises(Blocked, match=r"is blocked by newer snapshots: can't rollback, 's0' is not most recent"):
            await one.rollback("s0")

        await one.delsnapshot("s0")
        await one.delsnapshot("s1")
        await fleet.do(nexcage.MakeTemplate("web-1"))
        with pytest.raises(IllegalTransition, match=r"^cannot start container 'web-1': it is a template"):
            await one.start()

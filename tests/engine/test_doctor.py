"""What does not fit between the journal and the nodes is found, said, and mended only where a look can tell."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import anyio
import pytest

import nexcage
from nexcage import Config, Create, Finding, Limits, Spec, Start, State
from nexcage._core.finding import wrong
from nexcage._sinks.journal import open_journal
from nexcage.testing import SimCluster
from nexcage.tools import claims, kept

DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
SPEC = Spec(DEBIAN)


def bad(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    return [(finding.what, finding.where) for finding in findings if wrong(finding)]


def mended(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    return [(finding.what, finding.where) for finding in findings if finding.mended]


def edit(sim: SimCluster, node: str, vmid: int, old: str, new: str) -> None:
    """Somebody at the node changes a config by hand."""
    model = sim[node].model
    with sim[node].step():
        text = model.config(vmid) or ""
        assert old in text
        model.files.write(model.config_path(vmid), text.replace(old, new, 1))


async def pct(sim: SimCluster, node: str, *words: str) -> None:
    result = await sim[node].run(["pct", *words])
    assert result.exit == 0, result.stderr


def places(tmp_path: Path, **settings: object) -> dict[str, object]:
    """Directories of this test's own, with a fleet id that does not depend on them."""
    state, run = tmp_path / "state", tmp_path / "run"
    config = Config(fleet="f1", state_dir=str(state), **settings)  # type: ignore[arg-type]
    return {"config": config, "state_dir": state, "run_dir": run}


@pytest.mark.sim(nodes=3)
async def test_a_fleet_in_good_order_has_nothing_wrong_and_costs_two_commands_a_node(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        await fleet.run(Create(f"web-{n}", SPEC) for n in range(30))
        await fleet.run(Start(f"web-{n}") for n in range(15))
        seq = fleet.seq
        found = await fleet.doctor()
        assert bad(found) == []
        assert fleet.seq == seq


@pytest.mark.sim(nodes=2)
async def test_what_a_driver_is_doing_meanwhile_is_not_taken_for_a_fault(sim: SimCluster) -> None:
    here = Spec(DEBIAN, node="pve-01")
    async with sim.fleet() as fleet, sim.fleet() as other, anyio.create_task_group() as tasks:
        await fleet["web-0"].create(here)
        sim["pve-02"].fault("slow", on="sh", times=0, seconds=3)  # what pve-01 showed is old when pve-02 has answered
        done = anyio.Event()

        async def churn() -> None:
            for _ in range(8):
                assert (await other.run(Create(f"web-{n}", here) for n in range(1, 9))).ok
                assert (await other.run(nexcage.Delete(f"web-{n}") for n in range(1, 9))).ok
            done.set()

        tasks.start_soon(churn)
        rounds = 0
        while not done.is_set():
            assert bad(await fleet.doctor()) == []
            rounds += 1
            await anyio.sleep(0.5)
        assert rounds >= 3


@pytest.mark.sim(nodes=2)
async def test_what_the_journal_does_not_know_is_an_orphan_and_rebuilding_ends_that(
    sim: SimCluster, tmp_path: Path
) -> None:
    options = places(tmp_path)
    async with sim.fleet(**options) as fleet:
        await fleet.run(Create(f"web-{n}", SPEC) for n in range(3))
    shutil.rmtree(tmp_path / "state")
    async with sim.fleet(**options) as fleet:
        assert bad(await fleet.doctor()) == [("orphan", f"container 'web-{n}'") for n in range(3)]
        assert bad(await fleet.doctor(repair=True)) == [("orphan", f"container 'web-{n}'") for n in range(3)]
        assert len(mended(await fleet.rebuild("web-1"))) == 1
        assert bad(await fleet.doctor()) == [("orphan", "container 'web-0'"), ("orphan", "container 'web-2'")]


@pytest.mark.sim(nodes=2)
async def test_what_no_node_shows_is_told_only_when_every_node_answered(sim: SimCluster) -> None:
    async with sim.fleet(limits=Limits(connect_timeout=1, retries=0)) as fleet:
        await fleet.run(Create(f"web-{n}", SPEC) for n in range(4))
        lost = fleet["web-0"].machine
        await pct(sim, lost.node, "destroy", str(lost.vmid))
        other = "pve-02" if lost.node == "pve-01" else "pve-01"
        sim[other].crash()
        assert bad(await fleet.doctor()) == [("node", other)]
        sim[other].restart()
        fleet.nodes[other].forgive()
        assert bad(await fleet.doctor()) == [("gone", "container 'web-0'")]

        found = await fleet.doctor(repair=True)
        assert mended(found) == [("gone", "container 'web-0'")]
        assert bad(found) == []
        assert fleet["web-0"].machine.state is State.ABSENT


@pytest.mark.sim(nodes=1)
async def test_a_container_that_lost_its_mark_is_gone_and_is_not_touched(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(SPEC)
        vmid = fleet["web-1"].machine.vmid
        edit(sim, "pve-01", vmid, "#nexcage fleet", "#other fleet")
        (found,) = [finding for finding in await fleet.doctor() if wrong(finding)]
        assert "does not carry its mark" in found.why
        assert bad(await fleet.doctor(repair=True)) == []
        assert sim["pve-01"].model.config(vmid) is not None


@pytest.mark.sim(nodes=2)
async def test_one_that_somebody_moved_is_told_and_found_again(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(SPEC)
        machine = fleet["web-1"].machine
        other = "pve-02" if machine.node == "pve-01" else "pve-01"
        text = sim[machine.node].model.config(machine.vmid) or ""
        source, target = sim[machine.node].model, sim[other].model
        with sim[machine.node].step():
            source.files.remove(source.config_path(machine.vmid))
            target.files.write(f"/etc/pve/nodes/{other}/lxc/{machine.vmid}.conf", text)
        assert bad(await fleet.doctor()) == [("moved", "container 'web-1'")]
        assert mended(await fleet.doctor(repair=True)) == [("moved", "container 'web-1'")]
        assert fleet["web-1"].machine.node == other


@pytest.mark.sim(nodes=2)
async def test_copies_and_other_fleets_are_notes(sim: SimCluster, tmp_path: Path) -> None:
    async with sim.fleet(**places(tmp_path / "other")) as theirs:
        await theirs["db-1"].create(SPEC)
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(SPEC)
        machine = fleet["web-1"].machine
        model = sim[machine.node].model
        with sim[machine.node].step():
            text = model.config(machine.vmid) or ""
            model.files.write(f"/etc/pve/nodes/{machine.node}/lxc/777.conf", text)
        found = await fleet.doctor()
        assert bad(found) == []
        notes = {finding.what: finding for finding in found}
        assert notes["copy"].where == f"777 on {machine.node}"
        assert "fleet f1" in notes["other fleet"].why
        assert "--rebuild --fleet f1" in notes["other fleet"].fix


@pytest.mark.sim(nodes=1)
async def test_half_made_and_half_deleted_ones_that_are_not_ours_are_notes(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(SPEC)
        with sim["pve-01"].step():
            for vmid, lock in ((801, "create"), (802, "destroyed")):
                sim["pve-01"].model.files.write(
                    f"/etc/pve/nodes/pve-01/lxc/{vmid}.conf", f"arch: amd64\nlock: {lock}\n"
                )
        found = await fleet.doctor(repair=True)
        assert bad(found) == []
        assert {(f.what, f.where) for f in found if f.severity == "note"} >= {
            ("half-made", "801 on pve-01"),
            ("half-deleted", "802 on pve-01"),
        }


@pytest.mark.sim(nodes=1)
async def test_what_a_dead_driver_left_is_told_and_resolved(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(SPEC)
        machine = fleet["web-1"].machine
        async with open_journal(fleet.state_dir, owner="ghost", fleet=fleet.id) as ghost:
            begun = machine.begin(Start("web-1"), op_id="s", owner="ghost")
            await ghost.append(begun)
            lost = nexcage.Problem("Uncertain", "it is not known", uncertain=True)
            await ghost.append(nexcage.Interrupted(id="web-1", op=nexcage.Op.START, op_id="s", error=lost))
        await fleet.refresh()
        edit(sim, "pve-01", machine.vmid, "#nexcage fleet", "#other fleet")
        assert bad(await fleet.doctor()) == [("unresolved", "container 'web-1'")]
        edit(sim, "pve-01", machine.vmid, "#other fleet", "#nexcage fleet")
        await fleet.doctor(repair=True)
        await fleet.reconcile()
        assert fleet["web-1"].machine.state is State.CREATED


@pytest.mark.sim(nodes=1)
async def test_the_same_machine_under_two_names_is_an_error(sim: SimCluster) -> None:
    def connect(host: nexcage.Host) -> object:
        return sim.connect(nexcage.Host("pve-01"))

    async with sim.fleet(["pve-01", "10.0.0.1"], connect=connect) as fleet:
        assert bad(await fleet.doctor()) == [("two names", "10.0.0.1")]


# ---- claims ------------------------------------------------------------------------------------------------------------------


@pytest.mark.sim(nodes=1)
async def test_claims_that_ended_long_ago_are_swept_and_younger_ones_kept(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(SPEC)
        assert bad(await fleet.doctor()) == []
        assert [f for f in await fleet.doctor() if f.what == "claims"] == []
        node = fleet.nodes["pve-01"]
        before = await node.run(kept.listing(fleet.id))
        assert before
        await anyio.sleep(claims.KEPT + 100)
        await fleet["web-1"].start()

        (found,) = [f for f in await fleet.doctor() if f.what == "claims"]
        assert (found.severity, found.repairable, found.where) == ("note", True, "pve-01")
        assert mended(await fleet.doctor(repair=True)) == [("claims", "pve-01")]
        left = {claim.name for claim in await node.run(kept.listing(fleet.id))}
        assert left
        assert not left & {claim.name for claim in before}


def claim(sim: SimCluster, fleet: str, name: str, go: str) -> None:
    with sim["pve-01"].step():
        sim["pve-01"].model.files.write(f"/run/nexcage-ops/{fleet}/{name}/go", go)


@pytest.mark.sim(nodes=1)
async def test_lost_claims_are_dropped_when_they_are_old_and_nobody_can_ask(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(SPEC)
        node = fleet.nodes["pve-01"]
        now = (await node.look()).uptime
        claim(sim, fleet.id, "gone.1", f"run:9999999:{int(now * 100)}:1")
        (found,) = [f for f in await fleet.doctor(repair=True) if f.what == "lost claims"]
        assert found.severity == "note"
        await anyio.sleep(claims.KEPT + 100)
        assert mended(await fleet.doctor(repair=True)) == [("claims", "pve-01")]
        assert await node.run(kept.listing(fleet.id)) == ()


# ---- a lost journal ----------------------------------------------------------------------------------------------------------


@pytest.mark.sim(nodes=5)
async def test_a_lost_state_directory_is_rebuilt_and_everything_goes_on(sim: SimCluster, tmp_path: Path) -> None:
    options = places(tmp_path)
    ids = [f"web-{n:03}" for n in range(100)]
    async with sim.fleet(**options) as fleet:
        assert (await fleet.run(Create(id, SPEC) for id in ids)).ok
        assert (await fleet.run(Start(id) for id in ids[:60])).ok
        assert (await fleet.run(nexcage.Pause(id) for id in ids[:10])).ok
        before = {id: fleet.machines[id] for id in ids}
    shutil.rmtree(tmp_path / "state")

    async with sim.fleet(**options) as fleet:
        found = await fleet.rebuild()
        assert len(mended(found)) == 100
        assert bad(found) == []
        for id, was in before.items():
            now = fleet.machines[id]
            assert (now.node, now.vmid, now.mark, now.backend, now.pid) == (
                was.node,
                was.vmid,
                was.mark,
                was.backend,
                was.pid,
            )
            assert now.state is (State.STOPPED if was.state is State.CREATED else was.state)
        seq = fleet.seq
        assert await fleet.rebuild() == []
        assert fleet.seq == seq
        assert bad(await fleet.doctor()) == []
        assert await fleet.reconcile() == []

        with pytest.raises(nexcage.AlreadyExists):
            await fleet["web-000"].create(SPEC)
        assert (await fleet.run(nexcage.Resume(id) for id in ids[:10])).ok
        assert (await fleet.run(nexcage.Stop(id, force=True) for id in ids[:60])).ok
        assert (await fleet.run(Start(id) for id in ids[50:])).ok
        assert (await fleet.run(nexcage.Delete(id, force=True) for id in ids)).ok
    assert not any(sim[key].model.running() for key in sim.hosts)


@pytest.mark.sim(nodes=3)
async def test_a_rebuild_that_is_cut_short_goes_on_where_it_was(sim: SimCluster, tmp_path: Path) -> None:
    options = places(tmp_path)
    async with sim.fleet(**options) as fleet:
        await fleet.run(Create(f"web-{n}", SPEC) for n in range(9))
    shutil.rmtree(tmp_path / "state")
    async with sim.fleet(**options) as fleet:
        sim["pve-02"].crash()
        found = await fleet.rebuild()
        assert [where for what, where in bad(found) if what == "node"] == ["pve-02"]
        first = len(mended(found))
        assert 0 < first < 9
    sim["pve-02"].restart()
    async with sim.fleet(**options) as fleet:
        assert len(mended(await fleet.rebuild())) == 9 - first
        assert sum(1 for _ in fleet) == 9


@pytest.mark.sim(nodes=2)
async def test_a_rebuild_does_not_bring_back_what_is_deleted_meanwhile(sim: SimCluster) -> None:
    async with sim.fleet() as fleet, sim.fleet() as other, anyio.create_task_group() as tasks:
        await other["web-1"].create(Spec(DEBIAN, node="pve-01"))
        sim["pve-02"].fault("slow", on="sh", times=0, seconds=12)

        async def rebuild() -> None:
            assert await fleet.rebuild() == []

        tasks.start_soon(rebuild)
        await anyio.sleep(10)  # pve-01 has shown it
        await other["web-1"].delete()
    assert fleet["web-1"].machine.state is State.ABSENT


@pytest.mark.sim(nodes=2)
async def test_two_nodes_that_claim_one_container_are_told_and_neither_is_taken(
    sim: SimCluster, tmp_path: Path
) -> None:
    options = places(tmp_path)
    async with sim.fleet(**options) as fleet:
        await fleet["web-1"].create(SPEC)
        await fleet["web-2"].create(SPEC)
        machine = fleet["web-1"].machine
    text = sim[machine.node].model.config(machine.vmid) or ""
    other = "pve-02" if machine.node == "pve-01" else "pve-01"
    with sim[other].step():
        path = f"/etc/pve/nodes/{other}/lxc/888.conf"
        sim[other].model.files.write(path, text.replace(f"vmid={machine.vmid}", "vmid=888"))
    shutil.rmtree(tmp_path / "state")
    async with sim.fleet(**options) as fleet:
        found = await fleet.rebuild()
        assert bad(found) == [("rebuild", "container 'web-1'")]
        assert mended(found) == [("orphan", "container 'web-2'")]
        assert fleet["web-1"].machine.state is State.ABSENT
        assert ("two of one", "container 'web-1'") in bad(await fleet.doctor())


@pytest.mark.sim(nodes=2)
async def test_a_container_that_the_journal_has_elsewhere_is_refused(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(SPEC)
        machine = fleet["web-1"].machine
        text = sim[machine.node].model.config(machine.vmid) or ""
        await pct(sim, machine.node, "destroy", str(machine.vmid))
        with sim["pve-02"].step():
            text = text.replace(f"vmid={machine.vmid}", "vmid=888")
            sim["pve-02"].model.files.write("/etc/pve/nodes/pve-02/lxc/888.conf", text)
        found = await fleet.rebuild()
        assert bad(found) == [("rebuild", "container 'web-1'")]
        assert str(machine.vmid) in found[0].why
        assert "888 on pve-02" in found[0].why
        assert fleet["web-1"].machine.vmid == machine.vmid


# ---- set aside ---------------------------------------------------------------------------------------------------------------


def damage(state: Path, id: str) -> None:
    """A flipped bit in the last record of a container."""
    path = max((state / "journal").glob("*.jsonl"))
    lines = path.read_bytes().splitlines(keepends=True)
    last = max(n for n, line in enumerate(lines) if f'"id":"{id}"'.encode() in line)
    lines[last] = lines[last].replace(b'"at":', b'"aT":', 1)
    path.write_bytes(b"".join(lines))


@pytest.mark.sim(nodes=2)
@pytest.mark.parametrize("there", [True, False])
async def test_what_damage_set_aside_comes_back_as_its_node_shows_it(
    sim: SimCluster, tmp_path: Path, there: bool
) -> None:
    options = places(tmp_path)
    async with sim.fleet(**options) as fleet:
        await fleet.run([Create("web-1", SPEC), Create("web-2", SPEC), Start("web-1")])
        machine = fleet["web-1"].machine
    damage(tmp_path / "state", "web-1")
    if not there:
        await pct(sim, machine.node, "stop", str(machine.vmid))
        await pct(sim, machine.node, "destroy", str(machine.vmid))
    async with sim.fleet(**options) as fleet:
        with pytest.raises(nexcage.JournalError, match="set aside"):
            await fleet["web-1"].stop(force=True)
        found = nexcage.examine(tmp_path / "state", tmp_path / "run")
        assert set(found.aside) == {"web-1"}
        assert bad(await fleet.rebuild()) == []  # nobody asked for it

        assert mended(await fleet.rebuild("web-1", aside=found.aside)) == [("set aside", "container 'web-1'")]
        assert fleet["web-1"].machine.state is (State.RUNNING if there else State.ABSENT)
        assert nexcage.examine(tmp_path / "state", tmp_path / "run").aside == {}
        if there:
            await fleet["web-1"].stop(force=True)
        else:
            await fleet["web-1"].create(SPEC)
    async with sim.fleet(**options) as fleet:
        assert fleet["web-1"].machine.state is (State.STOPPED if there else State.CREATED)


@pytest.mark.sim(nodes=2)
async def test_it_stays_set_aside_while_there_is_anything_to_guess(sim: SimCluster, tmp_path: Path) -> None:
    options = places(tmp_path) | {"limits": Limits(connect_timeout=1, retries=0)}
    async with sim.fleet(**options) as fleet:
        await fleet.run([Create("web-1", SPEC), Create("web-2", SPEC), Start("web-1")])
        machine = fleet["web-1"].machine
    damage(tmp_path / "state", "web-1")
    other = "pve-02" if machine.node == "pve-01" else "pve-01"
    async with sim.fleet(**options) as fleet:
        sim[other].crash()
        (away, why) = await fleet.rebuild("web-1", aside=("web-1",))
        assert (away.what, why.what, why.mended) == ("node", "rebuild", False)
        assert other in why.why
        sim[other].restart()
        fleet.nodes[other].forgive()

        edit(sim, machine.node, machine.vmid, "#nexcage fleet", "#other fleet")
        edit(sim, machine.node, machine.vmid, "arch:", "lock: create\narch:")
        (why,) = await fleet.rebuild("web-1", aside=("web-1",))
        assert "half made" in why.why
        assert set(nexcage.examine(tmp_path / "state").aside) == {"web-1"}

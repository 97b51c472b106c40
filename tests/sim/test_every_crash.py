"""Nothing is lost: a driver dies at every point of what it does, and everything is right afterwards.

`--all-crashes` dies at all of them; without, the larger scenarios die at some.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

import nexcage
from nexcage import AlreadyExists, Create, Fleet, Spec, Start
from nexcage._core.config import ZfsConfig
from nexcage.testing import Aftermath, CrashDisk, Death, Fate, SimCluster, every_crash
from nexcage.testing.cluster import IMAGES
from nexcage.testing.crashes import INVARIANTS
from tests.sim.deaths import Life

SPEC = Spec(image="local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", node="pve-01")
SOME = 60  # deaths of the batch
ZFS = "/var/lib/nexcage-sim/zfs.json"


web = Life("web-1", SPEC)


async def batch(fleet: Fleet) -> None:
    made = await fleet.run([Create(f"b-{n}", Spec(image=SPEC.image)) for n in range(10)])
    for failure in made.failures:
        if not isinstance(failure.error, AlreadyExists):
            raise failure.error
    (await fleet.run([Start(f"b-{n}") for n in range(10)])).raise_for_failures()


SCENARIOS = {
    "create": (web.create, None),
    "start": (web.start, web.create),
    "stop": (web.stop, web.running),
    "pause": (web.pause, web.running),
    "resume": (web.resume, web.paused),
    "delete": (web.delete, web.running),
    "batch": (batch, None),
}


@pytest.mark.timeout(3600)  # all deaths of the batch are a thousand clusters
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_driver_may_die_at_any_point(name: str, pytestconfig: pytest.Config):
    scenario, before = SCENARIOS[name]
    everything = pytestconfig.getoption("--all-crashes", default=False)

    swept = every_crash(scenario, before=before, most=None if everything or name != "batch" else SOME)

    assert swept.cases == (SOME if name == "batch" and not everything else 3 * len(swept.points))
    assert any(point.startswith("sent: ") for point in swept.points)
    assert any(point.startswith("sync state/journal/") for point in swept.points)


@pytest.mark.parametrize("name", ["create", "stop"])
def test_the_same_where_scripts_keep_the_claims(name: str):
    scenario, before = SCENARIOS[name]

    swept = every_crash(scenario, before=before, cluster=lambda: SimCluster(2, runner=False), most=40)

    assert swept.cases == 40


# With datasets of their own


def with_a_pool() -> SimCluster:
    made = SimCluster(2)
    for node in made:
        known = json.loads(node.files.read(ZFS) or "{}")
        node.files.write(ZFS, json.dumps({**known, "tank": {"type": "filesystem"}}))
    return made


def datasets_are_where_their_containers_are(now: Aftermath) -> Iterable[str]:
    """Each dataset with a mark has its container, and each container its dataset."""
    for node in now.sim:
        known = json.loads(node.files.read(ZFS) or "{}")
        marked = {name for name in known if "org.nexcage:mark" in known[name] and "-deleted-" not in name}
        wanted = {
            f"tank/containers/{m.id}-{m.vmid}" for m in now.fleet.machines.values() if m.node == node.name and m.vmid
        }
        if marked != wanted:
            yield f"{node.name} has the datasets {sorted(marked)}, and its containers want {sorted(wanted)}"


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("name", "zfs"),
    [
        ("create", ZfsConfig(pool="tank")),
        ("create", ZfsConfig(pool="tank", mount="/data")),
        ("delete", ZfsConfig(pool="tank")),
        ("delete", ZfsConfig(pool="tank", on_delete="rename")),
    ],
)
def test_no_death_costs_a_dataset_or_leaves_one(name: str, zfs: ZfsConfig, pytestconfig: pytest.Config):
    scenario, before = SCENARIOS[name]
    everything = pytestconfig.getoption("--all-crashes", default=False)

    swept = every_crash(
        scenario,
        before=before,
        cluster=with_a_pool,
        invariants=[*INVARIANTS, datasets_are_where_their_containers_are],
        config=nexcage.Config(images=IMAGES, fleet="crash", zfs=zfs),
        most=None if everything else SOME,
    )

    assert any("sh -c on pve-01" in point for point in swept.points)


# What it would find


def test_a_journal_that_is_not_synced_is_found_out():
    class Hasty(CrashDisk):
        def sync(self, fd: int) -> None:
            self.fate.point("sync, but not really")

    with pytest.raises(AssertionError, match="had an effect, and is not in the journal"):
        every_crash(web.start, before=web.create, disk=Hasty, after=["lost"])


def test_an_effect_without_an_operation_is_found_out():
    async def twice(fleet: Fleet) -> None:
        await web.create(fleet)
        node = fleet.nodes["pve-01"]
        for _ in range(2):
            argv = ("pct", "set", str(fleet.machines["web-1"].vmid), "--memory", "256")
            command = nexcage.Command(argv, lambda _: None, env={"NEXCAGE_OP_ID": "mine", "NEXCAGE_STEP": "1"})
            await node.run(command)
            argv = ("pct", "set", str(fleet.machines["web-1"].vmid), "--memory", "512")
            await node.run(nexcage.Command(argv, lambda _: None, env=command.env))

    with pytest.raises(AssertionError, match="step 1 of operation mine had 4 effects"):
        every_crash(twice, most=1)


def test_a_scenario_that_does_not_expect_to_be_half_done_is_named_with_the_death_that_shows_it():
    async def naive(fleet: Fleet) -> None:
        await fleet["web-1"].create(SPEC)

    with pytest.raises(
        AssertionError, match=r"Death\(point=\d+, after='kept'\), before '.*AlreadyExists: container 'web-1'"
    ):
        every_crash(naive, after=["kept"])


def test_one_death_can_be_repeated_alone_with_invariants_of_ones_own():
    asked: list[str] = []

    def all_on_one_node(now: Aftermath) -> Iterable[str]:
        asked.append(now.fleet.id)
        if {machine.node for machine in now.fleet.machines.values()} - {"pve-01", ""}:
            yield "it is elsewhere"

    swept = every_crash(
        web.create, only=Death(20, "torn"), invariants=[all_on_one_node], cluster=lambda: SimCluster(3, seed=5)
    )

    assert swept.cases == 1
    assert len(asked) >= 3


def test_the_same_seed_dies_at_the_same_points():
    assert every_crash(web.create, most=3, seed=4) == every_crash(web.create, most=3, seed=4)


def test_a_scenario_that_is_wrong_without_any_death_says_so():
    def never(now: Aftermath) -> Iterable[str]:
        yield "the moon is not full"

    with pytest.raises(AssertionError, match="without any death: the moon is not full"):
        every_crash(web.create, invariants=[never])


LEFT = {
    "/var/lib/vz/images/990/vm-990-disk-0.raw": "there are volumes of 990 on pve-01, and no such container",
    "/etc/pve/nodes/pve-01/lxc/991.conf": "991 on pve-01 has lock: create",
    "/etc/pve/nodes/pve-02/lxc/992.conf": "nobody knows of .*vmid=992",
}


@pytest.mark.parametrize("path", LEFT)
def test_what_is_left_on_a_node_is_found_out(path: str):
    text = "#nexcage fleet=crash id=lost vmid=992 op=x\n" if "992" in path else "lock: create\n"

    def cluster() -> SimCluster:
        made = SimCluster(2)
        made["pve-01"].files.write(path, text)
        return made

    with pytest.raises(AssertionError, match=f"without any death: {LEFT[path]}"):
        every_crash(web.create, cluster=cluster)


def test_a_dead_program_cannot_change_anything_any_more(tmp_path: Path):
    fate = Fate()
    disk = CrashDisk(tmp_path, fate)
    fate.die()

    for change in (disk.mkdir, disk.unlink, disk.rmdir):
        with pytest.raises(BaseException, match="dead already"):
            change(str(tmp_path / "x"))
    assert list(tmp_path.iterdir()) == []

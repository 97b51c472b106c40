"""A driver dies at every point of an operation that keeps the state: nothing is done twice, nothing stays half done.

`--all-crashes` dies at all of them; without, at some.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

import nexcage
from nexcage import Fleet, Spec
from nexcage.testing import Aftermath, SimCluster, every_crash
from nexcage.testing.crashes import INVARIANTS
from tests.sim.deaths import Life

SOME = 40  # deaths of each, unless --all-crashes asks for all
SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", node="pve-01", storage="local-zfs")


web = Life("web-1", SPEC)


async def rollback(fleet: Fleet) -> None:
    await fleet.do(nexcage.Rollback("web-1", "before"))


async def update(fleet: Fleet) -> None:
    await fleet.do(nexcage.Update("web-1", memory=1024, tags=("web",), description="bigger"))


async def resize(fleet: Fleet) -> None:
    await fleet.do(nexcage.Resize("web-1", "rootfs", "6G"))


async def move(fleet: Fleet) -> None:
    await fleet.do(nexcage.MoveVolume("web-1", "rootfs", "local", delete=True))


async def template(fleet: Fleet) -> None:
    await fleet.do(nexcage.MakeTemplate("web-1"))


async def base(fleet: Fleet) -> None:
    await Life("base", SPEC).create(fleet)
    await fleet.do(nexcage.MakeTemplate("base"))


async def clone(fleet: Fleet) -> None:
    await Life("web-1", Spec.from_container("base")).create(fleet)


async def linked(fleet: Fleet) -> None:
    await Life("web-1", Spec.from_container("base", linked=True)).create(fleet)


async def migrate(fleet: Fleet) -> None:
    await fleet.do(nexcage.Migrate("web-1", "pve-02", restart=True))


SCENARIOS = {
    "snapshot": (web.snapshot, web.running),
    "delsnapshot": (web.delsnapshot, web.kept),
    "rollback": (rollback, web.kept),
    "update": (update, web.running),
    "resize": (resize, web.running),
    "move-volume": (move, web.create),
    "template": (template, web.create),
    "migrate": (migrate, web.running),
    "clone": (clone, base),
    "linked clone": (linked, base),
}


def no_snapshot_is_incomplete(now: Aftermath) -> Iterable[str]:
    for node in now.sim:
        for vmid in node.model.containers():
            if "snapstate" in (node.model.config(vmid) or ""):
                yield f"{vmid} on {node.name} has a snapshot that is not whole"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_driver_may_die_at_any_point(name: str, pytestconfig: pytest.Config) -> None:
    scenario, before = SCENARIOS[name]
    most = None if pytestconfig.getoption("--all-crashes", default=False) else SOME

    swept = every_crash(scenario, before=before, invariants=[*INVARIANTS, no_snapshot_is_incomplete], most=most)

    assert swept.cases == min(most or 10_000, 3 * len(swept.points))
    assert any(point.startswith("sent: ") for point in swept.points)


@pytest.mark.parametrize("name", ["snapshot", "update"])
def test_the_same_where_scripts_keep_the_claims(name: str) -> None:
    scenario, before = SCENARIOS[name]

    swept = every_crash(scenario, before=before, cluster=lambda: SimCluster(2, runner=False), most=30)

    assert swept.cases == 30

"""A driver dies at every point of what it does with virtual machines, and everything is right afterwards.

`--all-crashes` dies at all of them; without, each scenario dies at some.
"""

from __future__ import annotations

import pytest

from nexcage import AlreadyExists, Create, Fleet, Spec, Start
from nexcage.testing import SimCluster, every_crash
from tests.sim.deaths import Life

UBUNTU = "local:import/ubuntu-20.04-server-cloudimg-amd64.qcow2"
DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
SPEC = Spec(image=UBUNTU, backend="vm", node="pve-01", storage="local-zfs")
LARGE = Spec(image=UBUNTU, backend="vm", node="pve-01", storage="local-zfs", size=10)
SOME = 45


db = Life("db-1", SPEC)
large = Life("db-1", LARGE)  # three steps: it is whole when the last one has taken the lock off


async def mixed(fleet: Fleet) -> None:
    """Containers and virtual machines beside each other."""
    kinds = (Spec(image=UBUNTU, backend="vm"), Spec(image=DEBIAN))
    made = await fleet.run([Create(f"m-{n}", kinds[n % 2]) for n in range(4)])
    for failure in made.failures:
        if not isinstance(failure.error, AlreadyExists):
            raise failure.error
    (await fleet.run([Start(f"m-{n}") for n in range(4)])).raise_for_failures()


SCENARIOS = {
    "create": (db.create, None),
    "create-large": (large.create, None),
    "start": (db.start, db.create),
    "stop": (db.stop, db.running),
    "pause": (db.pause, db.running),
    "resume": (db.resume, db.paused),
    "delete": (db.delete, db.running),
    "snapshot": (db.snapshot, db.running),
    "delsnapshot": (db.delsnapshot, db.kept),
    "mixed": (mixed, None),
}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_driver_of_virtual_machines_may_die_at_any_point(name: str, pytestconfig: pytest.Config):
    scenario, before = SCENARIOS[name]
    everything = pytestconfig.getoption("--all-crashes", default=False)

    swept = every_crash(scenario, before=before, most=None if everything else SOME)

    assert swept.cases == (3 * len(swept.points) if everything else min(SOME, 3 * len(swept.points)))
    assert any(point.startswith("sent: ") for point in swept.points)


@pytest.mark.parametrize("name", ["create-large", "delete"])
def test_the_same_where_scripts_keep_the_claims(name: str):
    scenario, before = SCENARIOS[name]

    swept = every_crash(scenario, before=before, cluster=lambda: SimCluster(2, runner=False), most=30)

    assert swept.cases == 30

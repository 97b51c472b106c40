"""A driver dies at every point of adopting, of a backup and of a restore: the guest is ours or it is not, and it never notices."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import pytest

from nexcage import AlreadyExists, Backup, Fleet, Spec
from nexcage.testing import Aftermath, SimCluster, every_crash
from nexcage.testing._model.others import foreign
from nexcage.testing.crashes import INVARIANTS, Scenario
from tests.sim.deaths import Life


def with_a_guest(*, runner: bool = True) -> SimCluster:
    sim = SimCluster(2, runner=runner)
    model = sim["pve-01"].model
    foreign(model, 104, description="#theirs")
    model.start_container(104)
    return sim


async def adopt(fleet: Fleet) -> None:
    with contextlib.suppress(AlreadyExists):
        await fleet.adopt("db-1", 104)


def the_guest_goes_on(now: Aftermath) -> Iterable[str]:
    model = now.sim["pve-01"].model
    text = model.config(104) or ""
    if not model.is_running(104) or "hostname: theirs" not in text or "#theirs\n" not in text:
        yield f"the guest is not what it was: {text!r}"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("runner", [True, False], ids=["runner", "scripts"])
def test_a_driver_may_die_at_any_point_of_adopting(runner: bool, pytestconfig: pytest.Config) -> None:
    most = None if pytestconfig.getoption("--all-crashes", default=False) else 40

    swept = every_crash(
        adopt, cluster=lambda: with_a_guest(runner=runner), invariants=[*INVARIANTS, the_guest_goes_on], most=most
    )

    assert swept.cases == min(most or 10_000, 3 * len(swept.points))
    assert any(point.startswith("sent: ") for point in swept.points)


IMAGE = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"


web = Life("web-1", Spec(IMAGE, node="pve-01", storage="local-zfs"))


async def saved(fleet: Fleet) -> None:
    await web.running(fleet)
    await fleet["web-1"].backup()


async def backup(fleet: Fleet) -> None:
    await fleet.do(Backup("web-1"))


async def restore(fleet: Fleet) -> None:
    (archive,) = await fleet["web-1"].backups()
    with contextlib.suppress(AlreadyExists):
        await fleet.restore("web-2", archive.id, node="pve-01", storage="local-zfs")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario, before", [(backup, web.running), (restore, saved)], ids=["backup", "restore"])
def test_a_driver_may_die_at_any_point(scenario: Scenario, before: Scenario, pytestconfig: pytest.Config) -> None:
    most = None if pytestconfig.getoption("--all-crashes", default=False) else 30

    swept = every_crash(scenario, before=before, most=most)

    assert swept.cases == min(most or 10_000, 3 * len(swept.points))

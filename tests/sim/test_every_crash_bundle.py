"""A driver dies at every point of what it does with containers from bundles, and everything is right afterwards.

`--all-crashes` dies at all of them; without, each scenario dies at some.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from nexcage import Spec
from nexcage.testing import Aftermath, every_crash
from nexcage.testing.crashes import INVARIANTS
from tests.sim.bundles import PackedAlready, bundle
from tests.sim.deaths import Life

SOME = 45
CACHE = "/var/lib/vz/template/cache"
PLACE = "/var/lib/nexcage-lxc"


def complete_or_gone(now: Aftermath) -> Iterable[str]:
    """Who exists has all lines of its bundle and its files; of who does not exist nothing is left on a node."""
    for node in now.sim:
        model = node.model
        kept = {name for name in node.files.names(f"{PLACE}/{now.fleet.id}") if not name.startswith(".")}
        there = {id for id, m in now.fleet.machines.items() if m.node == node.name and m.vmid and model.config(m.vmid)}
        if kept != there:
            yield f"{node.name} keeps files of {sorted(kept)}, and has {sorted(there)}"
        for id in there:
            text = model.config(now.fleet.machines[id].vmid) or ""
            if "\nlxc.init.cmd: /.nexcage/init\n" not in text or "#making" in text:
                yield f"'{id}' on {node.name} is not complete: {text}"


def no_template_is_left(now: Aftermath) -> Iterable[str]:
    """Nothing that a create worked from; what was sent to a create that never began goes with a later one."""
    begun = {machine.mark for machine in now.fleet.machines.values()}
    for node in now.sim:
        for name in node.files.names(CACHE):
            if name.startswith("nexcage-") and name.partition("-")[2].split("-")[-1].partition(".")[0] in begun:
                yield f"{node.name} has {name}"


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["create", "start", "delete"])
def test_a_driver_of_bundles_may_die_at_any_point(name: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    web = Life("web-1", Spec(image=(path := bundle(tmp_path)), bundle=path, node="pve-01"))
    scenario, before = {
        "create": (web.create, None),
        "start": (web.start, web.create),
        "delete": (web.delete, web.running),
    }[name]
    everything = pytestconfig.getoption("--all-crashes", default=False)

    swept = every_crash(
        scenario,
        before=before,
        invariants=[*INVARIANTS, complete_or_gone, no_template_is_left],
        contents=PackedAlready(tmp_path),
        most=None if everything else SOME,
    )

    assert any("sh -c on pve-01" in point for point in swept.points)

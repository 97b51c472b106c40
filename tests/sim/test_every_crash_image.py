"""A driver dies at every point of a create from an image that Proxmox VE makes the container of.

`--all-crashes` dies at all of them; without, at some.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from nexcage import Spec
from nexcage.testing import Aftermath, every_crash
from nexcage.testing.crashes import INVARIANTS
from tests.images.layouts import simple
from tests.sim.bundles import PackedAlready
from tests.sim.deaths import Life
from tests.sim.test_every_crash_bundle import no_template_is_left

SOME = 30


def whole(now: Aftermath) -> Iterable[str]:
    """Who exists runs the image's program."""
    for node in now.sim:
        for id, machine in now.fleet.machines.items():
            text = node.model.config(machine.vmid) if machine.node == node.name and machine.vmid else None
            if text is not None and "entrypoint: /bin/hello" not in text:
                yield f"'{id}' on {node.name} is not what its image says: {text}"


@pytest.mark.timeout(3600)
def test_a_driver_of_images_may_die_at_any_point(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    layout = simple(tmp_path / "web")
    web = Life("web-1", Spec(str(layout), backend="lxc", node="pve-01"))
    everything = pytestconfig.getoption("--all-crashes", default=False)

    swept = every_crash(
        web.create,
        invariants=[*INVARIANTS, whole, no_template_is_left],
        contents=PackedAlready(tmp_path),
        most=None if everything else SOME,
    )

    assert any("pct create on pve-01" in point for point in swept.points)

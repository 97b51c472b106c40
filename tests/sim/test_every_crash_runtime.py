"""A driver dies at every point of what it does with containers of crun and runc, and everything is right afterwards.

`--all-crashes` dies at all of them; without, each scenario dies at some.
"""

from __future__ import annotations

import json

import pytest

from nexcage import Content, Spec
from nexcage._backends.oci import Crun, Runc
from nexcage.testing import SimCluster, check_backend, every_crash, virtual_run
from tests.sim.deaths import Life

CONTENT = Content("sha256:" + "a" * 64, "sha256:" + "b" * 64)
CACHE = "/var/lib/nexcage-oci/cache"
CONFIG = {"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": {"args": ["serve"], "cwd": "/"}}
SOME = 16


def cluster(*, runner: bool = True) -> SimCluster:
    """Two nodes that have the content already, as the engine has sent it."""
    sim = SimCluster(2, runner=runner)
    for node in sim:
        node.files.write(f"{CACHE}/sha256-{'a' * 64}.tar", "")
        node.files.write(f"{CACHE}/sha256-{'b' * 64}.json", json.dumps(CONFIG))
    return sim


def life(backend: str) -> Life:
    return Life("web-1", Spec("/srv/bundle", backend=backend, node="pve-01", content=CONTENT))


crun, runc = life("crun"), life("runc")
SCENARIOS = {
    "crun-create": (crun.create, None),
    "crun-start": (crun.start, crun.create),
    "crun-stop": (crun.stop, crun.running),
    "crun-resume": (crun.resume, crun.paused),
    "crun-delete": (crun.delete, crun.running),
    "runc-create": (runc.create, None),
    "runc-start": (runc.start, runc.create),
    "runc-delete": (runc.delete, runc.running),
}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_driver_of_oci_runtimes_may_die_at_any_point(name: str, pytestconfig: pytest.Config) -> None:
    scenario, before = SCENARIOS[name]
    everything = pytestconfig.getoption("--all-crashes", default=False)

    swept = every_crash(scenario, before=before, cluster=cluster, most=None if everything else SOME)

    assert swept.cases == (3 * len(swept.points) if everything else min(SOME, 3 * len(swept.points)))
    assert any(point.startswith("sent: ") for point in swept.points)


@pytest.mark.parametrize("name", ["crun-create", "crun-delete"])
def test_the_same_where_scripts_keep_the_claims(name: str) -> None:
    scenario, before = SCENARIOS[name]

    swept = every_crash(scenario, before=before, cluster=lambda: cluster(runner=False), most=SOME)

    assert swept.cases == SOME


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("backend", [Crun(), Runc()], ids=lambda backend: backend.name)
def test_the_backends_of_oci_runtimes_keep_their_promises(backend: Crun | Runc, loop: str) -> None:
    async def main() -> None:
        with cluster() as sim:
            await check_backend(backend, sim, image="/srv/bundle", content=CONTENT)

    virtual_run(main, backend_name=loop)

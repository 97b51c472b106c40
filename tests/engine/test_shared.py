"""Two fleets that share a state directory, as two processes of one host do."""

from __future__ import annotations

import pytest

import nexcage
from nexcage import Create, Spec
from nexcage.testing import SimCluster

SPEC = Spec(image="local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst")


@pytest.fixture
def dirs(tmp_path):
    return {"state_dir": tmp_path / "state", "run_dir": tmp_path / "run"}


async def test_the_same_operation_id_in_two_processes_gives_the_same_outcome(sim: SimCluster, dirs) -> None:
    async with sim.fleet(**dirs) as one, sim.fleet(**dirs) as other:
        await other.look()
        first = await one.do(Create("web-1", SPEC, op_id="key-1"))
        second = await other.do(Create("web-1", SPEC, op_id="key-1"))

    assert (second.vmid, second.op_id) == (first.vmid, "key-1")
    assert len(sim.effects()) == 1


async def test_what_another_process_has_made_exists_and_the_journal_knows_it(sim: SimCluster, dirs) -> None:
    async with sim.fleet(**dirs) as one, sim.fleet(**dirs) as other:
        await one["web-1"].create(SPEC)
        with pytest.raises(nexcage.AlreadyExists) as caught:
            await other["web-1"].create(SPEC)

    assert str(caught.value) == "container 'web-1' already exists"

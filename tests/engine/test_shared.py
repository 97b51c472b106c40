"""Two fleets that share a state directory, as two processes of one host do."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

import nexcage
from nexcage import Create, Spec
from nexcage.testing import SimCluster

SPEC = Spec(image="local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst")


@pytest.fixture
def dirs(tmp_path: Path) -> dict[str, Path]:
    return {"state_dir": tmp_path / "state", "run_dir": tmp_path / "run"}


async def test_the_same_operation_id_in_two_processes_gives_the_same_outcome(
    sim: SimCluster, dirs: dict[str, Path]
) -> None:
    async with sim.fleet(**dirs) as one, sim.fleet(**dirs) as other:
        await other.look()
        first = await one.do(Create("web-1", SPEC, op_id="key-1"))
        second = await other.do(Create("web-1", SPEC, op_id="key-1"))

    assert (second.vmid, second.op_id) == (first.vmid, "key-1")
    assert len(sim.effects()) == 1


async def test_what_another_process_has_made_exists_and_the_journal_knows_it(
    sim: SimCluster, dirs: dict[str, Path]
) -> None:
    async with sim.fleet(**dirs) as one, sim.fleet(**dirs) as other:
        await one["web-1"].create(SPEC)
        with pytest.raises(nexcage.AlreadyExists) as caught:
            await other["web-1"].create(SPEC)

    assert str(caught.value) == "container 'web-1' already exists"


async def test_already_so_is_never_said_of_what_another_process_has_changed_since(
    sim: SimCluster, dirs: dict[str, Path]
) -> None:
    async with sim.fleet(**dirs) as one, sim.fleet(**dirs) as other:
        await other.run([Create("web-1", SPEC), nexcage.Start("web-1")])
        await one.refresh()
        await other["web-1"].stop(force=True)

        again = await one["web-1"].start()
        await other["web-1"].stop(force=True)
        stopped = await one["web-1"].stop()

    assert again.changed
    assert not stopped.changed
    assert stopped.state is nexcage.State.STOPPED


async def test_a_look_from_before_the_record_never_makes_a_new_container_absent(
    sim: SimCluster, dirs: dict[str, Path]
) -> None:
    async with sim.fleet(**dirs) as one, sim.fleet(**dirs) as other:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other.do, Create("web-1", SPEC))
            while not any(node.model.containers() for node in sim):
                await anyio.sleep(0.05)
            await one.look()  # half-made
        started = await one["web-1"].start(wait=True)
        events = list(nexcage.read_journal(one.state_dir))

    assert started.changed
    assert not any(isinstance(event, nexcage.Observed) for event in events)

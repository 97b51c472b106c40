"""Fifty nodes behind SSH servers in this process, a thousand containers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

import nexcage
from nexcage import Create, Delete, Kill, Pause, Resume, Spec, Start, Stop
from nexcage.testing import SimCluster

SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", storage="local-zfs")


@pytest.mark.timeout(900)
async def test_a_thousand_containers_on_fifty_nodes_are_each_made_and_started_once(tmp_path: Path) -> None:
    sim = SimCluster(50, seed=3)
    ids = [f"web-{n:04}" for n in range(1000)]
    few = ids[::50]
    async with (
        sim.serve(dir=tmp_path / "ssh") as served,
        nexcage.open_fleet(config=served.config(tmp_path)) as fleet,
    ):
        for intents in (
            [Create(id, SPEC) for id in ids],
            [Start(id) for id in ids],
            [Pause(id) for id in few],
            [Resume(id) for id in few],
            [Kill(id, signal="USR1") for id in few],
            [Stop(id, timeout=5.0) for id in few],
            [Delete(id) for id in few],
        ):
            report = await fleet.run(intents)
            report.raise_for_failures()
            assert {done.op for done in report.done} == {intents[0].op}

        logins = {len(node.links) for node in sim}
        states = Counter(str(container.machine.state) for container in fleet)
        numbers = [event.seq for event in nexcage.read_journal(fleet.state_dir)]

    assert logins == {1}
    assert states == {"running": 980}
    assert numbers == list(range(1, len(numbers) + 1))
    containers = Counter({node.name: len(node.model.containers()) for node in sim})
    assert sum(containers.values()) == 980
    assert max(containers.values()) <= 2 * min(containers.values())
    effects = sim.effects()
    assert max(Counter((effect["op_id"], effect["step"]) for effect in effects).values()) == 1
    tools = Counter(effect["argv"][1] for effect in effects if effect["argv"][0] == "pct" and effect["exit"] == 0)
    assert tools == {"create": 1000, "start": 1000, "shutdown": 20, "destroy": 20}

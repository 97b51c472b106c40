"""The same seed gives the same history, byte for byte; another one gives another."""

from __future__ import annotations

import anyio
import msgspec
import pytest

import nexcage
from nexcage import Create, Delete, Kill, Limits, Pause, Resume, Start, Stop
from nexcage.testing import SimCluster, virtual_run

SPEC = nexcage.Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", storage="local-zfs")


def history(seed: int, trouble: bool) -> bytes:
    """Every event of a busy afternoon, as the journal has it."""
    events: list[nexcage.Event] = []

    async def main() -> None:
        with SimCluster(3, seed=seed) as sim:
            async with sim.fleet(limits=Limits(per_node=2, probe_timeout=10, op_timeout=120)) as fleet:
                ids = [f"web-{n}" for n in range(12)]
                if trouble:
                    for node, kind in (("pve-01", "drop-after"), ("pve-02", "lock-held"), ("pve-03", "slow")):
                        sim[node].fault(kind, on="pct", times=2)
                await fleet.run(Create(id, SPEC) for id in ids)
                await fleet.run(
                    intent
                    for id in ids
                    for intent in (Start(id), Pause(id), Resume(id), Kill(id, signal="HUP"), Stop(id, timeout=10))
                )
                if trouble:
                    sim["pve-02"].crash()
                await fleet.run(Start(id) for id in ids)
                if trouble:
                    sim["pve-02"].restart()
                    await anyio.sleep(60)
                    with anyio.move_on_after(1.7):
                        await fleet["web-0"].stop(timeout=10)
                await fleet.reconcile()
                await fleet.run(Delete(id, force=True) for id in ids)
                events.extend(nexcage.read_journal(fleet.state_dir))

    virtual_run(main)
    return b"\n".join(msgspec.json.encode(event) for event in events)


@pytest.mark.parametrize("trouble", [False, True], ids=["calm", "trouble"])
def test_the_same_seed_gives_the_same_history(trouble: bool) -> None:
    first = history(5, trouble)
    assert first.count(b"\n") > 100
    assert history(5, trouble) == first
    assert history(6, trouble) != first

"""1,000 creates and 1,000 starts on 50 simulated nodes in virtual time, beside a bare loop that runs the same tools.

The bare loop is what the simulator itself costs: the same `pct` commands through the same transports, eight at once on a node,
with no journal, no looking, no engine.

    python -m benchmarks.memory [--rounds 3] [--containers 1000] [--nodes 50] [--json FILE]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable

import anyio

import nexcage
from benchmarks._rounds import Numbers, add_ratio, interleaved, options, show
from nexcage import Create, Limits, Spec, Start
from nexcage._core.seen import Mark
from nexcage.testing import SimCluster
from nexcage.testing.clock import virtual_run
from nexcage.tools import pct

SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", storage="local-zfs")
LIMITS = Limits(total=400, per_node=8, creates_per_node=4)


async def fleet(sim: SimCluster, ids: list[str]) -> int:
    async with sim.fleet(limits=LIMITS) as fleet:
        for intents in ([Create(id, SPEC) for id in ids], [Start(id) for id in ids]):
            (await fleet.run(intents)).raise_for_failures()
        return fleet.seq


async def bare(sim: SimCluster, ids: list[str]) -> int:
    commands = 0

    async def node(name: str, own: list[tuple[int, str]]) -> None:
        transport = sim.transport(name)

        async def some(part: list[tuple[int, str]], make: Callable[[int, str], nexcage.Command[None]]) -> None:
            nonlocal commands
            for vmid, id in part:
                assert (await transport.run(make(vmid, id))).exit == 0
                commands += 1

        for make, lanes in (
            (lambda vmid, id: pct.create(Mark("bench", id, vmid, "0"), SPEC.image, SPEC, id), LIMITS.creates_per_node),
            (lambda vmid, id: pct.start(vmid), LIMITS.per_node),
        ):
            async with anyio.create_task_group() as tasks:
                for lane in range(lanes):
                    tasks.start_soon(some, own[lane::lanes], make)
        await transport.aclose()

    async with anyio.create_task_group() as tasks:
        for n, name in enumerate(sim.hosts):
            tasks.start_soon(node, name, list(enumerate(ids, 1000))[n :: len(sim.hosts)])
    return commands


def measured(way: Callable[[SimCluster, list[str]], Awaitable[int]], nodes: int, containers: int) -> Numbers:
    async def main() -> Numbers:
        with SimCluster(nodes, seed=1) as sim:
            ids = [f"web-{n:05}" for n in range(containers)]
            real, cpu, virtual = time.perf_counter(), time.process_time(), anyio.current_time()
            events = await way(sim, ids)
            real, cpu, virtual = time.perf_counter() - real, time.process_time() - cpu, anyio.current_time() - virtual
        return {
            "real s": real,
            "CPU s": cpu,
            "ops/s": 2 * containers / real,
            "CPU ms/op": 1000 * cpu / (2 * containers),
            "events/s": events / real if way is fleet else 0.0,
            "virtual s": virtual,
        }

    return virtual_run(main)


def main() -> None:
    parser = options(__doc__ or "", rounds=3)
    parser.add_argument("--containers", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=50)
    given = parser.parse_args()
    results = interleaved(
        {
            "nexcage": lambda: measured(fleet, given.nodes, given.containers),
            "bare loop": lambda: measured(bare, given.nodes, given.containers),
        },
        given.rounds,
    )
    add_ratio(results, "CPU s", "bare loop")
    show(
        "memory",
        results,
        packages=("anyio", "msgspec"),
        method=f"medians of interleaved rounds after one to warm up; {given.containers} creates, then as many starts",
        json_file=given.json,
        nodes=given.nodes,
        rounds=given.rounds,
    )


if __name__ == "__main__":
    sys.exit(main())

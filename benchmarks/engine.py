"""What one start or stop costs the driver: the machine, the journal, the state file and the event, without a transport.

The nodes answer at once, from a table in memory. The bare loop runs the same commands on them, eight at once on a node, and asks
each node after every command for what came of it, as a script would: no journal, no state files, and the answers are not read.

    python -m benchmarks.engine [--rounds 5] [--nodes 16] [--each 20] [--json FILE]
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio

import nexcage
from benchmarks._rounds import Numbers, add_ratio, interleaved, options, show
from nexcage import Command, Create, Result, Spec, Start, Stop
from nexcage._core.seen import Mark
from nexcage.tools import lxc, pct

SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst")
LANES = 8  # what the fleet's default bounds allow on one node
MEMORY = Path("/dev/shm")  # state files belong on /run, which is memory too
TURNS = 2  # how often each container is started and stopped
STAT = "S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 0 0 0 0"  # of /proc/PID/stat, up to the start time


class Instant:
    """A node that does what it is told at once: it knows `pct create`, `start` and `stop`, and shows itself."""

    claims = True  # as a runner would, so that none are kept by scripts
    fencing = True
    mode = "instant"

    def __init__(self, key: str) -> None:
        self.key = key
        self.configs: dict[int, str] = {}
        self.pids: dict[int, int] = {}
        self.commands = 0

    async def run(self, command: Command[Any]) -> Result:
        self.commands += 1
        await anyio.sleep(0)
        if command.safe:
            return Result(0, self._shown())
        words = list(command.argv)
        verb = words.index("pct") + 1
        vmid = int(words[verb + 1])
        match words[verb]:
            case "create" if vmid in self.configs:
                return Result(
                    255, b"", b"unable to create CT %d - CT %d already exists on node '%s'\n" % (vmid, vmid, b"pve")
                )
            case "create":
                note = words[words.index("--description") + 1].replace("\n", "\n#")
                self.configs[vmid] = f"#{note}\narch: amd64\nhostname: x\nmemory: 512\nostype: debian\ntags: nexcage"
            case "start":
                self.pids[vmid] = self.commands
            case "stop":
                del self.pids[vmid]
            case other:
                raise NotImplementedError(other)
        return Result(0)

    def _shown(self) -> bytes:
        guests = ",".join(f'"{vmid}":{{"node":"{self.key}","type":"lxc","version":1}}' for vmid in self.configs)
        running = "".join(f"{vmid} {pid} {STAT} {pid}\n" for vmid, pid in self.pids.items())
        names = "".join(f"{vmid}.conf\n" for vmid in self.configs)
        texts = "".join(f"{vmid}.conf:{line}\n" for vmid, text in self.configs.items() for line in text.split("\n"))
        parts = {
            "boot": "b1\n",
            "uptime": "100.0 1.0\n",
            "name": f"nodes/{self.key}\n",
            "memory": "1000000 kB\n",
            "members": "{}\n",
            "vmlist": f'{{"version":1,"ids":{{{guests}}}}}\n',
            "running": running,
            "frozen": "",
            "tasks": "",
            "ops": "",
            "configs": names,
            "texts": texts,
            "vms": "",
            "vmconfigs": "",
            "vmtexts": "",
            "end": "",
        }
        return "".join(f"@nexcage {name}\n{text}" for name, text in parts.items()).encode()

    def stream(self, command: Command[Any]) -> Any:
        raise NotImplementedError

    async def aclose(self) -> None: ...


async def fleet(nodes: dict[str, Instant], each: int, folder: Path, run_dir: Path) -> Numbers:
    async with nexcage.open_fleet(
        list(nodes),
        config=nexcage.Config(),
        state_dir=folder,
        run_dir=run_dir,
        connect=lambda host: nodes[host.key],
    ) as fleet:
        ids = [f"web-{n}" for n in range(len(nodes) * each)]
        (await fleet.run(Create(id, SPEC) for id in ids)).raise_for_failures()

        async def once() -> None:
            for intents in ([Start(id) for id in ids], [Stop(id, force=True) for id in ids]):
                (await fleet.run(intents)).raise_for_failures()

        return await timed(once, nodes, len(ids))


async def bare(nodes: dict[str, Instant], each: int, *_: Path) -> Numbers:
    async def some(node: Instant, make: Callable[[Mark], Command[None]], marks: list[Mark]) -> None:
        for mark in marks:
            assert (await node.run(make(mark))).exit == 0
            assert (await node.run(lxc.look(node.key))).exit == 0

    async def all_of(make: Callable[[Mark], Command[None]]) -> None:
        async with anyio.create_task_group() as tasks:
            for node in nodes.values():
                marks = [Mark("bench", f"web-{vmid}", vmid, "0") for vmid in range(1000, 1000 + each)]
                for lane in range(LANES):
                    tasks.start_soon(some, node, make, marks[lane::LANES])

    async def once() -> None:
        await all_of(lambda mark: lxc.guarded(mark, pct.start(mark.vmid)))
        await all_of(lambda mark: lxc.guarded(mark, pct.stop(mark.vmid)))

    await all_of(lambda mark: pct.create(mark, SPEC.image, SPEC, mark.id))
    return await timed(once, nodes, len(nodes) * each)


async def timed(once: Callable[[], Awaitable[None]], nodes: dict[str, Instant], containers: int) -> Numbers:
    count = 2 * TURNS * containers
    commands = sum(node.commands for node in nodes.values())
    real, cpu = time.perf_counter(), time.process_time()
    for _ in range(TURNS):
        await once()
    real, cpu = time.perf_counter() - real, time.process_time() - cpu
    commands = sum(node.commands for node in nodes.values()) - commands
    return {"CPU ms/op": 1000 * cpu / count, "ops/s": count / real, "commands/op": commands / count}


def measured(
    way: Callable[[dict[str, Instant], int, Path, Path], Awaitable[Numbers]], nodes: int, each: int, top: Path | None
) -> Numbers:
    with (
        tempfile.TemporaryDirectory(prefix="nexcage-bench-", dir=top) as folder,
        tempfile.TemporaryDirectory(prefix="nexcage-bench-", dir=MEMORY if MEMORY.is_dir() else top) as run_dir,
    ):
        hosts = {f"pve-{n:02}": Instant(f"pve-{n:02}") for n in range(nodes)}
        return anyio.run(way, hosts, each, Path(folder), Path(run_dir))


def main() -> None:
    parser = options(__doc__ or "", rounds=5)
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--each", type=int, default=20, help="containers per node")
    parser.add_argument("--dir", type=Path, default=None, help="where the journal goes")
    given = parser.parse_args()
    results = interleaved(
        {
            "nexcage": lambda: measured(fleet, given.nodes, given.each, given.dir),
            "bare loop": lambda: measured(bare, given.nodes, given.each, given.dir),
        },
        given.rounds,
    )
    add_ratio(results, "CPU ms/op", "bare loop")
    show(
        "engine",
        results,
        packages=("anyio", "msgspec"),
        method=f"medians of interleaved rounds after one to warm up; every container {TURNS} times started and stopped",
        json_file=given.json,
        nodes=given.nodes,
        containers=given.nodes * given.each,
        rounds=given.rounds,
    )


if __name__ == "__main__":
    main()

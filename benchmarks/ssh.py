"""Creates and starts over SSH on 16 asyncssh servers in a process of their own, beside bare asyncssh loops.

Two loops: one runs the `pct` commands and believes their exit status; the other, like a careful script, looks at the node after
each of them (with the same one command that nexcage looks with). At most eight operations per
connection for all; the servers take more sessions, because the loops would be refused one now and then.

    python -m benchmarks.ssh [--rounds 3] [--nodes 16] [--each 20] [--json FILE]
"""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import anyio

import nexcage
from benchmarks._rounds import Numbers, add_ratio, interleaved, options, show
from nexcage import Create, Limits, Spec, Start
from nexcage._core.hosts import Host
from nexcage._core.seen import Mark
from nexcage.testing import SimCluster
from nexcage.tools import lxc, pct

SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", storage="local-zfs")
CHANNELS = 8
LIMITS = Limits(total=1000, per_node=CHANNELS, creates_per_node=CHANNELS)


async def serve(nodes: int, folder: Path) -> None:
    """The other process: says where the servers are, and ends with its input."""
    async with SimCluster(nodes, seed=1).serve(dir=folder, max_sessions=64) as served:
        config = served.config(folder)
        sys.stdout.write(
            json.dumps([str(config), [[h.key, h.port, h.identity_file, h.known_hosts] for h in served.hosts]]) + "\n"
        )
        sys.stdout.flush()
        await anyio.to_thread.run_sync(sys.stdin.read)


async def fleet(config: str, hosts: list[Host], ids: list[str]) -> None:
    async with nexcage.open_fleet(config=config, limits=LIMITS) as fleet:
        for intents in ([Create(id, SPEC) for id in ids], [Start(id) for id in ids]):
            (await fleet.run(intents)).raise_for_failures()


async def blind(config: str, hosts: list[Host], ids: list[str]) -> None:
    await bare(hosts, ids, looking=False)


async def careful(config: str, hosts: list[Host], ids: list[str]) -> None:
    await bare(hosts, ids, looking=True)


async def bare(hosts: list[Host], ids: list[str], *, looking: bool) -> None:
    import asyncssh

    async def node(host: Host, own: list[tuple[int, str]]) -> None:
        look = line(lxc.look(host.key).argv)
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(
                asyncssh.connect(
                    host.address,
                    host.port,
                    username=host.user,
                    client_keys=[host.identity_file],
                    known_hosts=host.known_hosts,
                    encryption_algs=["aes128-gcm@openssh.com"],
                    config=None,
                )
            )

            async def some(part: list[tuple[int, str]], make: Callable[[int, str], nexcage.Command[None]]) -> None:
                for vmid, id in part:
                    await connection.run(line(make(vmid, id).argv), check=True, encoding=None)
                    if looking:
                        await connection.run(look, check=True, encoding=None)

            for make in (
                lambda vmid, id: pct.create(Mark("bench", id, vmid, "0"), SPEC.image, SPEC, id),
                lambda vmid, id: pct.start(vmid),
            ):
                await asyncio.gather(*(some(own[lane::CHANNELS], make) for lane in range(CHANNELS)))

    await asyncio.gather(*(node(host, list(enumerate(ids, 1000))[n :: len(hosts)]) for n, host in enumerate(hosts)))


def line(argv: tuple[str, ...]) -> str:
    return shlex.join(("env", "LC_ALL=C", *argv))


def measured(way: Callable[[str, list[Host], list[str]], Awaitable[None]], nodes: int, each: int) -> Numbers:
    with tempfile.TemporaryDirectory(prefix="nexcage-bench-") as folder:
        server = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.ssh", "--serve", folder, "--nodes", str(nodes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        try:
            assert server.stdout is not None
            config, places = json.loads(server.stdout.readline())
            hosts = [Host(key, "127.0.0.1", "root", port, identity, known) for key, port, identity, known in places]
            ids = [f"web-{n:05}" for n in range(nodes * each)]
            real, cpu = time.perf_counter(), time.process_time()
            anyio.run(way, config, hosts, ids)
            real, cpu = time.perf_counter() - real, time.process_time() - cpu
        finally:
            server.communicate()
    ops = 2 * nodes * each
    return {"real s": real, "ops/s": ops / real, "client CPU ms/op": 1000 * cpu / ops}


def main() -> None:
    parser = options(__doc__ or "", rounds=3)
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--each", type=int, default=20, help="containers per node")
    parser.add_argument("--serve", type=Path, default=None, help="be the process of the servers")
    given = parser.parse_args()
    if given.serve is not None:
        anyio.run(serve, given.nodes, given.serve)
        return
    ways = {"nexcage": fleet, "bare asyncssh, pct and a look": careful, "bare asyncssh, pct alone": blind}
    results = interleaved(
        {name: lambda way=way: measured(way, given.nodes, given.each) for name, way in ways.items()}, given.rounds
    )
    add_ratio(results, "client CPU ms/op", "bare asyncssh, pct and a look")
    show(
        "ssh",
        results,
        packages=("anyio", "asyncssh", "msgspec"),
        method="medians of interleaved rounds after one to warm up; each with new servers in another process, logins included",
        json_file=given.json,
        nodes=given.nodes,
        containers=given.nodes * given.each,
        rounds=given.rounds,
    )


if __name__ == "__main__":
    sys.exit(main())

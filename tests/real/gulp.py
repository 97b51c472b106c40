"""`gulp.py HOST DIR`: reads 200 MB from a node and prints how much it was and by how many KiB this process grew."""

from __future__ import annotations

import resource
import sys

import anyio
import msgspec

from nexcage import Command, Config, open_fleet
from nexcage._core.command import nothing
from nexcage._core.hosts import Host


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def main(host: Host, folder: str) -> None:
    config = Config(ssh_config="none", state_dir=f"{folder}/state", run_dir=f"{folder}/run")
    async with open_fleet([host], config=config) as fleet:
        node = fleet.nodes[host.key]
        await node.run(Command(("true",), nothing))
        before = peak()
        result = await node.call(Command(("head", "-c", str(200 << 20), "/dev/zero"), nothing, cap=1 << 20))
    sys.stdout.write(f"{len(result.stdout) + result.dropped} {peak() - before}\n")


anyio.run(main, msgspec.json.decode(sys.argv[1], type=Host), sys.argv[2])

"""How many commands each operation costs on its node: what is looked at, and what changes something.

On a simulated cluster in virtual time, with one container, so nothing is shared: in a batch many operations share each look.

    python -m benchmarks.commands [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import nexcage
from nexcage import Command, Result
from nexcage.testing import SimCluster, virtual_run
from nexcage.testing._around import Around

IMAGE = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
TOOLS = "pct qm zfs lxc-freeze lxc-unfreeze vzdump kill pveam pvesm".split()
VERBS = ("pct", "qm", "zfs")  # the word after these says what is done


class Counted(Around):
    """A link that writes down what passes."""

    def __init__(self, inner: Any, log: list[Command[Any]]) -> None:
        super().__init__(inner)
        self._log = log

    async def run(self, command: Command[Any]) -> Result:
        self._log.append(command)
        return await self._inner.run(command)

    def stream(self, command: Command[Any]) -> AbstractAsyncContextManager[Any]:
        self._log.append(command)
        return self._inner.stream(command)


def words(command: Command[Any]) -> str:
    """The tool and its verb, for people."""
    argv = command.argv
    at = next((n for n, word in enumerate(argv) if word in TOOLS), None)
    if at is None:
        return "lxc-attach" if any("lxc-attach" in word for word in argv) else argv[0]
    return " ".join(argv[at : at + 2]) if argv[at] in VERBS else argv[at]


async def measure() -> list[dict[str, Any]]:
    log: list[Command[Any]] = []
    rows: list[dict[str, Any]] = []
    with SimCluster(nodes=2, seed=1) as cluster:

        def connect(host: Any) -> Any:
            return Counted(cluster.connect(host), log)

        spec = nexcage.Spec(IMAGE, node="pve-01", storage="local-zfs", size=4)
        async with cluster.fleet(connect=connect) as fleet:
            web = fleet["web-1"]
            await fleet.look()

            async def row(name: str, do: Callable[[], Awaitable[object]]) -> None:
                log.clear()
                await do()
                changing = [words(command) for command in log if not command.safe]
                rows.append({"operation": name, "reads": len(log) - len(changing), "changes": ", ".join(changing)})

            await row("create", lambda: web.create(spec))
            await row("start", web.start)
            await row("pause", web.pause)
            await row("resume", web.resume)
            await row("kill", lambda: web.kill("HUP"))
            await row("exec", lambda: web.exec(["true"]))
            await row("state", web.state)
            await row("stats", fleet.stats)
            await row("update", lambda: web.update(memory=1024))
            await row("snapshot", lambda: web.snapshot("before"))
            await row("resize", lambda: web.resize("rootfs", "+1G"))
            await row("stop", web.stop)
            await row("rollback to the newest", lambda: web.rollback("before"))
            await row("delsnapshot", lambda: web.delsnapshot("before"))
            await row("backup", web.backup)
            await row("migrate", lambda: web.migrate("pve-02"))
            await row("delete", web.delete)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=None)
    given = parser.parse_args()
    rows = virtual_run(measure)
    print(f"{'operation':<24}{'reads':>6}  changes")
    for row in rows:
        print(f"{row['operation']:<24}{row['reads']:>6}  {row['changes']}")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()

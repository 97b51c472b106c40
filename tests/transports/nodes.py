"""The two ways to run claimed commands on a machine, with one face: a runner, and POSIX sh where there is none."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from nexcage._core.command import Claim
from nexcage._transports.local import LocalTransport
from nexcage._transports.local_runner import LocalRunner
from nexcage.tools.claims import claimed, settle, unclaimed
from tests.transports.commands import alive

BOOT = "11111111-2222-3333-4444-555555555555"


def claim(step=1, *, op="op1", id="web-1", **options):
    return Claim(fleet="fleet", op=op, step=step, id=id, **options)


class Machine:
    """A node below ``root``; each `link` is a driver's own way to it."""

    def __init__(self, kind: str, root: Path, patience: float) -> None:
        self.kind, self.root, self._patience = kind, root, patience
        self._links: list[LocalRunner | ShNode] = []
        boot = root / "proc/sys/kernel/random/boot_id"
        boot.parent.mkdir(parents=True)
        boot.write_text(f"{BOOT}\n")

    def link(self):
        env = {"NEXCAGE_NODE_ROOT": str(self.root)}
        way = LocalRunner(env=env, patience=self._patience) if self.kind == "runner" else ShNode(env, self._patience)
        self._links.append(way)
        return way

    def ops(self, claim: Claim) -> Path:
        return self.root / "run/nexcage-ops" / claim.path

    def supervisor(self, claim: Claim) -> int:
        """The pid of the supervisor, 0 before there is one."""
        try:
            _, pid, _, _ = os.readlink(self.ops(claim) / "go").split(":")
        except (OSError, ValueError):
            return 0
        return int(pid)

    async def settled(self, claim: Claim):
        asked = settle(claim)
        (answer,) = asked.parse(await self.link().run(asked))
        return answer

    async def aclose(self) -> None:
        for way in self._links:
            await way.aclose()
        for go in (self.root / "run").glob("nexcage-ops/*/*/go"):
            word = os.readlink(go).split(":")
            if word[0] == "run" and not (go.parent / "status").exists() and alive(int(word[1])):
                os.kill(int(word[1]), signal.SIGTERM)


class ShNode:
    """A node without a runner, as the engine uses it."""

    def __init__(self, env, patience) -> None:
        self._local = LocalTransport(env=env, patience=patience)

    async def run(self, command):
        if command.claim is None:
            return await self._local.run(command)
        return unclaimed(await self._local.run(claimed(command)), "local")

    def stream(self, command):
        return self._local.stream(command)

    async def aclose(self) -> None:
        await self._local.aclose()

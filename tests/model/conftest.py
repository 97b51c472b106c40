"""A world to step through by hand: calls of pretend tools side by side on one virtual clock, without an event loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from nexcage.testing._model import find_tool
from nexcage.testing._model.node import Node
from nexcage.testing._model.tool import Ctx, Flock, Interrupted, Sleep, Steps, Unlock, Wait, tracked
from nexcage.testing._model.world import effects, make_cluster

ALPINE = "local:vztmpl/alpine-3.20-default_20240908_amd64.tar.xz"
DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"


class Call:
    """One running tool."""

    def __init__(self, world: World, ctx: Ctx, steps: Steps) -> None:
        self.world = world
        self.ctx = ctx
        self.steps = steps
        self.wait: Wait | None = None
        self.due = 0.0
        self.exit: int | None = None
        self.ended = False

    @property
    def stdout(self) -> str:
        return self.ctx.stdout.decode()

    @property
    def stderr(self) -> str:
        return self.ctx.stderr.decode()

    def resume(self, answer: object = None, thrown: BaseException | None = None) -> None:
        self.ctx.node.settle()
        try:
            self.wait = self.steps.throw(thrown) if thrown is not None else self.steps.send(answer)
        except StopIteration as end:
            self.end(end.value)
            return
        except Interrupted:
            self.end(143)
            return
        seconds = self.wait.seconds if isinstance(self.wait, Sleep) else getattr(self.wait, "timeout", 0.0)
        self.due = self.world.now + seconds

    def end(self, exit_: int | None) -> None:
        self.exit, self.ended, self.wait = exit_, True, None
        self.world.locks = {path: call for path, call in self.world.locks.items() if call is not self}

    def interrupt(self) -> None:
        """SIGTERM."""
        self.resume(thrown=Interrupted())

    def kill(self) -> None:
        """SIGKILL."""
        self.end(None)
        self.ctx.node.abandon(self.ctx)


class World:
    """Nodes in memory, their calls, and the clock."""

    def __init__(self, nodes: int = 2, *, pace: float = 1.0, seed: int = 3, **settings: Any) -> None:
        self.now = 1.8e9
        names = [f"pve-{n:02}" for n in range(1, nodes + 1)]
        self.nodes = make_cluster(names, clock=lambda: self.now, seed=seed, pace=pace, **settings)
        self.calls: list[Call] = []
        self.locks: dict[str, Call] = {}

    @property
    def node(self) -> Node:
        """The first node."""
        return self.nodes["pve-01"]

    def start(
        self, *argv: str, on: Node | None = None, env: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> Call:
        """Begin a call; it goes on when the clock is advanced."""
        ctx = Ctx(on or self.node, argv, env=env, stdin=stdin)
        tool = find_tool(ctx.node, argv[0])
        assert tool is not None, argv[0]
        call = Call(self, ctx, tracked(tool, ctx))
        self.calls.append(call)
        call.resume()
        return call

    def run(self, *argv: str, on: Node | None = None, env: Mapping[str, str] | None = None) -> Call:
        """A call from its beginning to its end."""
        return self.finish(self.start(*argv, on=on, env=env))

    def finish(self, *calls: Call) -> Call:
        """Let everything go on until these calls have ended."""
        while not all(call.ended for call in calls):
            assert self._step(1e12), "nothing moves any more"
        return calls[0]

    def advance(self, seconds: float) -> None:
        """Let this much time pass."""
        end = self.now + seconds
        while self._step(end):
            pass
        self.now = end
        for node in self.nodes.values():
            node.settle()

    def _step(self, end: float) -> bool:
        for call in self.calls:
            if isinstance(call.wait, Unlock):
                if self.locks.get(self._lock(call, call.wait.path)) is call:
                    del self.locks[self._lock(call, call.wait.path)]
                call.resume()
                return True
            if isinstance(call.wait, Flock) and self.locks.setdefault(self._lock(call, call.wait.path), call) is call:
                call.resume(True)
                return True
        waiting = [call for call in self.calls if call.wait is not None and call.due <= end]
        if not waiting:
            return False
        call = min(waiting, key=lambda call: call.due)
        self.now = max(self.now, call.due)
        call.resume(False if isinstance(call.wait, Flock) else None)
        return True

    @staticmethod
    def _lock(call: Call, path: str) -> str:
        return f"{call.ctx.node.name}:{path}"

    def effects(self) -> list[dict[str, Any]]:
        return effects(self.node.files)

    def created(self, vmid: int = 100, *options: str, on: Node | None = None) -> int:
        """A container on local-zfs."""
        call = self.run("pct", "create", str(vmid), DEBIAN, "--storage", "local-zfs", *options, on=on)
        assert call.exit == 0, call.stderr
        return vmid

    def started(self, vmid: int = 100, *options: str) -> int:
        """A running container; the pid of its init."""
        self.created(vmid, *options)
        assert self.run("pct", "start", str(vmid)).exit == 0
        pid = self.node.init_pid(vmid)
        assert pid is not None
        return pid


@pytest.fixture
def world() -> Iterator[World]:
    """Two nodes at the pace of real ones."""
    yield World()

"""The scripts that drive crun and runc, in real shells and as twins, over every way into a simulated node: one life, told the same."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from nexcage import Command, Look, Mark, NexcageError
from nexcage.tools import runtime
from nexcage.tools.runtime import Runtime, stopping, using
from tests.sim.test_ways import NODE, WAYS, Way, opened

CRUN, RUNC = Runtime("crun"), Runtime("runc")
CONFIG = {"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": {"args": ["serve"], "env": ["A=1"]}}
BUNDLE = "/srv/bundle"


# Each way once, and each program in memory and in real shells.
LIVES = [*((way, CRUN) for way in WAYS), ("memory", RUNC), ("executables", RUNC)]


@pytest.fixture
async def way(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Way]:
    async with opened(request.param, tmp_path) as made:
        with made.node.step():
            made.node.files.write(f"{BUNDLE}/config.json", json.dumps(CONFIG))
            made.node.files.write("/sys/fs/cgroup/theirs/100/cgroup.procs", "4194399\n")
        yield made


class Life:
    """Commands on one node, and what came of them in words."""

    def __init__(self, way: Way, program: Runtime) -> None:
        self.way = way
        self.program = program
        self.mark = Mark("f1", "web-1", 104, "made-1")
        self.told: list[str] = []

    async def does(self, command: Command[Any], word: str) -> Any:  # Any: whatever it answers
        result = await self.way.transport.run(command)
        assert result.exit is not None, result
        if result.exit != 0:
            error = command.classify(command, result, NODE)
            self.told.append(f"{word}: {type(error).__name__}")
            return error
        self.told.append(word)
        return command.parse(result)

    async def runs(self, *argv: str, **options: Any) -> None:  # Any: exec's own
        command = runtime.exec_(self.program, self.mark, argv, **options)
        result = await self.way.transport.run(command)
        if result.stderr.startswith(b"@nexcage inside\n"):
            self.told.append(f"exec {argv[0]}: {result.exit} {result.stdout.decode()!r}")
        else:
            self.told.append(f"exec {argv[0]}: {type(runtime.refused(self.mark, result, NODE)).__name__}")

    async def looks(self) -> Look:
        seen: Look = await self.does(runtime.look(NODE, ("made-1",)), "look")
        words = [
            f"{g.runtime} {g.vmid} {g.name} {'live' if g.running and g.pid and g.started >= 0 else 'dead'}"
            f"{' waiting' if g.waiting else ''}{' frozen' if g.frozen else ''}{' ours' if g.mark == self.mark else ''}{g.half}"
            for g in seen.guests.values()
        ]
        self.told[-1] += f": {', '.join(words) or 'nothing'}"
        return seen

    async def ends(self) -> None:
        with anyio.fail_after(30):
            while any(g.running for g in (await self.looks()).guests.values()):
                self.told.pop()
                await anyio.sleep(0.05)


def told(name: str) -> list[str]:
    """The life of one container, as every way tells it."""
    return [
        "look: nothing",
        "start: NotOurs",
        "create nowhere: InvalidPath",
        "create in a cgroup of others: Blocked",
        "look: nothing",
        "create",
        f"look: {name} 104 web-1 live waiting ours",
        "create again: AlreadyExists",
        "create with its number: AlreadyExists",
        "start",
        f"look: {name} 104 web-1 live ours",
        "start again: IllegalTransition",
        "exec echo: 0 'hi\\n'",
        "exec nosuch: 127 ''",
        "exec cat: 0 'given'",
        "exec env: 0 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\\nA=1\\nB=x y\\n'",
        "ps: 1",
        "processes: 1",
        "usage: 104",
        "delete: IllegalTransition",
        "pause",
        f"look: {name} 104 web-1 live frozen ours",
        "exec true: IllegalTransition",
        "resume",
        "update",
        "kill",
        f"look: {name} 104 web-1 dead ours",
        "start an ended one: IllegalTransition",
        "exec true: IllegalTransition",
        "logs",
        "delete",
        "look: nothing",
        "delete again: NotOurs",
        "create",
        "start",
        "stop",
        f"look: {name} 104 web-1 dead ours",
        "delete by force",
        "look: nothing",
    ]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("way", "program"), LIVES, indirect=["way"], ids=lambda value: value if isinstance(value, str) else value.name
)
async def test_one_life_is_told_the_same_over_every_way(way: Way, program: Runtime) -> None:
    life = Life(way, program)
    mark = life.mark

    await life.looks()
    await life.does(runtime.start(program, mark), "start")
    await life.does(runtime.create(program, mark, "/srv/nowhere"), "create nowhere")
    theirs = Mark("f1", "theirs", 105, "x")
    await life.does(runtime.create(program, theirs, BUNDLE), "create in a cgroup of others")
    await life.looks()
    pid = await life.does(runtime.create(program, mark, BUNDLE), "create")
    seen = await life.looks()
    assert seen.guests[104].pid == pid
    await life.does(runtime.create(program, mark, BUNDLE), "create again")
    await life.does(runtime.create(program, Mark("f1", "db-1", 104, "x"), BUNDLE), "create with its number")
    await life.does(runtime.start(program, mark), "start")
    await life.looks()
    await life.does(runtime.start(program, mark), "start again")
    await life.runs("echo", "hi")
    await life.runs("nosuch")
    await cat(life)
    await life.runs("env", env={"B": "x y"})
    life.told.append(f"ps: {len(await life.does(runtime.ps(program, mark), ''))}")
    del life.told[-2]
    life.told.append(f"processes: {len(await life.does(using.processes(program, mark), ''))}")
    del life.told[-2]
    life.told.append(f"usage: {', '.join(map(str, await life.does(using.usage(), '')))}")
    del life.told[-2]
    await life.does(runtime.delete(program, mark), "delete")
    await life.does(runtime.pause(program, mark), "pause")
    await life.looks()
    await life.runs("true")
    await life.does(runtime.resume(program, mark), "resume")
    await life.does(runtime.update(program, mark, memory=1 << 28, pids=50), "update")
    await life.does(runtime.kill(program, mark, 15), "kill")
    await life.ends()
    await life.does(runtime.start(program, mark), "start an ended one")
    await life.runs("true")
    await life.does(runtime.logs(program, mark, 10), "logs")
    await life.does(runtime.delete(program, mark), "delete")
    await life.looks()
    await life.does(runtime.delete(program, mark), "delete again")
    await life.does(runtime.create(program, mark, BUNDLE), "create")
    await life.does(runtime.start(program, mark), "start")
    await life.does(stopping.stop(program, mark, 20.0), "stop")
    await life.looks()
    await life.does(runtime.delete(program, mark, force=True), "delete by force")
    await life.looks()

    assert life.told == told(program.name)
    assert way.node.files.names("/var/lib/nexcage-oci/f1") == []
    assert way.node.files.names("/var/lib/nexcage-oci/.numbers") == []


async def cat(life: Life) -> None:
    command = runtime.exec_(life.program, life.mark, ["cat"])
    async with life.way.transport.stream(command) as stream:
        await stream.send(b"given")
        await stream.send_eof()
        out = b"".join([data async for kind, data in stream if kind == "stdout"])
        result = await stream.wait()
    life.told.append(f"exec cat: {result.exit} {out.decode()!r}")


@pytest.mark.anyio
@pytest.mark.parametrize("way", ["memory", "executables"], indirect=True)
async def test_events_and_features_are_known_where_the_program_is_new_enough(way: Way) -> None:
    mark = Mark("f1", "web-1", 104, "made-1")
    life = Life(way, RUNC)
    await life.does(runtime.create(RUNC, mark, BUNDLE), "create")

    usage = await life.does(runtime.events(RUNC, mark), "events")
    known = await life.does(runtime.features(RUNC, mark), "features")

    assert (usage.id, usage.memory_limit, usage.pids) == ("web-1", 0, 1)
    assert known.hooks[0] == "prestart"
    old = Life(way, CRUN)
    old.mark = mark
    assert isinstance(await old.does(runtime.events(CRUN, mark), "events"), NexcageError)
    assert old.told == ["events: NodeNotUsable"]

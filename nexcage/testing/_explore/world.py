"""One run of a plan: the cluster, the programs, what happens to them, and the calm at the end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.abc
import anyio.lowlevel

from nexcage._core.config import LeaseConfig
from nexcage._core.machine import Event
from nexcage._sinks.disk import Disk
from nexcage._sinks.segments import read_journal
from nexcage.testing import faults
from nexcage.testing._explore import harm
from nexcage.testing._explore.calm import calm
from nexcage.testing._explore.lives import SPEC
from nexcage.testing._explore.plan import Act, Plan
from nexcage.testing._explore.ports import Plug, Quick, Sent
from nexcage.testing._explore.power import Powered
from nexcage.testing._explore.program import Heard, Program, Told
from nexcage.testing._explore.trouble import Trouble
from nexcage.testing._explore.truth import Guest, Timeline, guests
from nexcage.testing.cluster import SimCluster, SimNode

__all__ = ["World"]

FOREIGN = (10_003, 10_011)
_ATTEMPTED = re.compile(rb'"event":"attempted".*?"op_id":"([^"]*)","step":(\d+)')
_RUN = re.compile(rb'"event":"began".*?"op":"exec","op_id":"([^"]*)"')


class World:
    """Everything of one run. After `run` it holds what is to be judged."""

    def __init__(self, plan: Plan) -> None:
        self.plan: Plan = plan
        self.sim: SimCluster = SimCluster(plan.nodes, seed=plan.seed, pace=0.0)
        self.timeline: Timeline = Timeline(self.sim)
        self.counts: Counter[str] = Counter()
        self.notes: list[tuple[float, str]] = []
        self.wrong: list[str] = []
        """What broke while it ran; `nexcage.testing._explore.promises` adds what is seen afterwards."""
        self.told: list[Told] = []
        self.heard: list[Heard] = []
        self.sent: list[Sent] = []
        self.journals: list[list[Event]] = []
        """The journal of each host."""
        self.events: list[Event] = []
        """Those of all of them."""
        self.foreign: dict[int, tuple[Guest, str]] = {}
        self.by_hand: set[int] = set()
        """VMIDs that somebody else changed: what is so of them is not only our doing."""
        self.taken: list[tuple[int, float, int]] = []
        """VMIDs that somebody else took from us: when, and where in the log of effects."""
        self.home: Path = Path(tempfile.mkdtemp(prefix="nexcage-explore-", dir=_memory()))
        for host in range(plan.hosts):  # made at random by whoever comes first, if it is not there; messages name it
            self.state(host).mkdir(mode=0o700, parents=True)
            (self.state(host) / "holder").write_text(f"{host:016x}\n")
        fails = any(isinstance(step, Trouble) and step.kind == "power-loss" for step in plan.steps)
        self.disks: list[Disk] = [
            Powered(self.home / f"host{host}", plan.seed) if fails else Quick() for host in range(plan.hosts)
        ]
        self.lease: LeaseConfig = LeaseConfig()
        if plan.lease == "file":
            self.lease = LeaseConfig(kind="file", path=str(self.home / "lease"), ttl=20.0)
        elif plan.lease == "cluster":
            self.lease = LeaseConfig(kind="cluster", ttl=60.0)
        self.programs: list[Program] = []
        self._journaled: dict[Path, int] = {}
        self._steps: set[tuple[str, int]] = set()
        self.away: dict[int, float] = {}
        """How long the program of that number stays away when it ends."""
        self.over: bool = False
        """Whether programs that end stay ended."""

    def state(self, host: int) -> Path:
        """The state directory of a host; programs of one host share it."""
        return self.home / f"host{host}" / "state"

    def plug(self, host: int) -> Plug:
        """A new program's hand on the disk of its host."""
        return Plug(self.disks[host])

    def close(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)
        self.sim.close()

    # ---- what the programs tell --------------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        self.notes.append((anyio.current_time(), text))

    def broken(self, text: str) -> None:
        self.note(f"WRONG {text}")
        self.wrong.append(text)

    def count(self, word: str) -> None:
        self.counts[word] += 1

    def sending(self, program: Program) -> Callable[[Sent], None]:
        """What a link calls before a command passes: a step that is not in the journal must not."""

        def check(sent: Sent) -> None:
            if sent.op_id and (sent.op_id, sent.step) not in self._steps:
                self._read_steps()
                if (sent.op_id, sent.step) not in self._steps and not program.plug.dead:
                    self.broken(f"{sent.program} sends step {sent.step} of {sent.op_id}, which is not in the journal")

        return check

    def _read_steps(self) -> None:
        for path in sorted(self.home.glob("host*/state/journal/*.jsonl")):
            with open(path, "rb") as file:
                file.seek(self._journaled.get(path, 0))
                data = file.read()
            whole = data.rfind(b"\n") + 1
            self._journaled[path] = self._journaled.get(path, 0) + whole
            self._steps.update((m[1].decode(), int(m[2])) for m in _ATTEMPTED.finditer(data[:whole]))
            self._steps.update((m[1].decode(), 1) for m in _RUN.finditer(data[:whole]))

    def read_again(self) -> None:
        """The journals are not what they were."""
        self._journaled.clear()

    def look_at_state_files(self, run: Path) -> None:
        """Each one parses, or is absent (promise 4)."""
        with contextlib.suppress(FileNotFoundError):
            for id in os.listdir(run):
                path = run / id / "state.json"
                try:
                    document = json.loads(path.read_bytes())
                    if document["status"] not in ("creating", "created", "running", "paused", "stopped"):
                        self.broken(f"promise 4: {id}/state.json says {document['status']}")
                except (FileNotFoundError, NotADirectoryError):
                    continue
                except (ValueError, KeyError) as error:
                    self.broken(f"promise 4: {id}/state.json: {error}")

    # ---- the run -----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Trouble first, then calm; what broke is in `wrong`."""
        self.programs = [Program(self, n) for n in range(self.plan.programs)]
        self._watch_nodes()
        await self._foreigners()
        self.sim.pace = 1.0
        async with anyio.create_task_group() as tasks:
            try:
                await self._trouble(tasks)
                await calm(self, tasks)
            except Exception:  # noqa: BLE001 (a mistake of the exploration itself is a finding too)
                self.broken(f"the run broke:\n{traceback.format_exc()}")
            tasks.cancel_scope.cancel()
        self.timeline.close()
        self.journals = [list(read_journal(self.state(host))) for host in range(self.plan.hosts)]
        self.events = [event for journal in self.journals for event in journal]

    def _watch_nodes(self) -> None:
        for node in self.sim:
            boots = faults.state_of(node.model).get("boots", 0)

            def watch(node: SimNode = node, seen: list[int] = [boots]) -> None:  # noqa: B006 (one list per node, on purpose)
                now = int(faults.state_of(node.model).get("boots", 0))
                if now != seen[0]:
                    seen[0] = now
                    self.timeline.down(node.name)

            node.watchers.append(watch)

    async def _foreigners(self) -> None:
        """Containers of somebody else, in the middle of the numbers that the fleet may use."""
        nodes = list(self.sim)
        others = [(n, vmid, f"other{n}", n) for n, vmid in enumerate(FOREIGN[: self.plan.foreign])]
        strays = [(n, vmid, f"stray{n}", n + 1) for n, vmid in enumerate(self.plan.strays)]
        for n, vmid, name, place in others + strays:
            node = nodes[place % len(nodes)]
            await node.run(("pct", "create", str(vmid), SPEC.image, "--storage", "local-zfs", "--hostname", name))
            if n % 2:
                await node.run(("pct", "start", str(vmid)))
        for vmid, guest in guests(self.sim).items():
            self.foreign[vmid] = guest, self.sim[guest.node].model.config(vmid) or ""

    async def _trouble(self, tasks: anyio.abc.TaskGroup) -> None:
        for program in self.programs:
            tasks.start_soon(self._keep_up, program)
        await anyio.sleep(0.001)
        for step in self.plan.steps:
            await anyio.sleep_until(step.at)
            if isinstance(step, Act):
                self._ask(step)
            else:
                self.note(str(step))
                self.count(step.kind)
                tasks.start_soon(harm.make, self, step)
        await anyio.sleep_until(self.plan.span + 5)

    def _ask(self, act: Act) -> None:
        program = self.programs[act.program % len(self.programs)]
        heard = program.ask(act)
        self.note(f"{act}{'' if heard else ' (nobody is there)'}")
        if heard:
            self.counts.update(f"op {intent.op}" for intent in act.intents if act.kind in ("do", "run", "stream"))

    async def _keep_up(self, program: Program) -> None:
        """Start it, and start it again when it ended."""
        while not self.over:
            await anyio.lowlevel.checkpoint()
            await program.live()
            program.jump = program.jump if program.plug.dead else 0.0
            await anyio.sleep(self.away.pop(program.number, 3.0))


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None

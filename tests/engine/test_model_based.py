"""A fleet beside a reference model that knows no nodes, no journal and no time: whatever is asked in whatever order, they agree.

The reference is a table of five states. Faults, cancels, reboots and strangers may leave the fleet unsure (UNKNOWN) or behind
(it has not looked yet); they never make it say what is not so, and a look always brings it back to what is.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import nexcage
from nexcage import Create, Delete, Done, Intent, Kill, NexcageError, Pause, Resume, Spec, Start, State, Stop
from nexcage.testing import SimCluster, VirtualLoop, faults

SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", storage="local-zfs")
IDS = ("web-1", "web-2", "web-10")
_MARK = re.compile(r"^#nexcage fleet=\S+ id=(\S+) vmid=([0-9]+) op=\S+$", re.MULTILINE)

# The reference: verb -> state -> the state that it leads to. The same state again: already so. Not there: refused.
MODEL: dict[str, dict[str, str]] = {
    "create": {"absent": "down"},
    "start": {"down": "running", "running": "running"},
    "stop": {"down": "down", "running": "down", "paused": "down"},
    "force-stop": {"down": "down", "running": "down", "paused": "down"},
    "pause": {"running": "paused", "paused": "paused"},
    "resume": {"running": "running", "paused": "running"},
    "delete": {"down": "absent"},
    "force-delete": {"absent": "absent", "down": "absent", "running": "absent", "paused": "absent"},
    "signal": {"running": "running", "paused": "paused"},
}
TOOLS = {
    "create": "pct create", "start": "pct start", "stop": "pct shutdown", "force-stop": "pct stop", "pause": "lxc-freeze",
    "resume": "lxc-unfreeze", "delete": "pct destroy", "force-delete": "pct destroy", "signal": "kill",
}  # fmt: skip
TROUBLES = (
    "drop-before",
    "drop-during",
    "drop-after",
    "slow",
    "wrong-exit",
    "lock-held",
    "garbage",
    "non-utf8",
    "stall",
)
BY_HAND = ("start", "stop", "destroy")

ids = st.sampled_from(IDS)
picks = st.integers(0, 99)


def verb_of(pick: int, state: str) -> str:
    """Mostly one that does something in this state: most verbs are refused in most states."""
    fitting = [
        verb for verb in MODEL if MODEL[verb].get(state, state) != state or (verb == "signal" and state in MODEL[verb])
    ]
    chosen = fitting if pick < 75 else list(MODEL)
    return chosen[pick % len(chosen)]


def intent_of(verb: str, id: str) -> Intent:
    match verb:
        case "create":
            return Create(id, SPEC)
        case "start":
            return Start(id)
        case "stop":
            return Stop(id, timeout=20.0)
        case "force-stop":
            return Stop(id, force=True)
        case "pause":
            return Pause(id)
        case "resume":
            return Resume(id)
        case "signal":
            return Kill(id, "USR2")
        case _:
            return Delete(id, force=verb == "force-delete")


def refusal(verb: str, state: str) -> type[NexcageError]:
    if verb == "create":
        return nexcage.AlreadyExists
    return nexcage.NotFound if state == "absent" else nexcage.IllegalTransition


def coarse(state: State) -> str:
    """CREATED and STOPPED look the same from outside."""
    return "down" if state in (State.CREATED, State.STOPPED) else str(state)


class Containers(RuleBasedStateMachine):
    """``behind``: ids whose record may be old, because the world changed and nobody has looked."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualLoop)
        self.sim: SimCluster
        self.fleet: nexcage.Fleet
        self.behind: set[str] = set()
        self.ever_ran: dict[str, bool | None] = {}  # None: cannot be told
        self.close: asyncio.Event
        self.holder: asyncio.Task[None]

    # ---- the fleet, in a task of its own so that it lives across steps ----

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    async def _open(self) -> None:
        opened: asyncio.Future[nexcage.Fleet] = asyncio.get_running_loop().create_future()
        self.close = asyncio.Event()

        async def hold(close: asyncio.Event) -> None:
            async with self.sim.fleet() as fleet:
                opened.set_result(fleet)
                await close.wait()

        self.holder = asyncio.get_running_loop().create_task(hold(self.close))
        done, _ = await asyncio.wait([opened, self.holder], return_when=asyncio.FIRST_COMPLETED)
        if self.holder in done:
            await self.holder
        self.fleet = opened.result()

    async def _close(self) -> None:
        self.close.set()
        await self.holder

    @initialize(seed=st.integers(0, 99))
    def opens(self, seed: int) -> None:
        self.sim = SimCluster(2, seed=seed)
        self.do(self._open())

    def teardown(self) -> None:
        if hasattr(self, "holder"):
            try:
                self.the_journal_tells_the_same()
            finally:
                self.do(self._close())
        self.runner.close()

    # ---- what is so, read from the nodes' files ----

    def where(self, id: str) -> tuple[Any, int] | None:
        found = [
            (node, vmid)
            for node in self.sim
            for vmid in node.model.containers()
            for mark in _MARK.findall(node.model.config(vmid) or "")
            if mark == (id, str(vmid))
        ]
        assert len(found) <= 1, f"{id} exists {len(found)} times"
        return found[0] if found else None

    def truth(self, id: str) -> str:
        place = self.where(id)
        if place is None:
            return "absent"
        node, vmid = place
        if not node.model.is_running(vmid):
            return "down"
        return "paused" if node.model.is_frozen(vmid) else "running"

    def recorded(self, id: str) -> State:
        return self.fleet[id].machine.state

    def world(self) -> dict[str, str]:
        return {id: self.truth(id) for id in IDS}

    # ---- steps ----

    async def _outcome(self, intent: Intent, patience: float | None = None) -> Done | NexcageError | None:
        with anyio.move_on_after(patience):
            try:
                return await self.fleet.do(intent)
            except NexcageError as error:
                return error
        return None

    async def _quiet(self) -> None:
        """Long enough for everything that goes on by itself, also on nodes where no command runs meanwhile."""
        await anyio.sleep(120)
        for node in self.sim:
            node.settle()

    @rule(id=ids, pick=picks)
    def asks(self, id: str, pick: int) -> None:
        verb = verb_of(pick, self.truth(id))
        before, known, world = self.truth(id), self.recorded(id), self.world()
        # A plain refusal goes by the record; whatever would act looks first.
        sure = known is State.UNKNOWN or coarse(known) in MODEL[verb]
        if not sure:
            before = coarse(known)
        got = self.do(self._outcome(intent_of(verb, id)))

        goal = MODEL[verb].get(before)
        if goal is None:
            assert isinstance(got, refusal(verb, before)), (id, verb, before, got)
            assert self.world() == world
            if sure:
                self.behind.discard(id)
            return
        assert isinstance(got, Done), (id, verb, before, got)
        assert coarse(got.state) == goal
        assert self.world() == {**world, id: goal}
        assert got.changed is (goal != before or verb == "signal")
        if sure and (known is not State.ABSENT or verb == "create"):
            self.behind.discard(id)
        self._note_run(id, goal, verb)

    @rule(id=ids, pick=picks, trouble=st.sampled_from(TROUBLES))
    def asks_in_trouble(self, id: str, pick: int, trouble: str) -> None:
        verb = verb_of(pick, self.truth(id))
        before, world = self.truth(id), self.world()
        options = {"seconds": 30} if trouble in ("stall", "slow") else {}
        for node in self.sim:
            node.fault(trouble, on=TOOLS[verb], **options)
        got = self.do(self._outcome(intent_of(verb, id)))
        for node in self.sim:
            with node.step():
                faults.update(node.model, faults=[])
        self.do(self._quiet())
        self._after(id, verb, before, world, got)

    @rule(id=ids, pick=picks, patience=st.floats(0.0, 6.0))
    def asks_and_gives_up(self, id: str, pick: int, patience: float) -> None:
        verb = verb_of(pick, self.truth(id))
        before, world = self.truth(id), self.world()
        got = self.do(self._outcome(intent_of(verb, id), patience))
        self.do(self._quiet())  # a tool that was asked to end may take its time
        self._after(id, verb, before, world, got)

    def _after(self, id: str, verb: str, before: str, world: dict[str, str], got: Done | NexcageError | None) -> None:
        """What may be so when nobody can foretell the outcome."""
        goal = MODEL[verb].get(before, before)
        now = self.truth(id)
        halfway = {"down"} if "delete" in verb or verb == "stop" else set()
        if verb == "stop" and before == "paused":
            halfway |= {"running"}  # a frozen one goes on before it is asked to stop
        assert now in {before, goal} | halfway, (id, verb, before, now, got)
        assert self.world() == {**world, id: now}
        if isinstance(got, Done):
            assert now == goal == coarse(got.state) or id in self.behind, (id, verb, before, now, got)
        elif got is not None and not got.uncertain and not isinstance(got, nexcage.Blocked):
            assert now == before or halfway, (id, verb, before, now, got)
        if self.recorded(id) is not State.UNKNOWN and coarse(self.recorded(id)) != now:
            # Only what was behind before may be behind now; or a refusal that did not look.
            assert id in self.behind, (id, verb, before, now, got, self.recorded(id))
        self.ever_ran[id] = None
        self._mend()

    def _mend(self) -> None:
        """What a person does about halves that a dead tool left: unlock and destroy them by hand."""
        for node in self.sim:
            for vmid in node.model.containers():
                if re.search(r"^lock: (create|destroyed)$", node.model.config(vmid) or "", re.MULTILINE):
                    self.do(node.run(["pct", "unlock", str(vmid)]))
                    self.do(node.run(["pct", "destroy", str(vmid), "--force", "1"]))

    @rule(id=ids, verb=st.sampled_from(BY_HAND))
    def somebody_else(self, id: str, verb: str) -> None:
        place = self.where(id)
        if place is None:
            return
        node, vmid = place
        self.do(node.run(["pct", verb, str(vmid)]))
        self.do(anyio.sleep(3))  # older than the newest look
        self.behind.add(id)
        self.ever_ran[id] = None

    @rule(node=st.integers(0, 1))
    def a_node_reboots(self, node: int) -> None:
        host = list(self.sim)[node]
        host.restart()
        self.do(anyio.sleep(3))
        for id in IDS:
            if (place := self.where(id)) is not None and place[0] is host:
                self.behind.add(id)

    @rule(id=ids)
    def looks(self, id: str) -> None:
        try:
            self.do(self.fleet[id].reconcile())
        except nexcage.Blocked:
            raise AssertionError(f"{id}: everything half-made was mended") from None
        self.behind.discard(id)
        assert coarse(self.recorded(id)) == self.truth(id)

    @rule(id=ids, pick=picks)
    def asks_twice_with_one_key(self, id: str, pick: int) -> None:
        verb = verb_of(pick, self.truth(id))
        intent = msgspec.structs.replace(intent_of(verb, id), op_id=f"key-{len(self.sim.effects())}-{self.fleet.seq}")

        async def both() -> list[Done | NexcageError | None]:
            found: list[Done | NexcageError | None] = []

            async def one() -> None:
                found.append(await self._outcome(intent))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one)
                tasks.start_soon(one)
            return found

        before = self.world()
        first, second = self.do(both())
        assert type(first) is type(second)
        if isinstance(first, Done) and isinstance(second, Done):
            assert (first.state, first.vmid) == (second.state, second.vmid)
        ours = [effect for effect in self.sim.effects() if effect["op_id"] == intent.op_id]
        assert max(Counter(effect["step"] for effect in ours).values(), default=0) <= 1
        assert {**self.world(), id: ""} == {**before, id: ""}
        self.ever_ran[id] = None
        if isinstance(first, Done) and coarse(self.recorded(id)) == self.truth(id):
            self.behind.discard(id)

    @rule()
    def the_driver_is_replaced(self) -> None:
        before = dict(self.fleet.machines)
        self.do(self._close())
        self.do(self._open())
        assert set(self.fleet.machines) == set(before)
        for id, machine in before.items():
            now = self.fleet.machines[id]
            assert now == machine or machine.unresolved or id in self.behind, (machine, now)

    def _note_run(self, id: str, goal: str, verb: str) -> None:
        if goal == "absent" or verb == "create":
            self.ever_ran[id] = False
        elif goal in ("running", "paused"):
            self.ever_ran[id] = True if self.ever_ran.get(id) is not None else None

    # ---- always ----

    @invariant()
    def the_record_is_what_is(self) -> None:
        if not hasattr(self, "fleet"):
            return
        for id in IDS:
            machine = self.fleet[id].machine
            assert machine.running is None
            if id in self.behind or machine.state is State.UNKNOWN:
                continue
            truth = self.truth(id)
            assert coarse(machine.state) == truth, (machine, truth)
            if truth == "down" and self.ever_ran.get(id) is not None:
                assert (machine.state is State.STOPPED) is self.ever_ran[id]
            if (place := self.where(id)) is not None:
                node, vmid = place
                assert (machine.node, machine.vmid) == (node.name, vmid)
                assert machine.pid == (node.model.init_pid(vmid) or 0)

    @invariant()
    def state_files_are_whole_and_current(self) -> None:
        if not hasattr(self, "fleet"):
            return
        for id in IDS:
            file = self.fleet.run_dir / id / "state.json"
            machine = self.fleet[id].machine
            assert file.exists() is (machine.state is not State.ABSENT)
            if file.exists():
                assert json.loads(file.read_text())["annotations"]["org.nexcage.state"] == str(machine.state)

    def the_journal_tells_the_same(self) -> None:
        events = list(nexcage.read_journal(self.fleet.state_dir, strict=True))
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert nexcage.fold(events) == dict(self.fleet.machines)
        effects = Counter((effect["op_id"], effect["step"]) for effect in self.sim.effects() if effect["op_id"])
        assert max(effects.values(), default=0) <= 1


TestModel = pytest.mark.timeout(1800)(Containers.TestCase)
TestModel.settings = settings(
    max_examples=int(os.environ.get("MODEL_EXAMPLES", "500")),
    stateful_step_count=50,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)

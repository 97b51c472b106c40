"""A driver as a program of its own: opened, asked, stopped for a while, killed, started again."""

from __future__ import annotations

import asyncio
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import msgspec
from anyio.streams.memory import MemoryObjectSendStream

from nexcage._core.config import Config, Limits
from nexcage._core.intents import Create, Exec, Inside, Intent
from nexcage._core.machine import Event
from nexcage._core.outcome import Done, Failure, Outcome
from nexcage.errors import Lagged, NexcageError
from nexcage.testing._explore.plan import Act
from nexcage.testing._explore.ports import Plug, Wire
from nexcage.testing._explore.truth import log_size
from nexcage.testing.clock import PROGRAM, VirtualLoop

if TYPE_CHECKING:
    from nexcage import Fleet
    from nexcage._core.hosts import Host
    from nexcage.testing._explore.world import World

__all__ = ["FLEET", "VMIDS", "Heard", "Program", "Told"]

LIMITS = Limits(
    per_node=4,
    creates_per_node=2,
    op_timeout=120.0,
    connect_timeout=5.0,
    settle_timeout=10.0,
    probe_timeout=20.0,
    retries=2,
    breaker_seconds=5.0,
)
FLEET = "explored"
VMIDS = (10_000, 10_019)


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """How one intent ended, as its caller was told, and when. ``since`` and ``until``: the same in the cluster's own order."""

    program: str
    intent: Intent | Inside
    op_id: str
    ok: bool
    changed: bool = False
    uncertain: bool = False
    error: str = ""
    text: str = ""
    state: str = ""
    vmid: int = 0
    asked: float
    told: float
    since: int
    until: int

    def __str__(self) -> str:
        end = f"{self.state}{'' if self.changed else ' already'}" if self.ok else f"{self.error}: {self.text}"
        return f"{self.program}: {self.intent.op} {self.intent.id} ({self.op_id}) → {end}"


class Heard(msgspec.Struct, kw_only=True):
    """What one subscriber or sink was given. ``since``: the number after which it listened; ``whole``: it heard the end."""

    program: str
    host: int
    what: str
    since: int
    events: list[Event] = []
    whole: bool = False


class _Sink:
    """A sink that is slow, or that raises after some events."""

    def __init__(self, heard: Heard, pace: float) -> None:
        self._heard = heard
        self._pace = pace

    async def put(self, event: Event) -> None:
        if self._pace < 0 and len(self._heard.events) >= 5:
            raise RuntimeError("this sink is broken on purpose")
        if self._pace > 0:
            await anyio.sleep(self._pace)
        self._heard.events.append(event)

    async def aclose(self) -> None:
        self._heard.whole = True


class Program:
    """One driver of the fleet. ``number`` may live several times, each time as another process."""

    def __init__(self, world: World, number: int, host: int | None = None) -> None:
        self.number: int = number
        self.host: int = number % world.plan.hosts if host is None else host
        self.home: Path = world.home / f"host{self.host}"
        self.jump: float = 0.0
        """How wrong its wall clock is."""
        self.plug: Plug = world.plug(self.host)
        self.fleet: Fleet | None = None
        self.lives: int = 0
        self.gone: anyio.Event = anyio.Event()
        self._world = world
        self._scope = anyio.CancelScope()
        self._send: MemoryObjectSendStream[Act] | None = None
        self._wires: list[Wire] = []
        self.gone.set()

    @property
    def name(self) -> str:
        return f"p{self.number}.{self.lives}"

    @property
    def up(self) -> bool:
        return self.fleet is not None and not self.plug.dead

    # ---- its life ----------------------------------------------------------------------------------------------------------

    async def live(self) -> None:
        """Open the fleet and do what is asked, until it is told to leave or killed."""
        self.lives += 1
        PROGRAM.set(self.name)
        plug = self.plug = self._world.plug(self.host)
        self.gone, self._wires = anyio.Event(), []
        try:
            with anyio.CancelScope() as self._scope:
                await self._open(plug)
        except NexcageError as error:
            self._world.note(f"{self.name} could not go on: {type(error).__name__}: {error}")
        except Exception:  # noqa: BLE001 (this is what we are here to find)
            if not plug.dead:
                self._world.broken(f"{self.name} broke:\n{traceback.format_exc()}")
        finally:
            self.fleet = self._send = None
            self.gone.set()

    async def _open(self, plug: Plug) -> None:
        world = self._world
        send, receive = anyio.create_memory_object_stream[Act](1000)
        sink = Heard(program=self.name, host=self.host, what="sink", since=-1)
        world.heard.append(sink)
        pace = (0.0, 2.0, -1.0)[(world.plan.seed + self.lives) % 3]
        async with (
            receive,
            send,
            world.sim.fleet(
                config=Config(fleet=FLEET, vmids=VMIDS, lease=world.lease),
                limits=msgspec.structs.replace(LIMITS, subscriber_queue=world.plan.queue),
                state_dir=self.home / "state",
                run_dir=self.home / "run",
                connect=self._connect,
                clock=self._clock,
                disk=plug,
                sinks=[_Sink(sink, pace)],
            ) as fleet,
        ):
            if plug.dead:
                return
            self.fleet, self._send = fleet, send
            world.note(f"{self.name} is up")
            async with anyio.create_task_group() as tasks:
                async for act in receive:
                    tasks.start_soon(self._perform, act, fleet, plug)
                tasks.cancel_scope.cancel()

    def _connect(self, host: Host) -> Wire:
        inner = self._world.sim.connect(host)
        wire = Wire(inner, self.name, host.key, self._world.sent, self._world.sending(self))
        self._wires.append(wire)
        return wire

    def _clock(self) -> float:
        return self._world.sim.clock() + self.jump

    async def leave(self) -> None:
        """End in good order: what runs is cancelled and written down."""
        if self._send is not None:
            self._send.close()
            self._send = None
        await self.gone.wait()

    async def kill(self) -> None:
        """SIGKILL: from this moment nothing of it has an effect."""
        self.plug.die()
        self.go_on()
        for wire in self._wires:
            await wire.aclose()
        self._scope.cancel()
        await self.gone.wait()

    def hold(self) -> None:
        """SIGSTOP."""
        self._loop.stop_program(self.name)

    def go_on(self) -> None:
        """SIGCONT."""
        self._loop.continue_program(self.name)

    @property
    def _loop(self) -> VirtualLoop:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        return loop

    # ---- what its user does ------------------------------------------------------------------------------------------------

    def ask(self, act: Act) -> bool:
        """Hand it an act; False when nobody is there."""
        if self._send is None or not self.up:
            return False
        self._send.send_nowait(act)
        return True

    async def _perform(self, act: Act, fleet: Fleet, plug: Plug) -> None:
        try:
            with anyio.CancelScope(
                deadline=anyio.current_time() + act.cancel if act.cancel is not None else float("inf")
            ):
                await self._act(act, fleet)
        except NexcageError as error:
            if act.kind in ("run", "stream"):
                self._world.broken(
                    f"{act}: raised {type(error).__name__}: {error} instead of telling it in its outcomes"
                )
        except Exception:  # noqa: BLE001 (this is what we are here to find)
            if not plug.dead:
                self._world.broken(f"{act}:\n{traceback.format_exc()}")
        finally:
            if not plug.dead:
                self._world.look_at_state_files(self.home / "run")

    async def _act(self, act: Act, fleet: Fleet) -> None:
        match act.kind:
            case "do":
                await self._do(act, fleet)
            case "run":
                begun = self._moment()
                for outcome in await fleet.run(act.intents, wait=act.wait):
                    self._told(outcome, begun)
            case "stream":
                begun = self._moment()
                async with fleet.stream(act.intents, wait=act.wait) as outcomes:
                    async for outcome in outcomes:
                        self._told(outcome, begun)
            case "reconcile":
                await fleet.reconcile(*(intent.id for intent in act.intents))
            case "states":
                await fleet.states(*(intent.id for intent in act.intents))
            case "look":
                await fleet.look()
            case "exec":
                await self._exec(act, fleet)
            case "restore":
                await self._restore(act, fleet)
            case _:
                await self._listen(act, fleet)

    async def _do(self, act: Act, fleet: Fleet) -> None:
        (intent,), begun = act.intents, self._moment()
        try:
            self._told(await fleet.do(intent, wait=act.wait), begun)
        except NexcageError as error:
            self._told(Failure(intent=intent, error=error, op_id=intent.op_id or ""), begun)

    async def _exec(self, act: Act, fleet: Fleet) -> None:
        (asked,), begun = act.intents, self._moment()
        intent = Exec(asked.id, op_id=asked.op_id, argv=("true",))
        machine = fleet.machines.get(asked.id)
        where = (machine.vmid, str(machine.state)) if machine is not None else (0, "")
        try:
            ran = await fleet[asked.id].exec(intent.argv, op_id=asked.op_id)
        except NexcageError as error:
            self._tell(intent, asked.op_id or "", error, begun, where=where)
        else:
            self._tell(intent, ran.op_id, None, begun, changed=not ran.repeated, where=where)

    async def _restore(self, act: Act, fleet: Fleet) -> None:
        """Make a container from one of the archives that are there."""
        (asked,) = act.intents
        found = await fleet.backups()
        archives = [volume.id for key in sorted(found) for volume in found[key]]
        if archives:
            spec = await fleet.restoring(archives[int(act.which * len(archives))], storage="local-zfs")
            intent = Create(asked.id, spec, op_id=asked.op_id)
            await self._do(msgspec.structs.replace(act, intents=(intent,)), fleet)

    def _moment(self) -> tuple[float, int]:
        return anyio.current_time(), log_size(self._world.sim)

    def _told(self, outcome: Outcome, begun: tuple[float, int]) -> None:
        error = None if isinstance(outcome, Done) else outcome.error
        changed = isinstance(outcome, Done) and outcome.changed
        where = outcome.vmid, str(outcome.state)
        self._tell(outcome.intent, outcome.op_id, error, begun, changed=changed, where=where)

    def _tell(
        self,
        intent: Intent | Inside,
        op_id: str,
        error: NexcageError | None,
        begun: tuple[float, int],
        *,
        where: tuple[int, str],
        changed: bool = False,
    ) -> None:
        if self.plug.dead:
            return
        asked, since = begun
        told, until = self._moment()
        self._world.told.append(
            Told(
                program=self.name,
                intent=intent,
                op_id=op_id,
                ok=error is None,
                changed=changed,
                uncertain=error is not None and error.uncertain,
                error=type(error).__name__ if error is not None else "",
                text=str(error or ""),
                state=where[1],
                vmid=where[0],
                asked=asked,
                told=told,
                since=since,
                until=until,
            )
        )

    async def _listen(self, act: Act, fleet: Fleet) -> None:
        """A subscriber: quick, slow, or one that raises. When it falls behind it goes on from where it was."""
        heard = Heard(program=self.name, host=self.host, what="subscriber", since=fleet.seq)
        self._world.heard.append(heard)
        since, left = heard.since, 3 if act.pace < 0 else 10**9
        while True:
            try:
                async with fleet.events.subscribe(since) as events:
                    async for event in events:
                        heard.events.append(event)
                        since = event.seq
                        left -= 1
                        if not left:
                            raise ValueError("a subscriber that raises, on purpose")
                        if act.pace > 0:
                            await anyio.sleep(act.pace)
                heard.whole = True
                return
            except Lagged as lagged:
                self._world.count("lagged")
                since = lagged.since
            except ValueError:
                return

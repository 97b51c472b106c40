"""Running programs inside containers. Each is journaled beside the container's life (`nexcage._core.states.BESIDE`): `Began` is durable
before the program starts, its exit status after; what goes in and comes out is nobody's but the caller's. Nothing is ever repeated.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from random import Random
from typing import Any, Literal

import anyio
import msgspec

from nexcage._core.command import MIB, Command, Result, shown
from nexcage._core.config import Limits
from nexcage._core.events import Began, Ended, Failed, Interrupted, Problem, Succeeded
from nexcage._core.inside import Executed
from nexcage._core.intents import Exec, Inside, Push
from nexcage._core.machine import Event, Machine
from nexcage._core.seen import Mark
from nexcage._core.states import Op, State
from nexcage._engine.node import FleetNode
from nexcage._engine.observe import Observer, Stale
from nexcage._engine.recover import Recovery
from nexcage.abc import Backend, Journal, Lease, Stream
from nexcage.errors import Busy, IllegalTransition, InvalidInput, NexcageError, NodeTimeout, Uncertain, Unsupported
from nexcage.tools import pty
from nexcage.tools.attach import BEGUN, refused, words

__all__ = ["ExecStream", "Insider", "Place"]

_AT_ONCE = 64 * 1024  # bytes of input that go with the command; more is streamed
_SHOWN = 200  # characters of a word, and words of an argv, that the journal keeps


class Place(msgspec.Struct, frozen=True):
    """Where a container is, and how its backend gets inside."""

    machine: Machine
    node: FleetNode
    backend: Any  # Any: a Backend with the optional methods that are looked for when they are needed
    mark: Mark

    def way(self, op: str, name: str) -> Callable[..., Command[Any]]:
        """The backend's optional method ``name``; raises Unsupported where it has none."""
        found = getattr(self.backend, name, None)
        if found is None:
            raise Unsupported(self.machine.id, op, self.machine.backend)
        way: Callable[..., Command[Any]] = found
        return way

    def whole(self) -> Callable[..., Command[None]] | None:
        """The backend's way to run a program whose output comes at its end, where it has only that one."""
        found: Callable[..., Command[None]] | None = getattr(self.backend, "collect", None)
        return found

    def refused(self, result: Result) -> NexcageError:
        """The error of a program that did not begin, or of whose end nothing is known."""
        known: Callable[[Mark, Result, str], NexcageError] = getattr(self.backend, "refused", refused)
        return known(self.mark, result, self.node.key)


class _Repeated(NexcageError):
    """This op id has ended before."""

    def __init__(self, ended: Ended) -> None:
        super().__init__("it has ended before")
        self.ended: Ended = ended


class Insider:
    """Begins, ends and records what runs inside; one for a fleet."""

    def __init__(
        self,
        *,
        fleet: str,
        owner: str,
        journal: Journal,
        nodes: Mapping[str, FleetNode],
        backends: Mapping[str, Backend],
        observer: Observer,
        recovery: Recovery,
        lease: Lease,
        alive: Callable[[str], bool],
        limits: Limits,
        random: Random,
        strict_oci: bool = False,
    ) -> None:
        self.limits: Limits = limits
        self.random: Random = random
        self.nodes: Mapping[str, FleetNode] = nodes
        self._fleet = fleet
        self._owner = owner
        self._journal = journal
        self.backends: Mapping[str, Backend] = backends
        self._observer = observer
        self._recovery = recovery
        self._lease = lease
        self._alive = alive
        self._strict = strict_oci
        self._slots: dict[str, anyio.Semaphore] = {}

    # ---- running a program -------------------------------------------------------------------------------------------------

    async def exec(
        self,
        id: str,
        argv: Sequence[str | bytes],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        timeout: float | None = None,
        cap: int = MIB,
        op_id: str | None = None,
    ) -> Executed:
        """Run it to its end; see `Container.exec`."""
        place = await self.place(id, Op.EXEC)
        if not isinstance(stdin, bytes):
            raise InvalidInput("stdin", type(stdin).__name__, "bytes")
        collect = place.whole()
        attach = place.way("exec", "attach") if collect is None else partial(collect, given=len(stdin))
        command: Command[None] = attach(place.mark, argv, env=env, cwd=cwd, user=user, timeout=timeout, cap=cap)
        command = msgspec.structs.replace(command, cap=cap + len(BEGUN))
        async with self.slot(place):
            try:
                began = await self.begin(place, _noted(id, argv, env, cwd, user, op_id=op_id))
            except _Repeated as known:
                return _once_more(place, known.ended)
            async with self.recorded(began, place) as ended:
                result = await self._run(place, tracked(command, began), stdin)
                return ended.executed(result)

    async def _run(self, place: Place, command: Command[None], stdin: bytes) -> Result:
        if len(stdin) <= _AT_ONCE:
            return await place.node.call(msgspec.structs.replace(command, stdin=command.stdin + stdin))
        result: Result | None = None
        failure: NexcageError | None = None
        async with place.node.stream(command) as stream:

            async def feed() -> None:
                with suppress(NexcageError):  # how it ended is told by its end
                    await stream.send(stdin)
                    await stream.send_eof()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(feed)
                try:
                    result = await stream.wait()
                except NexcageError as error:
                    failure = error  # raised out of the task group, so that it stays bare
                tasks.cancel_scope.cancel()
        if result is None:
            raise failure or Uncertain(command.env["NEXCAGE_OP_ID"], "it ended without an answer")
        return result

    @asynccontextmanager
    async def stream(
        self,
        id: str,
        argv: Sequence[str | bytes],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        size: tuple[int, int] | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[ExecStream]:
        """Run it and hand out its streams; see `Container.exec_stream`."""
        place = await self.place(id, Op.EXEC)
        if place.whole() is not None:
            missing = "has no terminals" if size is not None else "has no streams: what it prints comes at its end"
            raise Unsupported(id, "exec", place.machine.backend, missing)
        attach = place.way("exec", "attach")
        command: Command[None] = attach(place.mark, argv, env=env, cwd=cwd, user=user, size=size, timeout=timeout)
        began = await self.begin(place, _noted(id, argv, env, cwd, user, tty=size is not None))
        async with self.recorded(began, place) as ended, place.node.stream(tracked(command, began)) as raw:
            stream = ExecStream(raw, ended, terminal=size is not None)
            await stream.begin()
            yield stream

    @asynccontextmanager
    async def noted(
        self,
        id: str,
        argv: Sequence[str | bytes],
        *,
        env: Sequence[str] = (),
        cwd: str = "",
        user: str = "",
        tty: bool = False,
    ) -> AsyncGenerator[Ending]:
        """Write down a program that the caller runs inside without us; its ``exit`` is what the context sets. Raises IllegalTransition."""
        place = await self.place(id, Op.EXEC)
        began = await self.begin(place, _noted(id, argv, dict.fromkeys(env, ""), cwd, user, tty=tty))
        async with self.recorded(began, place) as ending:
            yield ending

    # ---- where -------------------------------------------------------------------------------------------------------------

    async def place(self, id: str, op: Op | None = None, verb: str = "") -> Place:
        """The container's node and backend; with ``op`` the table must allow it now. Raises NotFound, IllegalTransition, NoRoute.

        ``verb`` is what the refusal calls it: what has no row of its own in the table, but needs what ``op`` needs.
        """
        machine = self._observer.machine(id)
        if not machine.seq:
            await self._journal.refresh()
            machine = self._observer.machine(id)
        if op is not None:
            machine = await self._allowed(machine, op, verb or op)
        node = self._observer.node(machine)
        mark = Mark(self._fleet, id, machine.vmid, machine.mark)
        return Place(machine, node, self.backends.get(machine.backend), mark)

    async def _allowed(self, machine: Machine, op: Op, verb: str) -> Machine:
        wanted = Exec(machine.id) if op is Op.EXEC else Push(machine.id)
        for attempt in range(4):
            if machine.state is State.UNKNOWN:
                await self._recovery.resolve(machine.id)
                await self._observer.observe(machine.id)
            elif attempt:
                await self._journal.refresh()
            machine = self._observer.machine(machine.id)
            try:
                if machine.rule(wanted, strict_oci=self._strict).kind == "keep":
                    return machine
            except NexcageError as error:
                if not attempt:  # before refusing, read what other processes have written
                    continue
                if isinstance(error, IllegalTransition) and verb != op:
                    raise IllegalTransition(error.id, verb, error.state, error.allowed) from None
                raise
        raise Uncertain(machine.unresolved.op_id if machine.unresolved else "?", "looking did not tell")

    def slot(self, place: Place) -> anyio.Semaphore:
        """Bounds what this fleet runs to its end on a node at once; streams are as many as their users hold."""
        return self._slots.setdefault(place.node.key, anyio.Semaphore(self.limits.per_node))

    # ---- the journal -------------------------------------------------------------------------------------------------------

    async def begin(self, place: Place, intent: Inside) -> Began:
        """Write down that it begins; raises what the table says by now, Busy for an op id that runs, `_Repeated`."""
        epoch = await self._lease.hold()
        machine = place.machine
        op_id = intent.op_id or f"{self.random.getrandbits(64):016x}"

        def draft(machines: Mapping[str, Machine]) -> Event:
            now = machines.get(machine.id) or Machine(machine.id)
            if any(one.op_id == op_id for one in now.beside):
                raise Busy(f"container '{machine.id}'", f"{intent.op} {op_id}")
            if (ended := now.outcome(op_id)) is not None:
                raise _Repeated(ended)
            if now.rule(intent, strict_oci=self._strict).kind != "keep" or now.mark != machine.mark:
                raise now.illegal(intent.op, strict_oci=self._strict)
            return Began(
                id=machine.id,
                op=intent.op,
                op_id=op_id,
                before=now.state,
                via=now.state,
                intent=intent,
                node=machine.node,
                backend=machine.backend,
                vmid=machine.vmid,
                mark=machine.mark,
                boot_id=machine.boot_id,
                owner=self._owner,
                epoch=epoch,
            )

        (began,) = await self._journal.append(draft)
        assert isinstance(began, Began)
        return began

    @asynccontextmanager
    async def recorded(self, began: Began, place: Place) -> AsyncGenerator[Ending]:
        """Whatever becomes of what runs in this context is its recorded end."""
        ending = Ending(began, place)
        try:
            yield ending
        except BaseException as error:
            ending.broke(error)
            await self._end(ending)
            if isinstance(error, IllegalTransition):
                await self._look(began.id)
            raise
        await self._end(ending)

    async def _end(self, ending: Ending) -> None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(30):
            await self._journal.append(ending.event(self._observer.machine(ending.began.id)))

    async def _look(self, id: str) -> None:
        """It has no process although the journal says that it runs: see what is so."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(10):
            try:
                await self._observer.observe(id)
            except NexcageError:
                return

    async def settle(self) -> None:
        """What drivers that died had begun inside was ended with them, or lost its answer: say so. Nothing is asked of any node."""
        for machine in list(self._journal.machines.values()):
            for began in machine.beside:
                if began.owner != self._owner and not self._alive(began.owner):
                    await self._forsaken(began)

    async def _forsaken(self, began: Began) -> None:
        problem = Problem.of(Uncertain(began.op_id, f"its driver {began.owner} is gone"))

        def draft(machines: Mapping[str, Machine]) -> Event:
            now = machines.get(began.id)
            if now is None or all(one.op_id != began.op_id for one in now.beside):
                raise Stale
            return Interrupted(id=began.id, op=began.op, op_id=began.op_id, error=problem)

        try:
            await self._journal.append(draft)
        except Stale:
            return


class Ending:
    """How something inside ended, until it is written down."""

    def __init__(self, began: Began, place: Place) -> None:
        self.began: Began = began
        self.place: Place = place
        self.exit: int | None = None
        self.resolved_by: str = ""
        self._error: NexcageError | None = None
        self._at = anyio.current_time()

    def executed(self, result: Result) -> Executed:
        """What a program's result says; raises what it means when there is none, or when the program did not begin."""
        if result.lost == "deadline":
            late = NodeTimeout(
                self.place.node.key, f"{self.began.op} in '{self.began.id}' took longer than it was given"
            )
            late.uncertain = True
            raise late
        if result.exit is None:
            raise Uncertain(self.began.op_id, "the link was lost while it ran; it is not repeated")
        if not result.stderr.startswith(BEGUN):
            raise self.place.refused(result)
        self.exit = result.exit
        return Executed(
            exit=result.exit,
            stdout=result.stdout,
            stderr=result.stderr[len(BEGUN) :],
            dropped=result.dropped,
            seconds=result.seconds,
            op_id=self.began.op_id,
        )

    def broke(self, error: BaseException) -> None:
        """It ended with an error; one that is not ours, or a cancel, leaves nobody who knows how it ended."""
        if self.exit is None:
            unsure = Uncertain(self.began.op_id, f"{self.began.op} was ended before its end")
            self._error = error if isinstance(error, NexcageError) else unsure

    def event(self, machine: Machine) -> Ended:
        began, seconds = self.began, round(anyio.current_time() - self._at, 6)
        if self._error is None and self.exit is None:
            self._error = Uncertain(began.op_id, f"{began.op} was ended before its end")
        if self._error is None:
            return Succeeded(
                id=began.id,
                op=began.op,
                op_id=began.op_id,
                state=began.before,
                node=began.node,
                vmid=began.vmid,
                backend=began.backend,
                mark=began.mark,
                seconds=seconds,
                resolved_by=self.resolved_by,
                exit=self.exit,
            )
        problem = Problem.of(self._error)
        if self._error.uncertain:
            return Interrupted(id=began.id, op=began.op, op_id=began.op_id, error=problem, seconds=seconds)
        return Failed(id=began.id, op=began.op, op_id=began.op_id, state=machine.state, error=problem, seconds=seconds)


class ExecStream:
    """A program that runs inside: iterate what it prints, as ``("stdout", bytes)`` and ``("stderr", bytes)``; a terminal has only
    one stream. Leaving the context before its end kills it.
    """

    def __init__(self, raw: Stream, ending: Ending, *, terminal: bool) -> None:
        self.op_id: str = ending.began.op_id
        self._raw = raw
        self._ending = ending
        self._terminal = terminal
        self._early: list[tuple[Literal["stdout", "stderr"], bytes]] = []

    async def begin(self) -> None:
        """Wait until the program starts; raises what kept it from that."""
        said = b""
        async for kind, data in self._raw:
            if kind == "stdout":  # the two come on ways of their own: the program's first words may be here before
                self._early.append((kind, data))
                continue
            said += data
            if said.startswith(BEGUN):
                if rest := said[len(BEGUN) :]:
                    self._early.append(("stderr", rest))
                return
            if len(said) > 4 * len(BEGUN) and not said.startswith(BEGUN):
                break
        result = await self._raw.wait()
        self._ending.executed(msgspec.structs.replace(result, stderr=said + result.stderr))
        raise AssertionError("a program without a beginning has an end")

    def __aiter__(self) -> ExecStream:
        return self

    async def __anext__(self) -> tuple[Literal["stdout", "stderr"], bytes]:
        if self._early:
            return self._early.pop(0)
        return await self._raw.__aiter__().__anext__()

    async def send(self, data: bytes) -> None:
        """Write to its standard input; waits while it does not read."""
        for at in range(0, len(data), _AT_ONCE):
            piece = data[at : at + _AT_ONCE]
            await self._raw.send(pty.data(piece) if self._terminal else piece)

    async def send_eof(self) -> None:
        """Close its standard input; on a terminal: the key that means so."""
        await self._raw.send_eof()

    async def resize(self, rows: int, columns: int) -> None:
        """The window of its terminal has changed; nothing without one."""
        if self._terminal:
            await self._raw.send(pty.window(rows, columns))

    async def wait(self) -> Executed:
        """Its end, with what was printed and not iterated, within a MiB each. Raises Uncertain when the link was lost."""
        result = await self._raw.wait()
        early, self._early = self._early, []
        out, err = (b"".join(data for kind, data in early if kind == wanted) for wanted in ("stdout", "stderr"))
        result = msgspec.structs.replace(result, stdout=out + result.stdout, stderr=BEGUN + err + result.stderr)
        return self._ending.executed(result)


def tracked(command: Command[None], began: Began) -> Command[None]:
    """The command, so that it can be found on its node by its operation."""
    env = {"NEXCAGE_OP_ID": began.op_id, "NEXCAGE_STEP": "1", "NEXCAGE_EPOCH": str(began.epoch)}
    return msgspec.structs.replace(command, env={**command.env, **env})


def _noted(
    id: str,
    argv: Sequence[str | bytes],
    env: Mapping[str, str] | None,
    cwd: str,
    user: str,
    *,
    tty: bool = False,
    op_id: str | None = None,
) -> Exec:
    """The intent as the journal keeps it: readable, and not longer than it is worth."""
    kept = tuple(_cut(shown(word.encode("utf-8", "surrogateescape"), 4 * _SHOWN)) for word in words(argv)[:_SHOWN])
    cwd = shown(cwd.encode("utf-8", "surrogateescape"))
    return Exec(id, op_id=op_id, argv=kept, env=tuple(env or ()), cwd=cwd, user=user, tty=tty)


def _cut(word: str) -> str:
    return word if len(word) <= _SHOWN else word[:_SHOWN] + "..."


def _once_more(place: Place, ended: Ended) -> Executed:
    """The same key again: the same end, and nothing runs."""
    if ended.op is not Op.EXEC:
        reason = f"op id {ended.op_id} belongs to an earlier {ended.op}"
        raise IllegalTransition(place.machine.id, "exec", str(place.machine.state), reason=reason)
    if not isinstance(ended, Succeeded) or ended.exit is None:
        assert not isinstance(ended, Succeeded)
        raise ended.error.error()
    return Executed(exit=ended.exit, seconds=ended.seconds, op_id=ended.op_id, repeated=True)

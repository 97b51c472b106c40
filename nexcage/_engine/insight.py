"""Looking into containers: processes, what they use, addresses, logs, and waiting until they are ready. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import msgspec

from nexcage._core.command import Command, shown
from nexcage._core.inside import Addresses, Process, Stats
from nexcage._core.machine import Machine
from nexcage._core.states import Op, State
from nexcage._engine.inside import Insider, Place
from nexcage._engine.node import FleetNode, Lost
from nexcage.abc import Stream
from nexcage.errors import InvalidInput, NexcageError, NodeTimeout, NodeUnreachable
from nexcage.tools.attach import BEGUN
from nexcage.tools.console import unshown

__all__ = ["addresses", "logs", "processes", "ready", "stats"]

T = TypeVar("T")
_LONGEST = 64 * 1024  # bytes of a line of a log; a longer one comes as several
_ALIVE = frozenset({State.RUNNING, State.PAUSING, State.PAUSED, State.RESUMING, State.STOPPING})


async def _asked(node: FleetNode, command: Command[T]) -> T:
    try:
        return await node.run(command)
    except Lost as lost:
        if lost.result.lost == "deadline":
            raise NodeTimeout(node.key, "it did not answer in time") from None
        raise NodeUnreachable(node.key, "the link was lost before the answer came") from None


async def processes(insider: Insider, id: str) -> tuple[Process, ...]:
    """See `nexcage.Container.ps`."""
    place = await insider.place(id, Op.EXEC, "ps")
    command: Command[tuple[Process, ...]] = place.way("ps", "processes")(place.mark)
    return await _asked(place.node, command)


async def stats(insider: Insider, machines: Iterable[Machine]) -> tuple[list[Stats], dict[str, NexcageError]]:
    """What running containers use, in the order given, one command per node; and the errors of nodes that could not be asked."""
    wanted = [machine for machine in machines if machine.state in _ALIVE]
    found, errors = await _everywhere(insider, wanted, "usage")
    known = [(machine, found.get((machine.node, machine.backend, machine.vmid))) for machine in wanted]
    return [msgspec.structs.replace(s, id=m.id, node=m.node) for m, s in known if isinstance(s, Stats)], errors


async def addresses(
    insider: Insider, machines: Iterable[Machine]
) -> tuple[dict[str, Addresses], dict[str, NexcageError]]:
    """Where running containers are reached, by id, one command per node; and the errors of nodes that could not be asked."""
    wanted = [machine for machine in machines if machine.state in _ALIVE]
    found, errors = await _everywhere(insider, wanted, "network")
    known = {machine.id: found.get((machine.node, machine.backend, machine.vmid)) for machine in wanted}
    return {id: one for id, one in known.items() if isinstance(one, Addresses)}, errors


async def _everywhere(
    insider: Insider, machines: Sequence[Machine], name: str
) -> tuple[dict[tuple[str, str, int], object], dict[str, NexcageError]]:
    """One command on each node and for each backend that has one of them, all at once. A backend without the method has nothing to say."""
    found: dict[tuple[str, str, int], object] = {}
    errors: dict[str, NexcageError] = {}

    async def one(key: str, backend: str, way: Callable[[], Command[Any]]) -> None:
        try:
            answered: dict[int, object] = await _asked(insider.nodes[key], way())
        except NexcageError as error:
            errors[key] = error
            return
        found.update(((key, backend, vmid), value) for vmid, value in answered.items())

    async with anyio.create_task_group() as tasks:
        for key, backend in sorted({(machine.node, machine.backend) for machine in machines}):
            way = getattr(insider.backends.get(backend), name, None)
            if way is not None and key in insider.nodes:
                tasks.start_soon(one, key, backend, way)
    return found, errors


# ---- logs ------------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def logs(insider: Insider, id: str, *, lines: int, follow: bool) -> AsyncGenerator[AsyncIterator[bytes]]:
    """See `nexcage.Container.logs`."""
    place = await insider.place(id)
    command: Command[None] = place.way("logs", "logs")(place.mark, lines, follow=follow)
    async with place.node.stream(command) as stream:
        await stream.send_eof()
        yield _lines(place, stream)


async def _lines(place: Place, stream: Stream) -> AsyncIterator[bytes]:
    rest, said = b"", b""
    async for kind, data in stream:
        if kind == "stderr":
            said = (said + data)[-65536:]
            continue
        *whole, last = data.split(b"\n")
        for line in whole:
            yield rest + line
            rest = b""
        rest += last
        while len(rest) > _LONGEST:  # a line that does not end
            yield rest[:_LONGEST]
            rest = rest[_LONGEST:]
    if rest:
        yield rest
    result = await stream.wait()
    if result.exit is None:
        raise NodeUnreachable(place.node.key, "the link was lost")
    if result.exit != 0:
        result = msgspec.structs.replace(result, stderr=(said + result.stderr).removeprefix(BEGUN))
        raise unshown(place.mark, result, place.node.key)


# ---- ready -----------------------------------------------------------------------------------------------------------------


async def ready(
    insider: Insider,
    id: str,
    *,
    network: bool,
    port: int | None,
    command: Sequence[str | bytes] | None,
    timeout: float | None,
) -> Addresses:
    """See `nexcage.Container.wait_ready`."""
    if port is not None and (isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536):
        raise InvalidInput("port", port, "a TCP port from 1 to 65535")
    if timeout is not None and (
        isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 <= timeout <= 1e9
    ):
        raise InvalidInput("timeout", timeout, "seconds, or None for no limit")
    nap, at, failing = 0.1, Addresses(), ""
    with anyio.move_on_after(timeout):
        while True:
            at = await _at(insider, id) if network or port is not None else at
            reached = (not network or bool(at.addresses)) and (port is None or port in at.ports)
            if reached:
                failing = "" if command is None else await _failing(insider, id, command)
                if not failing:
                    return at
            await anyio.sleep(nap * insider.random.uniform(0.8, 1.2))
            nap = min(nap * 1.5, 2.0)
    lacks = [] if not network or at.addresses else ["it has no address"]
    lacks += [] if port is None or port in at.ports else [f"nothing listens on port {port}"]
    why = ", ".join(lacks) or failing or "its check did not end"
    raise TimeoutError(f"container '{id}' is not ready after {timeout:g} s: {why}")


async def _at(insider: Insider, id: str) -> Addresses:
    place = await insider.place(id, Op.EXEC, "wait for")
    command: Command[dict[int, Addresses]] = place.way("wait for", "network")()
    return (await _asked(place.node, command)).get(place.machine.vmid, Addresses())


async def _failing(insider: Insider, id: str, argv: Sequence[str | bytes]) -> str:
    """How the caller's check failed, empty when it says yes. It alone is repeated inside, so it is not journaled either."""
    place = await insider.place(id, Op.EXEC, "wait for")
    command: Command[None] = place.way("wait for", "attach")(place.mark, argv, safe=True, timeout=30.0)
    result = await place.node.call(command)
    if result.exit is not None and not result.stderr.startswith(BEGUN):
        raise command.classify(command, result, place.node.key)
    if result.exit == 0:
        return ""
    said = shown(result.stderr.removeprefix(BEGUN)).strip().splitlines()[-1:]
    ended = "did not end" if result.exit is None else f"exits with {result.exit}"
    return ": ".join((f"its check {ended}", *said))

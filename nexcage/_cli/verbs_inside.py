"""``nexcage cp push logs ps stats wait``: what is inside containers."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import anyio.to_thread
import msgspec

from nexcage import IllegalTransition, InvalidInput, NexcageError, NotFound, Process, Selector, State, Stats, names
from nexcage._cli.dialects import Targets, number, oci_id, targets
from nexcage._cli.finding import ids_of
from nexcage._cli.parser import Call
from nexcage._cli.render import as_json, print_rows
from nexcage._cli.streams import Streams, one_line
from nexcage._cli.verbs_exec import seconds
from nexcage._cli.verbs_fleet import Verb

if TYPE_CHECKING:
    from nexcage import Fleet

__all__ = ["prepare"]

_PS = ("pid", "inner", "uid", "state", "memory", "cpu", "command")
_STATS = ("id", "node", "cpu", "memory", "limit", "swap", "read", "written", "pids")


def prepare(call: Call, streams: Streams) -> Verb:
    """The function of each; raises before anything is opened."""
    match call.name:
        case "cp" | "push":
            return _copy(call, streams)
        case "logs":
            return _logs(call, streams)
        case "ps":
            return _ps(call, streams)
        case "stats":
            return _stats(call, streams)
        case _:
            return _wait(call, streams)


def _one(call: Call, words: tuple[str, ...]) -> str:
    if call.oci:
        return oci_id(call, words)
    if len(words) != 1:
        raise call.usage("takes one container", f"nexcage {call.name} ID")
    return names.container_id(words[0])


async def _id(fleet: Fleet, word: str, call: Call) -> str:
    (id,) = await ids_of(fleet, Targets((word,)), call.text("runtime"))
    return id


# ---- cp, push --------------------------------------------------------------------------------------------------------------


class _Side(NamedTuple):
    id: str
    path: str


def _side(word: str) -> _Side:
    """``ID:/PATH`` inside a container, or a local path (``-``: standard input or output)."""
    id, colon, path = word.partition(":")
    return _Side(names.container_id(id), path) if colon and "/" not in id and path.startswith("/") else _Side("", word)


def _copy(call: Call, streams: Streams) -> Verb:
    if len(call.words) != 2:
        raise call.usage("takes a source and a target", f"nexcage {call.name} ./file ID:/path")
    source, target = map(_side, call.words)
    if bool(source.id) is bool(target.id):
        raise call.usage("takes one path inside a container, ID:/path, and one here")
    if source.id and call.name == "push":
        raise call.usage("copies into containers", "nexcage cp ID:/path ./file copies out of them")
    mode = call.text("mode")
    if mode is not None and not (mode.isascii() and mode.isdigit() and len(mode) < 5 and set(mode) <= set("01234567")):
        raise InvalidInput("mode", mode, "file permissions in octal, such as 644")
    bits = None if mode is None else int(mode, 8)

    async def verb(fleet: Fleet) -> int:
        if target.id:
            path = target.path + Path(source.path).name if target.path.endswith("/") else target.path
            data = await anyio.to_thread.run_sync(_input, streams) if source.path == "-" else source.path
            web = fleet[await _id(fleet, target.id, call)]
            done = await web.push(data, path, mode=bits, owner=call.text("owner") or "")
        else:
            web = fleet[await _id(fleet, source.id, call)]
            with tempfile.TemporaryDirectory(prefix="nexcage-") as temporary:
                local = Path(temporary, "file") if target.path == "-" else _local(target.path, source.path)
                done = await web.pull(source.path, local, mode=bits)
                if target.path == "-":
                    await anyio.to_thread.run_sync(_output, streams, local)
        if (output := call.text("output")) is not None:
            print_rows(streams, [msgspec.to_builtins(done)], output, ("path", "size", "sha256"), name="path")
        return 0

    return verb


def _local(word: str, path: str) -> Path:
    return Path(word, Path(path).name) if word.endswith("/") or os.path.isdir(word) else Path(word)


def _input(streams: Streams) -> bytes:
    raw = getattr(streams.stdin, "buffer", None)
    if raw is not None:
        data: bytes = raw.read()
        return data
    return (streams.stdin.read() if streams.stdin is not None else "").encode("utf-8", "surrogateescape")


def _output(streams: Streams, path: Path) -> None:
    raw = getattr(streams.stdout, "buffer", None)
    if raw is None:
        streams.write(path.read_text("utf-8", "backslashreplace"))
        return
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            raw.write(data)
    raw.flush()


# ---- logs ------------------------------------------------------------------------------------------------------------------


def _logs(call: Call, streams: Streams) -> Verb:
    word = _one(call, call.words)
    lines = number("lines", call.text("lines") or "100")

    async def verb(fleet: Fleet) -> int:
        web = fleet[await _id(fleet, word, call)]
        async with web.logs(lines=lines, follow=call.flag("follow")) as said:
            await _print(streams, said)
        return 0

    return verb


async def _print(streams: Streams, lines: AsyncIterator[bytes]) -> None:
    async for line in lines:
        streams.line(one_line(line.decode("utf-8", "backslashreplace").rstrip("\r")))
        streams.flush()
        if streams.reader_gone:
            return


# ---- ps, stats -------------------------------------------------------------------------------------------------------------


def _ps(call: Call, streams: Streams) -> Verb:
    word = _one(call, call.words)
    output = call.text("output") or call.text("format") or "table"

    async def verb(fleet: Fleet) -> int:
        processes = await fleet[await _id(fleet, word, call)].ps()
        if call.oci and output == "json":
            streams.line(as_json(streams, [one.pid for one in processes]))
            return 0
        rows = [_process(one, plain=output != "table") for one in processes]
        print_rows(streams, rows, output, _PS, name="pid")
        return 0

    return verb


def _process(one: Process, *, plain: bool) -> dict[str, Any]:  # Any: whatever JSON can say
    row: dict[str, Any] = msgspec.to_builtins(one)
    argv = [word.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for word in one.argv]
    if plain:
        return {**row, "argv": argv}
    return {
        **row,
        "memory": _bytes(one.memory),
        "cpu": f"{one.seconds:.1f}s",
        "command": " ".join(argv) or f"[{one.name}]",
    }


def _stats(call: Call, streams: Streams) -> Verb:
    wanted = targets(call) if call.words or call.many("selector") else Targets(selector="")
    every = seconds(call, "interval")
    output = call.text("output") or "table"

    async def verb(fleet: Fleet) -> int:
        selector = Selector.parse(wanted.selector or "") if not wanted.words else await _named(fleet, wanted)
        before = {one.id: one for one in await fleet.stats(selector)} if every else {}
        if every:
            await anyio.sleep(every)
        found = await fleet.stats(selector)
        rows = [_used(one, before.get(one.id), plain=output != "table") for one in found]
        print_rows(streams, rows, output, _STATS)
        return 0

    return verb


async def _named(fleet: Fleet, wanted: Targets) -> Selector:
    """Exactly these containers; raises NotFound, and IllegalTransition for one that uses nothing because it does not run."""
    ids = await ids_of(fleet, wanted, None)
    await fleet.refresh()
    for id in ids:
        machine = fleet[id].machine
        if not machine.seq or machine.state is State.ABSENT:
            raise NotFound("container", id)
        if machine.state in (State.CREATED, State.STOPPED):
            raise IllegalTransition(id, "measure", str(machine.state))
    return Selector.parse(f"id~^({'|'.join(map(re.escape, ids))})$")


def _used(one: Stats, before: Stats | None, *, plain: bool) -> dict[str, Any]:  # Any: whatever JSON can say
    row: dict[str, Any] = msgspec.to_builtins(one)
    share = 100 * (one.cpu - before.cpu) / (one.at - before.at) if before and one.at > before.at else None
    if plain:
        return row if share is None else {**row, "cpu_percent": round(share, 2)}
    sizes = {name: _bytes(row[name]) for name in ("memory", "swap", "read", "written")}
    limit = _bytes(one.memory_limit) if one.memory_limit else "none"
    return {**row, **sizes, "limit": limit, "cpu": f"{one.cpu:.1f}s" if share is None else f"{share:.1f}%"}


def _bytes(count: int) -> str:
    size, unit = float(count), "B"
    for unit in ("B", "K", "M", "G", "T"):
        if size < 1024 or unit == "T":
            break
        size /= 1024
    return f"{size:.0f}{unit}" if unit == "B" or size >= 100 else f"{size:.1f}{unit}"


# ---- wait ------------------------------------------------------------------------------------------------------------------


def _wait(call: Call, streams: Streams) -> Verb:
    command = call.words[1:]
    word = _one(call, call.words[:1])
    port = None if call.text("port") is None else number("port", call.text("port") or "")
    state = call.text("state")
    if state is not None and (command or port is not None or call.flag("network")):
        raise call.usage("waits for a state, or until it is ready, not both")
    timeout = seconds(call, "timeout")
    timeout = 60.0 if timeout is None else timeout
    network = call.flag("network") or (port is None and not command)

    async def verb(fleet: Fleet) -> int:
        web = fleet[await _id(fleet, word, call)]
        try:
            if state is not None:
                reached = await web.wait(State(state), timeout=timeout)
                streams.line(str(reached))
                return 0
            at = await web.wait_ready(network=network, port=port, command=command or None, timeout=timeout)
        except TimeoutError as error:
            if isinstance(error, NexcageError):
                raise
            said = str(error) or f"container '{web.id}' is still {web.machine.state} after {timeout:g} s"
            streams.say(f"nexcage: wait: {one_line(said)}")
            return 1
        for address in at.addresses:
            streams.line(address)
        return 0

    return verb

"""``nexcage exec``: this terminal's streams, or a script's, become those of a program inside, byte for byte."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from nexcage import ExecStream, InvalidInput, InvalidPath, NexcageError, Selector, Unsupported, names
from nexcage._cli.commands.oci import EXEC
from nexcage._cli.dialects import Targets
from nexcage._cli.finding import backend_named, ids_of
from nexcage._cli.main import tell
from nexcage._cli.oci_process import process_of
from nexcage._cli.parser import Call, Usage
from nexcage._cli.streams import Streams
from nexcage._cli.verbs_fleet import Verb, with_fleet

if TYPE_CHECKING:
    from nexcage import Fleet

__all__ = ["execute", "prepare", "raw_terminal", "seconds"]

OWN_FAILURE = 255
_CHUNK = 64 * 1024
_MOST = 1 << 20  # of standard input, where it goes in whole
_AT_ONCE = 64  # containers of a selector that are worked on at the same time


def execute(call: Call, streams: Streams) -> int:
    """The program's own exit status; 255 for everything that kept it from running or from being heard of."""
    try:
        return with_fleet(call, streams)
    except Usage:
        raise
    except Exception as error:
        tell(call, error, streams)
        return OWN_FAILURE


def prepare(call: Call, streams: Streams) -> Verb:
    """What to run where; raises before anything is opened."""
    _only_for_engines(call)
    selector = " ".join(call.many("selector"))
    many = bool(selector) or call.flag("all")
    words = list(call.words)
    id = "" if many else (call.text("name") or (words.pop(0) if words else ""))
    if not many and not id:
        raise call.usage("which container?", "nexcage exec ID COMMAND [ARGUMENT...]")
    asked = _asked(call)
    if (path := call.text("process")) is not None:
        process = process_of(path)
        words, asked = list(process.args), {**asked, **process.asked()}
    if not words:
        raise call.usage("which command?", "nexcage exec ID COMMAND [ARGUMENT...]")
    if many and call.flag("tty"):
        raise call.usage("a terminal belongs to one container")
    Selector.parse(selector)
    options: dict[str, Any] = {**asked, "timeout": seconds(call, "timeout")}  # Any: the keywords of Container.exec
    if not many:
        names.container_id(id)

    async def verb(fleet: Fleet) -> int:
        if many:
            await fleet.refresh()
            ids = fleet.select(selector)
            if (runtime := call.text("runtime")) is not None:
                ids = [one for one in ids if fleet[one].machine.backend == backend_named(fleet, runtime)]
            return await _everywhere(streams, fleet, ids, words, options)
        (one,) = await ids_of(fleet, Targets((id,)), call.text("runtime"))
        return await _here(call, streams, fleet, one, words, options)

    return verb


def _asked(call: Call) -> dict[str, Any]:  # Any: the keywords of Container.exec
    return {"env": _environment(call), "cwd": call.text("cwd") or "", "user": call.text("user") or ""}


def _only_for_engines(call: Call) -> None:
    """Raise for what only a runtime of this machine does; what is not done is never taken in silence."""
    given = [option for option in EXEC if call.given(option.name)]
    if given and not call.oci:
        raise call.usage(f"{given[0].flags[-1]} is an OCI runtime's: it goes with --root, --log or --systemd-cgroup")
    refused = [option for option in given if option.name != "process" and call.text(option.name) != "0"]
    if refused:
        flag = refused[0].flags[-1]
        raise InvalidInput(
            flag.lstrip("-"), call.text(refused[0].name) or True, "only with crun or runc on this machine"
        )


def _environment(call: Call) -> dict[str, str]:
    """``-e NAME=VALUE``, ``-e NAME`` (as it is here), and files of such lines."""
    lines: list[str] = []
    for path in call.many("env_file"):
        try:
            text = Path(path).read_text("utf-8", "surrogateescape")
        except OSError as error:
            raise InvalidPath("env-file", path, f"a file that can be read ({error.strerror})") from None
        lines += [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found: dict[str, str] = {}
    for line in (*lines, *call.many("env")):
        name, equals, value = line.partition("=")
        if not equals and name not in os.environ:
            raise InvalidInput("env", name, "NAME=VALUE, or the name of a variable that is set here")
        found[name] = value if equals else os.environ[name]
    return found


def seconds(call: Call, name: str) -> float | None:
    """An option in seconds."""
    given = call.text(name)
    if given is None:
        return None
    if not (given.isascii() and given.replace(".", "", 1).isdigit()):
        raise InvalidInput(name, given, "seconds")
    return float(given)


# ---- one container ---------------------------------------------------------------------------------------------------------


async def _here(
    call: Call, streams: Streams, fleet: Fleet, id: str, words: list[str], options: Mapping[str, Any]
) -> int:
    try:
        return await _streamed(call, streams, fleet, id, words, options)
    except Unsupported:  # raised before anything was read or begun
        if call.flag("tty"):
            raise
    given = b"" if call.flag("no_stdin") else await _whole(streams)
    done = await fleet[id].exec(words, stdin=given, **options)
    for kind, data in (("stdout", done.stdout), ("stderr", done.stderr)):
        await anyio.to_thread.run_sync(_write, streams, kind, data)
    if done.dropped:
        streams.say(f"nexcage: exec '{id}': {done.dropped} bytes of what it printed were left out")
    return done.exit


async def _streamed(
    call: Call, streams: Streams, fleet: Fleet, id: str, words: list[str], options: Mapping[str, Any]
) -> int:
    tty = call.flag("tty")
    env: dict[str, str] = options["env"]
    if tty:
        env = {"TERM": os.environ.get("TERM", "xterm"), **env}
    size = _size() if tty else None
    opened = fleet[id].exec_stream(
        words, env=env, cwd=options["cwd"], user=options["user"], timeout=options["timeout"], size=size
    )
    async with opened as stream, raw_terminal(wanted=tty):
        failure: Exception | None = None
        status = OWN_FAILURE
        async with anyio.create_task_group() as tasks:
            if not call.flag("no_stdin"):
                tasks.start_soon(_feed, stream, streams)
            else:
                await stream.send_eof()
            if tty:
                tasks.start_soon(_resized, stream)
            try:
                status = await _printed(stream, streams)
            except Exception as error:
                failure = error  # raised out of the task group, so that it stays bare
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
    return status


async def _printed(stream: ExecStream, streams: Streams) -> int:
    """Everything that it prints, and its exit status."""
    try:
        async for kind, data in stream:
            await anyio.to_thread.run_sync(_write, streams, kind, data)
    except BrokenPipeError:  # whoever reads has seen enough; leaving kills the program
        streams.reader_gone = True
        return 128 + signal.SIGPIPE
    return (await stream.wait()).exit


async def _feed(stream: ExecStream, streams: Streams) -> None:
    """Standard input to its end."""
    descriptor = _descriptor(streams)
    if descriptor is None:
        await stream.send(_text(streams))
    else:
        while data := await _read(descriptor, streams):
            await stream.send(data)
    await stream.send_eof()


async def _whole(streams: Streams) -> bytes:
    """Standard input to its end, or a little more than is taken at once."""
    descriptor = _descriptor(streams)
    if descriptor is None:
        return _text(streams)
    data = b""
    while len(data) <= _MOST and (piece := await _read(descriptor, streams)):
        data += piece
    return data


def _text(streams: Streams) -> bytes:
    text = streams.stdin.read() if streams.stdin is not None else ""
    return text.encode("utf-8", "surrogateescape")


def _descriptor(streams: Streams) -> int | None:
    try:
        return None if streams.stdin is None else streams.stdin.fileno()
    except (OSError, ValueError):
        return None


async def _read(descriptor: int, streams: Streams) -> bytes:
    with suppress(OSError):  # a file cannot be waited for, and need not be
        await anyio.wait_readable(descriptor)
    try:
        return os.read(descriptor, _CHUNK)
    except BlockingIOError:
        return await _read(descriptor, streams)
    except OSError as error:  # a directory, a terminal that is gone: the program gets no more
        streams.say(f"nexcage: exec: standard input cannot be read: {error.strerror}")
        return b""


def _write(streams: Streams, kind: str, data: bytes) -> None:
    target = streams.stdout if kind == "stdout" else streams.stderr
    if target is None:
        return
    raw = getattr(target, "buffer", None)
    if raw is None:
        target.write(data.decode("utf-8", "backslashreplace"))
        return
    raw.write(data)
    raw.flush()


# ---- a terminal ------------------------------------------------------------------------------------------------------------


def _size() -> tuple[int, int]:
    try:
        columns, rows = os.get_terminal_size(sys.stdin.fileno())
    except (OSError, ValueError):
        return 24, 80
    return (rows, columns) if rows > 0 and columns > 0 else (24, 80)


async def _resized(stream: ExecStream) -> None:
    with anyio.open_signal_receiver(signal.SIGWINCH) as signals:
        async for _ in signals:
            await stream.resize(*_size())


@asynccontextmanager
async def raw_terminal(*, wanted: bool) -> AsyncGenerator[None]:
    """Every key goes to the program; afterwards the terminal is as it was."""
    try:
        descriptor = sys.stdin.fileno()
        mine = wanted and os.isatty(descriptor)
    except (OSError, ValueError):
        descriptor, mine = -1, False
    if not mine:
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


# ---- many containers -------------------------------------------------------------------------------------------------------


async def _everywhere(
    streams: Streams, fleet: Fleet, ids: list[str], words: list[str], options: Mapping[str, Any]
) -> int:
    """In each of them at the same time; every line behind its container's id. 0 when all said 0."""
    limiter = anyio.Semaphore(_AT_ONCE)
    statuses: list[int] = []

    async def one(id: str) -> None:
        async with limiter:
            try:
                done = await fleet[id].exec(words, **options)
            except NexcageError as error:
                streams.say(f"nexcage: exec '{id}': {error}")
                statuses.append(OWN_FAILURE)
                return
        for kind, data in (("stdout", done.stdout), ("stderr", done.stderr)):
            lines = [f"{id}: ".encode() + line + b"\n" for line in data.splitlines()]
            await anyio.to_thread.run_sync(_write, streams, kind, b"".join(lines))
        statuses.append(done.exit)
        if done.exit:
            streams.say(f"nexcage: exec '{id}': exit status {done.exit}")

    async with anyio.create_task_group() as tasks:
        for id in ids:
            tasks.start_soon(one, id)
    return 0 if not any(statuses) else 1

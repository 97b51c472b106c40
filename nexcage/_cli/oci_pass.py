"""Commands that a runtime of this machine does itself, in its own words: ``exec``, ``ps``, ``events`` and ``update``.

What is ours is checked first. ``ps`` and ``events`` only look, and this process becomes the runtime; what changes something or runs
is in the journal.
"""

from __future__ import annotations

import os
import shutil
from typing import Any, NamedTuple

import anyio

import nexcage
from nexcage import Host, NotFound, State
from nexcage._cli.commands import Option
from nexcage._cli.dialects import oci_id
from nexcage._cli.main import tell
from nexcage._cli.oci_ground import RUNTIMES
from nexcage._cli.parser import Call, Usage
from nexcage._cli.settings import fleet_options
from nexcage._cli.streams import Streams
from nexcage._cli.verbs_fleet import drive, with_fleet
from nexcage.tools.runtime import inside

_OURS = frozenset("name runtime all selector env_file no_stdin timeout since id op follow".split())

__all__ = ["Held", "command_line", "held_here", "passed", "said_again", "turn_into"]


class Held(NamedTuple):
    """A container that a runtime of this machine has. ``program``: what runs the runtime; ``root``: where it keeps it."""

    id: str
    backend: str
    program: tuple[str, ...]
    root: str


OWN_FAILURE = 255
"""What ``exec`` ends with when the program could not be run."""


def passed(call: Call, streams: Streams) -> int:
    """Let the runtime do it where it can; everything else is done as for containers elsewhere."""
    try:
        if call.name == "events" and not call.words:  # the journal's
            from nexcage._cli.verbs_events import events

            return events(call, streams)
        held = held_here(call)
        if held is None:
            return _elsewhere(call, streams)
        match call.name:
            case "exec":
                return _exec(call, streams, held)
            case "update":
                return _update(call, streams, held)
            case _:  # crun has no events, and its ps no columns
                return turn_into(call, streams, held) if held.backend == "runc" else _elsewhere(call, streams)
    except Usage:
        raise
    except Exception as error:
        if call.name != "exec":
            raise
        tell(call, error, streams)
        return OWN_FAILURE


def _exec(call: Call, streams: Streams, held: Held) -> int:
    from nexcage._cli.oci_exec import recorded

    argv = command_line(call, held)
    options: dict[str, Any] = {**fleet_options(call), "recover": False, "watch": False}  # Any: keywords of open_fleet
    streams.flush()

    async def work() -> int | None:
        async with nexcage.open_fleet(**options) as fleet:
            return await recorded(fleet, call, held.id, argv)

    status = anyio.run(work)
    return turn_into(call, streams, held) if status is None else status


def _update(call: Call, streams: Streams, held: Held) -> int:
    limits = dict(word[2:].split("=", 1) for word in said_again(call))
    if not limits:
        return turn_into(call, streams, held)
    if "resources" in limits:
        from nexcage._cli.oci_resources import read_text

        limits["resources"] = read_text(limits["resources"], streams)

    async def verb(fleet: nexcage.Fleet) -> int:
        await fleet.do(nexcage.Update(held.id, limits=limits), wait=True)
        return 0

    return drive(call, streams, verb, fleet_options(call))


def _elsewhere(call: Call, streams: Streams) -> int:
    if call.name == "events":
        from nexcage._cli.oci_events import prepare

        return drive(call, streams, prepare(call, streams), fleet_options(call))
    return with_fleet(call, streams)


def held_here(call: Call) -> Held | None:
    """Who has the container of this command; None when that is no runtime of this machine. Raises NotFound."""
    id = oci_id(call, call.words[:1])
    options: dict[str, Any] = {**fleet_options(call), "recover": False, "watch": False}  # Any: keywords of open_fleet

    async def look() -> Held | None:
        async with nexcage.open_fleet(**options) as fleet:
            machine = fleet.machines.get(id)
            if machine is None or machine.state is State.ABSENT:
                raise NotFound("container", id)
            if machine.backend not in RUNTIMES or not Host.parse(machine.node).local:
                return None
            kind = fleet.config.backends.get(machine.backend)
            program = tuple(kind.command) if kind is not None and kind.command else (machine.backend,)
            return Held(id, machine.backend, program, f"/run/nexcage-oci/{fleet.id}/{machine.backend}")

    return anyio.run(look)


def turn_into(call: Call, streams: Streams, held: Held) -> int:
    """Become the runtime; returns only when it cannot be run."""
    argv = command_line(call, held)
    streams.flush()
    program = shutil.which(argv[0])
    if program is None:
        raise nexcage.NexcageError(f"{argv[0]}: not found")
    os.execv(program, argv)
    return 255  # pragma: no cover - it is another program by now


def command_line(call: Call, held: Held) -> list[str]:
    """What to run; the options are the caller's own."""
    given: list[str] = ["--root", held.root]
    for name in ("log", "log_format"):
        if (text := call.text(name)) is not None:
            given += [f"--{name.replace('_', '-')}", text]
    if call.flag("debug"):
        given.append("--debug")
    words = inside.exact(held.backend, call.words[1:]) if call.name == "exec" else call.words[1:]
    return [*held.program, *given, call.name, *said_again(call), held.id, *words]


def said_again(call: Call) -> list[str]:
    """The options of a command as they were given, in the order of the table; raises Usage for those that no runtime has."""
    if ours := [option for option in call.command.options if option.name in _OURS and call.given(option.name)]:
        raise call.usage(f"does not take {ours[0].flags[-1]} from an OCI engine")
    return [word for option in call.command.options if option.name != "interactive" for word in _words(call, option)]


def _words(call: Call, option: Option) -> list[str]:
    flag = next((flag for flag in option.flags if flag.startswith("--")), option.flags[0])
    if not option.value:
        return [flag] if call.flag(option.name) else []
    values = call.many(option.name) if option.many else (call.text(option.name),)
    return [f"{flag}={value}" for value in values if value is not None]

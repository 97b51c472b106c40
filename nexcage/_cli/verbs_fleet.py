"""Commands that open the fleet: opening it, Ctrl-C, and which function does what. The command line is checked before."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

import nexcage
from nexcage._cli.commands import COMMANDS
from nexcage._cli.main import INTERRUPTED
from nexcage._cli.parser import Call
from nexcage._cli.settings import fleet_options
from nexcage._cli.streams import Streams

if TYPE_CHECKING:
    from nexcage import Fleet

__all__ = ["Verb", "drive", "until_interrupted", "with_fleet"]

_LOOKING = ("list", "state", "health", "route", "doctor", "images", "pull", "rmi", "ps", "stats", "logs", "wait", "cp")
Verb = Callable[["Fleet"], Awaitable[int]]
"""What a command does with the open fleet; its exit status."""


def with_fleet(call: Call, streams: Streams) -> int:
    """Check the command line, open the fleet, do it."""
    verb = _prepare(call, streams)
    options = fleet_options(call)
    return drive(call, streams, verb, options)


def drive(
    call: Call, streams: Streams, verb: Verb, options: dict[str, Any], *, interruptible: bool = True
) -> int:  # Any: the keywords of open_fleet
    """Open the fleet and do it. ``interruptible=False``: the verb takes the signals itself."""
    if call.name in ("health", "list", "route", "version", "images", "pull", "rmi", "cordon", "uncordon") or (
        call.name == "reconcile" and call.flag("dry_run")
    ):
        options["recover"] = False  # a list finds it out for what it shows; the others change nothing
    options["watch"] = False  # a command ends before there is much to hear; `watch` follows by itself

    async def work() -> int:
        async with nexcage.open_fleet(**options) as fleet:
            if not logging.getLogger("nexcage").isEnabledFor(logging.INFO):
                return await verb(fleet)
            async with _logged(fleet):
                return await verb(fleet)

    if not interruptible:
        return anyio.run(work)
    return anyio.run(until_interrupted, partial(work), call, streams)


def _prepare(call: Call, streams: Streams) -> Verb:
    match call.name:
        case "create" | "run" | "clone":
            from nexcage._cli.verbs_create import prepare
        case "list":
            from nexcage._cli.verbs_look import prepare_list as prepare
        case "state":
            from nexcage._cli.verbs_look import prepare_state as prepare
        case "route":
            from nexcage._cli.verbs_look import prepare_route as prepare
        case "exec":
            from nexcage._cli.verbs_exec import prepare
        case "cp" | "push" | "logs" | "ps" | "stats" | "wait":
            from nexcage._cli.verbs_inside import prepare
        case "health":
            from nexcage._cli.verbs_health import prepare
        case "reconcile":
            from nexcage._cli.verbs_reconcile import prepare
        case "watch":
            from nexcage._cli.verbs_watch import prepare
        case "backups":
            from nexcage._cli.verbs_saving import prepare_backups as prepare
        case "restore":
            from nexcage._cli.verbs_saving import prepare_restore as prepare
        case (
            "backup"
            | "snapshot"
            | "delsnapshot"
            | "rollback"
            | "update"
            | "resize"
            | "move-volume"
            | "migrate"
            | "template"
        ):
            from nexcage._cli.verbs_ops import prepare
        case "adopt":
            from nexcage._cli.verbs_adopt import prepare
        case "drain":
            from nexcage._cli.verbs_drain import prepare
        case "cordon" | "uncordon":
            from nexcage._cli.verbs_drain import prepare_cordon as prepare
        case "snapshots":
            from nexcage._cli.verbs_ops import prepare_snapshots as prepare
        case "images" | "pull" | "rmi":
            from nexcage._cli.verbs_images import prepare
        case name if name not in COMMANDS:
            from nexcage._cli.verbs_plugins import prepare
        case "version":
            from nexcage._cli.verbs_local import prepare_version as prepare
        case _:
            from nexcage._cli.verbs_life import prepare
    return prepare(call, streams)


@asynccontextmanager
async def _logged(fleet: Fleet) -> AsyncGenerator[None]:
    """Every event on the logger, as it comes; what came last is written before this ends."""
    sink = nexcage.LogSink()
    failure: BaseException | None = None

    async def write(events: AsyncIterator[nexcage.Event]) -> None:
        try:
            async for event in events:
                await sink.put(event)
        except nexcage.Lagged as error:
            logging.getLogger("nexcage").warning("%s", error)

    async with fleet.events.subscribe() as events:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write, events)
            try:
                yield
            except BaseException as error:
                failure = error  # raised out of the task group, so that it stays bare
            tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True), anyio.move_on_after(0):  # takes what is queued and waits for nothing
            await write(events)
    if failure is not None:
        raise failure


async def until_interrupted(work: Callable[[], Awaitable[int]], call: Call, streams: Streams) -> int:
    """Run ``work``; the first SIGINT or SIGTERM cancels it, which is recorded; the second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        return await work()
    got: list[int] = []
    status = 0
    failure: BaseException | None = None

    async def watch() -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                if got:
                    os._exit(128 + number)
                got.append(number)
                inner.cancel()

    inner = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        with inner:
            try:
                status = await work()
            except Exception as error:
                failure = error  # raised below, out of the task group, so that it stays bare
        tasks.cancel_scope.cancel()
    if got and (inner.cancelled_caught or failure is not None):
        if call.name == "watch":  # following ends that way
            return INTERRUPTED if got[0] == signal.SIGINT else 128 + got[0]
        looking = call.name in _LOOKING
        recorded = "" if looking else "; what had begun is recorded, 'nexcage state ID' looks how it ended"
        streams.say(f"nexcage: {call.name}: interrupted{recorded}")
        return INTERRUPTED if got[0] == signal.SIGINT else 128 + got[0]
    if failure is not None:
        raise failure
    return status

"""Drivers that are to be killed: `kill9_driver.py`, then one JSON order a line on stdin; each is carried out by a fork.

A fork has all its imports already, so that most of its life is spent in opening, recovering and driving. It says `opening`,
`open`, then `ID VERB OUTCOME` for what it did, and `finished`. The parent says `born PID` and `ended PID STATUS`.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Any

import anyio
import asyncssh  # noqa: F401  (imported here, not in every fork)
import msgspec

import nexcage
import nexcage._transports.ssh
from nexcage import Config, Create, Delete, Done, Host, Intent, Limits, NexcageError, Pause, Resume, Spec, Start, Stop

SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", storage="local-zfs")
# What a key may answer when it was forgotten or its answer was lost: then the state itself is the answer.
SO_ALREADY = {"create": nexcage.AlreadyExists, "delete": nexcage.NotFound}


class Order(msgspec.Struct):
    """``wanted``: container -> the verbs that it goes through."""

    hosts: tuple[Host, ...]
    dir: str
    wanted: dict[str, tuple[str, ...]]
    options: dict[str, Any] = {}  # Any: settings as JSON says them
    state: str = "state"


def say(*words: str) -> None:
    os.write(1, (" ".join(words) + "\n").encode())  # one write: a killed driver never says half a line


def intent(verb: str, id: str, key: str) -> Intent:
    if verb == "create":
        return Create(id, SPEC, key)
    if verb == "stop":
        return Stop(id, timeout=10.0, op_id=key)
    return {"start": Start, "pause": Pause, "resume": Resume, "delete": Delete}[verb](id, op_id=key)


def begun(machine: nexcage.Machine) -> tuple[int, int]:
    """The newest verb that was begun by a key, and the attempt: what came before it is done."""
    ops = [*machine.done, machine.running, machine.unresolved]
    return max(((int(n), int(attempt)) for op in ops if op for _, n, attempt in [op.op_id.split(".")]), default=(0, 0))


async def carry_out(fleet: nexcage.Fleet, id: str, n: int, verb: str, first: int) -> None:
    for attempt in range(first, first + 40):
        try:
            done: Done = await fleet.do(intent(verb, id, f"{id}.{n}.{attempt}"), wait=True)
            say(id, verb, "done" if done.changed else "already")
            return
        except NexcageError as error:
            say(id, verb, type(error).__name__, str(error).replace("\n", " "))
            if isinstance(error, SO_ALREADY.get(verb, ())):
                return
            if isinstance(error, nexcage.Fenced):
                raise
            if isinstance(error, nexcage.Busy):  # another state directory has the lease
                await anyio.sleep(0.5)
            if error.uncertain or isinstance(error, nexcage.Blocked):
                try:
                    await fleet[id].reconcile()
                except NexcageError as blind:
                    say(id, "look", type(blind).__name__, str(blind).replace("\n", " "))
                    await anyio.sleep(0.2)
    raise RuntimeError(f"{verb} of {id} does not come to an end")


async def bring(fleet: nexcage.Fleet, id: str, verbs: tuple[str, ...]) -> None:
    first, attempt = begun(fleet[id].machine)
    for n in range(first, len(verbs)):
        await carry_out(fleet, id, n, verbs[n], attempt if n == first else 0)


async def drive(order: Order) -> None:
    limits = Limits(per_node=4, creates_per_node=2, retry_base=0.05, retry_most=0.5)
    places = {"state_dir": f"{order.dir}/{order.state}", "run_dir": f"{order.dir}/run-{order.state}"}
    config = msgspec.convert({"ssh_config": "none", **places, "limits": limits, **order.options}, Config)
    say("opening")
    async with nexcage.open_fleet(order.hosts, config=config) as fleet:
        say("open")
        async with anyio.create_task_group() as tasks:
            for id, verbs in order.wanted.items():
                tasks.start_soon(bring, fleet, id, verbs)
    say("finished")


def child(line: bytes) -> None:
    status = 1
    try:
        anyio.run(drive, msgspec.json.decode(line, type=Order))
        status = 0
    except BaseException:
        say("broke", traceback.format_exc().replace("\n", " | "))
    finally:
        os._exit(status)


def main() -> None:
    for line in sys.stdin.buffer:
        pid = os.fork()
        if pid == 0:
            child(line)
        say("born", str(pid))
        _, status = os.waitpid(pid, 0)
        say("ended", str(pid), str(os.waitstatus_to_exitcode(status)))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()

"""Cancelled at any command of any verb, the journal is whole and looking leads to what is so on the node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable
from typing import Any, Literal

import anyio
import pytest

import nexcage
from nexcage import Command, Host, Limits, Result, State, fold
from nexcage.abc import Transport
from nexcage.testing import SimCluster, virtual_run

SPEC = nexcage.Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", storage="local-zfs")
When = Literal["before", "during", "after"]
WANTED = {
    "create": State.CREATED, "start": State.RUNNING, "stop": State.STOPPED, "kill": State.RUNNING, "pause": State.PAUSED,
    "resume": State.RUNNING, "delete": State.ABSENT,
}  # fmt: skip


class Cancelling:
    """A transport that cancels a scope at its command number ``at``: before it, in the middle of it, or when its answer is there."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.scope: anyio.CancelScope | None = None
        self.at = 0
        self.when: When = "before"
        self.count = 0

    def arm(self, scope: anyio.CancelScope, at: int, when: When) -> None:
        self.scope, self.at, self.when, self.count = scope, at, when, 0

    async def run(self, command: Command[Any]) -> Result:
        self.count += 1
        now = self.scope is not None and self.count == self.at
        if now and self.when == "before":
            self._cancel()
        if now and self.when == "during":
            assert self.scope is not None
            self.scope.deadline = anyio.current_time() + (0.3 if "pct" in command.argv else 0.004)
        result = await self.inner.run(command)
        if now and self.when == "after":
            self._cancel()
        return result

    def _cancel(self) -> None:
        assert self.scope is not None
        self.scope.cancel()

    def stream(self, command: Command[Any]) -> Any:
        return self.inner.stream(command)

    async def aclose(self) -> None:
        await self.inner.aclose()


def called(web: nexcage.Container, verb: str) -> Awaitable[object]:
    match verb:
        case "create":
            return web.create(SPEC)
        case "stop":
            return web.stop(timeout=5)
        case "kill":
            return web.kill("HUP")
        case _:
            return getattr(web, verb)()  # type: ignore[no-any-return]


async def prepared(web: nexcage.Container, verb: str) -> None:
    """Bring it to where ``verb`` is legal."""
    if verb != "create":
        await web.create(SPEC)
    if verb in ("stop", "kill", "pause", "resume"):
        await web.start()
    if verb == "resume":
        await web.pause()
    await anyio.sleep(5)  # so that the verb begins with a look of its own


def truth(sim: SimCluster, machine: nexcage.Machine) -> State:
    """What is so on the node, whatever anybody says."""
    model = sim["pve-01"].model
    marked = [vmid for vmid in model.containers() if f"id={machine.id} " in (model.config(vmid) or "")]
    assert len(marked) <= 1
    if not marked:
        return State.ABSENT
    if not model.is_running(marked[0]):
        return State.STOPPED if machine.ran else State.CREATED
    return State.PAUSED if model.is_frozen(marked[0]) else State.RUNNING


async def cancelled_at(verb: str, at: int, when: When) -> bool:
    """One life, cancelled there; whether the verb had so many commands."""
    with SimCluster(1, seed=at) as sim:
        links: list[Cancelling] = []

        def connect(host: Host) -> Cancelling:
            links.append(Cancelling(sim.connect(host)))
            return links[-1]

        async with sim.fleet(connect=connect, limits=Limits(probe_timeout=30)) as fleet:
            web = fleet["web-1"]
            await prepared(web, verb)
            before = web.machine
            with anyio.CancelScope() as scope:
                links[0].arm(scope, at, when)
                await called(web, verb)
            links[0].scope = None
            reached = links[0].count >= at

            machine = web.machine
            assert fold(nexcage.read_journal(fleet.state_dir)) == fleet.machines
            assert machine.running is None
            began = machine.seq != before.seq
            if scope.cancelled_caught and began and machine.done[-1:] != before.done[-1:]:
                assert machine.state in (State.UNKNOWN, WANTED[verb])
                assert (machine.state is State.UNKNOWN) == isinstance(machine.done[-1], nexcage.Interrupted)
            elif not began:
                assert machine.state is before.state
            else:
                assert machine.state is WANTED[verb]

            await fleet.reconcile()

            assert web.machine.state is truth(sim, web.machine)
            assert web.machine.unresolved is None
            assert (fold(nexcage.read_journal(fleet.state_dir))) == fleet.machines
            seq = fleet.seq
            await fleet.reconcile()  # looking twice is looking once
            assert fleet.seq == seq
            if web.machine.state is before.state or verb == "kill":
                await called(web, verb)
            assert web.machine.state is truth(sim, web.machine) is WANTED[verb]
            steps = Counter((effect["op_id"], effect["step"]) for effect in sim.effects() if effect["op_id"])
            assert max(steps.values()) == 1
        return reached


@pytest.mark.parametrize("when", ["before", "during", "after"])
@pytest.mark.parametrize("verb", list(WANTED))
def test_cancelled_at_any_command_the_journal_is_whole_and_looking_tells_the_truth(verb: str, when: When) -> None:
    at = 1
    while virtual_run(cancelled_at, verb, at, when):
        at += 1
    assert at > 2  # a verb looks, and does something

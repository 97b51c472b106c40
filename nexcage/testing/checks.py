"""The contract of a backend as a function: whoever writes one calls it in a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import anyio

from nexcage import (
    Command,
    Config,
    Content,
    Create,
    Defaults,
    Delete,
    Done,
    Failure,
    Guest,
    Kill,
    Limits,
    Look,
    NexcageError,
    NotFound,
    Pause,
    Resume,
    Spec,
    Start,
    State,
    Stop,
)
from nexcage.abc import Backend
from nexcage.errors import AlreadyExists, IllegalTransition, InvalidInput, NodeError, Uncertain, Unsupported
from nexcage.names import image as image_ref
from nexcage.testing._model import vms
from nexcage.testing._model.world import DEBIAN

if TYPE_CHECKING:
    from nexcage import Fleet, Intent
    from nexcage.testing.cluster import SimCluster

__all__ = ["check_backend"]

_FOREIGN = 990099
_VERBS = ("accepts", "create", "start", "stop", "kill", "pause", "resume", "delete", "observe")


async def check_backend(
    backend: Backend, sim: SimCluster, *, image: str, node: str | None = None, content: Content | None = None
) -> None:
    """Drive every verb of ``backend`` on a simulated node and assert what a backend promises.

    ``image``: one that it accepts. ``node``: where (default: the first). ``content``: what the nodes have of the image already, for a
    backend that makes containers from content. What it promises: a container that was created is seen, with its mark and its VMID, and
    does not run (its init may wait); a started one has a live init; what is so already is an answer and changes nothing; signals are
    delivered; pause and resume do; a stopped one starts again, unless the backend says ``restarts = False``: then that is refused; a
    deleted one is gone with nothing left to see; containers that are not ours, or no longer, are left alone; a node that is down is an
    error and never a success. Raises AssertionError that says which promise was broken.
    """
    _check_shape(backend, image)
    node = node or sim.hosts[0]
    config = Config(defaults=Defaults(backend=backend.name), limits=Limits(settle_timeout=10.0, op_timeout=600.0))
    async with sim.fleet([node], config=config, backend=[backend]) as fleet:
        check = _Check(backend, sim, fleet, node, Spec(image, backend=backend.name, node=node, content=content))
        await check.foreign_guest()
        await check.creates()
        await check.starts()
        await check.kills()
        await check.pauses()
        await check.stops()
        await check.deletes()
        await check.leaves_others_alone()
        await check.says_so_when_the_node_is_down()


def _broken(what: str, error: BaseException | None = None) -> NoReturn:
    detail = f": {type(error).__name__}: {error}" if error is not None else ""
    raise AssertionError(f"{what}{detail}") from error


def _check_shape(backend: Backend, image: str) -> None:
    missing = [verb for verb in _VERBS if not callable(getattr(backend, verb, None))]
    if missing:
        _broken(f"it has no {', '.join(missing)}")
    name: object = backend.name
    if not isinstance(name, str) or not name.isascii() or not name.replace("-", "").isalnum() or name != name.lower():
        _broken(f"its name is {name!r}, not a word of small letters, digits and -")
    if backend.accepts(image_ref(image)) is not True:
        _broken(f"it does not accept the image {image!r} that the check was given for it")
    observe: object = backend.observe("node")
    if not isinstance(observe, Command) or not observe.safe:
        _broken("observe() does not give a Command that is safe (reads only)")


class _Check:
    def __init__(self, backend: Backend, sim: SimCluster, fleet: Fleet, node: str, spec: Spec) -> None:
        self.backend: Backend = backend
        self.sim: SimCluster = sim
        self.fleet: Fleet = fleet
        self.node: str = node
        self.spec: Spec = spec
        self.id: str = "check-1"
        self.theirs: object = None

    # What is asked and seen.

    async def does(self, intent: Intent, what: str, state: State, *, changed: bool = True) -> Done:
        """``what`` is to succeed and to end in ``state``."""
        try:
            done = await self.fleet.do(intent)
            self.spares(what)
        except (
            NexcageError,
            ArithmeticError,
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
            NotImplementedError,
        ) as error:
            self.spares(what)
            _broken(f"{what} failed", error)
        if done.state is not state:
            _broken(f"{what} ended {done.state}, not {state}")
        if done.changed is not changed:
            _broken(f"{what} said that it {'changed something' if done.changed else 'was so already'}")
        return done

    async def refuses(self, intent: Intent, what: str, *kinds: type[NexcageError]) -> NexcageError:
        """``what`` is to be refused with an error of these kinds."""
        try:
            done = await self.fleet.do(intent)
        except kinds as error:
            return error
        except NexcageError as error:
            _broken(f"{what} was refused as the wrong kind of error", error)
        _broken(f"{what} succeeded ({done.state})")

    async def look(self) -> Look:
        seen = (await self.fleet.look(self.node))[self.node]
        if not isinstance(seen, Look):
            _broken("the node cannot be observed", seen)
        boot = (self.sim[self.node].files.read("/proc/sys/kernel/random/boot_id") or "").strip()
        if seen.boot_id not in ("", boot):
            _broken(f"observe() gives the boot id {seen.boot_id!r}: it has to be the kernel's, or empty")
        return seen

    async def guest(self, what: str) -> Guest:
        """Our container as it is seen."""
        found = (await self.look()).find(self.fleet.id, self.id)
        if found is None:
            _broken(f"{what} is not seen with its mark: create has to set node.mark(id, vmid), observe has to find it")
        return found

    async def foreign_guest(self) -> None:
        """Somebody else's container stands beside ours."""
        made = await self.sim[self.node].run(
            ["pct", "create", str(_FOREIGN), f"local:vztmpl/{DEBIAN}", "--description", "mine"]
        )
        assert made.exit == 0, made.stderr
        await self.sim[self.node].run(["pct", "start", str(_FOREIGN)])
        self.theirs = self._foreign()

    def _foreign(self) -> object:
        node = self.sim[self.node]
        return node.model.config(_FOREIGN), node.model.init_pid(_FOREIGN)

    def spares(self, what: str) -> None:
        """The other one is as it was."""
        if self._foreign() != self.theirs:
            _broken(f"{what} changed a container that is not ours")

    # The promises.

    async def creates(self) -> None:
        done = await self.does(Create(self.id, self.spec), "create", State.CREATED)
        guest = await self.guest("a created container")
        if (
            guest.vmid != done.vmid and guest.kind != "oci"
        ):  # theirs is a number of the fleet's own, which is told to nobody
            _broken(f"create said VMID {done.vmid}, and the container is {guest.vmid}")
        if guest.running and not guest.waiting:
            _broken("a created container runs before it was started")
        await self.refuses(Create(self.id, self.spec), "creating it a second time", AlreadyExists)
        same = [g for g in (await self.look()).guests.values() if g.mark is not None and g.mark.id == self.id]
        if len(same) != 1:
            _broken(f"there are {len(same)} containers for one id")

    async def starts(self) -> None:
        done = await self.does(Start(self.id), "start", State.RUNNING)
        guest = await self.guest("a started container")
        if not guest.running or not guest.pid:
            _broken("a started container is not seen running with the pid of its init")
        if done.pid != guest.pid:
            _broken(f"start said pid {done.pid}, and init is {guest.pid}")
        await self.does(Start(self.id), "starting a running container", State.RUNNING, changed=False)
        if (await self.guest("a running container")).pid != guest.pid:
            _broken("starting a running container restarted it")

    async def kills(self) -> None:
        before = await self.guest("a running container")
        if before.kind == "vm":  # no init that takes signals
            await self.refuses(Kill(self.id, "WINCH"), "kill with a signal that means nothing to it", InvalidInput)
        else:
            await self.does(Kill(self.id, "WINCH"), "kill with a signal that init ignores", State.RUNNING)
        if (await self.guest("a running container")).pid != before.pid:
            _broken("a signal that init ignores ended it")
        try:
            await self.fleet.do(Kill(self.id, "KILL"))
        except NexcageError as error:
            _broken("kill with KILL failed", error)
        with anyio.move_on_after(30):
            while (await self.guest("a killed container")).running:  # noqa: ASYNC110 - nobody tells
                await anyio.sleep(0.2)
        if (await self.guest("a killed container")).running:
            _broken("a container that got SIGKILL still runs")
        await self.fleet.reconcile(self.id)
        await self.refuses(Kill(self.id, "HUP"), "kill of a container without a process", IllegalTransition)

    async def pauses(self) -> None:
        await self.starts_again()
        pid = (await self.guest("a running container")).pid
        await self.does(Pause(self.id), "pause", State.PAUSED)
        if not (await self.guest("a paused container")).frozen:
            _broken("a paused container is not seen frozen")
        await self.does(Pause(self.id), "pausing a paused container", State.PAUSED, changed=False)
        await self.does(Resume(self.id), "resume", State.RUNNING)
        guest = await self.guest("a resumed container")
        if guest.frozen or guest.pid != pid:
            _broken("a resumed container is not the one that was paused, running again")
        await self.does(Resume(self.id), "resuming a running container", State.RUNNING, changed=False)

    async def stops(self) -> None:
        await self.does(Stop(self.id, timeout=20), "stop", State.STOPPED)
        if (await self.guest("a stopped container")).running:
            _broken("a stopped container is still seen running")
        await self.does(Stop(self.id), "stopping a stopped container", State.STOPPED, changed=False)
        await self.starts_again()
        await self.does(Stop(self.id, force=True), "a forced stop", State.STOPPED)

    async def starts_again(self) -> None:
        """A stopped one runs again; one that runs only once is made anew."""
        if getattr(self.backend, "restarts", True):
            await self.does(Start(self.id), "starting a stopped container", State.RUNNING)
            return
        kinds = (IllegalTransition, Unsupported)
        await self.refuses(Start(self.id), "starting a container again that runs only once", *kinds)
        await self.does(Delete(self.id), "deleting a stopped container", State.ABSENT)
        await self.does(Create(self.id, self.spec), "create after delete", State.CREATED)
        await self.does(Start(self.id), "start", State.RUNNING)

    async def deletes(self) -> None:
        guest = await self.guest("a stopped container")
        await self.does(Delete(self.id), "delete", State.ABSENT)
        if guest.vmid in (await self.look()).guests:
            _broken("a deleted container is still there")
        await self.refuses(Delete(self.id), "deleting a container that is gone", NotFound)
        await self.does(Create(self.id, self.spec), "create after delete", State.CREATED)
        await self.does(Start(self.id), "start", State.RUNNING)
        await self.refuses(Delete(self.id), "deleting a running container without force", IllegalTransition)
        await self.does(Delete(self.id, force=True), "a forced delete", State.ABSENT)

    async def leaves_others_alone(self) -> None:
        """Somebody replaces our container by another one with the same number, and we do not know yet."""
        self.id = "check-2"
        done = await self.does(Create(self.id, self.spec), "create", State.CREATED)
        node = self.sim[self.node]
        if vms.config(node.model, done.vmid) is not None:
            made = await node.run(["qm", "destroy", str(done.vmid)])
            assert made.exit == 0, made.stderr
        elif node.model.config(done.vmid) is None:  # its containers are not PVE's: nobody can replace one by pct
            await self.does(Delete(self.id), "delete", State.ABSENT)
            return
        else:
            await node.run(["pct", "destroy", str(done.vmid)])
        made = await node.run(["pct", "create", str(done.vmid), f"local:vztmpl/{DEBIAN}"])
        assert made.exit == 0, made.stderr
        theirs = node.model.config(done.vmid)
        for intent in (Start(self.id), Delete(self.id), Delete(self.id, force=True)):
            outcome = (await self.fleet.run([intent]))[0]
            if node.model.config(done.vmid) != theirs or node.model.is_running(done.vmid):
                _broken(f"{intent.op} changed a container that had taken the place of ours")
            if isinstance(outcome, Done) and outcome.changed:
                _broken(f"{intent.op} says that it changed a container that is not there any more")

    async def says_so_when_the_node_is_down(self) -> None:
        self.id = "check-3"
        await self.does(Create(self.id, self.spec), "create", State.CREATED)
        self.sim[self.node].crash()
        self.theirs = self._foreign()
        outcome = (await self.fleet.run([Start(self.id)]))[0]
        if not isinstance(outcome, Failure):
            _broken("start on a node that is down succeeded")
        if not isinstance(outcome.error, (NodeError, Uncertain)):
            _broken("start on a node that is down failed as if the container were to blame", outcome.error)
        self.sim[self.node].restart()
        await self._back()
        await self.fleet.reconcile(self.id)
        if self.fleet.machines[self.id].state is State.ABSENT and not getattr(self.backend, "restarts", True):
            return  # it ran in what a boot begins anew
        await self.does(Delete(self.id), "delete after the node came back", State.ABSENT)

    async def _back(self) -> None:
        with anyio.move_on_after(120):
            while not isinstance((await self.fleet.look(self.node))[self.node], Look):  # noqa: ASYNC110 - nobody tells
                await anyio.sleep(1.0)

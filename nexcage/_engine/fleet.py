"""The nodes you opened, and everything one can ask of them together."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, get_args

import anyio

from nexcage import names
from nexcage._core.command import Command
from nexcage._core.config import Config
from nexcage._core.drift import Difference
from nexcage._core.finding import Finding
from nexcage._core.images import Image, Template
from nexcage._core.inside import Addresses, Stats
from nexcage._core.intents import Adopt, Create, Intent
from nexcage._core.keeping import Migrate
from nexcage._core.machine import Machine
from nexcage._core.oci import OciState, oci_state
from nexcage._core.outcome import Done, Outcome, Report
from nexcage._core.route import Plan, plan
from nexcage._core.runtimes import RUNTIMES
from nexcage._core.seen import Look
from nexcage._core.selector import Selector
from nexcage._core.spec import Spec
from nexcage._core.states import State
from nexcage._engine import drain, insight
from nexcage._engine.bus import Events
from nexcage._engine.container import Container
from nexcage._engine.doctor import Doctor
from nexcage._engine.drain import Cordons
from nexcage._engine.driver import Driver
from nexcage._engine.images import Images
from nexcage._engine.inside import Insider
from nexcage._engine.node import Families, FleetNode, by_family, in_use
from nexcage._engine.observe import Observer
from nexcage._engine.placement import without
from nexcage._engine.rebuild import Rebuilder
from nexcage._engine.reconcile import Reconciler
from nexcage._engine.recover import Recovery
from nexcage._engine.saving import everywhere, having
from nexcage._engine.watch import Watcher, poll
from nexcage.abc import Backend, Follows, Journal
from nexcage.errors import Blocked, InvalidInput, NexcageError, NodeNotUsable, NotFound
from nexcage.tools.pvesm import Volume

__all__ = ["Fleet"]

_log = logging.getLogger("nexcage")

OUTSTANDING = 1024  # intents under way at once whose outcome nobody has taken; the bounds on work are in Limits


class Fleet:
    """Made by ``nexcage.open_fleet``; usable until its context is left. One node is a fleet of one."""

    def __init__(
        self,
        *,
        id: str,
        owner: str,
        state_dir: Path,
        run_dir: Path,
        config: Config,
        journal: Journal,
        nodes: Mapping[str, FleetNode],
        families: Families,
        backends: Mapping[str, Backend],
        events: Events,
        observer: Observer,
        recovery: Recovery,
        driver: Driver,
        images: Images,
        insider: Insider,
        cordons: Cordons,
    ) -> None:
        self.id: str = id
        self.owner: str = owner
        self.state_dir: Path = state_dir
        self.run_dir: Path = run_dir
        self.config: Config = config
        self.nodes: Mapping[str, FleetNode] = nodes
        self.backends: Mapping[str, Backend] = backends
        self.events: Events = events
        self._families = families
        self._journal = journal
        self._observer = observer
        self._recovery = recovery
        self._driver = driver
        self._cordons = cordons
        self._images = images
        self.insider: Insider = insider
        self._reconciler = Reconciler(observer, recovery, driver.do, config.on_drift)

    @property
    def machines(self) -> Mapping[str, Machine]:
        """Every container that the journal knows, deleted ones as ABSENT."""
        return self._journal.machines

    @property
    def seq(self) -> int:
        """The number of the newest event."""
        return self._journal.seq

    def __getitem__(self, id: str) -> Container:
        return Container(self, names.container_id(id))

    def __iter__(self) -> Iterator[Container]:
        return (
            Container(self, id) for id, machine in sorted(self.machines.items()) if machine.state is not State.ABSENT
        )

    def __repr__(self) -> str:
        lost = sum(node.lost for node in self.nodes.values())
        return f"<Fleet {self.id}: {len(self.nodes)} nodes ({lost} lost), {sum(1 for _ in self)} containers>"

    # ---- doing -------------------------------------------------------------------------------------------------------------

    async def do(self, intent: Intent, *, wait: bool = False) -> Done:
        """Drive one intent to its end; raises its error. ``wait``: for another driver's operation, instead of raising Busy."""
        return await self._driver.do(intent, wait=wait)

    async def adopt(self, id: str, vmid: int, *, node: str = "", op_id: str | None = None, wait: bool = False) -> Done:
        """Take the guest ``vmid``, which somebody else made, into the fleet as ``id``; it goes on as it is, and only our mark is set.

        Raises NotFound, InvalidInput for a VMID on several nodes when ``node`` does not say which, NotOurs for one of another fleet,
        AlreadyExists for an id or a guest that is known, Busy for a locked one, Changed when somebody edits it meanwhile.
        """
        return await self.do(Adopt(id, vmid, node, op_id), wait=wait)

    async def restore(
        self,
        id: str,
        volume: str,
        *,
        node: str = "",
        storage: str | None = None,
        hostname: str | None = None,
        op_id: str | None = None,
        wait: bool = False,
    ) -> Done:
        """Make the container ``id`` from the archive ``volume`` (``STORAGE:backup/NAME``), on ``node`` or on one that has it: a create like
        any other, with a VMID and a mark of its own and everything else as it was saved. Raises NotFound and what a create raises.
        """
        spec = await self.restoring(volume, node=node, storage=storage, hostname=hostname)
        return await self.do(Create(id, spec, op_id), wait=wait)

    async def restoring(
        self, volume: str, *, node: str = "", storage: str | None = None, hostname: str | None = None
    ) -> Spec:
        """The spec of a create from that archive, at a node that has it."""
        if names.image(volume).kind != "backup":
            raise InvalidInput("backup", volume, "an archive of a container, STORAGE:backup/NAME.tar.zst")
        key = self._node(node).key if node else await having(self.nodes, volume)
        return Spec(volume, node=key, storage=storage, hostname=hostname, backend="lxc")

    async def backups(self) -> dict[str, tuple[Volume, ...]]:
        """Every archive of a guest on the nodes, by node. One that cannot be asked is left out and named in a warning on the logger
        ``nexcage``; raises its error when none could.
        """
        found, errors = await everywhere(self.nodes.values())
        _tell_away(errors, found)
        return found

    async def rehearse(self, intent: Intent) -> tuple[str, tuple[Command[Any], ...]]:
        """The node and the commands that ``intent`` would run there now to change something (none: it is so already). Changes nothing,
        and raises what would refuse it before it begins.
        """
        return await self._driver.rehearse(_intent(intent))

    async def run(self, intents: Iterable[Intent], *, wait: bool = False) -> Report:
        """Drive them all and wait; intents for one container run in the order given. Failures are in the report, never raised.

        A cancel records what had begun as Interrupted and is raised on.
        """
        outcomes: dict[int, Outcome] = {}

        async def keep(index: int, outcome: Outcome) -> None:
            outcomes[index] = outcome

        wanted = [_intent(intent) for intent in intents]
        await self._feed(wanted, keep, wait)
        lost = {key for key, node in self.nodes.items() if node.lost or node.away}
        return Report((outcomes[index] for index in range(len(wanted))), lost)

    @asynccontextmanager
    async def stream(self, intents: Iterable[Intent], *, wait: bool = False) -> AsyncGenerator[AsyncIterator[Outcome]]:
        """The outcomes as they finish. They push back: with a thousand that nobody has taken,
        no further intent is begun.

        Leaving early cancels the rest, and what had begun is recorded as Interrupted. Intents may come from an iterator that
        makes them one by one; when that raises, what it gave before is carried out, and its error is raised on leaving.
        """
        send, receive = anyio.create_memory_object_stream[Outcome]()
        wanted = _checked(intents)

        async def hand_out(_: int, outcome: Outcome) -> None:
            await send.send(outcome)

        failure: BaseException | None = None

        async def work() -> None:
            nonlocal failure
            async with send:
                try:
                    await self._feed(wanted, hand_out, wait)
                except Exception as error:  # noqa: BLE001 (raised again below)
                    failure = error

        async with receive, anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            try:
                yield receive
            except BaseException as error:  # noqa: BLE001 (raised again below)
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:  # out of the task group, so that the caller's exception stays bare
            raise failure

    async def _feed(
        self, intents: Iterable[Intent], take: Callable[[int, Outcome], Awaitable[None]], wait: bool
    ) -> None:
        """A bounded number at once: a task per container, which does its intents one after the other."""
        room = anyio.Semaphore(OUTSTANDING)
        queues: dict[str, deque[tuple[int, Intent]]] = {}
        broken: list[BaseException] = []

        async def work(id: str, queue: deque[tuple[int, Intent]]) -> None:
            try:
                while queue:
                    index, intent = queue[0]
                    await take(index, await self._driver.outcome(intent, wait=wait))
                    queue.popleft()
                    room.release()
                del queues[id]
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                tasks.cancel_scope.cancel()  # nobody takes outcomes any more
            except Exception as error:  # noqa: BLE001 (raised again below)
                broken.append(error)
                tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            try:
                for index, intent in enumerate(intents):
                    try:
                        room.acquire_nowait()
                    except anyio.WouldBlock:
                        await room.acquire()
                    if (queue := queues.get(intent.id)) is not None:
                        queue.append((index, intent))
                        continue
                    queue = queues[intent.id] = deque([(index, intent)])
                    tasks.start_soon(work, intent.id, queue)
            except Exception as error:  # noqa: BLE001 (the caller's iterator; raised again below, not in a group)
                broken.append(error)
        if broken:
            raise broken[0]

    # ---- looking -----------------------------------------------------------------------------------------------------------

    async def look(self, *keys: str, backend: str | None = None) -> dict[str, Look | NexcageError]:
        """See these nodes (all without ``keys``) at the same time as ``backend`` sees them, one command each; an error in the place of a
        node that failed.

        Without ``backend`` it is the default one. Nodes that have containers of others are looked at by those too: a node that cannot
        be seen by one of them has failed, and one where only those can look is as the first of them shows it.
        """
        wanted = [self._node(key) for key in keys] or list(self.nodes.values())
        seen: dict[str, Look | NexcageError] = {}
        needed = in_use({node.key: node for node in wanted}, self.machines.values())

        async def one(node: FleetNode) -> None:
            try:
                if backend is not None:
                    seen[node.key] = await node.of(names.backend(backend)).look()
                    return
                looks = await self._looks(node, needed[node.key])
                seen[node.key] = looks.get(node.family) or next(iter(looks.values()))
            except NexcageError as error:
                seen[node.key] = error

        async with anyio.create_task_group() as tasks:
            for node in wanted:
                tasks.start_soon(one, node)
        return {node.key: seen[node.key] for node in wanted}

    def _node(self, key: str) -> FleetNode:
        try:
            return self.nodes[key]
        except KeyError:
            raise NotFound("node", key, "is not in this fleet") from None

    async def observe(self, id: str) -> Machine:
        """Look at one container, record what differs or became of a lost operation, and do nothing else; raises NodeError."""
        id = names.container_id(id)
        await self._journal.refresh()
        await self._recovery.resolve(id)
        await self._observer.observe(id)
        return self._observer.machine(id)

    async def reconcile(self, *ids: str, dry_run: bool = False) -> list[Difference]:
        """Find what differs between the journal and the nodes (all containers without ``ids``), record it, find out what became of
        lost operations, and do what ``on_drift`` says about containers that somebody else changed. ``dry_run``: only say it.

        One look per node. A node that cannot be seen leaves its containers as they are, and their differences carry the error; asked
        for one id, it is raised.
        """
        await self._journal.refresh()
        wanted = [names.container_id(id) for id in ids] or [
            id for id, m in self.machines.items() if m.state is not State.ABSENT or m.running is not None
        ]
        found = await self._reconciler.reconcile(wanted, dry_run=dry_run)
        if len(ids) == 1 and found and found[0].error is not None:
            raise found[0].error.error()
        return found

    async def doctor(
        self, *, machines: Mapping[str, Machine] | None = None, aside: Collection[str] = (), repair: bool = False
    ) -> list[Finding]:
        """What does not fit between the journal and the nodes: containers with our mark that the journal does not know and the
        reverse, half-made ones, copies, claims that nobody asks for any more. Two commands per node; a node that cannot be asked
        is a finding.

        ``machines``: a journal that was read without opening it (`nexcage.examine`), ``aside`` the containers that damage has set
        aside. ``repair`` mends what is safe: records what is so, finds out what became of lost operations, sweeps claims.
        """
        doctor = Doctor(self.id, self._journal, self.nodes, self.observe, self._families.of)
        return await (doctor.repair(aside) if repair else doctor.examine(machines, aside))

    async def rebuild(self, *ids: str, aside: Collection[str] = ()) -> list[Finding]:
        """Write into the journal what the marks on the nodes say about containers that it does not know: all, or ``ids``.

        ``ids`` that are in ``aside`` too are those whose records are damaged: they are believed as the nodes show them, when all
        nodes answer and nothing of theirs is under way. What contradicts something is left alone and is a finding. May be repeated.
        """
        backend = names.backend(self.config.defaults.backend)
        wanted = [names.container_id(id) for id in ids]
        return await Rebuilder(self.id, self._journal, self.nodes, backend).rebuild(wanted, aside)

    @property
    def left(self) -> list[str]:
        """The containers whose last operation nobody drives and nobody knows the end of."""
        return [id for id in self._recovery.all() if self.machines[id].node in self.nodes]

    async def recover(self, *ids: str, wait: bool = False) -> None:
        """Find out what became of the operations that dead drivers left (all without ``ids``); done when the fleet is opened.

        Claims are asked for with one command per node. What cannot be known (a node that does not answer; without ``wait`` a command
        that still runs) is a warning on the logger ``nexcage`` and stays for whoever asks next.
        """
        if not self.left:
            return
        await self._journal.refresh()
        unknown: dict[str, list[str]] = {}

        async def one(id: str) -> None:
            try:
                await self._recovery.resolve(id, wait=wait)
            except NexcageError as error:
                unknown.setdefault(str(error), []).append(f"'{id}'")

        async with anyio.create_task_group() as tasks:
            for id in self.left:
                if not ids or id in ids:
                    tasks.start_soon(one, id)
        for why, some in unknown.items():  # a node that is away is told once, not for each of its containers
            more = f" and {len(some) - 5} more" if len(some) > 5 else ""
            _log.warning(
                "what became of the last operation on %s is not known yet: %s", ", ".join(some[:5]) + more, why
            )

    async def states(self, *ids: str) -> dict[str, OciState]:
        """The OCI states of these containers (all without ``ids``), looked up with one command per node; see
        `Container.state`.
        """
        await self._journal.refresh()
        wanted = [names.container_id(id) for id in ids] or [container.id for container in self]
        known: dict[str, Machine] = {}
        for id in wanted:
            machine = self.machines.get(id)
            if machine is None or (machine.state is State.ABSENT and machine.running is None):
                raise NotFound("container", id)
            known[id] = machine
        stale: set[str] = set()

        async def one(id: str) -> None:
            try:
                await self._recovery.resolve(id, wait=False)
                await self._observer.observe(id, wait=False)
            except Blocked:
                return  # it was seen: UNKNOWN is what is so
            except NexcageError:
                stale.add(id)

        async with anyio.create_task_group() as tasks:
            for id in known:
                tasks.start_soon(one, id)
        answers: dict[str, OciState] = {}
        for id in known:
            machine = self.machines[id]
            if machine.state is State.ABSENT and ids:
                raise NotFound("container", id, "is gone")
            if machine.state is not State.ABSENT:
                answers[id] = oci_state(machine, run_dir=str(self.run_dir), stale=id in stale)
        return answers

    async def stats(self, selector: str | Selector = "") -> list[Stats]:
        """What running containers (all, or those that match) use of memory, CPU and disks; one command per node, none inside.

        A node that cannot be asked is left out and named in a warning on the logger ``nexcage``; raises its error when none could.
        """
        await self._journal.refresh()
        machines = [self.machines[id] for id in self.select(selector)]
        found, errors = await insight.stats(self.insider, machines)
        _tell_away(errors, found)
        return found

    async def addresses(self, *ids: str) -> dict[str, Addresses]:
        """Where running containers (all, or ``ids``) are reached; one command per node, none inside. Nodes away as in `stats`."""
        await self._journal.refresh()
        wanted = [names.container_id(id) for id in ids] or [container.id for container in self]
        machines = [self.machines[id] for id in wanted if id in self.machines]
        found, errors = await insight.addresses(self.insider, machines)
        _tell_away(errors, found)
        return found

    # ---- images ------------------------------------------------------------------------------------------------------------

    async def images(self, *keys: str) -> dict[str, tuple[Image, ...] | NexcageError]:
        """The images that these nodes have (all without ``keys``), one command each; an error in the place of a node that failed."""
        return await self._images.images(keys)

    async def available(self, *keys: str) -> dict[str, tuple[Template, ...] | NexcageError]:
        """The templates that Proxmox VE offers these nodes for download."""
        return await self._images.available(keys)

    async def pull(self, image: str, *keys: str, storage: str = "") -> dict[str, Image | NexcageError]:
        """See to it that these nodes have ``image``: a template (``STORAGE:vztmpl/NAME``), an alias of ``[images]``, or ``NAME:TAG`` of a
        registry (Proxmox VE 9.1). What is there already is not fetched again. An error in the place of a node that failed.

        ``storage`` instead of the configured one. Raises InvalidInput for what cannot be pulled. A cancel ends the download; the node
        cleans up after it.
        """
        return await self._images.pull(image, keys, storage)

    async def push_image(self, image: str, *keys: str, storage: str = "") -> dict[str, Image | NexcageError]:
        """Send an image of this machine (a layout, an archive, a bundle, or an alias of one) to the template storage of these nodes: its
        root file system, as ``STORAGE:vztmpl/nexcage-DIGEST.tar.zst``. What is there already is not sent again.

        Raises InvalidInput for what is no such image; an error in the place of a node that failed.
        """
        return await self._images.push(image, keys, storage)

    async def rmi(self, image: str, *keys: str, storage: str = "") -> dict[str, bool | NexcageError]:
        """See to it that these nodes do not have ``image``; True where one had it. Containers that were made from it stay."""
        return await self._images.remove(image, keys, storage)

    async def _looks(self, node: FleetNode, needed: Sequence[FleetNode]) -> dict[str, Look]:
        """By family. Where the default one is not at home, as on a node without Proxmox VE, one that is there looks."""
        try:
            return await by_family(needed, [node])
        except NodeNotUsable:
            from nexcage._engine.honoured import at_home

            for name in self._families.others() if not needed else ():
                if await at_home(self.backends[name], node):
                    view = node.of(name)
                    return {view.family: await view.look()}
            raise

    # ---- following ---------------------------------------------------------------------------------------------------------

    async def watch(self, *keys: str) -> None:
        """Follow what these nodes (all without ``keys``) say about their containers until cancelled: what somebody else changes is
        recorded as Observed within a second or so, and ``on_drift`` is done about it. A node that cannot be followed is looked at every
        few seconds instead. ``open_fleet(watch=True)`` does it for as long as the fleet is open.
        """
        backend = self.backends.get(names.backend(self.config.defaults.backend))

        async def reconcile(ids: list[str]) -> None:
            await self._reconciler.reconcile(ids, dry_run=False)

        nodes = [self._node(key) for key in keys] or list(self.nodes.values())

        def others() -> list[str]:
            first, there = self._families.of(""), {node.key for node in nodes}
            alive = (m for m in self.machines.values() if m.state is not State.ABSENT and m.running is None)
            return [m.id for m in alive if m.node in there and self._families.of(m.backend) != first]

        async with anyio.create_task_group() as tasks:
            random = Random(f"{self.owner.rpartition('-')[2]}:others")
            tasks.start_soon(partial(poll, others, refresh=self._journal.refresh, reconcile=reconcile, random=random))
            for node in nodes:
                watcher = Watcher(
                    node,
                    backend if isinstance(backend, Follows) else None,
                    machines=lambda: self.machines,
                    refresh=self._journal.refresh,
                    reconcile=reconcile,
                    random=Random(f"{self.owner.rpartition('-')[2]}:{node.key}"),
                )
                tasks.start_soon(watcher.run)

    # ---- finding -----------------------------------------------------------------------------------------------------------

    def select(self, selector: str | Selector = "") -> list[str]:
        """Ids of the existing containers that match ``tag=web node=pve-0* state=stopped id~^web-``; raises InvalidInput."""
        chosen = selector if isinstance(selector, Selector) else Selector.parse(selector)
        return [container.id for container in self if chosen.matches(container.machine)]

    async def find(self, word: str) -> str:
        """The container that ``word`` means: its id, else its VMID. A VMID on two nodes raises InvalidInput that lists both."""
        await self._journal.refresh()
        id = names.container_id(word)
        machine = self.machines.get(id)
        if machine is not None and (machine.state is not State.ABSENT or machine.running is not None):
            return id
        if word.isascii() and word.isdigit() and len(word) < 10:
            numbered = [m for m in self.machines.values() if m.vmid == int(word) and m.backend not in RUNTIMES]
            having = [m for m in numbered if m.state is not State.ABSENT]
            if len(having) > 1:
                places = ", ".join(f"'{m.id}' on {m.node}" for m in having)
                raise InvalidInput("container", word, f"an id; this VMID means {places}")
            if having:
                return having[0].id
        return id

    def route(self, id: str, spec: Spec) -> Plan:
        """Where a create of ``id`` would go and why; runs nothing. Raises what the create would raise for its route."""
        return without(self.cordoned, plan(names.container_id(id), spec, self.config, self.nodes, self.backends), id)

    @property
    def cordoned(self) -> frozenset[str]:
        """The nodes that take no new containers, for every process of this state directory, until `uncordon`."""
        return self._cordons.nodes()

    def cordon(self, node: str) -> bool:
        """From now on ``node`` takes no new containers and none of `moves_off`; creates that have begun go on. It is durable.

        False when it was so already. Raises NotFound.
        """
        return self._cordons.add(self._node(node).key)

    def uncordon(self, node: str) -> bool:
        """The opposite of `cordon`; also for a node that is no longer in this fleet. False when it was not cordoned."""
        if self._cordons.remove(node):
            return True
        self._node(node)
        return False

    async def moves_off(self, node: str, *, restart: bool = False, timeout: int = 180) -> list[Migrate]:
        """The moves that leave ``node`` without a container of this fleet, for `run`; looks, and changes nothing.

        They are spread over the other nodes of its cluster; cordoned ones and those in maintenance take none. Running containers are
        only moved with ``restart``; those that cannot be moved at all are left out (`stay_on`). Raises NotFound, the error of the node,
        and NoRoute when no other node can take any.
        """
        key = self._node(node).key
        await self._journal.refresh()
        there = [m for m in drain.on(key, self.machines.values()) if not drain.stays(m, self.backends)]
        looks = {
            one: look
            for one, look in (await self.look(backend="lxc")).items()
            if one == key or one not in self.cordoned
        }
        return drain.moves_off(key, there, looks, restart=restart, timeout=timeout)

    def stay_on(self, node: str) -> tuple[str, ...]:
        """The containers of this fleet on ``node`` that `moves_off` leaves there, because their backend has no way to move them. By the
        journal; raises NotFound.
        """
        there = drain.on(self._node(node).key, self.machines.values())
        return tuple(machine.id for machine in there if drain.stays(machine, self.backends))

    async def refresh(self) -> None:
        """Read what other processes have written to the journal."""
        await self._journal.refresh()


def _tell_away(errors: Mapping[str, NexcageError], found: Collection[object]) -> None:
    for error in errors.values():
        if not found:
            raise error
        _log.warning("%s", error)


def _checked(intents: Iterable[Intent]) -> Iterable[Intent]:
    """``intents``, each one seen to be one: all at once when they are all here, else as they come."""
    if isinstance(intents, Sequence):
        return [_intent(intent) for intent in intents]
    return map(_intent, intents)


def _intent(value: Intent) -> Intent:
    if type(value) not in get_args(Intent):
        raise InvalidInput("intent", value, "an intent such as nexcage.Start('web-1')")
    return value

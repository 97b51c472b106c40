"""The simulated cluster: nodes that are files, pretend tools that work on them, and the ways in."""

from __future__ import annotations

import os
import tempfile
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal, Self

import anyio

from nexcage.testing import faults
from nexcage.testing._model.drive import DiskLocks, Locks, cluster_lock
from nexcage.testing._model.files import SIM, DiskFiles, Files
from nexcage.testing._model.node import DUE, SETTINGS, Node
from nexcage.testing._model.others import words
from nexcage.testing._model.world import DEBIAN, UBUNTU, disk_node, effects, make_cluster, make_disk_cluster
from nexcage.testing.calls import Call, Link, finished
from nexcage.testing.clock import is_virtual
from nexcage.testing.executables import bin_dir, install
from nexcage.testing.taught import as_tool

if TYPE_CHECKING:
    from nexcage import Fleet, Host, Result
    from nexcage.abc import Transport
    from nexcage.testing._model.claims import Held, Order
    from nexcage.testing._model.tool import Ctx
    from nexcage.testing.real_lxc import RealLxc
    from nexcage.testing.sshd import Served

__all__ = ["SimCluster", "SimNode", "node_names"]

EPOCH = 1_764_000_000.0
"""What the nodes' clocks show when a simulation begins."""
_RTT = 0.001


def node_names(nodes: int | Iterable[str]) -> tuple[str, ...]:
    """``pve-01``, ``pve-02``, ... or the names as given."""
    return tuple(f"pve-{n:02}" for n in range(1, nodes + 1)) if isinstance(nodes, int) else tuple(nodes)


class SimNode:
    """One simulated node: what is on it, and what can go wrong with it."""

    def __init__(self, model: Node, prepare: Callable[[], None]) -> None:
        self.model: Node = model
        self._prepare = prepare
        self.name: str = model.name
        self.locks: Locks | DiskLocks = self._no_locks()
        self.calls: dict[Call, None] = {}
        """The commands that run on it now, in the order in which they began."""
        self.links: dict[Link, None] = {}
        self.watchers: list[Callable[[], None]] = []
        """Called when something about the node itself has changed: up or down, cut off, another host key."""
        self._seen: dict[str, Any] = dict(faults.state_of(model))  # Any: JSON
        self._healed: anyio.Event | None = None
        model.supervise = self._supervise

    def _supervise(self, order: Order, ctx: Ctx) -> Held:
        from nexcage.testing.claims import attend

        link = next((call.link for call in self.calls if call.ctx is ctx), None)
        return attend(self, order, link)

    def _no_locks(self) -> Locks | DiskLocks:
        files = self.model.files
        return DiskLocks(files) if isinstance(files, DiskFiles) else Locks()

    def __repr__(self) -> str:
        how = "down" if self.down else "partitioned" if self.partitioned else f"{len(self.model.running())} running"
        return f"<SimNode {self.name}: {how}>"

    @property
    def files(self) -> Files:
        """Its files by absolute path; on disk, changes are made by `step`."""
        return self.model.files

    @property
    def down(self) -> bool:
        return bool(faults.state_of(self.model).get("down"))

    @property
    def partitioned(self) -> bool:
        return bool(faults.state_of(self.model).get("partitioned"))

    @property
    def host_key(self) -> int:
        """How often its host key has changed."""
        return int(faults.state_of(self.model).get("key", 0))

    def step(self) -> AbstractContextManager[None]:
        """Change its files: on disk with the cluster's lock held and all at once."""
        files = self.model.files
        return cluster_lock(files) if isinstance(files, DiskFiles) else nullcontext()

    def listen(self, vmid: int, port: int, *, still: bool = True) -> None:
        """Something in a running container listens on a TCP port from now on, or (``still=False``) no longer. Within a `step`."""
        from nexcage.testing._model import inside

        inside.listen(self.model, vmid, port, still=still)

    # What can go wrong.

    def crash(self) -> None:
        """Down at once: its processes vanish, what it wrote stays (half-made containers and their locks too)."""
        self._happen("crash")

    def restart(self, *, new_boot: bool = True) -> None:
        """Boot it: with a new boot id, or (``new_boot=False``) as if nobody could tell."""
        self._happen("restart", new_boot=new_boot)

    def partition(self) -> None:
        """Nothing reaches it and it reaches nobody; what runs on it goes on."""
        self._happen("partition")

    def heal(self) -> None:
        """The end of a partition."""
        self._happen("heal")

    def fault(self, kind: str, on: str | None = None, times: int = 1, **options: object) -> None:
        """Script a fault (`FAULTS`) for the next ``times`` commands that begin with the words ``on`` (0: for all of them).

        Without ``on`` these happen at once: ``crash restart partition heal host-key no-quorum quorum storage-full storage-free
        clock-jump``, and to the container ``vmid=``: ``busy rival swap migrate ha-delay``. Options:

        - slow, stall: ``seconds``; stall: ``deaf=True`` ignores SIGTERM
        - wrong-exit: ``exit``
        - lock-held: ``lock="backup"``, a config lock instead of the flock
        - busy: ``task="vzdump"``, ``lock="backup"``, ``seconds=30``, ``dies=True`` (killed then: its config lock stays)
        - rival: ``after=True`` (the command fails half-way, then the VMID is taken), ``to`` (a node)
        - swap: ``mark="edited"`` (the other one has our mark with another operation), ``running=True``
        - migrate: ``to`` (a node)
        - ha-delay: ``seconds=20`` until a request is carried out
        - no-quorum, storage-full: ``seconds`` until it is over by itself; storage-full: ``storage`` (all of them; ``"run"``: /run)
        - clock-jump: ``seconds=3600``, or fewer than none
        """
        fault = faults.Fault(kind, on, times, **options)
        if fault.kind in faults.AT_ONCE and not on:
            self._happen(fault.kind, **options)
            return
        with self.step():
            faults.add(self.model, fault)

    def react(self, vmid: int, init: str) -> None:
        """How the running container's init takes signals: ``systemd``, ``busybox``, ``exits`` or ``stubborn``."""
        with self.step():
            self.files.write(f"{SIM}/init/{vmid}", init)

    def _happen(self, kind: str, **options: Any) -> None:  # Any: those of a fault
        if kind == "busy" and isinstance(vmid := options.get("vmid"), int):
            Call(self, words(vmid, options)).begin()
            return
        with self.step():
            faults.happen(self.model, kind, **options)
        self.notice()

    def happen_within_step(self, kind: str) -> None:
        """The same for a caller that is in a step already."""
        faults.happen(self.model, kind)
        self.notice()

    def notice(self) -> bool:
        """Let what has changed about the node take its effect on what runs here; whether anything had."""
        before, now = self._seen, dict(faults.state_of(self.model))
        if before == now:
            return False
        self._seen = now
        if now.get("boots", 0) != before.get("boots", 0):
            for call in list(self.calls):
                call.gone()
            self.locks = self._no_locks()
            self._cut()
        if now.get("key", 0) != before.get("key", 0):
            self._cut()
        if now.get("partitioned", False) != before.get("partitioned", False):
            for link in list(self.links):
                (link.hold if now.get("partitioned") else link.release)()
            if not now.get("partitioned") and self._healed is not None:
                self._healed.set()
                self._healed = None
        for watcher in list(self.watchers):
            watcher()
        return True

    def settle(self) -> None:
        """Let happen what happens by itself (a container that halts) although no command looks."""
        if not self.files.exists(DUE):
            return
        with self.step():
            self.model.settle()

    def _cut(self) -> None:
        for link in list(self.links):
            link.cut()

    async def healed(self) -> None:
        """Wait until it is not partitioned."""
        while self.partitioned:
            self._healed = self._healed or anyio.Event()
            await self._healed.wait()

    # Being there.

    async def run(self, argv: Iterable[str], *, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Result:
        """Run a command on the node itself, as somebody who sits in front of it."""
        from nexcage._core.command import Result

        self._prepare()
        out, err = bytearray(), bytearray()
        call = await finished(self, tuple(argv), env or {}, stdin, out.extend, err.extend)
        return Result(call.exit, bytes(out), bytes(err))


class SimCluster:
    """A cluster of pretend PVE nodes, in memory or (``dir``) on disk.

    ``pace`` is how slow tools are: 1.0 as on a real node, 0 not at all; by default as on a real node under virtual time, and not
    at all otherwise. ``rtt`` is the round trip of a link in memory, by the same rule. ``runner``: whether nodes in memory keep
    claims and fences natively, as those with a runner do; else scripts keep claims, and there are no fences. A directory that holds
    a cluster is taken as it is.

    ``kind="real"``, for a cluster on disk: its containers are real ones of LXC (`nexcage.testing.real_lxc` says what that needs), until
    `close`.
    """

    def __init__(
        self,
        nodes: int | Iterable[str] = 3,
        *,
        seed: int = 0,
        pace: float | None = None,
        dir: str | Path | None = None,
        rtt: float | None = None,
        runner: bool = True,
        kind: Literal["model", "real"] = "model",
    ) -> None:
        self.seed: int = seed
        self.lxc: RealLxc | None = None
        """The ground of its real containers."""
        self.runner: bool = runner
        self.dir: Path | None = None if dir is None else Path(dir)
        self._pace = pace
        self._rtt = rtt
        self._origin: float | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._fleets = 0
        names = node_names(nodes)
        if kind == "real" and dir is None:
            raise ValueError("real containers need a cluster on disk: make it with SimCluster(dir=..., kind='real')")
        if self.dir is None:
            models = make_cluster(names, clock=self.clock, seed=seed, pace=pace or 0.0)
        else:
            self.dir = self.dir.absolute()
            whole = self.dir / "cluster" / "made"  # written last: without it, whoever made the cluster did not finish
            if not whole.exists():
                make_disk_cluster(self.dir, names, seed=seed, pace=pace or 0.0)
                whole.touch()
            names = tuple(sorted(path.name for path in (self.dir / "nodes").iterdir()))
            install(self.dir, names)
            if kind == "real":
                from nexcage.testing.real_lxc import RealLxc

                self.lxc = RealLxc(self.dir, names)
                self.lxc.start()
            models = {name: disk_node(self.dir, name) for name in names}
        self.nodes: Mapping[str, SimNode] = {name: SimNode(model, self.settle_pace) for name, model in models.items()}

    def __getitem__(self, name: str) -> SimNode:
        return self.nodes[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Throw away the directory that its fleets had in common, and end real containers. A cluster on disk stays."""
        if self.lxc is not None:
            self.lxc.stop()
            self.lxc = None
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def __iter__(self) -> Iterator[SimNode]:
        return iter(self.nodes.values())

    def __repr__(self) -> str:
        return f"<SimCluster: {len(self.nodes)} nodes, seed {self.seed}{f', in {self.dir}' if self.dir else ''}>"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The nodes' host strings."""
        return tuple(self.nodes)

    def clock(self) -> float:
        """Seconds since 1970 by the nodes' clocks: the machine's for nodes on disk, else one that moves with the event loop."""
        if self.dir is not None:
            return time.time()
        try:
            now = anyio.current_time()
        except Exception:  # noqa: BLE001 - no event loop is running yet, or any more
            return EPOCH
        if self._origin is None:
            self._origin = (EPOCH if is_virtual() else time.time()) - now
        return self._origin + now

    # Settings.

    @property
    def pace(self) -> float:
        """How slow tools are."""
        return self._first.pace

    @pace.setter
    def pace(self, value: float) -> None:
        self._pace = value
        self._set(pace=value)

    @property
    def _first(self) -> Node:
        return next(iter(self.nodes.values())).model

    def _set(self, **settings: object) -> None:
        import json

        with next(iter(self)).step():
            self._first.files.write(SETTINGS, json.dumps({**self._first.settings, **settings}))

    @property
    def rtt(self) -> float:
        """The round trip of a link in memory."""
        return (_RTT if is_virtual() else 0.0) if self._rtt is None else self._rtt

    def settle_pace(self) -> None:
        """Under virtual time tools cost what they cost on a real node, unless somebody said otherwise."""
        if self._pace is None and self.dir is None and is_virtual():
            self.pace = 1.0

    def inits(self, init: str) -> None:
        """How the inits of containers started from now on react: ``systemd``, ``busybox``, ``exits`` or ``stubborn``."""
        self._set(init={**self._first.settings.get("init", {}), "default": init})

    def teach(self, program: str, tool: object) -> None:
        """Put a program on every node's PATH: a generator like the pretend tools, or any callable of ``(argv, stdin)``.

        What the callable returns is its result: a `nexcage.Result`, text or bytes for stdout, an exit status, or a tuple of exit
        status, stdout and stderr. Nodes in memory and behind servers of this process have it; executables have not.
        """
        for node in self:
            node.model.taught[program] = as_tool(tool)

    def effects(self) -> list[dict[str, Any]]:  # Any: JSON
        """Every command that changed something, in order."""
        return effects(self._first.files)

    # Ways in.

    def path(self, name: str) -> Path:
        """The directory to put on PATH in order to be on that node; only for a cluster on disk."""
        if self.dir is None:
            raise ValueError("a cluster in memory has no programs: make it with SimCluster(dir=...)")
        return bin_dir(self.dir, self.nodes[name].name)

    def transport(self, name: str) -> Transport:
        """A link to a node in memory, not yet connected."""
        from nexcage.testing.memory import MemoryTransport

        self.settle_pace()
        return MemoryTransport(self.nodes[name], rtt=self.rtt, runner=self.runner)

    def connect(self, host: Host) -> Transport:
        """What `nexcage.open_fleet` takes as ``connect``: host strings are node names, ``user@`` and ``:port`` do not matter; the
        addresses of the cluster's ``.members`` reach their nodes too.
        """
        address = host.address or host.key
        return self.transport(address if address in self.nodes else self._by_address().get(address, address))

    def _by_address(self) -> Mapping[str, str]:
        import json

        members = json.loads(self._first.files.read("/etc/pve/.members") or "{}")
        return {entry["ip"]: name for name, entry in members.get("nodelist", {}).items()}

    @asynccontextmanager
    async def fleet(self, hosts: Any = None, **options: Any) -> AsyncIterator[Fleet]:  # Any: open_fleet's own options
        """A fleet of the nodes (all, or ``hosts``), reached in memory; the options are those of `nexcage.open_fleet`.

        Journal and state files lie in a temporary directory that lives as long as the cluster: a second fleet goes on where the
        first one ended.
        """
        from nexcage import Config, open_fleet

        self.settle_pace()
        home = self._home()
        if "config" not in options:
            options["config"] = Config(images=IMAGES)
        options.setdefault("state_dir", home / "state")
        options.setdefault("run_dir", home / "run")
        self._fleets += 1  # two fleets that roll the same dice would make the same operation ids
        options.setdefault("random", Random(f"{self.seed}:fleet:{self._fleets}"))
        options.setdefault("clock", self.clock)
        options.setdefault("inline", is_virtual())
        options.setdefault("connect", self.connect)
        every = self.hosts if options.get("discover") is None else None
        async with open_fleet(every if hosts is None else hosts, **options) as fleet:
            yield fleet

    def _home(self) -> Path:
        if self._temporary is None:
            # In memory where there is such a place: a simulation has no power to lose, and its journal need not wait for a disk.
            shared = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None
            self._temporary = tempfile.TemporaryDirectory(prefix="nexcage-sim-", dir=shared)
            weakref.finalize(self, self._temporary.cleanup)
        return Path(self._temporary.name)

    def serve(self, **options: Any) -> AbstractAsyncContextManager[Served]:  # Any: those of sshd.serve
        """SSH servers on loopback, one per node; see `nexcage.testing.sshd.serve`."""
        from nexcage.testing.sshd import serve

        return serve(self, **options)


IMAGES: Mapping[str, str | Mapping[str, str]] = {
    "debian:12": f"local:vztmpl/{DEBIAN}",
    "alpine:3.20": "local:vztmpl/alpine-3.20-default_20240908_amd64.tar.xz",
    "ubuntu:20.04": {"vm": f"local:import/{UBUNTU}"},
}
"""Aliases for the templates and the disk that every simulated node has."""

"""The one place that puts concrete parts together."""

from __future__ import annotations

import logging
import os
import time
import tomllib
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup

from nexcage import names
from nexcage._core import config as _config
from nexcage._core.config import Config, Limits
from nexcage._core.hosts import LOCAL, Host, is_pattern, words
from nexcage._core.machine import Event, Machine
from nexcage._core.plugin import PluginConfig
from nexcage._engine.bus import Events
from nexcage._engine.creation import Creation
from nexcage._engine.driver import Driver
from nexcage._engine.fleet import Fleet
from nexcage._engine.images import Images
from nexcage._engine.inside import Insider
from nexcage._engine.link import Link
from nexcage._engine.node import Families, FleetNode
from nexcage._engine.observe import Observer
from nexcage._engine.placement import PLACEMENTS
from nexcage._engine.provisions import Provisions
from nexcage._engine.recover import Recovery
from nexcage._hosts import discovered, expanded
from nexcage._lease import make_lease
from nexcage._plugins import hooks_of, placement_of, plugged, sinks_of
from nexcage._sinks.cordons import Cordons
from nexcage._sinks.disk import Disk
from nexcage._sinks.journal import open_journal
from nexcage._sinks.owners import owner_alive
from nexcage._sinks.segments import read_journal
from nexcage.abc import Backend, Journal, Placement, Sink, Transport
from nexcage.errors import InvalidInput, InvalidPath, InvalidSpec, NexcageError, SinkError

if TYPE_CHECKING:
    from nexcage._engine.contents import Contents

__all__ = ["Backends", "config_paths", "load_config", "open_fleet", "run_dir_of", "state_dir_of"]

_log = logging.getLogger("nexcage")


def config_paths() -> tuple[Path, ...]:
    """The files that are read when they exist, in order; later ones win."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return (Path("/etc/nexcage/config.toml"), Path(home).expanduser() / "nexcage" / "config.toml")


def load_config(
    path: str | os.PathLike[str] | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    origins: dict[str, str] | None = None,
) -> Config:
    """The settings: the system's file, the user's, then ``path``, then ``NEXCAGE_STATE_DIR``, ``_RUN_DIR``,
    ``_HOSTS``, ``_DISCOVER``, ``_FLEET``.

    ``path`` (TOML, or NexCage's ``config.json``) must exist; it also leaves out the other files when it names a complete fleet
    (``state_dir`` set). ``origins`` is filled with dotted key → where its value came from. Raises InvalidPath and
    InvalidSpec; a syntax error names file and line, a note of others the file that said it.
    """
    documents: list[tuple[str, Mapping[str, Any]]] = []
    given = None if path is None else _toml(Path(path))
    if given is None or "state_dir" not in given:
        documents += [(str(p), _toml(p)) for p in config_paths() if p.is_file()]
    if given is not None:
        documents.append((str(path), given))
    variables: dict[str, Any] = {}
    for key in ("state_dir", "run_dir", "fleet", "discover"):
        if environ.get(f"NEXCAGE_{key.upper()}"):
            variables[key] = environ[f"NEXCAGE_{key.upper()}"]
    if environ.get("NEXCAGE_HOSTS"):
        variables["hosts"] = words(environ["NEXCAGE_HOSTS"])
    documents.append(("environment", variables))
    if origins is not None:
        for origin, document in documents:
            origins.update(dict.fromkeys(_dotted(document), origin))
    try:
        settings = _config.read(_config.layered(*(document for _, document in documents)))
        return _replaced(settings, {"hosts": expanded(settings.hosts, settings.ssh_config)} if settings.hosts else {})
    except InvalidInput as error:
        if origin := _said_in(error.field, documents):
            error.add_note(f"said in: {origin}")
        raise


def _said_in(field: str, documents: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """The last document with this setting, else with its table, else the only one there is."""
    said = [(origin, document) for origin, document in documents if document]
    table = field.partition(".")[0].partition("[")[0]
    exact = [origin for origin, document in said if field in _dotted(document)]
    near = [origin for origin, document in said if table in document]
    return (exact or near or ([said[0][0]] if len(said) == 1 else [""]))[-1]


def _dotted(document: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")  # pyright: ignore[reportUnknownArgumentType]
        else:
            yield f"{prefix}{key}"


def _toml(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".json":
        from nexcage._legacy import convert_config

        converted = convert_config(path)
        for one in converted.dropped:
            _log.warning("%s: %s has no effect: %s", path, one.key, one.reason)
        return converted.config
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise InvalidPath("config", str(path), f"a readable file ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InvalidSpec("config", str(path), f"TOML ({error})") from None


def state_dir_of(config: Config) -> Path:
    """Where the journal is: the setting, else ``/var/lib/nexcage``, else (not root) ``$XDG_STATE_HOME/nexcage``."""
    if config.state_dir:
        return Path(config.state_dir).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/nexcage")
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "nexcage"


def run_dir_of(config: Config) -> Path:
    """Where ``ID/state.json`` are: the setting, else ``/run/nexcage``, else (not root) ``$XDG_RUNTIME_DIR/nexcage``
    or STATE_DIR/run.
    """
    if config.run_dir:
        return Path(config.run_dir).absolute()
    if config.state_dir or os.geteuid() != 0:
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        return Path(runtime) / "nexcage" if runtime and not config.state_dir else state_dir_of(config) / "run"
    return Path("/run/nexcage")


_OURS: dict[str, str] = {
    "lxc": "nexcage._backends.lxc:Lxc",
    "vm": "nexcage._backends.vm:Vm",
    "crun": "nexcage._backends.oci:Crun",
    "runc": "nexcage._backends.oci:Runc",
}
"""Our backends; they are found without asking the packages of the environment, which is slow."""


class Backends(Mapping[str, Backend]):
    """The installed backends by name: entry points of the group ``nexcage.backends``, and ``more``, which win.

    Other packages are asked when a name is looked for that is not ours. One that cannot be loaded is named in the log and left out.
    """

    def __init__(self, more: Iterable[Backend] = (), settings: Mapping[str, PluginConfig] | None = None) -> None:
        self._known: dict[str, Backend] = {one.name: one for one in more}
        self._settings = settings or {}
        self._asked = False

    def __getitem__(self, name: str) -> Backend:
        if name not in self._known:
            if name in _OURS:
                module, _, kind = _OURS[name].partition(":")
                self._known[name] = getattr(import_module(module), kind)()
            else:
                self._ask()
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        self._ask()
        return iter(self._known)

    def __len__(self) -> int:
        self._ask()
        return len(self._known)

    def _ask(self) -> None:
        if self._asked:
            return
        self._asked = True
        for backend in plugged("backends", self._settings).values():
            self._known.setdefault(backend.name, backend)
        for name in _OURS:
            _ = self[name]


def _with_settings(config: Config) -> tuple[Backend, ...]:
    """Those of our backends that settings make another one of."""
    made: list[Backend] = []
    if config.zfs.pool:
        from nexcage._backends.zfs import LxcOnZfs

        on_zfs = LxcOnZfs(config.zfs)
        on_zfs.poststart = config.poststart
        made.append(on_zfs)
    elif config.poststart != "fail":
        from nexcage._backends.lxc import Lxc

        plain = Lxc()
        plain.poststart = config.poststart
        made.append(plain)
    if config.backends:
        from nexcage._backends.oci import runtimes

        made += runtimes(config.backends)
    return tuple(made)


def _connect(config: Config, random: Random) -> Callable[[Host], Transport]:
    logins: Any = None  # Any: its module is imported when the first remote node is opened

    def connect(host: Host) -> Transport:
        nonlocal logins
        if host.local:
            return _local(config)
        from nexcage._transports.ssh import Logins, SshSettings, SshTransport

        logins = logins or Logins()
        settings = SshSettings(
            connect_timeout=config.limits.connect_timeout,
            known_hosts=config.known_hosts,
            trust_on_first_use=config.trust_on_first_use,
            ssh_config=config.ssh_config,
            runner=config.runner,
        )
        return SshTransport(host, settings=settings, logins=logins, random=random)

    return connect


def _contents(config: Config, where: Path, random: Random) -> Contents:
    from nexcage._engine.contents import Contents
    from nexcage._engine.store import Store

    return Contents(Store(where / "contents", config.contents.cache << 30), _local(config), random)


def _local(config: Config) -> Transport:
    if config.runner == "always":
        from nexcage._transports.local_runner import LocalRunner

        return LocalRunner()
    from nexcage._transports.local import LocalTransport

    return LocalTransport()


@asynccontextmanager
async def open_fleet(
    hosts: Iterable[str | Host] | str | None = None,
    *,
    discover: str | None = None,
    config: Config | str | os.PathLike[str] | None = None,
    limits: Limits | None = None,
    state_dir: str | os.PathLike[str] | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    strict_oci: bool | None = None,
    watch: bool | None = None,
    placement: Placement | None = None,
    backend: Iterable[Backend] = (),
    sinks: Iterable[Sink] = (),
    connect: Callable[[Host], Transport] | None = None,
    random: Random | None = None,
    clock: Callable[[], float] = time.time,
    inline: bool = False,
    recover: bool = True,
    disk: Disk | None = None,
    contents: Contents | None = None,
) -> AsyncGenerator[Fleet]:
    """Open the nodes ``hosts`` (default: those of the config, else this machine) as one fleet, or with ``discover`` every node of the
    cluster of that node: ``"root@pve-01"``.

    A node is connected to when it is first needed. Where drivers have died, what became of their operations is found out first (and
    beside you, when that takes long); ``recover=False`` leaves that to whoever asks for those containers.

    ``watch``: as long as the fleet is open, what somebody else changes on its nodes is noticed and recorded (`Fleet.watch`).

    ``config`` is a file or a Config; the other options win over it. ``backend``: more backends besides the installed ones.
    ``connect``, ``random``, ``clock``, ``inline`` (journal without threads), ``disk`` and ``contents`` (root file systems on their way)
    are for simulations. Leaving the context cancels what runs (recorded as Interrupted) and closes every link.

    Raises InvalidInput for bad hosts or settings and JournalError when the state directory cannot be used.
    """
    settings = config if isinstance(config, Config) else load_config(config)
    changes: dict[str, Any] = {}
    if state_dir is not None:
        changes["state_dir"] = os.fspath(state_dir)
    if run_dir is not None:
        changes["run_dir"] = os.fspath(run_dir)
    if limits is not None:
        changes["limits"] = limits
    if strict_oci is not None:
        changes["strict_oci"] = strict_oci
    if watch is not None:
        changes["watch"] = watch
    if discover is not None:
        if hosts is not None:
            raise InvalidSpec("discover", discover, "either hosts or discover, not both")
        changes |= {"discover": discover, "hosts": ()}
    settings = _replaced(settings, changes)
    chance = random or Random()  # seeded by the system once: asking it for every operation would be a system call each
    known = Backends((*_with_settings(settings), *backend), settings.plugins)
    owner = f"{os.getpid()}-{chance.getrandbits(48):012x}"
    where, run = state_dir_of(settings), run_dir_of(settings)
    named = settings.placement or "spread"
    chosen = PLACEMENTS[named]() if named in PLACEMENTS else placement_of(settings.plugins, named)
    cordons = Cordons(where, disk)

    make = connect or _connect(settings, chance)
    logins = await discovered(settings, make) if hosts is None and settings.discover else _logins(hosts, settings)

    failure: BaseException | None = None
    async with AsyncExitStack() as stack:
        bus: Events | None = None
        watching = [*sinks, *sinks_of(settings.plugins)]
        fed: list[anyio.Event] = []

        def publish(events: tuple[Event, ...], _: Mapping[str, Machine]) -> None:
            if bus is not None:
                bus.publish(events)

        journal = await stack.enter_async_context(
            open_journal(
                where,
                owner=owner,
                run_dir=run,
                fleet=settings.fleet,
                clock=clock,
                inline=inline,
                disk=disk,
                on_events=publish,
            )
        )
        bus = Events(
            lambda since: read_journal(where, since=since), lambda: journal.seq, settings.limits.subscriber_queue
        )
        tasks = await stack.enter_async_context(anyio.create_task_group())

        def changed(key: str, error: NexcageError | None, boot_id: str) -> None:
            tasks.start_soon(_tell, journal, key, error, boot_id)

        def opened(host: Host) -> FleetNode:
            link = Link(host, make(host), limits=settings.limits, tasks=tasks, random=chance, changed=changed)
            return FleetNode(link, families, tasks=tasks, clock=clock)

        families = Families(known, _backend_of(settings))
        nodes = {host.key: opened(host) for host in logins}
        stack.push_async_callback(_close, list(nodes.values()))
        observer = Observer(journal.fleet, journal, nodes, settings.limits, chance)
        lease = make_lease(settings, where, journal.fleet, clock, nodes, disk=disk, inline=inline)
        stack.push_async_callback(lease.aclose)
        recovery = Recovery(
            fleet=journal.fleet,
            owner=owner,
            journal=journal,
            nodes=nodes,
            backends=known,
            config=settings,
            limits=settings.limits,
            observer=observer,
            lease=lease,
            alive=lambda other: owner_alive(where, other),
            random=chance,
        )
        provisions = Provisions(settings, lambda: contents or _contents(settings, where, chance))
        images = Images(nodes, settings, provisions)
        creation = Creation(
            fleet=journal.fleet,
            journal=journal,
            observer=observer,
            nodes=nodes,
            backends=known,
            config=settings,
            placement=placement or chosen,
            cordoned=cordons.nodes,
            images=images,
            provisions=provisions,
        )
        driver = Driver(
            fleet=journal.fleet,
            owner=owner,
            journal=journal,
            nodes=nodes,
            backends=known,
            config=settings,
            limits=settings.limits,
            observer=observer,
            creation=creation,
            recovery=recovery,
            lease=lease,
            alive=lambda other: owner_alive(where, other),
            random=chance,
            strict_oci=settings.strict_oci,
            hooks=hooks_of(settings.plugins, chance, inline=inline),
        )
        insider = Insider(
            fleet=journal.fleet,
            owner=owner,
            journal=journal,
            nodes=nodes,
            backends=known,
            observer=observer,
            recovery=recovery,
            lease=lease,
            alive=lambda other: owner_alive(where, other),
            limits=settings.limits,
            random=chance,
            strict_oci=settings.strict_oci,
        )
        for sink in watching:
            fed.append(anyio.Event())
            tasks.start_soon(_feed, bus, sink, fed[-1])
        fleet = Fleet(
            images=images,
            id=journal.fleet,
            owner=owner,
            state_dir=where,
            run_dir=run,
            config=settings,
            journal=journal,
            nodes=nodes,
            families=families,
            backends=known,
            events=bus,
            observer=observer,
            recovery=recovery,
            driver=driver,
            insider=insider,
            cordons=cordons,
        )
        try:
            if recover:
                await insider.settle()
                await _recovered(fleet, tasks, settings)
            if settings.watch:
                tasks.start_soon(fleet.watch)
            yield fleet
        except BaseException as error:  # noqa: BLE001 (raised outside of the task group, so that it stays bare)
            failure = error
        bus.close()
        with anyio.CancelScope(shield=True), anyio.move_on_after(5):  # what is durable still reaches the sinks
            for done in fed:
                await done.wait()
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


OPENING = 5.0
"""Seconds that opening a fleet waits for what dead drivers left; what takes longer goes on beside its users."""


async def _recovered(fleet: Fleet, tasks: TaskGroup, settings: Config) -> None:
    if not fleet.left:
        return
    over = anyio.Event()

    async def recover() -> None:
        try:
            await fleet.recover()
        except NexcageError as error:
            _log.warning("recovery: %s", error)
        over.set()
        running = [id for id in fleet.left if not fleet.nodes[fleet.machines[id].node].away]
        if not running:
            return  # nodes that are away are asked again by whoever wants their containers
        try:
            await fleet.recover(*running, wait=True)
        except NexcageError as error:
            _log.warning("recovery: %s", error)

    tasks.start_soon(recover)
    with anyio.move_on_after(min(OPENING, settings.limits.probe_timeout)):
        await over.wait()


def _backend_of(settings: Config) -> str:
    return names.backend(settings.defaults.backend)


def _replaced(settings: Config, changes: Mapping[str, Any]) -> Config:
    import msgspec

    return msgspec.structs.replace(settings, **changes) if changes else settings


def _logins(given: Iterable[str | Host] | str | None, settings: Config) -> tuple[Host, ...]:
    if given is None and any(map(is_pattern, settings.hosts)):
        given = settings.hosts
    if given is None:
        return settings.logins() or (Host(LOCAL),)
    if isinstance(given, str):
        given = expanded(given, settings.ssh_config)
    found: dict[str, Host] = {}
    for one in given:
        for host in [one] if isinstance(one, Host) else map(settings.login, expanded([one], settings.ssh_config)):
            found[host.key] = host
    if not found:
        raise InvalidSpec("hosts", [], "at least one host, or None for this machine")
    return tuple(found.values())


async def _close(nodes: list[FleetNode]) -> None:
    with anyio.CancelScope(shield=True), anyio.move_on_after(10):
        async with anyio.create_task_group() as closing:
            for node in nodes:
                closing.start_soon(node.aclose)


async def _tell(journal: Journal, key: str, error: NexcageError | None, boot_id: str) -> None:
    from nexcage._core.events import NodeFound, NodeLost, Problem

    event = NodeFound(node=key, boot_id=boot_id) if error is None else NodeLost(node=key, error=Problem.of(error))
    try:
        await journal.append(event)
    except NexcageError as trouble:
        _log.warning("%s", trouble)


async def _feed(bus: Events, sink: Sink, done: anyio.Event) -> None:
    """Give a sink its events until it breaks: then it is named once and unplugged."""
    try:
        async with bus.subscribe() as events:
            async for event in events:
                await sink.put(event)
    except Exception as error:  # noqa: BLE001 (a sink is best effort)
        _log.warning("%s", SinkError(f"sink {type(sink).__name__} failed and was unplugged: {error}"))
    finally:
        try:
            with anyio.CancelScope(shield=True), anyio.move_on_after(5):
                await sink.aclose()
        except Exception as error:  # noqa: BLE001 (likewise)
            _log.warning("%s", SinkError(f"sink {type(sink).__name__} did not close: {error}"))
        done.set()

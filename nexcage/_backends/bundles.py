"""Containers of Proxmox VE that are made from OCI bundles: what their plan becomes of ``pct create``'s options and of what follows it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Protocol, cast

import msgspec

from nexcage._backends import bundle_hooks, shim
from nexcage._core.bundle_plan.model import BundlePlan
from nexcage._core.command import Command
from nexcage._core.contents import gibibytes
from nexcage._core.seen import Mark
from nexcage._core.settings import OSTYPES
from nexcage._core.spec import UNSAID, Spec
from nexcage.abc import Node
from nexcage.errors import InvalidName, NotFound
from nexcage.names import signal
from nexcage.tools import bundling

__all__ = ["Prepared", "Sent", "finished", "linked", "prepared_of", "sent_of", "with_plan", "with_words"]

_NUMBERED = re.compile(r"(mp|dev)[0-9]+")
_INIT = (b"/sbin/init",)
_INSIDE = "inside"
"""The directory on the node that the container sees as `shim.DIRECTORY`."""


class Sent(Protocol):
    """What a create works from, which is on the node. Some engines hand it to a create with its node."""

    @property
    def template(self) -> str:
        """The volume of this create, ``STORAGE:vztmpl/NAME``."""
        ...

    @property
    def path(self) -> str:
        """Where that lies on the node."""
        ...

    @property
    def sources(self) -> tuple[str, ...]:
        """What it may be linked from."""
        ...

    async def send(self) -> None:
        """Send it once more; it has gone meanwhile."""
        ...


class Prepared(Sent, Protocol):
    """A bundle that was read, planned, and whose root file system was sent."""

    @property
    def plan(self) -> BundlePlan: ...

    @property
    def config(self) -> bytes:
        """config.json as it was read."""
        ...

    @property
    def state(self) -> bytes:
        """The state document for hooks inside."""
        ...

    @property
    def size(self) -> int:
        """Bytes that the root file system takes."""
        ...


def sent_of(node: Node) -> Sent:
    """What the engine has sent for the create that this node is for."""
    return cast("Sent", getattr(node, "bundle"))  # noqa: B009 (only nodes of creates from content of the driver's machine have it)


def prepared_of(node: Node) -> Prepared:
    """What the engine has made ready for the create that this node is for."""
    return cast("Prepared", getattr(node, "bundle"))  # noqa: B009 (only nodes of creates from bundles have it)


def with_plan(spec: Spec, prepared: Prepared) -> Spec:
    """``spec`` with what the bundle says; what the spec itself says differently from its defaults stays."""
    plan, changes = prepared.plan, dict[str, object]()
    known = dict(plan.options)
    for field, value in _fields(known):
        if getattr(spec, field) == UNSAID[field]:
            changes[field] = value
    mounts = {key: text for key, text in known.items() if key.startswith("mp")}
    devices = {key: text for key, text in known.items() if key.startswith("dev")}
    changes |= {
        "mounts": _beside(mounts, spec.mounts, "mp"),
        "devices": _beside(devices, spec.devices, "dev"),
        "unprivileged": plan.unprivileged,
        "size": spec.size or gibibytes(prepared.size),
        "ostype": spec.ostype or (None if _is_system(plan) else OSTYPES[-1]),
    }
    return msgspec.structs.replace(spec, **changes)


def with_words(command: Command[None], prepared: Prepared | None) -> Command[None]:
    """``pct create`` with the options that a Spec does not have."""
    if prepared is None:
        return command
    taken = {field for field, _ in _fields(dict(prepared.plan.options))}
    rest = [(k, v) for k, v in prepared.plan.options if k not in taken and not _NUMBERED.fullmatch(k)]
    words = (word for key, value in rest if key != "unprivileged" for word in (f"--{key}", value))
    return msgspec.structs.replace(command, argv=(*command.argv, *words))


async def linked(node: Node, mark: Mark) -> None:
    """The template of this create, from what lies on the node."""
    sent = sent_of(node)
    command = bundling.link(mark, sent.path, *sent.sources)
    try:
        await node.run(command)
    except NotFound:  # the last create that worked from it has ended a moment ago
        await sent.send()
        await node.run(command)


def finished(prepared: Prepared, mark: Mark) -> Command[None]:
    """What it needs after ``pct create``, up to its first start; its lock stays on."""
    plan, place = prepared.plan, bundling.directory(mark)
    lines = list(plan.lines(place))
    files = [(name, 0o600, text.encode("utf-8", "surrogateescape")) for name, text in plan.files()]
    files.append(("config.json", 0o600, prepared.config))
    kept = msgspec.json.encode(bundle_hooks.kept(plan, prepared.state))
    files.append((bundle_hooks.FILE, 0o600, kept))
    if plan.launch is not None and plan.startable:
        inside = shim.DIRECTORY.lstrip("/")
        lines += [
            ("lxc.init.cmd", f"{shim.DIRECTORY}/init"),
            ("lxc.mount.entry", f"{place}/{_INSIDE} {inside} none bind,ro,create=dir 0 0"),
            *((("lxc.signal.halt", _stop_signal(plan)),) if plan.launch.argv[:1] != _INIT else ()),
        ]
        launch = shim.launch_file(plan.launch, prepared.state)
        files += [
            (f"{_INSIDE}/init", 0o755, shim.program()),
            (f"{_INSIDE}/launch", 0o400, launch),
        ]
    owner = next((one.host for one in plan.idmap if one.kind == "u" and one.container == 0), 100_000)
    return bundling.finish(
        mark, lines, files, readonly=plan.readonly, owner=owner if plan.unprivileged else 0, held=True
    )


def _stop_signal(plan: BundlePlan) -> str:
    """By its number: that of its image, else SIGTERM. LXC's own is one for systems only."""
    try:
        return str(signal(dict(plan.annotations).get("org.opencontainers.image.stopSignal", "TERM")))
    except InvalidName:
        return str(signal("TERM"))


def _fields(known: Mapping[str, str]) -> Iterator[tuple[str, object]]:
    """What of PVE's options a Spec says, as it says it."""
    for key in ("memory", "swap", "cores", "cpuunits"):
        if key in known:
            yield key, int(known[key])
    if "cpulimit" in known:
        yield "cpulimit", float(known["cpulimit"])
    for key in ("hostname", "features", "timezone", "arch", "startup"):
        if key in known:
            yield key, known[key]
    for key in ("searchdomain", "nameserver"):
        if key in known:
            yield key, tuple(known[key].split(" "))


def _beside(wanted: Mapping[str, str], given: Mapping[str, str], label: str) -> dict[str, str]:
    """Those of the spec keep their numbers, the bundle's get the free ones in their order."""
    free = (f"{label}{n}" for n in range(256) if f"{label}{n}" not in given)
    return {**given, **{next(free): text for text in wanted.values()}}


def _is_system(plan: BundlePlan) -> bool:
    """Whether PVE may look after what is inside, as it does for templates; it recognises the distribution itself."""
    return not plan.readonly and (plan.launch is None or plan.launch.argv[:1] == _INIT)

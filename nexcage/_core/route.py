"""Where a new container goes: image, backend and nodes, decided from the settings alone (design 10 and 11)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase

import msgspec

from nexcage import names
from nexcage._core import images
from nexcage._core.config import Config, Route
from nexcage._core.runtimes import RUNTIMES
from nexcage._core.spec import UNSAID, Spec
from nexcage.errors import InvalidSpec, NoRoute, UnsupportedImage

__all__ = ["Plan", "alias_of", "plan"]

_HERE = " (a layout or archive of this machine); or name that itself: ./DIR, ./DIR:TAG, oci-archive:./FILE.tar"
_WAYS: Mapping[str, str] = {
    "lxc": " or allow pulling it (--pull, or pull = true); or use a template, STORAGE:vztmpl/NAME.tar.zst",
    "vm": "; or use a disk image, STORAGE:import/NAME",
    **dict.fromkeys(RUNTIMES, _HERE),
}
"""What there is for a reference that nothing resolves, beside an alias."""


class Plan(msgspec.Struct, frozen=True):
    """What routing decided, and why: the template or bundle to use, the backend, the nodes that may take it, in order.
    ``spec.pull`` says whether a missing image is downloaded, by the settings too.
    """

    spec: Spec
    backend: str
    nodes: tuple[str, ...]
    why: tuple[str, ...]
    source: str = ""
    """The reference that ``spec.image`` is pulled from when a node does not have it; empty for templates of PVE's own index."""


def plan(id: str, spec: Spec, config: Config, nodes: Iterable[str], backends: Collection[str]) -> Plan:
    """Where ``id`` goes. Raises UnsupportedImage with both ways named for a reference that nothing resolves, InvalidSpec for a
    backend that does not exist, NoRoute when no node is left.
    """
    why: list[str] = []
    rule = next((r for r in config.routing if _matches(r, id, spec)), None)
    if rule is not None:
        why.append(f"routing rule {config.routing.index(rule) + 1} matches (id {rule.id!r})")
    backend = spec.backend or (rule.backend if rule else "")
    named = bool(backend)
    if spec.backend:
        why.append(f"backend {spec.backend} was asked for")
    elif not backend and names.image(spec.image).kind == "disk" and "vm" in backends:
        backend = "vm"
        why.append("backend vm, because only virtual machines are made from disks")
    elif not backend:
        backend = config.defaults.backend
        why.append(f"backend {backend} is the default")
    backend = names.backend(backend)
    if backend not in backends:
        raise InvalidSpec("backend", spec.backend or backend, f"one of {', '.join(sorted(backends))}")
    resolved, source = _resolved(spec, config, named=named, backend=backend, why=why)
    allowed = _nodes(spec, rule, tuple(nodes), why)
    return Plan(_with_defaults(resolved, config, backend), backend, allowed, tuple(why), source)


def _matches(route: Route, id: str, spec: Spec) -> bool:
    if route.id.startswith("/") and len(route.id) > 1:
        if not re.search(route.id.strip("/"), id):
            return False
    elif not fnmatchcase(id, route.id):
        return False
    if route.tag and not any(fnmatchcase(tag.lower(), route.tag.lower()) for tag in spec.tags):  # as PVE stores them
        return False
    return not route.image or names.image(spec.image).kind == route.image


def _resolved(spec: Spec, config: Config, *, named: bool, backend: str, why: list[str]) -> tuple[Spec, str]:
    """The spec with an image that a backend can read, and the reference to pull it from where it is one of a registry."""
    image = names.image(spec.image)
    if image.kind != "reference":
        return spec, ""
    alias = alias_of(image, config.images, backend)
    meant = names.image(alias) if alias else image
    noted = {**spec.annotations, "org.nexcage.image.requested": spec.image}
    if named and alias:
        why.append(f"[images] says that {spec.image} is {alias}")
        if meant.kind != "reference":
            return msgspec.structs.replace(spec, image=alias, annotations=noted), ""
    if named and backend == "lxc" and (spec.pull or config.pull):
        volume = images.volume_of(meant, config.defaults.image_storage)
        why.append(f"{meant} is {volume} once it is pulled")
        return msgspec.structs.replace(spec, image=volume, annotations=noted), str(meant)
    if backend not in ("lxc", "vm", "crun", "runc"):  # somebody's own backend reads its own references
        return spec, ""
    name = "" if named else f"name a backend (--runtime {backend}, Spec.backend or a routing rule), and "
    others = sorted(_aliases(image, config.images))
    but = f" for {backend}, as it has one for {', '.join(others)}," if others else ""
    have = (
        f"use its alias {alias} of [images]"
        if alias
        else f"give '{spec.image}' an alias{but} in [images] of the config"
    )
    ways = f"{name}{have}{_WAYS[backend]}"
    raise UnsupportedImage("image", spec.image, ways)


def _aliases(image: names.ImageRef, known: Mapping[str, str | Mapping[str, str]]) -> Mapping[str, str]:
    """What a reference is for each backend, where ``[images]`` tells them apart."""
    target = next((to for given, to in known.items() if str(names.image(given)) == str(image)), "")
    return {} if isinstance(target, str) else target


def alias_of(image: names.ImageRef, known: Mapping[str, str | Mapping[str, str]], backend: str) -> str | None:
    """What ``[images]`` says that a reference is, for this backend where it says so for some."""
    target = next((to for given, to in known.items() if str(names.image(given)) == str(image)), None)
    if target is None or isinstance(target, str):
        return target
    return next((to for name, to in target.items() if names.backend(name) == backend), None)


def _with_defaults(spec: Spec, config: Config, backend: str) -> Spec:
    if backend in RUNTIMES:
        return spec  # they are settings of Proxmox VE
    image = names.image(spec.image)
    changes: dict[str, object] = {}
    if image.kind == "template" and not image.storage and not image.path:
        changes["image"] = f"{config.defaults.image_storage}:vztmpl/{image.name}"
    if spec.storage is None and config.defaults.storage:
        changes["storage"] = config.defaults.storage
    if spec.size is None and config.defaults.size:
        changes["size"] = config.defaults.size
    if spec.cores is None and config.defaults.cores:
        changes["cores"] = config.defaults.cores
    if config.pull and not spec.pull:
        changes["pull"] = True
    if config.defaults.bridge and spec.nets == UNSAID["nets"]:
        changes["nets"] = tuple(msgspec.structs.replace(net, bridge=config.defaults.bridge) for net in spec.nets)
    return msgspec.structs.replace(spec, **changes) if changes else spec


def _nodes(spec: Spec, rule: Route | None, nodes: tuple[str, ...], why: list[str]) -> tuple[str, ...]:
    if spec.node is not None:
        if spec.node not in nodes:
            raise NoRoute(f"node {spec.node!r} is not in this fleet: {', '.join(nodes[:8])}")
        why.append(f"node {spec.node} was asked for")
        return (spec.node,)
    pattern = rule.nodes if rule else "*"
    allowed = tuple(node for node in nodes if fnmatchcase(node, pattern))
    if not allowed:
        raise NoRoute(f"no node of this fleet matches {pattern!r}: {', '.join(nodes[:8]) or 'it has none'}")
    return allowed

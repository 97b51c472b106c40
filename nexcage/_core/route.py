"""Where a new container goes: image, backend and nodes, decided from the settings alone (design 10 and 11)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase

import msgspec

from nexcage import names
from nexcage._core.config import Config, Route
from nexcage._core.spec import Spec
from nexcage.errors import InvalidSpec, NoRoute, UnsupportedImage

__all__ = ["ALIASES", "Plan", "plan"]

ALIASES: Mapping[str, str] = {"proxmox-lxc": "lxc", "pct": "lxc", "qemu": "vm", "proxmox-vm": "vm"}


class Plan(msgspec.Struct, frozen=True):
    """What routing decided, and why: the template or bundle to use, the backend, the nodes that may take it, in order."""

    spec: Spec
    backend: str
    nodes: tuple[str, ...]
    why: tuple[str, ...]


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
    elif not backend:
        backend = config.defaults.backend
        why.append(f"backend {backend} is the default")
    backend = ALIASES.get(backend, backend)
    if backend not in backends:
        raise InvalidSpec("backend", spec.backend or backend, f"one of {', '.join(sorted(backends))}")
    resolved = _resolved(spec, config, named=named, backend=backend, why=why)
    allowed = _nodes(spec, rule, tuple(nodes), why)
    return Plan(resolved, backend, allowed, tuple(why))


def _matches(route: Route, id: str, spec: Spec) -> bool:
    if route.id.startswith("/") and len(route.id) > 1:
        if not re.search(route.id.strip("/"), id):
            return False
    elif not fnmatchcase(id, route.id):
        return False
    if route.tag and not any(fnmatchcase(tag.lower(), route.tag.lower()) for tag in spec.tags):  # as PVE stores them
        return False
    return not route.image or names.image(spec.image).kind == route.image


def _resolved(spec: Spec, config: Config, *, named: bool, backend: str, why: list[str]) -> Spec:
    image = names.image(spec.image)
    if image.kind != "reference":
        return _with_defaults(spec, config)
    alias = next((to for given, to in config.images.items() if str(names.image(given)) == str(image)), None)
    if named and alias:
        why.append(f"[images] says that {spec.image} is {alias}")
        noted = {**spec.annotations, "org.nexcage.image.requested": spec.image}
        return _with_defaults(msgspec.structs.replace(spec, image=alias, annotations=noted), config)
    if backend not in ("lxc", "vm", "crun", "runc"):  # somebody's own backend reads its own references
        return _with_defaults(spec, config)
    name = "" if named else f"name a backend (--runtime {backend}, Spec.backend or a routing rule), and "
    have = f"use its alias {alias} of [images]" if alias else f"give '{spec.image}' an alias in [images] of the config"
    ways = f"{name}{have} or allow pulling it (pull = true); or use a template, STORAGE:vztmpl/NAME.tar.zst"
    raise UnsupportedImage("image", spec.image, ways)


def _with_defaults(spec: Spec, config: Config) -> Spec:
    image = names.image(spec.image)
    changes: dict[str, object] = {}
    if image.kind == "template" and not image.storage and not image.path:
        changes["image"] = f"local:vztmpl/{image.name}"
    if spec.storage is None and config.defaults.storage:
        changes["storage"] = config.defaults.storage
    if config.defaults.bridge and spec.nets == Spec.__struct_defaults__[Spec.__struct_fields__.index("nets") - 1]:
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

"""Which node takes a new container: what is on its way, which nodes take none, and the placements that come with nexcage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar
from zlib import crc32

import msgspec

from nexcage._core.route import Plan
from nexcage._core.seen import Look
from nexcage._core.spec import Spec
from nexcage.abc import Candidate, Placement
from nexcage.errors import NexcageError, NoRoute
from nexcage.tools import ha

__all__ = ["PLACEMENTS", "Coming", "Count", "Memory", "Spread", "chosen", "open_nodes", "takers", "without"]

T = TypeVar("T")

_GRAIN = 4096  # MiB; less of a difference in free memory is none


class Coming:
    """The creates that have a node and are not yet over, by node: no look shows them yet."""

    def __init__(self) -> None:
        self._specs: dict[str, tuple[Spec, ...]] = {}

    @contextmanager
    def to(self, node: str, spec: Spec) -> Generator[None]:
        """``spec`` is on its way to ``node`` meanwhile."""
        self._specs[node] = (*self._specs.get(node, ()), spec)
        try:
            yield
        finally:
            left = list(self._specs[node])
            left.remove(spec)
            self._specs[node] = tuple(left)

    def candidate(self, node: str, look: Look) -> Candidate:
        specs = self._specs.get(node, ())
        return Candidate(node, look, len(specs), specs)


def takers(id: str, keys: Sequence[str], cordoned: Collection[str]) -> tuple[str, ...]:
    """Those of the nodes ``keys`` that are not cordoned; raises NoRoute when that leaves none."""
    left = tuple(key for key in keys if key not in cordoned)
    if keys and not left:
        error = NoRoute(f"no node for container {id!r}: {_all(keys)} cordoned and take{_s(keys)} no new containers")
        error.add_note(f"nexcage uncordon {keys[0]}")
        raise error
    return left


def open_nodes(id: str, nodes: Sequence[Candidate]) -> Sequence[Candidate]:
    """Those that are not in Proxmox VE's own maintenance mode; raises NoRoute when that leaves none."""
    left = [node for node in nodes if not node.look.maintenance]
    if nodes and not left:
        keys = [node.node for node in nodes]
        error = NoRoute(f"no node for container {id!r}: {_all(keys)} in the maintenance mode of Proxmox VE")
        error.add_note(ha.to_leave_maintenance(nodes[0].look.pve))
        raise error
    return left


def chosen(placement: Placement, id: str, spec: Spec, nodes: Sequence[Candidate]) -> str:
    """The node that ``placement`` takes of these; raises NoRoute when it breaks or takes another one."""
    try:
        node: object = placement.place(id, spec, nodes)
    except NexcageError:
        raise
    except Exception as error:  # a plugin's, and it costs only this create
        raise NoRoute(f"no node for container {id!r}: its placement broke: {type(error).__name__}: {error}") from error
    for one in nodes:
        if one.node == node:
            return one.node
    raise NoRoute(f"placement chose {node!r} for container {id!r}, which is none of the nodes that can take it")


def without(cordoned: Collection[str], wanted: Plan, id: str) -> Plan:
    """The plan with the nodes that are left, and why others are not; raises NoRoute when none is."""
    left = takers(id, wanted.nodes, cordoned)
    if len(left) == len(wanted.nodes):
        return wanted
    why = tuple(f"{key} is cordoned and takes no new containers" for key in wanted.nodes if key in cordoned)
    return msgspec.structs.replace(wanted, nodes=left, why=(*wanted.why, *why))


def _all(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more + (" is" if len(keys) == 1 else " are")


def _s(keys: Sequence[str]) -> str:
    return "s" if len(keys) == 1 else ""


# ---- placements ----------------------------------------------------------------------------------------------------------------


class Count:
    """Fewest containers first, then the most free memory; ties are spread by a hash of the id. Nodes without quorum
    are left out.
    """

    def place(self, id: str, spec: Spec, nodes: Sequence[Candidate]) -> str:  # noqa: ARG002 (the contract)
        return _least(id, nodes, _count)


class Memory:
    """The most free memory first: what is available now, without what is promised to containers that do not run and to those on their
    way; otherwise like `Count`.
    """

    def __init__(self) -> None:
        self._promised = _Seen(_promised)

    def place(self, id: str, spec: Spec, nodes: Sequence[Candidate]) -> str:  # noqa: ARG002 (the contract)
        return _least(id, nodes, self._load)

    def _load(self, node: Candidate) -> tuple[int, ...]:
        promised = self._promised.of(node) + sum(spec.memory for spec in node.specs)
        return (promised - node.look.memory, node.coming + len(node.look.guests))


class Spread:
    """Fewest containers that have a tag in common with it first, otherwise like `Count`; our own tag does not count."""

    def __init__(self) -> None:
        self._tags = _Seen(_tags)

    def place(self, id: str, spec: Spec, nodes: Sequence[Candidate]) -> str:
        wanted = _own(spec)
        return _least(id, nodes, lambda node: (self._alike(wanted, node), *_count(node)) if wanted else _count(node))

    def _alike(self, wanted: Collection[str], node: Candidate) -> int:
        there = self._tags.of(node)
        coming = sum(len(_own(spec).intersection(wanted)) for spec in node.specs)
        return coming + sum(there.get(tag, 0) for tag in wanted)


PLACEMENTS: Mapping[str, type[Placement]] = {"spread": Spread, "count": Count, "memory": Memory}
"""By the names that the configuration uses."""


class _Seen(Generic[T]):
    """A value that is made from each node's newest look once: a batch asks for it as often as it has creates."""

    def __init__(self, make: Callable[[Look], T]) -> None:
        self._make = make
        self._made: dict[str, tuple[Look, T]] = {}

    def of(self, node: Candidate) -> T:
        known = self._made.get(node.node)
        if known is None or known[0] is not node.look:
            known = self._made[node.node] = (node.look, self._make(node.look))
        return known[1]


def _least(id: str, nodes: Sequence[Candidate], load: Callable[[Candidate], tuple[int, ...]]) -> str:
    able = [node for node in nodes if node.look.quorate]
    if not able:
        raise NoRoute(f"no node for container {id!r}: none of {len(nodes)} has quorum")
    return min(able, key=lambda node: (*load(node), crc32(f"{id} {node.node}".encode()))).node


def _count(node: Candidate) -> tuple[int, ...]:
    return (len(node.look.guests) + node.coming, -(node.look.memory // _GRAIN))


def _promised(look: Look) -> int:
    return sum(guest.memory for guest in look.guests.values() if not guest.running and not guest.template)


def _tags(look: Look) -> Counter[str]:
    return Counter(tag.lower() for guest in look.guests.values() if not guest.template for tag in set(guest.tags))


def _own(spec: Spec) -> frozenset[str]:
    """Its tags as PVE stores them."""
    return frozenset(tag.lower() for tag in spec.tags) - {"nexcage"}

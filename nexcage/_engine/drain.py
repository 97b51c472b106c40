"""Emptying a node: which container goes where. It decides; the moves are intents like others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Protocol

from nexcage._core.keeping import Migrate
from nexcage._core.machine import Machine
from nexcage._core.seen import Look
from nexcage._core.states import State
from nexcage._engine.verbs import stays_with_its_files
from nexcage.abc import Backend
from nexcage.errors import NexcageError, NoRoute

__all__ = ["Cordons", "moves_off", "on", "stays"]


class Cordons(Protocol):
    """The nodes that take no new containers; shared by all who drive the fleet, and durable."""

    def nodes(self) -> frozenset[str]: ...

    def add(self, node: str) -> bool:
        """False when it was there already."""
        ...

    def remove(self, node: str) -> bool:
        """False when it was not there."""
        ...


def on(node: str, machines: Iterable[Machine]) -> list[Machine]:
    """Which of ``machines`` are on ``node``, sorted."""
    there = (machine for machine in machines if machine.node == node and machine.state is not State.ABSENT)
    return sorted(there, key=lambda machine: machine.id)


def stays(machine: Machine, backends: Mapping[str, Backend]) -> bool:
    """Whether its backend has no way to move it, or it was made from a bundle and has files on its node."""
    return stays_with_its_files(machine) or not callable(getattr(backends.get(machine.backend), "migrate", None))


def moves_off(
    node: str, machines: Iterable[Machine], looks: Mapping[str, Look | NexcageError], *, restart: bool, timeout: int
) -> list[Migrate]:
    """A move for each of ``machines``, to the other nodes of the cluster of ``node``, the one with the fewest guests first, then the
    one with the most free memory.

    Raises the error of the node itself, and NoRoute when none of its cluster can take anything.
    """
    here = looks[node]
    if isinstance(here, NexcageError):
        raise here
    moving = list(machines)
    if not moving:
        return []
    there = {
        key: look
        for key, look in looks.items()
        if key != node and isinstance(look, Look) and _takes(look) and look.vmids.keys() == here.vmids.keys()
    }
    if not there:
        raise NoRoute(
            f"no other node of the cluster of {node} is in this fleet and can take its {len(moving)} containers"
        )
    coming: Counter[str] = Counter()
    moves: list[Migrate] = []
    for machine in moving:
        target = min(there, key=lambda key: (len(there[key].guests) + coming[key], -there[key].memory, key))
        coming[target] += 1
        moves.append(Migrate(machine.id, target, restart, timeout))
    return moves


def _takes(look: Look) -> bool:
    return look.quorate and not look.maintenance

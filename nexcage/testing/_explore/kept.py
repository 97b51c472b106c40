"""What the journal says about the disks and settings of a container, compared with what its node has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from nexcage._core.events import Began, Failed, Interrupted, Succeeded
from nexcage._core.intents import Adopt, Create
from nexcage._core.keeping import (
    DelSnapshot,
    Keeping,
    MakeTemplate,
    Migrate,
    MoveVolume,
    Resize,
    Rollback,
    Snapshot,
    Update,
)
from nexcage._core.machine import Event
from nexcage.testing._explore.truth import Guest

if TYPE_CHECKING:
    from nexcage.testing._explore.world import World

__all__ = ["kept"]

_UNSURE = "?"
"""Nobody knows, or nobody said."""
_SNAPSHOT = re.compile(r"(?m)^\[([^\]:]+)\]\n((?:(?!\[).*\n?)*)")
_SIZES = {"M": 1, "G": 1 << 10, "T": 1 << 20}


def kept(ours: Iterable[Guest], journal: Iterable[Event], world: World) -> Iterator[str]:
    """Where a container that nobody else has touched is not what the operations on it, by their outcomes, made of it."""
    events = list(journal)
    for guest in ours:
        if guest.vmid in world.by_hand:
            continue
        wanted = _Wanted(guest)
        for began, end in _ended(events, guest.op):
            wanted.apply(began, end)
        yield from wanted.missing(world)


def _ended(events: list[Event], mark: str) -> Iterator[tuple[Began, str]]:
    """What was done to the container that the create ``mark`` made, in order, and how each ended: done, not, unsure."""
    ends: dict[str, str] = {}
    for event in events:
        if isinstance(event, (Succeeded, Failed)):
            ends[event.op_id] = "done" if isinstance(event, Succeeded) else "not"
        elif isinstance(event, Interrupted):
            ends[event.op_id] = "unsure"
    for event in events:
        if isinstance(event, Began) and event.mark == mark:
            yield event, ends.get(event.op_id, "unsure")


class _Wanted:
    """What a container is to be, as far as that is known."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._snapshots: dict[str, str] = {}
        """By name the operation that made it; empty: there is none."""
        self._now: dict[str, str] = {}
        self._then: dict[str, dict[str, str]] = {}

    def apply(self, began: Began, end: str) -> None:
        match began.intent:
            case Create() | Adopt():
                self._snapshots.clear()
            case Snapshot(name=name) if end != "not":
                self._snapshots[name] = began.op_id if end == "done" else _UNSURE
                self._then[name] = dict(self._now)
            case DelSnapshot(name=name) if end != "not":
                self._snapshots[name] = "" if end == "done" else _UNSURE
            case Rollback(name=name, start=start):
                if end == "done":
                    self._now = {**dict.fromkeys(self._now, _UNSURE), **self._then.get(name, {})}
                elif end == "unsure" or start:  # it may have been rolled back and not started
                    self._now = dict.fromkeys(self._now, _UNSURE)
            case Update() | Resize() | MoveVolume() | MakeTemplate() | Migrate() if end != "not":
                self._set(began.intent, sure=end == "done")
            case _:
                pass

    def _set(self, intent: Keeping, *, sure: bool) -> None:
        match intent:
            case Update(memory=memory) if memory is not None:
                self._now["memory"] = str(memory) if sure else _UNSURE
            case Resize(size=size):
                self._now["size"] = size if sure else _UNSURE
            case MoveVolume(storage=storage):
                self._now["storage"] = storage if sure else _UNSURE
            case MakeTemplate():
                self._now["template"] = "1" if sure else _UNSURE
            case Migrate(node=node):
                self._now["node"] = node if sure else _UNSURE
            case _:
                pass

    def missing(self, world: World) -> Iterator[str]:
        guest = self._guest
        text = world.sim[guest.node].model.config(guest.vmid) or ""
        main = text.split("\n[")[0] + "\n"
        there = {name: body for name, body in _SNAPSHOT.findall(text) if name != "pve"}
        for name, op in self._snapshots.items():
            if op == _UNSURE:
                continue
            if not op and name in there:
                yield f"promise 6: snapshot {name} of {guest} was removed, and is there"
            elif op and name not in there:
                yield f"promise 6: snapshot {name} of {guest} was made by {op}, and is not there"
            elif op and op not in there[name]:
                yield f"promise 6: snapshot {name} of {guest} is not the one that {op} made"
        for name, section in there.items():
            if name not in self._snapshots:
                yield f"promise 1: {guest} has a snapshot {name} that no operation made"
            if "snapstate" in section and self._snapshots.get(name) != _UNSURE:
                yield f"promise 3: snapshot {name} of {guest} is incomplete"
        for key, wanted in self._now.items():
            if wanted != _UNSURE and not _is(key, wanted, main, guest):
                yield f"promise 6: {key} of {guest} is to be {wanted}: {main!r}"


def _is(key: str, wanted: str, main: str, guest: Guest) -> bool:
    if key == "node":
        return guest.node == wanted
    if key == "size":
        size = re.search(r"(?m)^rootfs: .*size=(\d+)([MGT])", main)
        return size is not None and int(size[1]) * _SIZES[size[2]] >= int(wanted[:-1]) * _SIZES[wanted[-1]]
    if key == "storage":
        return f"\nrootfs: {wanted}:" in f"\n{main}"
    return f"\n{key}: {wanted}\n" in f"\n{main}"

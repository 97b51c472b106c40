"""What a user asks of a container, step by step: the words of a life, and what each one leads to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

import msgspec

from nexcage._core.intents import Adopt, Create, Delete, Intent, Kill, Pause, Resume, Start, Stop
from nexcage._core.keeping import (
    Backup,
    DelSnapshot,
    MakeTemplate,
    Migrate,
    MoveVolume,
    Resize,
    Rollback,
    Snapshot,
    Update,
)
from nexcage._core.spec import Spec

__all__ = ["SPEC", "STRAYS", "Ground", "Life"]

SPEC = Spec("local:vztmpl/alpine-3.20-default_20240908_amd64.tar.xz", storage="local-zfs")
STRAYS = (10_016, 10_018)
"""VMIDs of guests that somebody else made and that may be adopted."""
_SIGNALS: tuple[int | str, ...] = ("HUP", "TERM", "KILL", 10)
_SNAPSHOTS = ("s1", "s2")


class Ground(msgspec.Struct, frozen=True):
    """What a life may refer to: the other containers, the nodes by their keys, guests that may be adopted."""

    ids: Sequence[str]
    nodes: Sequence[str]
    strays: Sequence[int]


class Life:
    """What is believed of each container; a word that makes sense there more often than not. ``wide``: with all of the operations, not
    the lifecycle alone.
    """

    def __init__(self, dice: Random, ground: Ground, *, wide: bool) -> None:
        self._dice = dice
        self._ground = ground
        self._wide = wide
        self._believed: dict[str, str] = dict.fromkeys(ground.ids, "absent")
        self._asked: dict[str, bool] = dict.fromkeys(ground.ids, False)
        self._snapshots: dict[str, list[str]] = {id: [] for id in ground.ids}

    def next(self, id: str, key: str | None) -> Intent:
        """What is asked of it now."""
        dice = self._dice
        believed = self._believed[id]
        wild = dice.random() < 0.1
        after = _MORE if self._wide and self._asked[id] and dice.random() < 0.6 else _AFTER
        self._asked[id] = True
        every = (*_ALL, *_KEEPING) if self._wide else _ALL
        word = dice.choice(every) if wild else dice.choice(after[believed])
        if not wild:
            word = self._sensible(word, id)
        if word == "template" and believed in ("created", "stopped"):
            self._believed[id] = "template"
        self._believed[id] = _THEN.get(word, self._believed[id])
        return self._kept(word, id, key) if word in _KEEPING else _made(dice, word, id, key)

    def running(self, ids: Sequence[str]) -> Sequence[str]:
        """Those in which a program can run; all of them when there are none."""
        return [id for id in ids if self._believed[id] == "running"] or ids

    def restored(self, ids: Sequence[str]) -> Sequence[str]:
        """Those that may be made from an archive, all of them when there are none; one of them will have been."""
        absent = [id for id in ids if self._believed[id] == "absent"]
        if not absent:
            return ids
        self._believed[absent[0]] = "created"
        return absent[:1]

    def _sensible(self, word: str, id: str) -> str:
        """What has something to work on."""
        if word in ("rollback", "delsnapshot") and not self._snapshots[id]:
            return "snapshot"
        if word == "clone" and not self._sources(id):
            return "create"
        if word == "adopt" and not self._ground.strays:
            return "create"
        return word

    def _sources(self, id: str) -> list[str]:
        return [other for other in self._ground.ids if other != id and self._believed[other] != "absent"]

    def _kept(self, word: str, id: str, key: str | None) -> Intent:
        dice, ground = self._dice, self._ground
        match word:
            case "clone":
                return Create(id, self._copy(id), op_id=key)
            case "adopt" if ground.strays:
                return Adopt(id, dice.choice(ground.strays), op_id=key)
            case "snapshot":
                name = dice.choice(_SNAPSHOTS)
                self._snapshots[id] = [*(other for other in self._snapshots[id] if other != name), name]
                return Snapshot(id, name, op_id=key)
            case "delsnapshot":
                return DelSnapshot(id, dice.choice(self._snapshots[id] or _SNAPSHOTS), op_id=key)
            case "rollback":
                return Rollback(id, (self._snapshots[id] or _SNAPSHOTS)[-1], start=dice.random() < 0.4, op_id=key)
            case "update":
                return Update(
                    id, memory=dice.choice((256, 768, 1024)), description=dice.choice((None, "new")), op_id=key
                )
            case "resize":
                return Resize(id, "rootfs", dice.choice(("+1G", "6G", "9G")), op_id=key)
            case "move":
                storage = dice.choice(("local", "local-zfs"))
                return MoveVolume(id, "rootfs", storage, delete=dice.random() < 0.7, op_id=key)
            case "template":
                return MakeTemplate(id, op_id=key)
            case "migrate":
                return Migrate(id, dice.choice(ground.nodes), restart=dice.random() < 0.7, timeout=30, op_id=key)
            case "backup":
                return Backup(id, mode=dice.choice(("snapshot", "stop")), op_id=key)
            case _:
                return Create(id, SPEC, op_id=key)

    def _copy(self, id: str) -> Spec:
        dice = self._dice
        others = self._sources(id) or [other for other in self._ground.ids if other != id]
        templates = [other for other in others if self._believed[other] == "template"]
        source = dice.choice(templates or others)
        linked = bool(templates) and dice.random() < 0.7
        running = self._believed[source] == "running"
        kept = self._snapshots[source]
        snapshot = kept[-1] if kept and (running or (not linked and dice.random() < 0.2)) else None
        return Spec.from_container(source, linked=linked, snapshot=snapshot)


_ALL = ("create", "start", "stop", "force", "pause", "resume", "kill", "delete", "destroy")
_KEEPING = (
    *("clone", "adopt", "snapshot", "delsnapshot", "rollback"),
    *("update", "resize", "move", "template", "migrate", "backup"),
)
_AFTER: Mapping[str, tuple[str, ...]] = {
    "absent": ("create",),
    "created": ("start", "start", "start", "delete", "kill"),
    "running": ("stop", "stop", "force", "pause", "kill", "destroy", "start"),
    "paused": ("resume", "resume", "stop", "force", "destroy"),
    "stopped": ("start", "start", "delete", "destroy"),
    "template": ("delete", "destroy", "start"),
}
_SNAPPED = ("snapshot", "rollback", "delsnapshot")
_MORE: Mapping[str, tuple[str, ...]] = {
    "absent": ("clone", "clone", "create", "adopt"),
    "created": (*_SNAPPED, "update", "resize", "move", "template", "migrate", "backup", "backup", "destroy"),
    "running": (*_SNAPPED, "update", "resize", "migrate", "backup", "backup", "destroy"),
    "paused": ("update", "resize", "resume"),
    "stopped": (*_SNAPPED, "update", "resize", "move", "template", "migrate", "backup"),
    "template": ("update", "snapshot", "migrate", "delete"),
}
_THEN: Mapping[str, str] = {
    "create": "created",
    "clone": "created",
    "adopt": "stopped",
    "start": "running",
    "stop": "stopped",
    "force": "stopped",
    "pause": "paused",
    "resume": "running",
    "rollback": "stopped",
    "delete": "absent",
    "destroy": "absent",
}


def _made(dice: Random, word: str, id: str, key: str | None) -> Intent:
    match word:
        case "create":
            return Create(id, SPEC, op_id=key)
        case "start":
            return Start(id, op_id=key)
        case "stop":
            return Stop(id, timeout=dice.choice((0.0, 2.0, 10.0)), op_id=key)
        case "force":
            return Stop(id, force=True, op_id=key)
        case "pause":
            return Pause(id, op_id=key)
        case "resume":
            return Resume(id, op_id=key)
        case "kill":
            return Kill(id, signal=dice.choice(_SIGNALS), op_id=key)
        case "delete":
            return Delete(id, op_id=key)
        case _:
            return Delete(id, force=True, op_id=key)

"""Operations that keep the state, decided: what is really to be done, given what a look shows, and whether it has happened."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from nexcage import names
from nexcage._core.details import MIB, Details, Snap, mebibytes
from nexcage._core.keeping import (
    Backup,
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
from nexcage._core.spec import Net, Spec
from nexcage.errors import AlreadyExists, Changed, IllegalTransition, InvalidInput, NotFound

__all__ = ["Change", "applied", "described", "happened", "incomplete", "plan_update", "ready", "settings"]

_NOW = re.compile(
    r"description|onboot|protection|hostname|cores|tags|cpulimit|cpuunits|memory|swap|net[0-9]+|(?:mp|unused)[0-9]+"
)
_NEW = re.compile(r"([^:]+):([0-9]+(?:\.[0-9]+)?)")


class Change(msgspec.Struct, frozen=True):
    """One setting that an update changes, in PVE's spelling; None is not set. ``restart``: it waits for the next start."""

    key: str
    old: str | None
    new: str | None
    restart: bool = False

    def __str__(self) -> str:
        then = " (after a restart)" if self.restart else ""
        return f"{self.key}: {_shown(self.old)} -> {_shown(self.new)}{then}"


def _shown(value: str | None) -> str:
    return "(not set)" if value is None else value.replace("\n", "\\n")


# ---- before it begins ------------------------------------------------------------------------------------------------------


def ready(intent: Keeping, details: Details, *, mark: str, running: bool = False, node: str = "") -> Keeping | None:
    """What is to be done, with nothing relative left in it; None when it is so already.

    Raises what makes it impossible, before anything has begun: NotFound, AlreadyExists, Changed, IllegalTransition, InvalidInput.
    """
    template = details.values.get("template") == "1"
    match intent:
        case Backup():
            return intent
        case Snapshot() | DelSnapshot() | Rollback():
            return _snapshot_ready(intent, details, template=template)
        case Resize():
            return _resize_ready(intent, details)
        case MoveVolume(disk=disk, storage=storage):
            if disk not in details.values:
                raise NotFound("disk", disk, f"of container '{intent.id}' does not exist")
            return None if details.storage(disk) == storage else intent
        case MakeTemplate():
            if details.snapshots and not template:
                raise IllegalTransition(intent.id, "template", "", reason="it has snapshots")
            return None if template else intent
        case Migrate():
            if running and not intent.restart and intent.node != node:
                raise IllegalTransition(
                    intent.id, "migrate", "running", reason="it is running, and --restart was not given"
                )
            return None if intent.node == node else intent
        case Update():
            if intent.digest not in ("", details.digest):
                raise Changed(f"container '{intent.id}'", intent.digest, details.digest)
            ready_ = msgspec.structs.replace(intent, digest=details.digest)
            return ready_ if plan_update(ready_, details, mark=mark, running=running) else None


def _snapshot_ready(
    intent: Snapshot | DelSnapshot | Rollback, details: Details, *, template: bool
) -> Snapshot | DelSnapshot | Rollback:
    if template:
        raise IllegalTransition(intent.id, str(intent.op), "", reason="it is a template")
    there = details.snapshots.get(intent.name)
    if isinstance(intent, Snapshot):
        if there is not None:
            raise AlreadyExists("snapshot", intent.name, f"of container '{intent.id}' already exists")
        return intent
    if there is None:
        raise NotFound("snapshot", intent.name, f"of container '{intent.id}' does not exist")
    if isinstance(intent, Rollback) and there.state:
        raise IllegalTransition(
            intent.id, "rollback", "", reason=f"snapshot '{intent.name}' is incomplete ({there.state})"
        )
    return intent


def _resize_ready(intent: Resize, details: Details) -> Resize | None:
    if intent.disk not in details.values:
        raise NotFound("disk", intent.disk, f"of container '{intent.id}' does not exist")
    now = details.size(intent.disk)
    if now is None:
        raise IllegalTransition(intent.id, "resize", "", reason=f"'{intent.disk}' is no volume with a size")
    given = mebibytes(intent.size.removeprefix("+")) or 0
    wanted = -(-(now + given) // MIB) * MIB if intent.size.startswith("+") else given
    if wanted < now:
        raise InvalidInput("size", intent.size, f"at least {now / (1 << 30):g}G: a disk never shrinks")
    return None if wanted == now else msgspec.structs.replace(intent, size=f"{wanted // MIB}M")


# ---- settings --------------------------------------------------------------------------------------------------------------


def settings(intent: Update, *, mark: str) -> dict[str, str]:
    """What is to be set, by PVE's keys and in its spelling, but for what is unset. ``mark``: our line of the description."""
    given: dict[str, str] = {}
    for key in ("memory", "swap", "cores", "cpuunits", "hostname"):
        value: object = getattr(intent, key)
        if value is not None:
            given[key] = str(value)
    if intent.cpulimit is not None:
        given["cpulimit"] = f"{intent.cpulimit:.6f}".rstrip("0").rstrip(".")
    for key in ("onboot", "protection"):
        if (flag := getattr(intent, key)) is not None:
            given[key] = str(int(flag))
    if intent.tags is not None:
        given["tags"] = ";".join(sorted({"nexcage", *intent.tags}))
    if intent.description is not None:
        given["description"] = described(mark, intent.description)
    given |= {key: str(net) for key, net in intent.nets.items()}
    given |= {key: names.mount(value).render() for key, value in intent.mounts.items()}
    given |= {f"--{key}": value for key, value in intent.limits.items()}  # of a runtime alone
    return given


def described(mark: str, description: str) -> str:
    """The notes of a container of ours."""
    return f"{mark}\n{description}" if description else mark


def plan_update(intent: Update, details: Details, *, mark: str, running: bool) -> tuple[Change, ...]:
    """What an update would change and what of it waits for a restart, by key."""
    wanted: dict[str, str | None] = {**settings(intent, mark=mark), **dict.fromkeys(intent.unset)}
    return tuple(
        Change(key, _now(details, key), value, running and not _at_once(key, details))
        for key, value in sorted(wanted.items())
        if not _is_so(details, key, value)
    )


def _at_once(key: str, details: Details) -> bool:
    if key.startswith("mp") and key in details.values:
        return False  # only new ones are plugged into what runs
    return _NOW.fullmatch(key) is not None


def _now(details: Details, key: str) -> str | None:
    return details.description.rstrip("\n") if key == "description" else details.values.get(key)


def _is_so(details: Details, key: str, wanted: str | None) -> bool:
    now = _now(details, key)
    if wanted is None or now is None:
        return wanted is now or (now is None and wanted == _DEFAULTS.get(key))
    if key.startswith("net"):
        return _pairs(wanted).items() <= _pairs(now).items()  # PVE adds the type and an address of its own
    if key.startswith("mp"):
        return _same_mount(wanted, now)
    return _list(now) == _list(wanted) if key == "tags" else now == wanted.rstrip("\n")


_DEFAULTS = {"onboot": "0", "protection": "0", "cpulimit": "0"}


def _list(value: str) -> set[str]:
    return set(filter(None, re.split(r"[;, ]+", value)))


def _pairs(value: str) -> dict[str, str]:
    pairs = (word.partition("=") for word in value.split(","))
    return {key: word.lower() if key == "hwaddr" else word for key, _, word in pairs}


def _same_mount(wanted: str, now: str) -> bool:
    (source, *options), (volume, *others) = wanted.split(","), now.split(",")
    new = _NEW.fullmatch(source)
    if new is None:
        return source == volume and set(options) <= set(others)
    size = mebibytes(f"{new[2]}G")
    have = [mebibytes(word.removeprefix("size="), exact=True) for word in others if word.startswith("size=")]
    return volume.partition(":")[0] == new[1] and have == [size] and set(options) <= set(others)


def applied(spec: Spec, intent: Update) -> Spec:
    """What the container is described by after an update."""
    given = {
        key: getattr(intent, key) for key in ("memory", "swap", "cores", "hostname", "onboot", "tags", "description")
    }
    changes: dict[str, object] = {key: value for key, value in given.items() if value is not None}
    if "cores" in intent.unset:
        changes["cores"] = None
    if nets := _nets(spec, intent):
        changes["nets"] = tuple(nets[key] for key in sorted(nets))
    return msgspec.structs.replace(spec, **changes) if changes else spec


def _nets(spec: Spec, intent: Update) -> dict[int, Net]:
    gone = {int(key.removeprefix("net")) for key in intent.unset if key.startswith("net")}
    if not (intent.nets or gone):
        return {}
    kept = {number: net for number, net in enumerate(spec.nets) if number not in gone}
    return kept | {int(key.removeprefix("net")): net for key, net in intent.nets.items()}


# ---- afterwards ------------------------------------------------------------------------------------------------------------


def happened(
    intent: Keeping, op_id: str, details: Details, *, lock: str, running: bool, mark: str
) -> Literal["done", "not", "unknown"]:
    """Whether it is so. Of a rollback and a backup that says no more than that it may well have happened: ask its command first."""
    match intent:
        case Backup():
            return "done"
        case Snapshot(name=name):
            there = details.snapshots.get(name)
            return "done" if there is not None and there.op == op_id and not there.state else "not"
        case DelSnapshot(name=name):
            return "not" if name in details.snapshots else "done"
        case Rollback(name=name, start=start):
            if lock == "rollback" or (start and not running):
                return "unknown"
            return "done" if details.parent == name else "not"
        case Resize(disk=disk, size=size):
            return "done" if (details.size(disk) or 0) >= (mebibytes(size) or 0) else "not"
        case MoveVolume(disk=disk, storage=storage):
            return "done" if details.storage(disk) == storage else "not"
        case MakeTemplate():
            return "done" if details.values.get("template") == "1" else "not"
        case Update():
            return "not" if plan_update(intent, details, mark=mark, running=running) else "done"
        case Migrate():
            return "not"  # it is here


def incomplete(intent: Keeping, op_id: str, details: Details, lock: str) -> Snap | None:
    """The snapshot that a killed worker of ours left half made or half removed."""
    if isinstance(intent, Snapshot) and lock in ("", "snapshot"):
        there = details.snapshots.get(intent.name)
        return there if there is not None and there.op == op_id and there.state == "prepare" else None
    if isinstance(intent, DelSnapshot) and lock in ("", "snapshot-delete"):
        there = details.snapshots.get(intent.name)
        return there if there is not None and (there.state == "delete" or lock) else None
    return None

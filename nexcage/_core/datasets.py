"""A container's own ZFS dataset, decided from what a look at the node's pools and storages shows (pure).

`BASE/ID-VMID` is its root disk or a data disk. The root disk goes through **one** directory storage per base, on the base's
mountpoint: PVE keeps the volumes of guest 104 in ``images/104`` below it, so the dataset is mounted there and PVE's volume lies in it.
``pct`` itself takes no dataset, and a storage for each container would make every node of the cluster ask for all of them all the time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from nexcage._core.config import ZfsConfig
from nexcage._core.seen import Mark
from nexcage._core.spec import Spec
from nexcage.errors import AlreadyExists, Blocked, NodeNotUsable

__all__ = ["MARK", "Choice", "Found", "Place", "Survey", "asked", "base_of", "choose", "name_of", "retired_name"]

MARK = "org.nexcage:mark"
"""The user property that says whose a dataset is."""
GIB = 1 << 30
LEAST = 64 << 20  # bytes without which nothing is put on a pool
_PATH = re.compile(r"(/[A-Za-z0-9_.@:-]+)+")  # what PVE takes as a path in its configs


class Found(msgspec.Struct, frozen=True):
    """A dataset that is there. ``mark`` is its own, never an inherited one; ``mountpoint`` empty for none; ``own``: set on itself."""

    name: str
    room: int = 0
    mark: str = ""
    mountpoint: str = ""
    mounted: bool = False
    own: bool = False


class Place(msgspec.Struct, frozen=True):
    """A storage of PVE: ``path`` of a ``dir``, ``pool`` of a ``zfspool``."""

    id: str
    type: str
    path: str = ""
    pool: str = ""


class Survey(msgspec.Struct, frozen=True):
    """What a node shows. ``pools``: health by exact name; ``why``: there is no ZFS at all, and what to do about it."""

    pools: Mapping[str, str] = {}
    found: Mapping[str, Found] = {}
    places: tuple[Place, ...] = ()
    why: str = ""


class Choice(msgspec.Struct, frozen=True):
    """What to do for one container. ``parents``: make ``base`` first; ``place``: add that directory storage first; ``there``: the dataset
    is, left by an attempt of the same operation; ``storage``: of the root disk, or (without ``dataset``) PVE's own; ``note``: for the
    event, why there is none.
    """

    base: str = ""
    dataset: str = ""
    parents: bool = False
    there: bool = False
    properties: Mapping[str, str] = {}
    place: Place | None = None
    storage: str = ""
    mountpoint: str = ""
    note: str = ""


def base_of(pool: str) -> str:
    """Below which dataset the containers' own lie."""
    return pool if "/" in pool else f"{pool}/containers"


def name_of(base: str, id: str, vmid: int) -> str:
    """The dataset of a container. ZFS takes no ``+``, and an id holds no ``:``, so that no two ids meet."""
    return f"{base}/{id.replace('+', ':')}-{vmid}"


def retired_name(dataset: str, mark: Mark) -> str:
    """What it is called after a delete with ``on_delete = "rename"``."""
    return f"{dataset}-deleted-{mark.op[:16]}"


def asked(base: str, dataset: str) -> tuple[str, ...]:
    """The datasets that a look has to show: every level of the base, and the container's own."""
    parts = base.split("/")
    return (*("/".join(parts[: n + 1]) for n in range(len(parts))), dataset)


def choose(config: ZfsConfig, survey: Survey, mark: Mark, spec: Spec, node: str) -> Choice:
    """Where this container's dataset goes. Raises Blocked for a pool that is not healthy or has no room, NodeNotUsable for a missing
    one that is required, and AlreadyExists for a dataset that is not this operation's.
    """
    base = base_of(config.pool)
    pool = base.split("/")[0]
    if spec.storage is not None and not config.mount:
        return Choice()  # it was said where the root disk goes
    if survey.why or pool not in survey.pools:
        missing = survey.why or f"there is no pool '{pool}'"
        if config.required:
            raise NodeNotUsable(node, f"{missing} (zfs.required)")
        return Choice(note=f"made without ZFS: {missing}")
    own = next((one for one in survey.places if one.type == "zfspool" and f"{base}/".startswith(f"{one.pool}/")), None)
    if own is not None and not config.mount:
        return Choice(storage=own.id)
    dataset = name_of(base, mark.id, mark.vmid)
    _usable(survey, pool, base, dataset, spec, node)
    there = survey.found.get(dataset)
    if there is not None and there.mark != str(mark):
        raise AlreadyExists("dataset", dataset, "is there already and not this operation's, so it is left alone")
    path = _mountpoint(survey, base, node)
    properties = dict(config.properties)
    if spec.size and not config.mount:
        properties["refquota"] = f"{spec.size}G"
    choice = Choice(base, dataset, base not in survey.found, there is not None, properties, None)
    if config.mount:
        return msgspec.structs.replace(choice, mountpoint=f"{path}/{dataset.rpartition('/')[2]}")
    return msgspec.structs.replace(
        choice,
        properties={**properties, "mountpoint": f"{path}/images/{mark.vmid}"},
        place=_place(config, survey, path, node),
        storage=config.storage,
        mountpoint=f"{path}/images/{mark.vmid}",
    )


def _usable(survey: Survey, pool: str, base: str, dataset: str, spec: Spec, node: str) -> None:
    what = f"dataset {dataset} on {node}"
    if survey.pools[pool] != "ONLINE":
        raise Blocked(what, f"pool {pool}, which is {survey.pools[pool]} (`zpool status {pool}`)")
    nearest = next((survey.found[name] for name in reversed(asked(base, base)) if name in survey.found), None)
    if nearest is None:
        raise Blocked(what, f"pool {pool}, which does not show its datasets (`zfs list {pool}`)")
    wanted = max((spec.size or 0) * GIB, LEAST)
    if nearest.room < wanted:
        free, need = nearest.room / GIB, wanted / GIB
        raise Blocked(what, f"a lack of room: {free:.2f} GiB free in {nearest.name}, {need:.2f} GiB wanted")


def _mountpoint(survey: Survey, base: str, node: str) -> str:
    """Where the base is, or will be, mounted."""
    rest = ""
    for name in reversed(asked(base, base)[:-1]):
        if name in survey.found:
            path = survey.found[name].mountpoint + rest
            if survey.found[name].mountpoint and _PATH.fullmatch(path):
                return path
            raise Blocked(
                f"dataset {base} on {node}",
                f"the mountpoint of {name}, {survey.found[name].mountpoint or 'none'!r}, which PVE cannot use",
            )
        rest = f"/{name.rpartition('/')[2]}{rest}"
    raise Blocked(f"dataset {base} on {node}", "a pool that shows no datasets")


def _place(config: ZfsConfig, survey: Survey, path: str, node: str) -> Place | None:
    """The directory storage to add; None when it is there."""
    known = next((one for one in survey.places if one.id == config.storage), None)
    if known is None:
        return Place(config.storage, "dir", path)
    if known.type != "dir" or known.path.rstrip("/") != path:
        raise Blocked(
            f"storage {config.storage} on {node}",
            f"its own place: it is {known.type} at {known.path!r}, not dir at {path!r}",
        )
    return None

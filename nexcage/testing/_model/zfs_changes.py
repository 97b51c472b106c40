"""What ``zfs`` changes about the model's datasets. A file system's files lie where it is mounted, and elsewhere while it is not."""

from __future__ import annotations

import re
from collections.abc import Mapping

from nexcage.testing._model import storage
from nexcage.testing._model.files import SIM
from nexcage.testing._model.node import Node
from nexcage.testing._model.tool import Ctx
from nexcage.testing._model.zfs_properties import (
    DEFAULTS,
    SIZES,
    USAGE,
    Failed,
    in_bytes,
    kind_of,
    mounted,
    mountpoint_of,
    require,
)

__all__ = ["CHANGES", "flags_of"]

_NAME = re.compile(r"[A-Za-z0-9_.: -]+(/[A-Za-z0-9_.: -]+)*", re.ASCII)
Known = dict[str, dict[str, str]]


def flags_of(words: list[str], with_value: str) -> tuple[dict[str, list[str]], list[str]]:
    """Options by letter, with their values, and the other words."""
    found: dict[str, list[str]] = {}
    waiting = list(words)
    rest: list[str] = []
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            rest += waiting
            break
        if not word.startswith("-") or len(word) == 1:
            rest.append(word)
            continue
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in with_value:
                found.setdefault(letter, []).append(letters or (waiting.pop(0) if waiting else ""))
                break
            found.setdefault(letter, [])
    return found, rest


def _check_name(name: str, action: str) -> None:
    start = f"cannot {action} '{name}': "
    if len(name.encode()) > 255:
        raise Failed(start + "name is too long")
    if name.startswith("/"):
        raise Failed(start + "leading slash in name")
    if name.endswith("/"):
        raise Failed(start + "trailing slash in name")
    for part in name.split("/"):
        if part in (".", ".."):
            word = "self" if part == "." else "parent"
            raise Failed(f"{start}{word} reference, '{part}' is found in name")
        if not part:
            raise Failed(start + "empty component or misplaced '@' or '#' delimiter in name")
    if not _NAME.fullmatch(name):
        bad = next(char for char in name if not re.fullmatch(r"[A-Za-z0-9_.:/ -]", char))
        raise Failed(f"{start}invalid character '{bad}' in name")


# ---- where files are -----------------------------------------------------------------------------------------------------------


def _place(known: Mapping[str, Mapping[str, str]], name: str) -> str:
    return mountpoint_of(known, name)[0] if mounted(known, name) else f"{SIM}/unmounted/{name}"


def _places(known: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    return {name: _place(known, name) for name in known if kind_of(name, known[name]) == "filesystem"}


def _move(node: Node, old: str, new: str) -> None:
    text = node.files.read(old)
    if text is not None:
        node.files.write(new, text)
        node.files.remove(old)
        return
    for name in node.files.names(old):
        _move(node, f"{old}/{name}", f"{new}/{name}")


def _save(node: Node, before: Known, after: Known, renamed: Mapping[str, str] | None = None) -> None:
    """Write the datasets back; files go where their file system is now, those of a removed one with it."""
    here, there = _places(before), _places(after)
    new = renamed or {}
    for name, place in sorted(here.items(), key=lambda one: -len(one[1])):
        if new.get(name, name) not in there:
            node.files.remove(place)
        elif there[new.get(name, name)] != place:
            _move(node, place, there[new.get(name, name)])
    for name in there.keys() - {new.get(other, other) for other in here}:
        node.files.write(f"{there[name]}/.volume", "")
    storage.save_datasets(node, after)


def _copied(node: Node) -> tuple[Known, Known]:
    return storage.datasets(node), storage.datasets(node)


def _unused(node: Node, names: list[str], words: str) -> None:
    """Refuse while somebody uses one of them."""
    for name in names:
        if node.files.exists(f"{SIM}/busy/{name}"):
            raise Failed(words.format(name))


# ---- changes -------------------------------------------------------------------------------------------------------------------


def _assigned(name: str, pairs: list[str], action: str) -> dict[str, str]:
    entry: dict[str, str] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if not (key in SIZES or key in DEFAULTS or key == "mountpoint" or ":" in key):
            raise Failed(f"cannot {action} '{name}': invalid property '{key}'")
        if key == "mountpoint" and not (value.startswith("/") or value in ("none", "legacy")):
            raise Failed(f"cannot {action} '{name}': 'mountpoint' must be an absolute path, 'none', or 'legacy'")
        if key not in SIZES:
            entry[key] = value
        elif value != "none":
            entry[key] = str(in_bytes(value))
    return entry


def _new(ctx: Ctx, name: str, action: str, parents: bool) -> tuple[Known, Known, list[str]]:
    """Check the place for a new dataset; the datasets, a copy, and the parents that are missing."""
    node = ctx.node
    _check_name(name, action)
    before, known = _copied(node)
    pool = name.split("/", maxsplit=1)[0]
    if pool not in known:
        raise Failed(f"cannot create '{name}': no such pool '{pool}'")
    if "/" not in name:
        raise Failed(f"cannot create '{name}': missing dataset name")
    if name in known:
        raise Failed(f"cannot create '{name}': dataset already exists")
    if node.files.exists(f"{SIM}/full/{pool}"):
        raise Failed(f"cannot create '{name}': out of space")
    parent = name.rpartition("/")[0]
    missing: list[str] = []
    while parent not in known:
        missing.insert(0, parent)
        parent = parent.rpartition("/")[0]
    if missing and not parents:
        raise Failed(f"cannot create '{name}': parent does not exist")
    return before, known, missing


def _create(ctx: Ctx, words: list[str]) -> int:
    flags, rest = flags_of(words, "obV")
    if len(rest) != 1:
        raise Failed("missing filesystem argument\n" + USAGE.rstrip(), 2)
    node, name = ctx.node, rest[0]
    if "p" in flags and name in storage.datasets(node):
        return 0
    before, known, missing = _new(ctx, name, "create", "p" in flags)
    entry = {"type": "volume" if "V" in flags else "filesystem", **_assigned(name, flags.get("o", []), "create")}
    if "V" in flags:
        entry["volsize"] = str(in_bytes(flags["V"][0]))
    for new in [*missing, name]:
        known[new] = {**(entry if new == name else {"type": "filesystem"}), "creation": str(int(node.now()))}
        node.effect("dataset", new, "created")
    _save(node, before, known)
    return 0


def _dependents(known: Known, gone: list[str]) -> list[str]:
    clones = [name for name in known if known[name].get("origin", "-") in gone and name not in gone]
    return sorted(clones)


def _destroy(ctx: Ctx, words: list[str]) -> int:
    flags, rest = flags_of(words, "")
    if not rest:
        raise Failed("missing dataset argument\n" + USAGE.rstrip(), 2)
    node = ctx.node
    name, at, snaps = rest[0].partition("@")
    before, known = _copied(node)
    require(node, name)
    if at:
        gone = [f"{name}@{snap}" for snap in snaps.split(",") if f"{name}@{snap}" in known]
        if not gone:
            raise Failed("could not find any snapshots to destroy; check snapshot names.")
        if any(known[one].get("holds") for one in gone):
            raise Failed(
                f"cannot destroy snapshot {gone[0]}: it's being held. Run 'zfs holds -r {gone[0]}' to see holders."
            )
    else:
        gone = _with_children(known, name, flags)
    if (clones := _dependents(known, gone)) and "R" not in flags:
        what = "snapshot" if at else "filesystem"
        listed = "\n".join(clones)
        raise Failed(
            f"cannot destroy '{rest[0]}': {what} has dependent clones\nuse '-R' to destroy the following datasets:\n{listed}"
        )
    while more := [one for clone in _dependents(known, gone) for one in _with_children(known, clone, {"r": []})]:
        gone += more
    if "n" in flags:
        ctx.out("".join(f"destroy\t{other}\n" if "p" in flags else f"would destroy {other}\n" for other in gone))
        return 0
    _unused(node, gone, "cannot destroy '{}': dataset is busy")
    for other in gone:
        node.effect("snapshot" if "@" in other else "dataset", other, "removed")
    _save(node, before, {other: known[other] for other in known if other not in gone})
    return 0


def _with_children(known: Known, name: str, flags: Mapping[str, list[str]]) -> list[str]:
    if "/" not in name:
        raise Failed(
            f"cannot destroy '{name}': operation does not apply to pools\n"
            f"use 'zfs destroy -r {name}' to destroy all datasets in the pool\n"
            f"use 'zpool destroy {name}' to destroy the pool itself"
        )
    below = sorted(other for other in known if other.startswith((f"{name}/", f"{name}@")))
    if below and not {"r", "R"} & set(flags):
        listed = "\n".join(below)
        raise Failed(
            f"cannot destroy '{name}': filesystem has children\nuse '-r' to destroy the following datasets:\n{listed}"
        )
    return [*below, name]


def _snapshot(ctx: Ctx, words: list[str]) -> int:
    flags, names = flags_of(words, "o")
    node = ctx.node
    known = storage.datasets(node)
    new: list[str] = []
    for full in names:
        name, at, snap = full.partition("@")
        if not at or not snap:
            raise Failed(f"cannot create snapshot '{full}': empty component or misplaced '@' or '#' delimiter in name")
        if name not in known:
            raise Failed(f"cannot open '{name}': dataset does not exist\n{USAGE.rstrip()}", 2)
        targets = [other for other in known if "@" not in other and (other == name or other.startswith(name + "/"))]
        new += [f"{other}@{snap}" for other in (targets if "r" in flags else [name])]
    for full in new:
        if full in known:
            more = "\nno snapshots were created" if len(new) > 1 else ""
            raise Failed(f"cannot create snapshot '{full}': dataset already exists{more}")
    properties = dict(pair.split("=", 1) for pair in flags.get("o", []))
    for full in new:
        known[full] = {"type": "snapshot", "creation": str(int(node.now())), **properties}
        node.effect("snapshot", full, "created")
    storage.save_datasets(node, known)
    return 0


def _clone(ctx: Ctx, words: list[str]) -> int:
    flags, rest = flags_of(words, "o")
    if len(rest) != 2:
        raise Failed("missing source dataset argument\n" + USAGE.rstrip(), 2)
    require(ctx.node, rest[0])
    before, known, missing = _new(ctx, rest[1], "create", "p" in flags)
    for new in missing:
        known[new] = {"type": "filesystem", "creation": str(int(ctx.node.now()))}
    entry = _assigned(rest[1], flags.get("o", []), "create")
    known[rest[1]] = {"type": "filesystem", "creation": str(int(ctx.node.now())), "origin": rest[0], **entry}
    ctx.node.effect("dataset", rest[1], "created")
    _save(ctx.node, before, known)
    return 0


def _set(ctx: Ctx, words: list[str]) -> int:
    _, rest = flags_of(words, "")
    pairs, names = [word for word in rest if "=" in word], [word for word in rest if "=" not in word]
    node = ctx.node
    before, known = _copied(node)
    for name in names:
        require(node, name)
        entry = _assigned(name, pairs, "set property for")
        if "mountpoint" in entry and entry["mountpoint"] != mountpoint_of(known, name)[0]:
            place = mountpoint_of(known, name)[0]
            _unused(node, [name], f"cannot unmount '{place}': pool or dataset is busy")
        for pair in pairs:
            known[name].pop(pair.partition("=")[0], None)
        known[name].update(entry)
        node.effect("dataset", name, "set " + " ".join(pairs))
    _save(node, before, known)
    return 0


def _inherit(ctx: Ctx, words: list[str]) -> int:
    _, rest = flags_of(words, "")
    before, known = _copied(ctx.node)
    for name in rest[1:]:
        require(ctx.node, name)
        if known[name].pop(rest[0], None) is not None:
            ctx.node.effect("dataset", name, f"inherit {rest[0]}")
    _save(ctx.node, before, known)
    return 0


def _rename(ctx: Ctx, words: list[str]) -> int:
    _, (old, new) = flags_of(words, "")
    node = ctx.node
    require(node, old)
    if new in storage.datasets(node):
        raise Failed(f"cannot rename '{old}': dataset already exists")
    _check_name(new.replace("@", "/"), "rename")
    before = storage.datasets(node)
    if new.rpartition("@" if "@" in new else "/")[0] not in before:
        raise Failed(f"cannot rename '{old}': parent does not exist")
    _unused(node, [old], "cannot rename '{}': dataset is busy")
    moved = {name: new + name[len(old) :] for name in before if name == old or name.startswith((f"{old}/", f"{old}@"))}
    after = {moved.get(name, name): entry for name, entry in before.items()}
    for entry in after.values():
        if entry.get("origin") in moved:
            entry["origin"] = moved[entry["origin"]]
    _save(node, storage.datasets(node), after, moved)
    node.effect("dataset", old, f"renamed to {new}")
    return 0


def _rollback(ctx: Ctx, words: list[str]) -> int:
    flags, rest = flags_of(words, "")
    full = rest[0]
    name, _, _ = full.partition("@")
    known = storage.datasets(ctx.node)
    require(ctx.node, full)
    own = [other for other in known if other.startswith(name + "@")]
    newer = own[own.index(full) + 1 :]
    if newer and not {"r", "R"} & set(flags):
        listed = "\n".join(newer)
        raise Failed(
            f"cannot rollback to '{full}': more recent snapshots or bookmarks exist\n"
            f"use '-r' to force deletion of the following snapshots and bookmarks:\n{listed}"
        )
    _unused(ctx.node, [name], "cannot rollback '{}': dataset is busy")
    storage.save_datasets(ctx.node, {other: known[other] for other in known if other not in newer})
    for other in newer:
        ctx.node.effect("snapshot", other, "removed")
    ctx.node.effect("dataset", name, f"rolled back to {full}")
    return 0


def _mount(ctx: Ctx, words: list[str]) -> int:
    """``zfs mount NAME``; ``-a`` finds all mounted."""
    _, names = flags_of(words, "o")
    before, known = _copied(ctx.node)
    for name in names:
        require(ctx.node, name)
        if mounted(known, name):
            raise Failed(f"cannot mount '{name}': filesystem already mounted")
        known[name].pop("unmounted", None)
    _save(ctx.node, before, known)
    return 0


def _unmount(ctx: Ctx, words: list[str]) -> int:
    _, names = flags_of(words, "")
    before, known = _copied(ctx.node)
    for name in names:
        require(ctx.node, name)
        if not mounted(known, name):
            raise Failed(f"cannot unmount '{name}': not currently mounted")
        _unused(ctx.node, [name], f"cannot unmount '{mountpoint_of(known, name)[0]}': pool or dataset is busy")
        known[name]["unmounted"] = "1"
    _save(ctx.node, before, known)
    return 0


def _hold(ctx: Ctx, words: list[str]) -> int:
    _, rest = flags_of(words, "")
    known = storage.datasets(ctx.node)
    for name in rest[1:]:
        require(ctx.node, name)
        known[name]["holds"] = " ".join(sorted({*known[name].get("holds", "").split(), rest[0]}))
    storage.save_datasets(ctx.node, known)
    return 0


def _release(ctx: Ctx, words: list[str]) -> int:
    _, rest = flags_of(words, "")
    known = storage.datasets(ctx.node)
    for name in rest[1:]:
        require(ctx.node, name)
        tags = known[name].get("holds", "").split()
        if rest[0] not in tags:
            raise Failed(f"cannot release '{rest[0]}' from '{name}': no such tag on this dataset")
        known[name]["holds"] = " ".join(tag for tag in tags if tag != rest[0])
    storage.save_datasets(ctx.node, known)
    return 0


def _promote(ctx: Ctx, words: list[str]) -> int:
    (name,) = words
    known = storage.datasets(ctx.node)
    require(ctx.node, name)
    origin = known[name].get("origin", "")
    if not origin:
        raise Failed(f"cannot promote '{name}': not a cloned filesystem")
    owner, _, snap = origin.partition("@")
    known[f"{name}@{snap}"] = known.pop(origin)
    known[name].pop("origin")
    known[owner]["origin"] = f"{name}@{snap}"
    storage.save_datasets(ctx.node, known)
    ctx.node.effect("dataset", name, "promoted")
    return 0


CHANGES = {
    "create": _create,
    "destroy": _destroy,
    "snapshot": _snapshot,
    "snap": _snapshot,
    "clone": _clone,
    "set": _set,
    "inherit": _inherit,
    "rename": _rename,
    "rollback": _rollback,
    "mount": _mount,
    "unmount": _unmount,
    "umount": _unmount,
    "hold": _hold,
    "release": _release,
    "promote": _promote,
}
"""Subcommands that change something."""

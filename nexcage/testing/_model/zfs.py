"""``zfs`` and ``zpool`` over the model's datasets."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from datetime import UTC, datetime

from nexcage.testing._model import storage
from nexcage.testing._model.files import SIM
from nexcage.testing._model.node import Node
from nexcage.testing._model.tool import Ctx, Sleep, Steps

__all__ = ["zfs", "zpool"]

_SIZE = 480_000_000_000
_USAGE = "usage:\n\tzfs command args ...\nwhere 'command' is one of the following:\n"


def _took(node: Node) -> Generator[Sleep, None, None]:
    cost = node.cost(0.02)
    if cost:
        yield Sleep(cost)


class _Failed(Exception):
    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status: int = status


def zfs(ctx: Ctx) -> Steps:
    """``zfs list|get|create|destroy|snapshot|set|rollback|mount|version``."""
    yield from _took(ctx.node)
    words = list(ctx.argv[1:])
    handlers = {
        "list": _list,
        "get": _get,
        "create": _create,
        "destroy": _destroy,
        "snapshot": _snapshot,
        "snap": _snapshot,
        "set": _set,
        "rollback": _rollback,
    }
    if not words:
        ctx.err("missing command\n" + _USAGE)
        return 2
    if words[0] in ("version", "--version"):
        ctx.out("zfs-2.3.4-pve1\nzfs-kmod-2.3.4-pve1\n")
        return 0
    if words[0] in ("mount", "unmount"):
        return 0
    handler = handlers.get(words[0])
    if handler is None:
        ctx.err(f"unrecognized command '{words[0]}'\n" + _USAGE)
        return 2
    try:
        return handler(ctx, words[1:])
    except _Failed as error:
        ctx.err(f"{error}\n")
        return error.status


def _flags(words: list[str], with_value: str) -> tuple[dict[str, list[str]], list[str]]:
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


_UNITS = ("", "K", "M", "G", "T", "P")


def _human(size: int) -> str:
    value, unit = float(size), 0
    while value >= 1024:
        value, unit = value / 1024, unit + 1
    if not unit:
        return f"{size}B" if size else "0B"
    return f"{value:.3g}{_UNITS[unit]}" if value < 100 else f"{value:.0f}{_UNITS[unit]}"


def _bytes(text: str) -> int:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kKmMgGtT]?)[bB]?", text)
    if found is None:
        raise _Failed(f"cannot set property: bad numeric value '{text}'")
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))


def _kind(name: str, entry: Mapping[str, str]) -> str:
    return "snapshot" if "@" in name else entry.get("type", "filesystem")


def _property(node: Node, name: str, key: str, exact: bool) -> tuple[str, str]:
    """Value and source."""
    known = storage.datasets(node)
    entry = known[name]
    kind = _kind(name, entry)
    used = 98304 if "/" in name else 98304 * max(1, len(known))
    sizes = {"used": used, "refer": 98304, "referenced": 98304, "available": _SIZE - used, "avail": _SIZE - used}
    sizes["refquota"] = sizes["quota"] = 0
    if key in ("refquota", "quota", "volsize") and key in entry:
        value = int(entry[key])
        return (str(value) if exact else _human(value)), "local"
    if key in ("refquota", "quota") and kind == "filesystem":
        return ("0" if exact else "none"), "default"
    if key in ("used", "refer", "referenced", "available", "avail"):
        if kind == "snapshot" and key in ("available", "avail"):
            return "-", "-"
        size = 0 if kind == "snapshot" and key == "used" else sizes[key]
        if "refquota" in entry and key in ("available", "avail"):
            size = int(entry["refquota"]) - 98304
        return (str(size) if exact else _human(size)), "-"
    if key == "creation":
        when = int(entry.get("creation", 0))
        return (str(when) if exact else datetime.fromtimestamp(when, UTC).strftime("%a %b %e %H:%M %Y")), "-"
    fixed = {
        "name": name,
        "type": kind,
        "origin": entry.get("origin", "-"),
        "mounted": "yes" if kind == "filesystem" else "-",
    }
    if key in fixed:
        return fixed[key], "-"
    if key == "mountpoint":
        return (entry.get(key, "/" + name), "default") if kind == "filesystem" else ("-", "-")
    if key in entry:
        return entry[key], "local"
    if ":" in key:
        return "-", "-"
    raise _Failed(f"bad property list: invalid property '{key}'\n{_USAGE.rstrip()}", 2)


def _require(node: Node, name: str) -> None:
    if name not in storage.datasets(node):
        raise _Failed(f"cannot open '{name}': dataset does not exist")


def _selected(node: Node, names: list[str], flags: Mapping[str, list[str]], kinds: set[str]) -> list[str]:
    known = storage.datasets(node)
    for name in names:
        _require(node, name)
    depth = int(flags["d"][0]) if flags.get("d") else (99 if "r" in flags or not names else 0)
    found: list[str] = []
    for name in sorted(known):
        if _kind(name, known[name]) not in kinds and name not in names:
            continue
        for root in names or [other for other in known if "/" not in other and "@" not in other]:
            below = name == root or re.match(re.escape(root) + "[/@]", name) is not None
            levels = name[len(root) :].count("/") + name[len(root) :].count("@")
            if below and levels <= depth:
                found.append(name)
                break
    return found


def _list(ctx: Ctx, words: list[str]) -> int:
    flags, names = _flags(words, "otdsS")
    columns = ",".join(flags.get("o", ["name,used,avail,refer,mountpoint"])).split(",")
    types = ",".join(flags.get("t", ["filesystem,volume"])).split(",")
    kinds = (
        {"filesystem", "volume", "snapshot"} if "all" in types else {"snapshot" if t == "snap" else t for t in types}
    )
    exact = "p" in flags
    rows = [
        [_property(ctx.node, name, column, exact)[0] for column in columns]
        for name in _selected(ctx.node, names, flags, kinds)
    ]
    if not rows and "H" not in flags and not names:
        ctx.err("no datasets available\n")
        return 0
    _table(ctx, [column.upper() for column in columns], rows, "H" in flags)
    return 0


def _table(ctx: Ctx, head: list[str], rows: list[list[str]], bare: bool) -> None:
    if bare:
        ctx.out("".join("\t".join(row) + "\n" for row in rows))
        return
    widths = [max(len(row[n]) for row in [head, *rows]) for n in range(len(head))]
    for row in [head, *rows]:
        ctx.out("  ".join(cell.ljust(widths[n]) for n, cell in enumerate(row)).rstrip() + "\n")


def _get(ctx: Ctx, words: list[str]) -> int:
    flags, rest = _flags(words, "otsd")
    if len(rest) < 1:
        raise _Failed("missing property argument\n" + _USAGE.rstrip(), 2)
    columns = ",".join(flags.get("o", ["name,property,value,source"])).split(",")
    keys = rest[0].split(",")
    if keys == ["all"]:
        keys = "type creation used available referenced mounted refquota mountpoint".split()
    rows: list[list[str]] = []
    for name in _selected(ctx.node, rest[1:], flags, {"filesystem", "volume"}):
        for key in keys:
            value, source = _property(ctx.node, name, key, "p" in flags)
            cells = {"name": name, "property": key, "value": value, "source": source, "received": "-"}
            rows.append([cells[column] for column in columns])
    _table(ctx, [column.upper() for column in columns], rows, "H" in flags)
    return 0


_NAME = re.compile(r"[A-Za-z0-9_.: -]+(/[A-Za-z0-9_.: -]+)*", re.ASCII)


def _check_name(name: str, action: str) -> None:
    start = f"cannot {action} '{name}': "
    if len(name.encode()) > 255:
        raise _Failed(start + "name is too long")
    if name.startswith("/"):
        raise _Failed(start + "leading slash in name")
    if name.endswith("/"):
        raise _Failed(start + "trailing slash in name")
    for part in name.split("/"):
        if part in (".", ".."):
            word = "self" if part == "." else "parent"
            raise _Failed(f"{start}{word} reference, '{part}' is found in name")
        if not part:
            raise _Failed(start + "empty component or misplaced '@' or '#' delimiter in name")
    if not _NAME.fullmatch(name):
        bad = next(char for char in name if not re.fullmatch(r"[A-Za-z0-9_.:/ -]", char))
        raise _Failed(f"{start}invalid character '{bad}' in name")


def _create(ctx: Ctx, words: list[str]) -> int:
    flags, rest = _flags(words, "obV")
    if len(rest) != 1:
        raise _Failed("missing filesystem argument\n" + _USAGE.rstrip(), 2)
    node, name = ctx.node, rest[0]
    _check_name(name, "create")
    known = storage.datasets(node)
    pool = name.split("/")[0]
    if pool not in known:
        raise _Failed(f"cannot create '{name}': no such pool '{pool}'")
    if "/" not in name:
        raise _Failed(f"cannot create '{name}': missing dataset name")
    if name in known:
        if "p" in flags:
            return 0
        raise _Failed(f"cannot create '{name}': dataset already exists")
    if node.files.exists(f"{SIM}/full/{pool}"):
        raise _Failed(f"cannot create '{name}': out of space")
    parent = name.rpartition("/")[0]
    missing: list[str] = []
    while parent not in known:
        missing.append(parent)
        parent = parent.rpartition("/")[0]
    if missing and "p" not in flags:
        raise _Failed(f"cannot create '{name}': parent does not exist")
    entry = {"type": "volume" if "V" in flags else "filesystem"}
    if "V" in flags:
        entry["volsize"] = str(_bytes(flags["V"][0]))
    for pair in flags.get("o", []):
        key, _, value = pair.partition("=")
        if value != "none":
            entry[key] = str(_bytes(value)) if key in ("refquota", "quota", "volsize") else value
    for new in [*reversed(missing), name]:
        details = entry if new == name else {"type": "filesystem"}
        known[new] = {**details, "creation": str(int(node.now()))}
        node.effect("dataset", new, "created")
        if details["type"] == "filesystem":
            node.files.write(f"/{new}/.volume", "")
    storage.save_datasets(node, known)
    return 0


def _destroy(ctx: Ctx, words: list[str]) -> int:
    flags, rest = _flags(words, "")
    if not rest:
        raise _Failed("missing dataset argument\n" + _USAGE.rstrip(), 2)
    node = ctx.node
    name, at, snaps = rest[0].partition("@")
    known = storage.datasets(node)
    _require(node, name)
    if at:
        gone = [f"{name}@{snap}" for snap in snaps.split(",") if f"{name}@{snap}" in known]
        if not gone:
            raise _Failed("could not find any snapshots to destroy; check snapshot names.")
    else:
        if "/" not in name:
            raise _Failed(
                f"cannot destroy '{name}': operation does not apply to pools\n"
                f"use 'zfs destroy -r {name}' to destroy all datasets in the pool\n"
                f"use 'zpool destroy {name}' to destroy the pool itself"
            )
        below = sorted(other for other in known if other.startswith((f"{name}/", f"{name}@")))
        if below and not {"r", "R"} & set(flags):
            listed = "\n".join(below)
            raise _Failed(
                f"cannot destroy '{name}': filesystem has children\nuse '-r' to destroy the following datasets:\n{listed}"
            )
        gone = [*below, name]
    if "n" in flags:
        ctx.out("".join(f"destroy\t{other}\n" if "p" in flags else f"would destroy {other}\n" for other in gone))
        return 0
    for other in gone:
        node.effect("snapshot" if "@" in other else "dataset", other, "removed")
        node.files.remove(f"/{other}")
    storage.save_datasets(node, {other: known[other] for other in known if other not in gone})
    return 0


def _snapshot(ctx: Ctx, words: list[str]) -> int:
    flags, names = _flags(words, "o")
    node = ctx.node
    known = storage.datasets(node)
    new: list[str] = []
    for full in names:
        name, at, snap = full.partition("@")
        if not at or not snap:
            raise _Failed(f"cannot create snapshot '{full}': empty component or misplaced '@' or '#' delimiter in name")
        if name not in known:
            raise _Failed(f"cannot open '{name}': dataset does not exist\n{_USAGE.rstrip()}", 2)
        targets = [other for other in known if "@" not in other and (other == name or other.startswith(name + "/"))]
        new += [f"{other}@{snap}" for other in (targets if "r" in flags else [name])]
    for full in new:
        if full in known:
            more = "\nno snapshots were created" if len(new) > 1 else ""
            raise _Failed(f"cannot create snapshot '{full}': dataset already exists{more}")
    properties = dict(pair.split("=", 1) for pair in flags.get("o", []))
    for full in new:
        known[full] = {"type": "snapshot", "creation": str(int(node.now())), **properties}
        node.effect("snapshot", full, "created")
    storage.save_datasets(node, known)
    return 0


def _set(ctx: Ctx, words: list[str]) -> int:
    _, rest = _flags(words, "")
    pairs, names = [word for word in rest if "=" in word], [word for word in rest if "=" not in word]
    known = storage.datasets(ctx.node)
    for name in names:
        _require(ctx.node, name)
        for pair in pairs:
            key, _, value = pair.partition("=")
            if value == "none":
                known[name].pop(key, None)
            else:
                known[name][key] = str(_bytes(value)) if key in ("refquota", "quota", "volsize") else value
        ctx.node.effect("dataset", name, "set " + " ".join(pairs))
    storage.save_datasets(ctx.node, known)
    return 0


def _rollback(ctx: Ctx, words: list[str]) -> int:
    flags, rest = _flags(words, "")
    full = rest[0]
    name, _, _ = full.partition("@")
    known = storage.datasets(ctx.node)
    _require(ctx.node, full)
    newer: list[str] = []
    seen = False
    for other in known:
        if other == full:
            seen = True
        elif seen and other.startswith(name + "@"):
            newer.append(other)
    if newer and not {"r", "R"} & set(flags):
        listed = "\n".join(newer)
        raise _Failed(
            f"cannot rollback to '{full}': more recent snapshots or bookmarks exist\n"
            f"use '-r' to force deletion of the following snapshots and bookmarks:\n{listed}"
        )
    storage.save_datasets(ctx.node, {other: known[other] for other in known if other not in newer})
    for other in newer:
        ctx.node.effect("snapshot", other, "removed")
    ctx.node.effect("dataset", name, f"rolled back to {full}")
    return 0


def zpool(ctx: Ctx) -> Steps:
    """``zpool list|status``."""
    yield from _took(ctx.node)
    node = ctx.node
    flags, rest = _flags(list(ctx.argv[1:]), "o")
    pools = [name for name in storage.datasets(node) if "/" not in name and "@" not in name]
    command, wanted = (rest[0] if rest else ""), rest[1:]
    for name in wanted:
        if name not in pools:
            ctx.err(f"cannot open '{name}': no such pool\n")
            return 1
    shown = wanted or pools
    if command == "list":
        columns = ",".join(
            flags.get("o", ["name,size,alloc,free,ckpoint,expandsz,frag,cap,dedup,health,altroot"])
        ).split(",")
        rows = [[_pool_property(node, name, column, "p" in flags) for column in columns] for name in shown]
        _table(ctx, [column.upper() for column in columns], rows, "H" in flags)
        return 0
    if command == "status":
        for name in shown:
            health = _pool_property(node, name, "health", False)
            ctx.out(f"  pool: {name}\n state: {health}\nconfig:\n\n\tNAME        STATE     READ WRITE CKSUM\n")
            ctx.out(f"\t{name:<11} {health:<8}     0     0     0\n\t  sda3      {health:<8}     0     0     0\n\n")
            ctx.out("errors: No known data errors\n")
        return 0
    ctx.err(
        "missing command\nusage: zpool command args ...\n" if not command else f"unrecognized command '{command}'\n"
    )
    return 2


def _pool_property(node: Node, name: str, key: str, exact: bool) -> str:
    used = _SIZE // 10
    sizes = {"size": _SIZE, "alloc": used, "allocated": used, "free": _SIZE - used}
    if key in sizes:
        return str(sizes[key]) if exact else _human(sizes[key])
    health = (node.files.read(f"{SIM}/pool/{name}") or "ONLINE").strip()
    others = {"name": name, "cap": "10", "capacity": "10", "frag": "3", "health": health, "dedup": "1.00"}
    value = others.get(key, "-")
    return (
        value if exact or key not in ("cap", "capacity", "frag", "dedup") else value + ("x" if key == "dedup" else "%")
    )

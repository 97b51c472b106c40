"""The pretend ``pvesm``: storages and their volumes."""

from __future__ import annotations

import re
from typing import NamedTuple

from nexcage.testing._model import storage
from nexcage.testing._model.files import SIM
from nexcage.testing._model.node import Node
from nexcage.testing._model.pct.restore import Backup
from nexcage.testing._model.pve import START_UP, contents, split, took, unknown, wrong
from nexcage.testing._model.storage import Die, Storage
from nexcage.testing._model.tool import Ctx, Steps

__all__ = ["pvesm"]


def pvesm(ctx: Ctx) -> Steps:
    """``pvesm status|list|path|free|alloc|add|extractconfig``."""
    yield from took(ctx.node, START_UP)
    handlers = {"status": _status, "list": _list, "path": _path, "free": _free, "alloc": _alloc, "add": _add}
    handlers["extractconfig"] = _extractconfig
    words = ctx.argv[1:]
    hits = [name for name in handlers if words and name.startswith(words[0])]
    if len(hits) != 1:
        return unknown(ctx)
    options, rest = split(words[1:], _VALUED)
    try:
        return handlers[hits[0]](_Call(ctx, options, rest))
    except Die as error:
        return wrong(ctx, error)


_VALUED = tuple("storage content enabled target vmid format delay path pool is_mountpoint nodes".split())


class _Call(NamedTuple):
    ctx: Ctx
    options: dict[str, str]
    rest: list[str]


def _space(node: Node, place: Storage) -> tuple[int, int]:
    """Total and used KiB."""
    total = 450_000_000 if place.kind == "zfspool" else 98_497_780
    return total, total if storage.full(node, place) else total // 12 + 4096 * len(storage.of_guest(node, place))


def _status(call: _Call) -> int:
    ctx, options, _ = call
    node = ctx.node
    rows: list[tuple[str, str, str, int, int, int, str]] = []
    for name, place in storage.storages(node).items():
        if options.get("storage", name) != name or not _offers(place, options.get("content")):
            continue
        state = "disabled" if "disable" in place.options else "active"
        if "nodes" in place.options and node.name not in place.options["nodes"].split(","):
            continue
        if node.files.exists(f"{SIM}/offline/{name}"):
            state = "inactive"
        total, used = _space(node, place) if state == "active" else (0, 0)
        share = f"{used / total * 100:.2f}%" if total else ("N/A" if state == "disabled" else "0.00%")
        rows.append((name, place.kind, state, total, used, total - used, share))
    if "storage" in options and not rows:
        storage.find(node, options["storage"])
    width = max((len(row[0]) for row in rows), default=4) + 1
    line = "{:<{width}} {:>10} {:>10} {:>15} {:>15} {:>15} {:>8}\n"
    head = ("Name", "Type", "Status", "Total (KiB)", "Used (KiB)", "Available (KiB)", "%")
    ctx.out(line.format(*head, width=width) + "".join(line.format(*row, width=width) for row in sorted(rows)))
    return 0


def _offers(place: Storage, content: str | None) -> bool:
    return content is None or bool(set(content.split(",")) & place.content)


def _list(call: _Call) -> int:
    ctx, options, rest = call
    if not rest:
        ctx.err("400 not enough arguments\npvesm list <storage> [OPTIONS]\n")
        return 2
    place = storage.check(ctx.node, rest[0])
    rows = [
        row
        for row in contents(ctx.node, place)
        if options.get("content", row[2]) in (row[2], "images") and options.get("vmid", row[4]) == row[4]
    ]
    table = [("Volid", "Format", "Type", "Size", "VMID"), *((*row[:3], str(row[3]), row[4]) for row in rows)]
    widths = [max(len(row[n]) for row in table) for n in range(5)]
    for row in table:
        left = f"{row[0]:<{widths[0]}} {row[1]:<{widths[1]}} {row[2]:<{widths[2]}} {row[3]:>{widths[3]}}"
        ctx.out(f"{left} {row[4]}\n" if row[4] else f"{left}\n")
    return 0


def _path(call: _Call) -> int:
    ctx, _, rest = call
    if not rest:
        ctx.err("400 not enough arguments\npvesm path <volume>\n")
        return 2
    if storage.parse_id(rest[0]) is None:
        raise Die(f"unable to parse volume ID '{rest[0]}'")
    ctx.out(storage.path_of(storage.volume(ctx.node, rest[0])) + "\n")
    return 0


def _extractconfig(call: _Call) -> int:
    ctx, _, rest = call
    vol = storage.volume(ctx.node, rest[0])
    if vol.kind != "backup":
        raise Die(f"volume '{vol.id}' is not a backup")
    backup = Backup.read(ctx.node.files.read(storage.path_of(vol)) or "")
    if backup is None:
        raise Die(f"ERROR: could not find archive '{storage.path_of(vol)}'")
    ctx.out(backup.config)
    return 0


def _free(call: _Call) -> int:
    ctx, _, rest = call
    vol = storage.volume(ctx.node, rest[0])
    ctx.out(storage.free(ctx.node, vol))
    ctx.out(f"Removed volume '{vol.id}'\n")
    return 0


def _alloc(call: _Call) -> int:
    ctx, _, rest = call
    name, vmid, _, size = rest[:4]
    found = re.fullmatch(r"([0-9]+)([MG]?)", size)
    if found is None:
        raise Die("400 Parameter verification failed.\nsize: value does not match the regex pattern\n")
    kib = int(found[1]) * {"": 1, "M": 1024, "G": 1024**2}[found[2]]
    vol = storage.allocate(ctx.node, storage.check(ctx.node, name), int(vmid), kib)
    ctx.out(f"successfully created '{vol.id}'\n")
    return 0


def _add(call: _Call) -> int:
    ctx, options, rest = call
    if len(rest) != 2 or rest[0] not in ("dir", "zfspool"):
        ctx.err("400 not enough arguments\npvesm add <type> <storage> [OPTIONS]\n")
        return 2
    kind, name = rest
    if name in storage.storages(ctx.node):
        raise Die(f"create storage failed: storage ID '{name}' already defined")
    if kind == "dir" and not options.get("path", "").startswith("/"):
        raise Die(
            "400 Parameter verification failed.\npath: invalid format - value does not look like a valid absolute path\n"
        )
    text = (ctx.node.files.read("/etc/pve/storage.cfg") or "").rstrip("\n")
    lines = "".join(f"\n\t{key} {value}" for key, value in options.items())
    ctx.node.files.write("/etc/pve/storage.cfg", f"{text}\n\n{kind}: {name}{lines}\n")
    ctx.node.effect("storage", name, "added")
    return 0

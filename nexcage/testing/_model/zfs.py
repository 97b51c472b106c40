"""``zfs`` and ``zpool`` over the model's datasets.

Below the node's ``/var/lib/nexcage-sim``: ``zfs-down`` holds what both say while there is no ZFS, ``pool/NAME`` a pool's health,
``full/NAME`` that it is full, and ``busy/DATASET`` who uses a dataset (``PID NAME file`` lines).
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from nexcage.testing._model import storage
from nexcage.testing._model.files import SIM
from nexcage.testing._model.node import Node
from nexcage.testing._model.tool import Ctx, Sleep, Steps
from nexcage.testing._model.zfs_changes import CHANGES, flags_of
from nexcage.testing._model.zfs_properties import SIZE, USAGE, Failed, human, property_of, require, selected

__all__ = ["zfs", "zpool"]

DOWN = f"{SIM}/zfs-down"
NO_MODULE = "The ZFS modules are not loaded.\nTry running 'modprobe zfs' as root to load them.\n"


def _took(node: Node) -> Generator[Sleep, None, None]:
    cost = node.cost(0.02)
    if cost:
        yield Sleep(cost)


def _down(ctx: Ctx) -> bool:
    """Whether there is no ZFS; it says so."""
    said = ctx.node.files.read(DOWN)
    if said is not None:
        ctx.err(said or NO_MODULE)
    return said is not None


def zfs(ctx: Ctx) -> Steps:
    """``zfs``: what lists, what changes, and holds."""
    yield from _took(ctx.node)
    words = list(ctx.argv[1:])
    handlers: dict[str, Callable[[Ctx, list[str]], int]] = {**CHANGES, "list": _list, "get": _get, "holds": _holds}
    if _down(ctx):
        return 1
    if not words:
        ctx.err("missing command\n" + USAGE)
        return 2
    if words[0] in ("version", "--version"):
        ctx.out("zfs-2.3.4-pve1\nzfs-kmod-2.3.4-pve1\n")
        return 0
    handler = handlers.get(words[0])
    if handler is None:
        ctx.err(f"unrecognized command '{words[0]}'\n" + USAGE)
        return 2
    try:
        return handler(ctx, words[1:])
    except Failed as error:
        ctx.err(f"{error}\n")
        return error.status


def _table(ctx: Ctx, head: list[str], rows: list[list[str]], bare: bool) -> None:
    if bare:
        ctx.out("".join("\t".join(row) + "\n" for row in rows))
        return
    widths = [max(len(row[n]) for row in [head, *rows]) for n in range(len(head))]
    for row in [head, *rows]:
        ctx.out("  ".join(cell.ljust(widths[n]) for n, cell in enumerate(row)).rstrip() + "\n")


def _present(ctx: Ctx, names: list[str]) -> list[str]:
    """Those that are there; the others are named, and the tool goes on."""
    known = storage.datasets(ctx.node)
    for name in names:
        if name not in known:
            ctx.err(f"cannot open '{name}': dataset does not exist\n")
    return [name for name in names if name in known]


def _list(ctx: Ctx, words: list[str]) -> int:
    flags, names = flags_of(words, "otdsS")
    columns = ",".join(flags.get("o", ["name,used,avail,refer,mountpoint"])).split(",")
    types = ",".join(flags.get("t", ["filesystem,volume"])).split(",")
    every = {"filesystem", "volume", "snapshot"}
    kinds = every if "all" in types else {"snapshot" if kind == "snap" else kind for kind in types}
    there = _present(ctx, names)
    chosen = selected(ctx.node, there, flags, kinds) if there or not names else []
    if "s" in flags and flags["s"][0] == "creation":
        order = list(storage.datasets(ctx.node))
        chosen.sort(key=order.index)
    rows = [[property_of(ctx.node, name, column, "p" in flags)[0] for column in columns] for name in chosen]
    if not rows and "H" not in flags and not names:
        ctx.err("no datasets available\n")
        return 0
    if rows or not names:
        _table(ctx, [column.upper() for column in columns], rows, "H" in flags)
    return 0 if there == names else 1


def _get(ctx: Ctx, words: list[str]) -> int:
    flags, rest = flags_of(words, "otsd")
    if len(rest) < 1:
        raise Failed("missing property argument\n" + USAGE.rstrip(), 2)
    columns = ",".join(flags.get("o", ["name,property,value,source"])).split(",")
    keys = rest[0].split(",")
    if keys == ["all"]:
        keys = "type creation used available referenced mounted refquota mountpoint".split()
    sources = ",".join(flags.get("s", [])).split(",") if "s" in flags else []
    there = _present(ctx, rest[1:])
    every = {"filesystem", "volume", "snapshot"} if "r" in flags or "d" in flags else {"filesystem", "volume"}
    rows: list[list[str]] = []
    for name in selected(ctx.node, there, flags, every) if there or not rest[1:] else []:
        for key in keys:
            value, source = property_of(ctx.node, name, key, "p" in flags)
            if sources and source.split(" ")[0] not in sources:
                continue
            cells = {"name": name, "property": key, "value": value, "source": source, "received": "-"}
            rows.append([cells[column] for column in columns])
    if rows or "H" in flags:
        _table(ctx, [column.upper() for column in columns], rows, "H" in flags)
    return 0 if there == rest[1:] else 1


def _holds(ctx: Ctx, words: list[str]) -> int:
    flags, names = flags_of(words, "")
    rows: list[list[str]] = []
    for name in names:
        require(ctx.node, name)
        entry = storage.datasets(ctx.node)[name]
        rows += [[name, tag, "Sat Nov 22 10:00 2025"] for tag in entry.get("holds", "").split()]
    if rows:
        _table(ctx, ["NAME", "TAG", "TIMESTAMP"], rows, "H" in flags)
    return 0


# ---- zpool ---------------------------------------------------------------------------------------------------------------------


def zpool(ctx: Ctx) -> Steps:
    """``zpool list|status|create|destroy``."""
    yield from _took(ctx.node)
    if _down(ctx):
        return 1
    node = ctx.node
    flags, rest = flags_of(list(ctx.argv[1:]), "om")
    command, wanted = (rest[0] if rest else ""), rest[1:]
    if command in ("create", "destroy") and wanted:
        return _pool_changed(ctx, command, wanted[0], flags.get("m", [""])[0])
    pools = [name for name in storage.datasets(node) if "/" not in name and "@" not in name]
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


def _pool_changed(ctx: Ctx, command: str, name: str, mountpoint: str) -> int:
    known = storage.datasets(ctx.node)
    if command == "create" and name in known:
        ctx.err(f"cannot create '{name}': pool already exists\n")
        return 1
    if command == "create":
        known[name] = {"type": "filesystem", **({"mountpoint": mountpoint} if mountpoint else {})}
    elif name not in known:
        ctx.err(f"cannot open '{name}': no such pool\n")
        return 1
    else:
        known = {other: entry for other, entry in known.items() if other.split("/")[0].split("@")[0] != name}
    storage.save_datasets(ctx.node, known)
    ctx.node.effect("pool", name, f"{command}ed".replace("eed", "ed"))
    return 0


def _pool_property(node: Node, name: str, key: str, exact: bool) -> str:
    used = SIZE // 10
    sizes = {"size": SIZE, "alloc": used, "allocated": used, "free": SIZE - used}
    if key in sizes:
        return str(sizes[key]) if exact else human(sizes[key])
    health = (node.files.read(f"{SIM}/pool/{name}") or "ONLINE").strip()
    others = {"name": name, "cap": "10", "capacity": "10", "frag": "3", "health": health, "dedup": "1.00"}
    value = others.get(key, "-")
    return (
        value if exact or key not in ("cap", "capacity", "frag", "dedup") else value + ("x" if key == "dedup" else "%")
    )

"""``pvesm``, ``pveam``, ``pveversion`` and a little of ``pvesh``."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

from nexcage.testing._model import storage
from nexcage.testing._model.files import SIM
from nexcage.testing._model.node import Node
from nexcage.testing._model.pct.conf import read
from nexcage.testing._model.storage import Die, Storage
from nexcage.testing._model.tool import Ctx, Sleep, Steps

__all__ = ["pveam", "pvesh", "pvesm", "pveversion"]

_START_UP = 0.8
VERSION = "pve-manager/9.1.1/42db4a6cf33dac83 (running kernel: 6.14.8-2-pve)"


def _took(node: Node, seconds: float) -> Generator[Sleep, None, None]:
    cost = node.cost(seconds)
    if cost:
        yield Sleep(cost)


def _split(words: Sequence[str], with_value: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    options: dict[str, str] = {}
    rest: list[str] = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if len(word) > 1 and word.startswith("-"):
            key, equals, value = word.lstrip("-").partition("=")
            options[key] = value if equals else (waiting.pop(0) if key in with_value and waiting else "1")
        else:
            rest.append(word)
    return options, rest


def pveversion(ctx: Ctx) -> Steps:
    """``pveversion [-v]``."""
    yield from _took(ctx.node, 0.4)
    if not {"-v", "--verbose", "-verbose"} & set(ctx.argv[1:]):
        ctx.out(VERSION + "\n")
        return 0
    parts = {
        "proxmox-ve": "9.1.0 (running kernel: 6.14.8-2-pve)",
        "pve-manager": "9.1.1 (running version: 9.1.1/42db4a6cf33dac83)",
    }
    parts |= {"corosync": "3.1.9-pve2", "lxc-pve": "6.0.5-3", "lxcfs": "6.0.4-pve1", "pve-container": "6.1.10"}
    parts |= {
        "pve-cluster": "9.0.7",
        "pve-qemu-kvm": "10.1.2-4",
        "qemu-server": "9.1.0",
        "zfsutils-linux": "2.3.4-pve1",
    }
    ctx.out("".join(f"{name}: {version}\n" for name, version in parts.items()))
    return 0


# --- pvesm ------------------------------------------------------------------------------------------------------------


def pvesm(ctx: Ctx) -> Steps:
    """``pvesm status|list|path|free|alloc``."""
    yield from _took(ctx.node, _START_UP)
    handlers = {"status": _status, "list": _list, "path": _path, "free": _free, "alloc": _alloc}
    words = ctx.argv[1:]
    hits = [name for name in handlers if words and name.startswith(words[0])]
    if len(hits) != 1:
        shown = f"unknown command 'pvesm {words[0]}'" if words else "no command specified"
        ctx.err(f"ERROR: {shown}\nUSAGE: pvesm <COMMAND> [ARGS] [OPTIONS]\n")
        return 255
    options, rest = _split(words[1:], ("storage", "content", "enabled", "target", "vmid", "format", "delay"))
    try:
        return handlers[hits[0]](_Call(ctx, options, rest))
    except Die as error:
        ctx.err(error.text + "\n")
        return ctx.node.random.choice((2, 25, 255))


class _Call(NamedTuple):
    ctx: Ctx
    options: dict[str, str]
    rest: list[str]


def _space(node: Node, place: Storage) -> tuple[int, int]:
    """Total and used KiB."""
    total = 450_000_000 if place.kind == "zfspool" else 98_497_780
    full = node.files.exists(f"{SIM}/full/{place.id}")
    return total, total if full else total // 12 + 4096 * len(storage.of_guest(node, place))


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


def _contents(node: Node, place: Storage) -> list[tuple[str, str, str, int, str]]:
    """Volume id, format, content type, bytes, VMID."""
    rows: list[tuple[str, str, str, int, str]] = []
    rows += [
        (vol.id, vol.format, "rootdir", storage.size_of(node, vol) or 0, str(vol.owner))
        for vol in storage.of_guest(node, place)
    ]
    for kind, directory in (("vztmpl", "template/cache"), ("iso", "template/iso"), ("snippets", "snippets")):
        if place.kind == "zfspool" or kind not in place.content:
            continue
        for name in node.files.names(f"{place.path}/{directory}"):
            try:
                vol = storage.parse_name(place, f"{kind}/{name}")
            except Die:
                continue
            ending = name.rpartition(".")[2]
            form = {"gz": "tgz", "xz": "txz", "zst": "tzst", "bz2": "tbz2"}.get(ending, ending)
            rows.append((vol.id, form, kind, len(node.files.read(f"{place.path}/{directory}/{name}") or ""), ""))
    return rows


def _list(call: _Call) -> int:
    ctx, options, rest = call
    if not rest:
        ctx.err("400 not enough arguments\npvesm list <storage> [OPTIONS]\n")
        return 2
    place = storage.check(ctx.node, rest[0])
    rows = [
        row
        for row in _contents(ctx.node, place)
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


# --- pveam ------------------------------------------------------------------------------------------------------------


def pveam(ctx: Ctx) -> Steps:
    """``pveam list|available|update``."""
    yield from _took(ctx.node, _START_UP)
    words = ctx.argv[1:]
    if words[:1] == ("available",):
        for name in ("alpine-3.22-default_20250617_amd64.tar.xz", "debian-12-standard_12.12-1_amd64.tar.zst"):
            ctx.out(f"{'system':<15} {name:<60} amd64\n")
        return 0
    if words[:1] == ("update",):
        ctx.out("update successful\n")
        return 0
    if words[:1] != ("list",) or len(words) < 2:
        shown = f"unknown command 'pveam {words[0]}'" if words else "no command specified"
        ctx.err(f"ERROR: {shown}\nUSAGE: pveam <COMMAND> [ARGS] [OPTIONS]\n")
        return 255
    try:
        ctx.out(_templates(ctx.node, words[1]))
    except Die as error:
        ctx.err(error.text + "\n")
        return ctx.node.random.choice((2, 25, 255))
    return 0


def _templates(node: Node, name: str) -> str:
    place = storage.check(node, name)
    if "vztmpl" not in place.content:
        raise Die("Storage does not support templates!")
    rows = [volid for volid, _, kind, _, _ in _contents(node, place) if kind == "vztmpl"]
    return f"{'NAME':<60} {'SIZE':<6}\n" + "".join(f"{volid:<60} {'2.60MB':<6}\n" for volid in rows)


# --- pvesh ------------------------------------------------------------------------------------------------------------


def pvesh(ctx: Ctx) -> Steps:
    """``pvesh get PATH --output-format json`` for the paths that say what is where."""
    yield from _took(ctx.node, 1.2)
    options, rest = _split(ctx.argv[1:], ("output-format", "type", "vmid"))
    if len(rest) < 2 or rest[0] not in ("get", "ls"):
        ctx.err("ERROR: unknown command 'pvesh " + (rest[0] if rest else "") + "'\n")
        return 255
    path = "/" + rest[1].strip("/")
    answer = _answer(ctx.node, path, options)
    if answer is None:
        ctx.err(f"No 'get' handler defined for '{path}'\n")
        return 1
    pretty = 3 if options.get("output-format") == "json-pretty" else None
    ctx.out(json.dumps(answer, sort_keys=True, indent=pretty, separators=None if pretty else (",", ":")) + "\n")
    return 0


def _answer(node: Node, path: str, options: dict[str, str]) -> object:
    parts = path.strip("/").split("/")
    if path == "/version":
        return {"release": "9.1", "repoid": "42db4a6cf33dac83", "version": "9.1.1"}
    if path == "/cluster/status":
        return _cluster_status(node)
    if path == "/cluster/resources":
        return [
            entry for entry in _resources(node) if options.get("type", "") in ("", entry["type"], _KINDS[entry["type"]])
        ]
    if path == "/cluster/nextid":
        return str(next(n for n in range(100, 10**9) if node.guest_node(n) is None))
    if path == "/nodes":
        return [entry for entry in _resources(node) if entry["type"] == "node"]
    if len(parts) == 3 and parts[0] == "nodes" and parts[2] == "lxc":
        return [entry for entry in _resources(node) if entry["type"] == "lxc" and entry["node"] == parts[1]]
    if len(parts) == 3 and parts[0] == "nodes" and parts[2] == "status":
        return {"pveversion": VERSION.partition(" ")[0], "uptime": int(node.steady() - node.booted)}
    return None


_KINDS = {"lxc": "vm", "qemu": "vm", "node": "node", "storage": "storage"}


def _members(node: Node) -> dict[str, Any]:  # Any: JSON
    loaded: dict[str, Any] = json.loads(node.files.read("/etc/pve/.members") or "{}")
    return loaded


def _cluster_status(node: Node) -> list[dict[str, object]]:
    members = _members(node)
    answer: list[dict[str, object]] = []
    cluster = members.get("cluster")
    if cluster is not None:
        answer.append({"id": "cluster", "type": "cluster", **cluster, "quorate": int(node.quorate)})
    for name, entry in members.get("nodelist", {node.name: {"id": 0, "online": 1, "ip": "10.99.0.1"}}).items():
        local = int(name == node.name)
        fields = {"nodeid": entry["id"], "online": entry["online"], "ip": entry["ip"], "local": local, "level": ""}
        answer.append({"id": f"node/{name}", "type": "node", "name": name, **fields})
    return answer


def _resources(node: Node) -> list[dict[str, Any]]:  # Any: JSON
    answer: list[dict[str, Any]] = []
    for name in node.files.names("/etc/pve/nodes"):
        answer.append(
            {
                "id": f"node/{name}",
                "type": "node",
                "node": name,
                "status": "online",
                "maxcpu": 16,
                "maxmem": 67424120832,
            }
        )
        for file in node.files.names(f"/etc/pve/nodes/{name}/lxc"):
            if not file.endswith(".conf"):
                continue
            vmid = int(file[:-5])
            conf = read(vmid, node.files.read(f"/etc/pve/nodes/{name}/lxc/{file}") or "")[0]
            status = ("running" if node.is_running(vmid) else "stopped") if name == node.name else "unknown"
            entry: dict[str, Any] = {"id": f"lxc/{vmid}", "type": "lxc", "vmid": vmid, "node": name, "status": status}
            entry |= {"name": conf.values.get("hostname", f"CT{vmid}"), "template": int(conf.values.get("template", 0))}
            entry |= {key: conf.values[key] for key in ("lock", "tags") if conf.values.get(key)}
            answer.append(entry)
    here = {"type": "storage", "node": node.name, "status": "available"}
    answer += [{"id": f"storage/{node.name}/{name}", "storage": name, **here} for name in storage.storages(node)]
    return answer

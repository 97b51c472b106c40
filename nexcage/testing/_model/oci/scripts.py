"""Twins of the scripts that drive crun and runc on a node (`nexcage.tools.runtime`)."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any

from nexcage.testing._model import find_tool
from nexcage.testing._model.node import Node
from nexcage.testing._model.oci.containers import Box
from nexcage.testing._model.oci.inside import INSIDE
from nexcage.testing._model.oci.kept import KEPT, ROOTS, Place, call, number, place, said, set_number
from nexcage.testing._model.tool import Ctx, Sleep, Steps, Tool, Wait
from nexcage.tools.runtime import LOOK, making, stopping
from nexcage.tools.runtime import call as calls

__all__ = ["RUNTIMES"]

_NAME = re.compile(r"[A-Za-z0-9_.+-]+")


def _guard(ctx: Ctx) -> Steps:
    at, words = place(ctx)
    if not at.ours(ctx):
        return 9
    inner, steps = call(ctx, at, *words)
    status = yield from steps
    ctx.out(bytes(inner.stdout))
    ctx.err(bytes(inner.stderr))
    return said(ctx, at, status)


# --- making and removing ------------------------------------------------------------------------------------------------


def _create(ctx: Ctx) -> Steps:
    at, (_, kind, *words) = place(ctx)
    node, boot = ctx.node, (ctx.node.files.read("/proc/sys/kernel/random/boot_id") or "").strip()
    known = node.files.read(f"{at.kept}/mark")
    if known is not None and boot not in known.split("\n") and not node.files.exists(at.box):
        node.files.remove(at.kept)
        known = None
    owner = number(node, at.vmid)
    if owner not in (None, f"{at.fleet}/{at.id}") and f" vmid={at.vmid} " in (
        node.files.read(f"{KEPT}/{owner}/mark") or ""
    ):
        ctx.err("nexcage: the number is taken\n")
        return 7
    if known is not None and at.mark not in known.split("\n"):
        if f" vmid={at.vmid} " not in known:
            set_number(node, at.vmid, None)
        ctx.err("container with given ID already exists\n")
        return 1
    set_number(node, at.vmid, f"{at.fleet}/{at.id}")
    node.files.write(f"{at.kept}/mark", f"{at.mark}\n{at.runtime}\n{boot}\n")
    node.files.remove(f"{at.kept}/going")
    if known is None:
        node.effect("mark", f"{at.fleet}/{at.id}", "created")
    if not node.files.exists(at.box) and _used(node, at.id):
        ctx.err(f"nexcage: others use the cgroup {at.id}\n")
        return _undone(node, at, 6)
    bundle, words = _bundle(node, at, kind, words)
    if bundle is None:
        ctx.err("tar: the content is not there\n")
        return _undone(node, at, 2)
    inner, steps = call(ctx, at, "create", "--bundle", bundle, "--pid-file", f"{at.kept}/pid", *words)
    status = yield from steps
    node.files.append(f"{at.kept}/log", (inner.stdout + inner.stderr).decode("utf-8", "surrogateescape"))
    if status and not node.files.read(f"{at.kept}/said.model"):
        ctx.err(bytes(inner.stderr))
    if said(ctx, at, status):
        return _undone(node, at, status)
    ctx.out(node.files.read(f"{at.kept}/pid") or "")
    return 0


def _bundle(node: Node, at: Place, kind: str, words: list[str]) -> tuple[str | None, list[str]]:
    """Where the bundle lies; content is unpacked (a model's archive has nothing in it)."""
    if kind != "--content":
        return words[0], words[1:]
    config = node.files.read(words[1])
    if config is None or node.files.read(words[0]) is None:
        return None, words[2:]
    node.files.write(f"{at.kept}/bundle/config.json", config)
    node.files.write(f"{at.kept}/bundle/rootfs/.unpacked", words[0])
    return f"{at.kept}/bundle", words[2:]


def _used(node: Node, id: str) -> bool:
    """Whether there is a cgroup of that name with processes, or others below it."""
    place = f"/sys/fs/cgroup/{id}"
    below = (name for name in node.files.names(place) if node.files.read(f"{place}/{name}") is None)
    return bool((node.files.read(f"{place}/cgroup.procs") or "").strip()) or any(below)


def _undone(node: Node, at: Place, status: int) -> int:
    if not node.files.exists(at.box):
        _forget(node, at)
    return status


def _forget(node: Node, at: Place) -> None:
    if number(node, at.vmid) == f"{at.fleet}/{at.id}":
        set_number(node, at.vmid, None)
    node.files.remove(at.kept)
    node.effect("mark", f"{at.fleet}/{at.id}", "removed")


def _delete(ctx: Ctx) -> Steps:
    at, words = place(ctx)
    node = ctx.node
    if not at.ours(ctx):
        return 9
    node.files.write(f"{at.kept}/going", "")
    if node.files.exists(at.box):
        inner, steps = call(ctx, at, *words)
        status = yield from steps
        ctx.out(bytes(inner.stdout))
        ctx.err(bytes(inner.stderr))
        if said(ctx, at, status):
            node.files.remove(f"{at.kept}/going")
            return status
        node.files.remove(at.box)
    _forget(node, at)
    return 0


# --- stopping -------------------------------------------------------------------------------------------------------------


def _stop(ctx: Ctx) -> Steps:
    at, (_, deadline) = place(ctx)
    if not at.ours(ctx):
        return 9
    inner, steps = call(ctx, at, "state", at.id)
    status = yield from steps
    if status:
        ctx.out(bytes(inner.stdout))
        ctx.err(bytes(inner.stderr))
        return said(ctx, at, status)
    box = Box(ctx.node, at.root, at.id)
    if box.status == "stopped":
        return 0
    if int(deadline) > 0:
        found = re.search(rb'"org.opencontainers.image.stopSignal": *"([A-Za-z0-9+-]*)"', inner.stdout)
        box.freeze(False)
        _, steps = call(ctx, at, "kill", at.id, found[1].decode() if found else "TERM")
        yield from steps
        until = ctx.node.steady() + int(deadline) / 10
        while box.status != "stopped" and ctx.node.steady() < until:
            yield Sleep(0.1)
        if box.status == "stopped":
            return 0
    _, steps = call(ctx, at, "kill", at.id, "KILL")
    yield from steps
    return 0


# --- the look ---------------------------------------------------------------------------------------------------------------


def _look(ctx: Ctx) -> Steps:
    node, ops = ctx.node, ctx.argv[3:]
    read = node.files.read
    memory = re.findall(r"^MemAvailable: *(.*\n)", read("/proc/meminfo") or "", re.MULTILINE)
    parts = [
        "@nexcage boot\n", read("/proc/sys/kernel/random/boot_id") or "",
        "@nexcage uptime\n", read("/proc/uptime") or "",
        "@nexcage name\n", read("/proc/sys/kernel/hostname") or f"{node.name}\n",
        "@nexcage memory\n", *memory,
    ]  # fmt: skip
    for fleet in _plain(node, ROOTS):
        for runtime in ("crun", "runc"):
            parts += yield from _listed(ctx, fleet, runtime)
    parts.append("@nexcage marks\n")
    parts += [_kept(node, fleet, id) for fleet in _plain(node, KEPT) for id in _plain(node, f"{KEPT}/{fleet}")]
    parts += ["@nexcage ops\n", *_ops(node, ops), "@nexcage end\n"]
    ctx.out("".join(parts))
    return 0


def _plain(node: Node, directory: str) -> list[str]:
    return [name for name in node.files.names(directory) if not name.startswith(".") and _NAME.fullmatch(name)]


def _listed(ctx: Ctx, fleet: str, runtime: str) -> Generator[Wait, Any, list[str]]:  # Any: see tool.Steps
    node, root = ctx.node, f"{ROOTS}/{fleet}/{runtime}"
    ids = [id for id in _plain(node, root) if node.files.read(f"{root}/{id}") is None]
    if not ids:
        return []
    inner = Ctx(node, (runtime, "--root", root, "list", "-f", "json"), env=ctx.env)
    tool = find_tool(node, runtime)
    status = 127 if tool is None else (yield from tool(inner))
    parts = [f"@nexcage list {runtime} {fleet} {status}\n"]
    if status == 0:
        parts += _said(inner)
        parts.append(f"@nexcage stats {runtime} {fleet}\n")
        parts += _stats(inner)
    elif status != 127:
        for id in ids:
            inner = Ctx(node, (runtime, "--root", root, "state", id), env=ctx.env)
            if tool is not None and (yield from tool(inner)) == 0:
                parts.append(f"@nexcage state {runtime} {fleet} {id}\n")
                parts += [*_said(inner), f"@nexcage stats {runtime} {fleet}\n", *_stats(inner)]
    parts.append(f"@nexcage names {runtime} {fleet}\n")
    return parts + [f"{id}\n" for id in ids if node.files.exists(f"{root}/{id}")]


def _said(inner: Ctx) -> list[str]:
    text = inner.stdout.decode("utf-8", "surrogateescape").rstrip("\n")
    return [f" {line}\n" for line in text.split("\n")]


def _stats(inner: Ctx) -> list[str]:
    pids = re.findall(r'"pid": *([1-9][0-9]*)', inner.stdout.decode("utf-8", "surrogateescape"))
    stats = ((pid, inner.node.files.read(f"/proc/{pid}/stat") or "") for pid in pids)
    return [f"{pid} {stat.rpartition(') ')[2].strip()}\n" for pid, stat in stats]


def _kept(node: Node, fleet: str, id: str) -> str:
    text = node.files.read(f"{KEPT}/{fleet}/{id}/mark")
    if text is None:
        return ""
    mark, runtime, boot = (*text.split("\n"), "", "", "")[:3]
    going = "going" if node.files.exists(f"{KEPT}/{fleet}/{id}/going") else "-"
    there = "there" if node.files.exists(f"{ROOTS}/{fleet}/{runtime}/{id}") else "-"
    return f" {fleet} {id} {runtime or '-'} {boot or '-'} {going} {there} {mark}\n"


def _ops(node: Node, ops: tuple[str, ...]) -> list[str]:
    if not ops:
        return []
    living = {node.files.read(f"/proc/{name}/environ") for name in node.files.names("/proc") if name.isdigit()}
    return [f"{op}\n" for op in ops if f"NEXCAGE_OP_ID={op}\0" in living]


RUNTIMES: dict[str, Tool] = {
    calls.GUARD: _guard,
    making.CREATE: _create,
    making.DELETE: _delete,
    stopping.STOP: _stop,
    LOOK: _look,
    **INSIDE,
}
"""Script text to its twin."""

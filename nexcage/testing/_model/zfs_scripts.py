"""The twins of the scripts of `nexcage.tools.datasets`."""

from __future__ import annotations

from nexcage._core.datasets import MARK
from nexcage.testing._model import find_tool, storage
from nexcage.testing._model.files import SIM
from nexcage.testing._model.tool import Ctx, Steps, Tool
from nexcage.testing._model.zfs_properties import mountpoint_of, property_of
from nexcage.tools import datasets

__all__ = ["ON_ZFS"]

_PROPERTIES = "available,mountpoint,mounted,org.nexcage:mark"


def _run(ctx: Ctx, *argv: str) -> Steps:
    tool = find_tool(ctx.node, argv[0])
    if tool is None:
        ctx.err(f"sh: 1: {argv[0]}: not found\n")
        return 127
    outer, ctx.argv = ctx.argv, argv
    status = yield from tool(ctx)
    ctx.argv = outer
    return status


def _survey(ctx: Ctx) -> Steps:
    names = ctx.argv[1:]
    both = Ctx(ctx.node, ctx.argv, env=ctx.env, out=ctx.out, err=ctx.out)
    ctx.out("@nexcage pools\n")
    yield from _run(both, "zpool", "list", "-H", "-o", "name,health")
    ctx.out("@nexcage found\n")
    yield from _run(both, "zfs", "get", "-Hp", "-o", "name,property,value,source", _PROPERTIES, *names)
    ctx.out("@nexcage places\n" + (ctx.node.files.read("/etc/pve/storage.cfg") or "") + "@nexcage end\n")
    return 0


def _guard(ctx: Ctx) -> Steps:
    name, mark, *words = ctx.argv[1:]
    node = ctx.node
    if node.files.exists(f"{SIM}/zfs-down") or name not in storage.datasets(node):
        return (yield from _run(ctx, "zfs", "get", "-H", "-s", "local", "-o", "value", MARK, name)) or 1
    if property_of(node, name, MARK, True) != (mark, "local"):
        ctx.err("nexcage: the dataset does not carry our mark\n")
        return 9
    ctx.argv = tuple(words)
    return (yield from _run(ctx, *words))


def _gone(ctx: Ctx) -> Steps:
    name = ctx.argv[1]
    status = yield from _guard(ctx)
    if status == 0 and name in storage.datasets(ctx.node):
        ctx.err(f"nexcage: {name} is still there\n")
        return 8
    return status


def _make(ctx: Ctx) -> Steps:
    ctx.argv = ctx.argv[3:]
    return (yield from _run(ctx, *ctx.argv))


def _holders(ctx: Ctx) -> Steps:
    (path,) = ctx.argv[1:]
    known = storage.datasets(ctx.node)
    for name in known:
        if "@" not in name and mountpoint_of(known, name)[0] == path:
            ctx.out(ctx.node.files.read(f"{SIM}/busy/{name}") or "")
    ctx.out("@nexcage end\n")
    return 0
    yield


ON_ZFS: dict[str, Tool] = {
    datasets.SURVEY: _survey,
    datasets.GUARD: _guard,
    datasets.GONE: _gone,
    datasets.MAKE: _make,
    datasets.HOLDERS: _holders,
}
"""Script text to its twin."""

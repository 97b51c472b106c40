"""Twins of the scripts of `nexcage.tools.kept`, on the model's files."""

from __future__ import annotations

import re

from nexcage.testing._model import claims
from nexcage.testing._model.files import DiskFiles
from nexcage.testing._model.node import Node
from nexcage.testing._model.tool import Ctx, Steps, Tool
from nexcage.tools import kept

__all__ = ["KEEPING"]

_END = "@nexcage kept end\n"
_UPTIME = re.compile(r"[0-9]{1,12}(\..*)?")
_RUN = re.compile(r"run:[0-9]{1,12}:([0-9]{1,12}):")


def _directories(node: Node, fleet: str) -> list[str]:
    names = node.files.names(claims.directory(fleet))
    if isinstance(node.files, DiskFiles):
        return sorted(name for name in names if "." in name[1:] and not name.startswith("."))
    return sorted(name for name in names if "." in name[1:])


def _about(node: Node, path: str) -> tuple[str, int | None]:
    link = claims.go(node, path) or ""
    words = (node.files.read(f"{claims.directory(path)}/status") or "").split()
    now = int(float(claims.uptime(node)))
    age = now - int(words[5].split(".")[0]) if len(words) > 5 and _UPTIME.fullmatch(words[5]) else None
    if link == "void":
        return "void", age
    if not link.startswith("run:"):
        return "empty", age
    if age is not None:
        return "ended", age
    match = _RUN.match(link)
    since = now - int(match[1] if match else 0) // 100
    return ("running" if claims.running(node, path) else "lost"), since


def _claims(ctx: Ctx) -> Steps:
    (fleet,) = ctx.argv[1:]
    for name in _directories(ctx.node, fleet):
        kind, age = _about(ctx.node, f"{fleet}/{name}")
        ctx.out(f"{name} {kind} {'-' if age is None else age}\n")
    ctx.out(_END)
    return 0
    yield


def _drop(ctx: Ctx) -> Steps:
    fleet, seconds, *names = ctx.argv[1:]
    there = _directories(ctx.node, fleet)
    for name in [name for name in names if name in there]:
        kind, age = _about(ctx.node, f"{fleet}/{name}")
        if kind == "empty" or (kind == "lost" and age is not None and age > int(seconds)):
            ctx.node.files.remove(claims.directory(f"{fleet}/{name}"))
            ctx.out(f"{name}\n")
    ctx.out(_END)
    return 0
    yield


KEEPING: dict[str, Tool] = {kept.CLAIMS: _claims, kept.DROP: _drop}
"""Script text to its twin."""

"""What the library keeps beside a container of crun or runc: marks, numbers, the container's output. The same files as on a real node."""

from __future__ import annotations

import os
import shlex
from typing import NamedTuple

from nexcage._core.seen import Mark
from nexcage.testing._model import find_tool
from nexcage.testing._model.files import DiskFiles
from nexcage.testing._model.node import Node
from nexcage.testing._model.oci.containers import find
from nexcage.testing._model.tool import Ctx, Steps, Tool

__all__ = ["KEPT", "ROOTS", "Marked", "Place", "call", "left_over", "marked", "number", "place", "said", "set_number"]

KEPT = "/var/lib/nexcage-oci"
ROOTS = "/run/nexcage-oci"


class Place(NamedTuple):
    """One container: the words that every script begins with, and where its things lie."""

    mark: str
    program: str
    runtime: str
    fleet: str
    id: str
    vmid: str

    @property
    def kept(self) -> str:
        return f"{KEPT}/{self.fleet}/{self.id}"

    @property
    def root(self) -> str:
        return f"{ROOTS}/{self.fleet}/{self.runtime}"

    @property
    def box(self) -> str:
        return f"{self.root}/{self.id}"

    def ours(self, ctx: Ctx) -> bool:
        """Whether the mark is still there; says so otherwise."""
        if self.mark in (ctx.node.files.read(f"{self.kept}/mark") or "").split("\n"):
            return True
        ctx.err("nexcage: the container does not carry our mark\n")
        return False


def place(ctx: Ctx) -> tuple[Place, tuple[str, ...]]:
    """Of a script's words, and the rest of them."""
    mark, program, runtime, *words = ctx.argv[1:]
    known = Mark.find(mark)
    assert known is not None
    return Place(mark, program, runtime, known.fleet, known.id, str(known.vmid)), tuple(words)


class Marked(NamedTuple):
    """A container as it really is. ``status`` is empty where there is a mark and no container."""

    fleet: str
    id: str
    vmid: int
    runtime: str
    status: str


def marked(node: Node) -> list[Marked]:
    """All containers of both programs with a mark, and marks without a container."""
    found: list[Marked] = []
    for fleet in node.files.names(KEPT):
        for id in node.files.names(f"{KEPT}/{fleet}") if not fleet.startswith(".") else ():
            text = node.files.read(f"{KEPT}/{fleet}/{id}/mark")
            mark = Mark.find(text.split("\n")[0]) if text else None
            if text and mark is not None:
                runtime = text.split("\n")[1]
                box = find(node, f"{ROOTS}/{fleet}/{runtime}", id)
                found.append(Marked(fleet, id, mark.vmid, runtime, box.status if box else ""))
    return found


def left_over(node: Node) -> list[str]:
    """Containers, processes, numbers and directories that belong to no mark."""
    known = marked(node)
    places = {f"{one.fleet}/{one.runtime}/{one.id}" for one in known}
    names = {f"{one.fleet}/{one.id}" for one in known}
    roots = [f"{fleet}/{name}" for fleet in node.files.names(ROOTS) for name in node.files.names(f"{ROOTS}/{fleet}")]
    there = [f"{root}/{id}" for root in roots for id in node.files.names(f"{ROOTS}/{root}")]
    fleets = [fleet for fleet in node.files.names(KEPT) if not fleet.startswith(".") and fleet != "cache"]
    kept = [f"{fleet}/{id}" for fleet in fleets for id in node.files.names(f"{KEPT}/{fleet}")]
    numbers = [f"number {vmid}" for vmid in node.files.names(f"{KEPT}/.numbers") if number(node, vmid) not in names]
    return [*(one for one in there if one not in places), *(one for one in kept if one not in names), *numbers]


def number(node: Node, vmid: str) -> str | None:
    """Whose a number is: ``FLEET/ID``."""
    path = f"{KEPT}/.numbers/{vmid}"
    if not isinstance(node.files, DiskFiles):
        return node.files.read(path)
    try:
        return os.readlink(node.files.real(path))
    except OSError:
        return None


def set_number(node: Node, vmid: str, owner: str | None) -> None:
    """Give it to somebody, or to nobody."""
    path = f"{KEPT}/.numbers/{vmid}"
    if isinstance(node.files, DiskFiles):
        real = node.files.real(path)
        if os.path.lexists(real):
            os.unlink(real)
        if owner is not None:
            os.makedirs(os.path.dirname(real), exist_ok=True)
            os.symlink(owner, real)
    elif owner is None:
        node.files.remove(path)
    else:
        node.files.write(path, owner)


def call(ctx: Ctx, at: Place, *words: str) -> tuple[Ctx, Steps]:
    """The program, called as the scripts do it; its output is kept in the context that comes back."""
    log = f"{at.kept}/said.model"
    argv = (at.runtime, "--root", at.root, "--log", log, "--log-format", "json", *words)
    inner = Ctx(ctx.node, argv, stdin=ctx.stdin, env=ctx.env)
    return inner, _called(inner, _tool(ctx.node, at))


def _tool(node: Node, at: Place) -> Tool | None:
    words = shlex.split(at.program)
    return find_tool(node, words[0] if len(words) == 1 else at.runtime)


def _called(inner: Ctx, tool: Tool | None) -> Steps:
    if tool is None:
        inner.err(f"sh: 1: eval: {inner.argv[0]}: not found\n")
        return 127
    return (yield from tool(inner))


def said(ctx: Ctx, at: Place, status: int) -> int:
    """The program's log goes behind what was printed, when it failed."""
    path = f"{at.kept}/said.model"
    log = ctx.node.files.read(path)
    if status != 0 and log:
        ctx.err(f"\n@nexcage said\n{log}")
    if log is not None:
        ctx.node.files.remove(path)
    return status

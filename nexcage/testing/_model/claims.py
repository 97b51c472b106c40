"""Claim directories and fences of a node (`nexcage.tools.claims`), on the model's files.

In memory ``go`` is a text file like the others; on disk it is the symbolic link that it is on a real node, so that real shells
and the twins here read each other's claims.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import NamedTuple, Protocol

from nexcage.testing._model.files import SIM, DiskFiles
from nexcage.testing._model.node import Node
from nexcage.testing._model.tool import Ctx, Flock, Interrupted, Sleep, Steps, Tool, Unlock
from nexcage.tools import claims

__all__ = ["CLAIMING", "FULL", "Held", "Order", "finish", "go", "make", "outrun", "report", "take", "text_of", "uptime"]

OPS = "/run/nexcage-ops"
FULL = f"{SIM}/full/run"
"""While this file is there, nothing can be written below /run."""
_RUN = re.compile(r"run:([0-9]{1,18}):([0-9]{1,18}):([0-9]{1,12})")
_STATUS = re.compile(r"(-|[0-9]{1,3}) [01] [0-9]{1,18} [01] [0-9]{1,18}(\.[0-9]{1,18})? ")
_FOR_EVER = 1e9


class Order(NamedTuple):
    """A claimed command as it reaches a node. ``tail``: of output beyond the cap the end is kept too, not only the beginning."""

    path: str
    argv: tuple[str, ...]
    env: dict[str, str]
    stdin: bytes
    cancel: str
    timeout: float
    cap: int
    tail: bool = True


class Held(Protocol):
    """A claimed command that was begun."""

    def end(self) -> None:
        """End it by its class."""
        ...


Supervise = Callable[[Order, Ctx], Held]


def text_of(data: bytes) -> str:
    """Bytes as the model's files hold them."""
    return data.decode("utf-8", "surrogateescape")


def directory(path: str) -> str:
    """Where the claim ``FLEET/OPID.STEP`` lies."""
    return f"{OPS}/{path}"


def lock_of(path: str) -> str:
    """What a supervisor of the model holds locked while it works."""
    return f"{SIM}/claims/{path}"


def make(node: Node, path: str) -> bool:
    """Make the directory; False when that cannot be done."""
    if node.files.exists(FULL):
        return False
    if isinstance(node.files, DiskFiles):
        try:
            os.makedirs(node.files.real(directory(path)), 0o700, exist_ok=True)
        except OSError:
            return False
    return True


def go(node: Node, path: str) -> str | None:
    """The text of the link that says who was first."""
    name = f"{directory(path)}/go"
    if not isinstance(node.files, DiskFiles):
        return node.files.read(name)
    try:
        return os.readlink(node.files.real(name))
    except OSError:
        return None


def take(node: Node, path: str, text: str) -> bool:
    """Be the first; False when somebody else was."""
    name = f"{directory(path)}/go"
    if go(node, path) is not None:
        return False
    if not isinstance(node.files, DiskFiles):
        node.files.write(name, text)
        return True
    try:
        os.symlink(text, node.files.real(name))
    except FileExistsError:
        return False
    return True


def outrun(node: Node, fleet: str, id: str, pair: tuple[int, int]) -> tuple[int, int] | None:
    """The fence of a container: the highest pair seen when it is higher than ``pair``; else ``pair`` is the highest now."""
    if pair == (0, 0):
        return None
    name = f"{OPS}/{fleet}/fence/{id}"
    epoch, _, seq = (node.files.read(name) or "0 0").strip().partition(" ")
    seen = (int(epoch), int(seq))
    if pair < seen:
        return seen
    if pair > seen:
        node.files.write(name, f"{pair[0]} {pair[1]}\n")
    return None


def finish(node: Node, path: str, status: str, out: bytes, err: bytes) -> None:
    """The command has ended: what it printed, then its status."""
    for name, data in (("out", out), ("err", err)):
        if data:
            node.files.write(f"{directory(path)}/{name}", text_of(data))
    node.files.write(f"{directory(path)}/status", f"{status} {uptime(node)}\n")


def uptime(node: Node) -> str:
    """Seconds since the node booted; on disk scripts read this machine's."""
    if isinstance(node.files, DiskFiles):
        with open("/proc/uptime", encoding="ascii") as file:
            return file.read().split()[0]
    return (node.files.read("/proc/uptime") or "0").split()[0]


def _stat(node: Node, pid: str) -> str:
    text = node.files.read(f"/proc/{pid}/stat")
    if text is None and isinstance(node.files, DiskFiles):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:
            text = None
    return text or ""


def running(node: Node, path: str) -> bool:
    """Whether its supervisor is at work."""
    match = _RUN.fullmatch(go(node, path) or "")
    if match is None or node.files.exists(f"{directory(path)}/status"):
        return False
    fields = _stat(node, match[1]).rpartition(") ")[2].split()
    return len(fields) > 19 and fields[19] == match[2]


def report(node: Node, path: str, most: int) -> bytes:
    """What the scripts print about a claim; at most ``most`` bytes of each output, the last ones."""
    link = go(node, path) or ""
    kind, status, out, err, at, start = "lost", "- 0 0 0 0", b"", b"", "0", "0"
    if link == "void":
        kind = "void"
    elif not link and not _in_the_way(node, path):
        kind = "unusable"
    elif link.startswith("run:"):
        if match := _RUN.fullmatch(link):
            at, start = match[3], match[2]
        text = node.files.read(f"{directory(path)}/status")
        if text is not None and _STATUS.match(text):
            kind, status = "ended", " ".join(text.split()[:5])
            out, err = (_tail(node, f"{directory(path)}/{name}", most) for name in ("out", "err"))
        elif running(node, path):
            kind = "running"
    boot = (node.files.read("/proc/sys/kernel/random/boot_id") or "").strip()
    head = f"@nexcage claim {kind} {status} {at} {start} {boot} {uptime(node)} {len(out)} {len(err)}\n"
    return head.encode() + out + err


def _in_the_way(node: Node, path: str) -> bool:
    """Whether something lies there that no claim can be made of."""
    files, place = node.files, directory(path)
    return files.exists(f"{place}/go") or (files.exists(place) and files.read(place) is not None)


def _tail(node: Node, name: str, most: int) -> bytes:
    data = (node.files.read(name) or "").encode("utf-8", "surrogateescape")
    return data[max(0, len(data) - most) :]


# --- twins of the scripts ----------------------------------------------------------------------------------------------


def _made(ctx: Ctx, path: str) -> bool:
    if make(ctx.node, path):
        return True
    root = ctx.node.files.root if isinstance(ctx.node.files, DiskFiles) else ""
    ctx.out("@nexcage claim unusable\n")
    ctx.err(f"nexcage: cannot make {root}{directory(path)}\n")
    return False


def _settle(ctx: Ctx) -> Steps:
    most, *paths = ctx.argv[1:]
    for path in paths:
        if make(ctx.node, path):
            take(ctx.node, path, "void")
        ctx.out(report(ctx.node, path, int(most)))
    return 0
    yield


def _claim(ctx: Ctx) -> Steps:
    path, boot, cancel, timeout, cap, size, _, *argv = ctx.argv[1:]
    node, held = ctx.node, None
    if not _made(ctx, path):
        return 0
    if go(node, path) is None:
        refused = _refused(ctx, boot, int(size))
        if refused:
            ctx.out(f"@nexcage claim {refused}\n")
            return 0
        order = Order(path, tuple(argv), dict(ctx.env), ctx.stdin, cancel, float(timeout), int(cap), tail=False)
        assert node.supervise is not None, "this node has no processes of its own"
        held = node.supervise(order, ctx)
    yield from _wait(ctx, path, held)
    ctx.out(report(node, path, 10**9))
    return 0


def _refused(ctx: Ctx, boot: str, size: int) -> str:
    if boot and boot != (ctx.node.files.read("/proc/sys/kernel/random/boot_id") or "").strip():
        return "rebooted"
    return "cut" if size and len(ctx.stdin) != size else ""


def _wait(ctx: Ctx, path: str, held: Held | None) -> Steps:
    """Until its supervisor is gone; SIGTERM is handed on to it."""
    while running(ctx.node, path):
        try:
            if (yield Flock(lock_of(path), _FOR_EVER)):
                yield Unlock(lock_of(path))
            if running(ctx.node, path):  # a supervisor outside the model
                yield Sleep(0.05)
        except Interrupted:
            other = held or ctx.node.supervised.get(path)
            if other is not None:
                other.end()
    return 0


def _sweep(ctx: Ctx) -> Steps:
    fleet, kept = ctx.argv[1:]
    files, now = ctx.node.files, uptime(ctx.node)
    for name in files.names(f"{OPS}/{fleet}"):
        if "." not in name or name.startswith("."):
            continue
        claim = f"{OPS}/{fleet}/{name}"
        words = (files.read(f"{claim}/status") or "").split()
        if len(words) < 6 and go(ctx.node, f"{fleet}/{name}") == "void":
            files.write(f"{claim}/status", f"- 0 0 0 0 {now}\n")
        elif len(words) > 5 and int(float(now)) - int(float(words[5])) > int(kept):
            files.remove(claim)
            ctx.out(f"{name}\n")
    return 0
    yield


CLAIMING: dict[str, Tool] = {claims.CLAIM: _claim, claims.SETTLE: _settle, claims.SWEEP: _sweep}
"""Script text to its twin."""

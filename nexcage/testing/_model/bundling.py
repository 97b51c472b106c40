"""Twins of the scripts that complete a container that is made from a bundle. A link is a copy here, and what nobody sees goes by its
last copy.
"""

from __future__ import annotations

import re

from nexcage.testing._model.node import Node
from nexcage.testing._model.tool import Ctx, Flock, Steps, Unlock
from nexcage.tools.bundling import FINISH, LACKING, LINK, TIDY

__all__ = ["BUNDLING"]


def _lacking(ctx: Ctx) -> Steps:
    words = ctx.argv[1:]
    for n, (kind, value) in enumerate(zip(words[::2], words[1::2], strict=False)):
        if why := _why(ctx.node, kind, value):
            ctx.out(f"@nexcage {n} {why}\n")
    ctx.out("@nexcage end\n")
    return 0
    yield


def _why(node: Node, kind: str, value: str) -> str:
    match kind:
        case "path":
            return "" if node.files.exists(value) else f"{value} does not exist"
        case "directory":
            there = node.files.exists(value) and node.files.read(value) is None
            return "" if there else f"{value} is no directory"
        case "machine":
            return "" if value == "x86_64" else f"its init is built for {value}, and the node is x86_64"
        case "interface":
            return "" if node.files.exists(f"/sys/class/net/{value}") else f"there is no interface {value}"
        case "apparmor":
            loaded = node.files.read("/sys/kernel/security/apparmor/profiles") or ""
            return "" if f"{value} (" in loaded else f"the AppArmor profile {value} is not loaded"
        case "subuid" | "subgid":
            text = node.files.read(f"/etc/{kind}") or ""
            return "" if _mapped(text, *map(int, value.split(" "))) else f"/etc/{kind} does not let root map {value}"
        case "device":
            path = value.split(" ", 1)[1].rsplit(" ", 2)[0]
            return "" if node.files.exists(path) else f"{path} does not exist"
        case _:
            return f"nobody knows what {kind} is"


def _mapped(text: str, first: int, count: int) -> bool:
    lines = re.findall(r"^(?:root|0):([0-9]+):([0-9]+)$", text, re.MULTILINE)
    return any(int(start) <= first and int(start) + int(many) >= first + count for start, many in lines)


def _drop(node: Node, note: str) -> None:
    text = node.files.read(note)
    if text is None:
        return
    link, base = (*text.split("\n"), "")[:2]
    if "/nexcage-" in link:
        _removed(node, link)
    if "/.nexcage-" in base and not _linked(node, base):
        _removed(node, base)
    _removed(node, note)


def _linked(node: Node, base: str) -> bool:
    """Whether a create works from it: a hard link in the model is noted in its name."""
    directory, _, name = base.rpartition("/.")
    stem = name.partition(".")[0]
    return any(other.startswith(f"{stem}-") for other in node.files.names(directory))


def _removed(node: Node, path: str) -> None:
    if node.files.exists(path):
        node.files.remove(path)
        node.effect("file", path, "removed")


def _written(node: Node, path: str, text: str) -> None:
    node.files.write(path, text)
    node.effect("file", path, "written")


def _link(ctx: Ctx) -> Steps:
    link, note, *sources = ctx.argv[1:]
    for source in sources:
        text = ctx.node.files.read(source)
        if text is not None:
            _written(ctx.node, note, f"{link}\n{source}\n")
            _written(ctx.node, link, text)
            return 0
    ctx.err("nexcage: the template is not there\n")
    return 66
    yield


def _finish(ctx: Ctx) -> Steps:
    mark, vmid, readonly, directory, note, _, held, *words = ctx.argv[1:]
    node, lines = ctx.node, ""
    ctx.node.files.remove(directory)
    at = 0
    for name, size in zip(words[::3], words[1::3], strict=True):
        text = ctx.stdin[at : at + int(size)].decode("utf-8", "surrogateescape")
        at += int(size)
        lines = text if name == "lines" else lines
        _written(node, f"{directory}/{name}", text)
    path = f"/run/lock/lxc/pve-config-{vmid}.lock"
    if not (yield Flock(path, 10.0)):
        ctx.err(f"nexcage: can't lock file '{path}'\n")
        return 75
    status = _completed(ctx, mark, int(vmid), readonly == "1", lines, note, held == "1")
    yield Unlock(path)
    return status


def _completed(ctx: Ctx, mark: str, vmid: int, readonly: bool, lines: str, note: str, held: bool) -> int:
    node = ctx.node
    text = node.config(vmid) or ""
    given = text.removesuffix("\n").split("\n")
    if f"#making {mark}" not in given:
        ctx.err("nexcage: the container does not carry our mark\n")
        return 9
    locks = {line for line in given if line.startswith("lock:")}
    if (locks != {"lock: create"} and not (held and not locks)) or any(line.startswith("[") for line in given):
        ctx.err("nexcage: somebody has changed it since it was made\n")
        return 9
    if not node.quorate:
        ctx.err(f"nexcage: {node.config_path(vmid)} cannot be written\n")
        return 73
    _drop(node, note)
    made = given
    if not held:
        made = [f"#{mark}" if line == f"#making {mark}" else line for line in given if line != "lock: create"]
    elif not locks:
        made = [*given, "lock: create"]
    if readonly:
        made = [f"{line},ro=1" if line.startswith("rootfs: ") else line for line in made]
    node.write_config(vmid, "".join(f"{line}\n" for line in made) + lines)
    if not held:
        node.effect("lock", str(vmid), "removed create")
    return 0


def _tidy(ctx: Ctx) -> Steps:
    directory, mark, note = ctx.argv[1:]
    _drop(ctx.node, note)
    if ctx.node.files.exists(directory) and (ctx.node.files.read(f"{directory}/mark") or "").strip() in (mark, ""):
        _removed(ctx.node, directory)
    return 0
    yield


BUNDLING = {LACKING: _lacking, LINK: _link, FINISH: _finish, TIDY: _tidy}
"""The scripts to their twins."""

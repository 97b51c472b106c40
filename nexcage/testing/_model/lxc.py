"""LXC's own tools, as far as PVE nodes use them."""

from __future__ import annotations

import re
from collections.abc import Generator

from nexcage.testing._model.gates import pass_gates
from nexcage.testing._model.host import deliver
from nexcage.testing._model.inside import addresses
from nexcage.testing._model.node import Node
from nexcage.testing._model.tool import Ctx, Sleep, Steps

__all__ = ["lxc_destroy", "lxc_freeze", "lxc_info", "lxc_ls", "lxc_start", "lxc_stop", "lxc_unfreeze"]

_COST = 0.013


def _took(node: Node, seconds: float = _COST) -> Generator[Sleep, None, None]:
    cost = node.cost(seconds)
    if cost:
        yield Sleep(cost)


def _options(ctx: Ctx, with_value: str) -> tuple[dict[str, str], list[str]]:
    """Short and long options of LXC's tools; letters may be bundled."""
    found: dict[str, str] = {}
    rest: list[str] = []
    words = list(ctx.argv[1:])
    while words:
        word = words.pop(0)
        if word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            takes = key in ("name", "timeout", "config", "state", "logfile", "filter")
            found[key] = value if equals else (words.pop(0) if takes and words else "")
        elif len(word) > 1 and word.startswith("-"):
            letters = word[1:]
            while letters:
                letter, letters = letters[0], letters[1:]
                if letter in with_value:
                    found[letter] = letters or (words.pop(0) if words else "")
                    break
                found[letter] = ""
        else:
            rest.append(word)
    return found, rest


def _name(options: dict[str, str], rest: list[str]) -> str:
    return options.get("n") or options.get("name") or (rest[0] if rest else "")


def _state(node: Node, name: str) -> str:
    if not name.isdigit() or not node.is_running(int(name)):
        return "STOPPED"
    return "FROZEN" if node.is_frozen(int(name)) else "RUNNING"


def _defined(node: Node, name: str) -> bool:
    return node.files.exists(f"/var/lib/lxc/{name}/config") or _state(node, name) != "STOPPED"


def lxc_info(ctx: Ctx) -> Steps:
    """``lxc-info -n NAME [-s] [-p] [-c KEY] [-H]``."""
    yield from _took(ctx.node)
    options, rest = _options(ctx, "nPcol")
    node, name = ctx.node, _name(options, rest)
    pass_gates(node)
    if not name:
        ctx.err("lxc-info: No container name specified\n")
        return 1
    if not _defined(node, name):
        ctx.err(f"{name} doesn't exist\n")
        return 1
    state = _state(node, name)
    pid = node.init_pid(int(name)) if state != "STOPPED" else None
    rows: list[tuple[str, str]] = []
    long = {"s": "state", "p": "pid", "i": "ips"}
    wanted = [key for key in long if key in options or long[key] in options]
    if "c" in options or "config" in options:
        key = options.get("c") or options.get("config") or ""
        text = node.files.read(f"/var/lib/lxc/{name}/config") or ""
        found = re.search(rf"^{re.escape(key)} = (.*)$", text, re.MULTILINE)
        ctx.out(f"{found[1] if found else ''}\n" if "H" in options else f"{key} = {found[1] if found else ''}\n")
        return 0
    if not wanted:
        rows.append(("Name:", name))
    if not wanted or "s" in wanted:
        rows.append(("State:", state))
    if (not wanted or "p" in wanted) and pid is not None:
        rows.append(("PID:", str(pid)))
    if "i" in wanted and pid is not None:
        rows += [("IP:", word.partition("/")[0]) for word in addresses(node, int(name))]
    bare = ("H" in options or "no-humanize" in options) and len(wanted) == 1
    for label, value in rows:
        ctx.out(f"{value}\n" if bare else f"{label:<15} {value}\n")
    return 0


def lxc_ls(ctx: Ctx) -> Steps:
    """``lxc-ls -1 [--running|--frozen|--stopped|--active|--defined]``: only what has an LXC config is known."""
    yield from _took(ctx.node)
    options, _ = _options(ctx, "F")
    node = ctx.node
    known = {name for name in node.files.names("/var/lib/lxc") if node.files.exists(f"/var/lib/lxc/{name}/config")}
    known |= {str(vmid) for vmid in node.running()}
    states = {name: _state(node, name) for name in known}
    wanted: set[str] = set()
    for option, matching in (("running", {"RUNNING"}), ("frozen", {"FROZEN"}), ("stopped", {"STOPPED"})):
        wanted |= matching if option in options else set()
    if "active" in options:
        wanted |= {"RUNNING", "FROZEN"}
    names = sorted(name for name in known if not wanted or states[name] in wanted)
    ctx.out("".join(f"{name}\n" for name in names) if "1" in options else (" ".join(names) + "\n" if names else ""))
    return 0


def _freezer(ctx: Ctx, frozen: bool) -> Steps:
    yield from _took(ctx.node)
    options, rest = _options(ctx, "nPol")
    node, name = ctx.node, _name(options, rest)
    tool = "lxc-freeze" if frozen else "lxc-unfreeze"
    file = tool.replace("-", "_")
    if not _defined(node, name):
        ctx.err(f"{tool}: {name}: ../src/lxc/tools/{file}.c: {file}_main: 55 No such container: /var/lib/lxc:{name}\n")
        return 1
    if _state(node, name) == "STOPPED":
        if not frozen:
            return 0
        ctx.err(f"{tool}: {name}: ../src/lxc/commands_utils.c: lxc_cmd_sock_rcv_state: 50 Connection refused\n")
        ctx.err(f"{tool}: {name}: ../src/lxc/tools/{file}.c: {file}_main: 66 Failed to freeze /var/lib/lxc:{name}\n")
        return 1
    node.freeze(int(name), frozen)
    return 0


def lxc_freeze(ctx: Ctx) -> Steps:
    """``lxc-freeze -n NAME``; a frozen one succeeds too."""
    return (yield from _freezer(ctx, frozen=True))


def lxc_unfreeze(ctx: Ctx) -> Steps:
    """``lxc-unfreeze -n NAME``."""
    return (yield from _freezer(ctx, frozen=False))


def lxc_stop(ctx: Ctx) -> Steps:
    """``lxc-stop -n NAME [--kill] [--nokill] [--timeout T] [-r]``."""
    yield from _took(ctx.node)
    options, rest = _options(ctx, "ntPol")
    node, name = ctx.node, _name(options, rest)
    if _state(node, name) == "STOPPED":
        ctx.err(f"lxc-stop: {name}: ../src/lxc/tools/lxc_stop.c: lxc_stop_main: 205 {name} is not running\n")
        return 2
    vmid = int(name)
    if "k" in options or "kill" in options:
        node.effect("signal", name, "KILL")
        node.end_container(vmid)
        return 0
    timeout = float(options.get("timeout") or options.get("t") or 60)
    pid = node.init_pid(vmid)
    if pid is not None:
        deliver(node, pid, 2 if "r" in options or "reboot" in options else 30)
    if timeout == 0:
        return 0
    end = node.steady() + timeout * node.pace
    while True:
        node.settle()
        if node.init_pid(vmid) != pid:
            return 0
        left = end - node.steady()
        if left <= 0:
            break
        yield Sleep(min(0.5, left))
    if "nokill" in options:
        return 1
    node.end_container(vmid)
    return 0


def lxc_destroy(ctx: Ctx) -> Steps:
    """``lxc-destroy -n NAME``: what LXC itself knows of a container; PVE's config and volumes are not LXC's."""
    yield from _took(ctx.node)
    options, rest = _options(ctx, "nPol")
    node, name = ctx.node, _name(options, rest)
    if not _defined(node, name):
        ctx.err(f"lxc-destroy: {name}: ../src/lxc/tools/lxc_destroy.c: main: 271 Container is not defined\n")
        return 1
    if _state(node, name) != "STOPPED":
        ctx.err(f"{name} is running\n")
        return 1
    node.files.remove(f"/var/lib/lxc/{name}/config")
    ctx.out(f"Destroyed container {name}\n")
    return 0


def lxc_start(ctx: Ctx) -> Steps:
    """``lxc-start -n NAME [-F|-d]``: what PVE's unit runs; here it brings the container up and returns."""
    yield from _took(ctx.node, 0.3)
    options, rest = _options(ctx, "nPfol")
    node, name = ctx.node, _name(options, rest)
    where = "../src/lxc/tools/lxc_start.c: lxc_start_main"
    if not node.files.exists(f"/var/lib/lxc/{name}/config"):
        ctx.err(f"lxc-start: {name}: {where}: 268 No container config specified\n")
        return 1
    if _state(node, name) != "STOPPED":
        ctx.err(f"lxc-start: {name}: {where}: 279 Container is already running\n")
        return 1
    node.start_container(int(name))
    return 0

"""Programs of the machine itself: ``kill``, ``df``, ``ip``, and for nodes in memory a handful of small ones."""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from datetime import UTC, datetime

from nexcage.testing._model import storage, vms
from nexcage.testing._model.files import SIM
from nexcage.testing._model.node import Node
from nexcage.testing._model.tool import Ctx, Sleep, Steps

__all__ = [
    "cat_",
    "date_",
    "df",
    "echo_",
    "false_",
    "hostname_",
    "id_",
    "ip",
    "kill",
    "sleep_",
    "true_",
    "uname_",
    "which_",
]

SIGNALS = {
    name: number
    for number, names in enumerate(
        "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU "
        "XFSZ VTALRM PROF WINCH IO PWR SYS".split(),
        start=1,
    )
    for name in (names,)
} | {"IOT": 6, "CLD": 17, "POLL": 29, "RTMIN": 34, "RTMAX": 64}
NAMES = {number: name for name, number in reversed(list(SIGNALS.items()))}


def signal_number(word: str) -> int | None:
    """A signal by number or name, with or without SIG, in any case."""
    if word.isdigit():
        return int(word) if int(word) <= 64 else None
    name = word.upper().removeprefix("SIG")
    if found := re.fullmatch(r"RT(MIN|MAX)([+-])([0-9]+)", name):
        base = 34 if found[1] == "MIN" else 64
        return base + int(found[2] + found[3])
    return SIGNALS.get(name)


def kill(ctx: Ctx) -> Steps:
    """``kill [-s SIG | -SIG | -N] PID...``: signals to the inits of the model."""
    yield from _took(ctx.node, 0.005)
    words = list(ctx.argv[1:])
    number: int | None = 15
    if words and words[0] == "-l":
        ctx.out(" ".join(NAMES.get(n, str(n)) for n in range(1, 32)) + "\n")
        return 0
    if len(words) > 1 and words[0] in ("-s", "--signal", "-n"):
        number = signal_number(words[1])
        if number is None:
            ctx.err(f"kill: {words[1]}: invalid signal specification\n")
            return 1
        words = words[2:]
    elif words and words[0].startswith("-") and words[0] != "--":
        number = signal_number(words[0][1:])
        if number is None:
            ctx.err(f"kill: {words[0][1:]}: invalid signal specification\n")
            return 1
        words = words[1:]
    if words and words[0] == "--":
        words = words[1:]
    if not words:
        ctx.err("kill: usage: kill [-s sigspec | -n signum | -sigspec] pid | jobspec ... or kill -l [sigspec]\n")
        return 2
    status = 0
    for word in words:
        if not re.fullmatch(r"-?[0-9]+", word):
            ctx.err(f"kill: {word}: arguments must be process or job IDs\n")
            status = 1
        elif not ctx.node.alive(int(word)):
            ctx.err(f"kill: ({word}) - No such process\n")
            status = 1
        elif number:
            deliver(ctx.node, int(word), number)
    return status


def deliver(node: Node, pid: int, number: int) -> None:
    """A signal arrives at a process of the model, or at a real one."""
    if node.delivered(pid, number):
        return
    cgroup = node.files.read(f"/proc/{pid}/cgroup") or ""
    found = re.search(r"/lxc/([0-9]+)/ns", cgroup)
    name = NAMES.get(number, str(number))
    if vms.signalled(node, pid, number, name):
        return
    if found is None or node.init_pid(int(found[1])) != pid:
        node.effect("signal", str(pid), name)
        if number == 9:
            node.end_process(pid)
        return
    vmid = int(found[1])
    node.effect("signal", str(vmid), name)
    if number == 9:
        node.end_container(vmid)
        return
    init = node.files.read(f"{SIM}/init/{vmid}") or "systemd"
    reacts = json.loads(node.files.read(f"{SIM}/reacts/{init}") or "null") or REACTIONS.get(init, {})
    what = reacts.get(str(number))
    if what is not None:
        node.later((0.8 + 1.6 * node.random.random()) * node.pace, what, vmid, pid)


REACTIONS: dict[str, dict[str, str]] = {
    "systemd": {"30": "halt", "37": "halt", "38": "halt", "2": "reboot", "39": "reboot"},
    "busybox": {"30": "halt", "10": "halt", "12": "halt", "15": "reboot"},
    "exits": {str(n): "halt" for n in (1, 2, 3, 15, 30)},
    "stubborn": {},
}
"""What each kind of init does on a signal; every other signal is ignored."""


def _took(node: Node, seconds: float) -> Generator[Sleep, None, None]:
    cost = node.cost(seconds)
    if cost:
        yield Sleep(cost)


def df(ctx: Ctx) -> Steps:
    """``df [-h|-k|-P|-B1] [PATH...]``: every storage's file system is 100 GiB, a pool 450; without a path all of them."""
    yield from _took(ctx.node, 0.005)
    words = [word for word in ctx.argv[1:] if not word.startswith("-")]
    exact = any(word in ("-B1", "--block-size=1") for word in ctx.argv)
    human = any(word in ("-h", "--human-readable") for word in ctx.argv)
    pools = {
        s.path: s.options.get("pool", "rpool/data") for s in storage.storages(ctx.node).values() if s.kind == "zfspool"
    }
    rows: list[tuple[str, int, int, str]] = []
    for path in words or ["/", *pools]:
        pool = next((name for mount, name in pools.items() if path.startswith(mount)), "")
        total = 450 * 1024**3 if pool else 100 * 1024**3
        used = total // 10 if not ctx.node.files.exists(f"{SIM}/full{path}") else total
        rows.append((pool or "/dev/mapper/pve-root", total, used, path if pool else "/"))

    def shown(size: int) -> str:
        return f"{size / 1024**3:.3g}G" if human else str(size // (1 if exact else 1024))

    head = ("Size", "Avail") if human else ("1B-blocks" if exact else "1K-blocks", "Available")
    ctx.out(f"{'Filesystem':<20} {head[0]:>14} {'Used':>14} {head[1]:>14} Use% Mounted on\n")
    for name, total, used, mount in rows:
        sizes = " ".join(f"{shown(size):>14}" for size in (total, used, total - used))
        ctx.out(f"{name:<20} {sizes} {used * 100 // total:>3}% {mount}\n")
    return 0


_MODE = "mode DEFAULT group default qlen 1000"


def ip(ctx: Ctx) -> Steps:
    """``ip [-j|-o] link show [dev NAME]``."""
    yield from _took(ctx.node, 0.005)
    words = [word for word in ctx.argv[1:] if not word.startswith("-") and word != "dev"]
    if not words or not "link".startswith(words[0]):
        ctx.err(f'Object "{words[0] if words else ""}" is unknown, try "ip help".\n')
        return 1
    links = ["lo", *ctx.node.files.names("/sys/class/net")]
    wanted = words[2:] if len(words) > 2 else []
    for name in wanted:
        if name not in links:
            ctx.err(f'Device "{name}" does not exist.\n')
            return 1
    shown = [name for name in links if not wanted or name in wanted]
    if "-j" in ctx.argv or "-json" in ctx.argv:
        ctx.out(
            json.dumps([{"ifindex": links.index(n) + 1, "ifname": n, "mtu": 1500, "operstate": "UP"} for n in shown])
            + "\n"
        )
        return 0
    for name in shown:
        index = links.index(name) + 1
        if name == "lo":
            ctx.out(f"{index}: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN {_MODE}\n")
            ctx.out("    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00\n")
            continue
        mtu = (ctx.node.files.read(f"/sys/class/net/{name}/mtu") or "1500").strip()
        flags = "BROADCAST,MULTICAST,UP,LOWER_UP"
        ctx.out(f"{index}: {name}: <{flags}> mtu {mtu} qdisc noqueue state UP {_MODE}\n")
        ctx.out(f"    link/ether 02:00:00:00:00:{index:02x} brd ff:ff:ff:ff:ff:ff\n")
    return 0


# --- small ones, in memory only ---------------------------------------------------------------------------------------


def true_(ctx: Ctx) -> Steps:
    """``true``."""
    yield from _took(ctx.node, 0.002)
    return 0


def false_(ctx: Ctx) -> Steps:
    """``false``."""
    yield from _took(ctx.node, 0.002)
    return 1


def echo_(ctx: Ctx) -> Steps:
    """``echo``."""
    yield from _took(ctx.node, 0.002)
    newline = "" if ctx.argv[1:2] == ("-n",) else "\n"
    ctx.out(" ".join(ctx.argv[2 if not newline else 1 :]) + newline)
    return 0


def cat_(ctx: Ctx) -> Steps:
    """``cat [FILE...]``."""
    yield from _took(ctx.node, 0.005)
    status = 0
    for path in ctx.argv[1:] or ("-",):
        if path == "-":
            ctx.out(ctx.stdin)
            continue
        text = ctx.node.files.read(path)
        if text is None:
            reason = "Is a directory" if ctx.node.files.exists(path) else "No such file or directory"
            ctx.err(f"cat: {path}: {reason}\n")
            status = 1
        else:
            ctx.out(text)
    return status


def sleep_(ctx: Ctx) -> Steps:
    """``sleep SECONDS``, in full at any pace."""
    yield Sleep(float(ctx.argv[1]))
    return 0


def id_(ctx: Ctx) -> Steps:
    """``id [-u]``: root."""
    yield from _took(ctx.node, 0.002)
    ctx.out("0\n" if "-u" in ctx.argv else "uid=0(root) gid=0(root) groups=0(root)\n")
    return 0


def uname_(ctx: Ctx) -> Steps:
    """``uname [-r|-n|-a]``."""
    yield from _took(ctx.node, 0.002)
    facts = {"-r": "6.14.8-2-pve", "-n": ctx.node.name, "-m": "x86_64"}
    whole = f"Linux {ctx.node.name} 6.14.8-2-pve #1 SMP PREEMPT_DYNAMIC PMX 6.14.8-2 x86_64 GNU/Linux"
    word = ctx.argv[1] if len(ctx.argv) > 1 else "-s"
    ctx.out(facts.get(word, whole if word == "-a" else "Linux") + "\n")
    return 0


def hostname_(ctx: Ctx) -> Steps:
    """``hostname``."""
    yield from _took(ctx.node, 0.002)
    ctx.out(ctx.node.name + "\n")
    return 0


def date_(ctx: Ctx) -> Steps:
    """``date [+%s]``."""
    yield from _took(ctx.node, 0.002)
    now = ctx.node.now()
    if len(ctx.argv) > 1 and ctx.argv[1].startswith("+%s"):
        ctx.out(f"{int(now)}" + (f".{int(now % 1 * 1e9):09d}" if "%N" in ctx.argv[1] else "") + "\n")
    else:
        ctx.out(datetime.fromtimestamp(now, UTC).strftime("%a %b %e %H:%M:%S UTC %Y") + "\n")
    return 0


def which_(ctx: Ctx) -> Steps:
    """``which NAME...``."""
    from nexcage.testing._model import TOOLS

    yield from _took(ctx.node, 0.002)
    known = [name for name in ctx.argv[1:] if name in TOOLS]
    ctx.out("".join(f"/usr/bin/{name}\n" for name in known))
    return 0 if len(known) == len(ctx.argv) - 1 else 1

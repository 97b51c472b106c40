"""The commands of ``pct`` that only look: list, status, config, pending, listsnapshot, cpusets, df."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from nexcage.testing._model import storage
from nexcage.testing._model.pct.conf import Conf, mounts
from nexcage.testing._model.pct.job import BadParameter, Job, Work
from nexcage.testing._model.pct.options import config_prop
from nexcage.testing._model.schema import Errors, check_value
from nexcage.testing._model.storage import Die
from nexcage.testing._model.tool import Steps
from nexcage.tools.config import encode_text

__all__ = ["config", "cpusets", "df", "list_", "listsnapshot", "pending", "status"]

_ROW = "{:<10} {:<10} {:<12} {:<20}\n"
_NOT_NUMERIC = 'Argument "{}" isn\'t numeric in multiplication (*) at /usr/share/perl5/PVE/LXC.pm line {}.\n'


def _name(vmid: int, conf: Conf) -> str:
    return re.sub(r"\s", "", conf.values.get("hostname") or f"CT{vmid}")


def list_(job: Job) -> Steps:
    """``pct list``: nothing at all when there are none."""
    yield from job.took(0.1)
    node = job.node
    running = set(node.running())
    rows: list[str] = []
    for vmid in node.containers():
        if node.config(vmid) is None:
            continue
        conf = job.load(vmid)
        _numbers(job, conf)
        state = "running" if vmid in running else "stopped"
        rows.append(_ROW.format(vmid, state, conf.lock or "", _name(vmid, conf)))
    if rows:
        job.say(_ROW.format("VMID", "Status", "Lock", "Name") + "".join(rows))
    return 0


def _numbers(job: Job, conf: Conf) -> None:
    for key, line in (("memory", 316), ("swap", 317)):
        value = conf.values.get(key)
        if value is not None and not re.match(r"\s*[0-9]", value):
            job.warn(_NOT_NUMERIC.format(value, line))


def status(job: Job) -> Steps:
    """``pct status``."""
    yield from job.took(0.07)
    conf = job.load()
    node = job.node
    up = node.is_running(job.vmid)
    if not job.flag("verbose"):
        job.say(f"status: {'running' if up else 'stopped'}\n")
        return 0
    _numbers(job, conf)
    values = conf.values
    facts: dict[str, object] = dict.fromkeys("disk diskread diskwrite mem netin netout swap uptime".split(), 0)
    facts |= {"name": _name(job.vmid, conf), "vmid": job.vmid, "type": "lxc", "status": "running" if up else "stopped"}
    cores = values.get("cpulimit") or values.get("cores") or "2"
    facts["cpus"] = max(1, round(float(cores))) if float(cores) else 2
    facts["maxmem"] = int(values.get("memory", "512")) * 1024**2
    facts["maxswap"] = int(values.get("swap", "512")) * 1024**2
    root = next((mount for mount in mounts(values) if mount.key == "rootfs"), None)
    facts["maxdisk"] = (root.size if root is not None else 0) or 0
    for key in ("lock", "tags", "template"):
        if values.get(key):
            facts[key] = values[key]
    pid = node.init_pid(job.vmid)
    if pid is not None:
        start = int((node.files.read(f"/proc/{pid}/stat") or "0 " * 25).split()[21]) / 100
        facts |= {
            "pid": pid,
            "uptime": max(1, int(node.steady() - node.booted - start)),
            "mem": 692224,
            "disk": 2412544,
        }
    job.say("".join(f"{key}: {facts[key]}\n" for key in sorted(facts)))
    return 0


def _shown(values: dict[str, str]) -> dict[str, str]:
    if "description" in values:
        lines = values["description"].split("\n")
        values["description"] = "%0A".join(encode_text(line) for line in lines)
    return values


def effective(conf: Conf) -> dict[str, str]:
    """The values with everything that waits applied."""
    waiting = dict(conf.pending)
    dropped = {name.lstrip("!") for name in re.split(r"[,;\s]+", waiting.pop("delete", ""))}
    return {key: value for key, value in conf.values.items() if key not in dropped} | waiting


def config(job: Job) -> Steps:
    """``pct config``: pending values are shown as if they were live."""
    yield from job.took(0.07)
    conf = job.load()
    raw = conf.raw
    name = job.param.get("snapshot")
    if name is not None and job.flag("current"):
        message = "cannot use 'snapshot' parameter with 'current'"
        raise BadParameter({"snapshot": message, "current": message})
    if name is not None:
        if name not in conf.snapshots:
            raise Die(f"snapshot '{name}' does not exist")
        kept = conf.snapshots[name]
        values = {**kept.values, **({"description": kept.description} if kept.description else {})}
        raw = kept.raw
    else:
        values = dict(conf.values) if job.flag("current") else effective(conf)
    errors: Errors = {}
    for key, value in values.items():
        prop = config_prop(key)
        if prop is not None:
            check_value(prop, value, errors, key)
    if errors:
        job.ctx.err(job.refused(errors, "Result verification failed"))
        return 2
    values = _shown(values)
    job.say("".join(f"{key}: {values[key]}\n" for key in sorted(values)))
    job.say("".join(f"{key}: {value}\n" for key, value in raw))
    return 0


def pending(job: Job) -> Steps:
    """``pct pending``."""
    yield from job.took(0.07)
    conf = job.load()
    values, waiting = _shown(dict(conf.values)), dict(conf.pending)
    dropped = {name.lstrip("!") for name in re.split(r"[,;\s]+", waiting.pop("delete", "")) if name}
    waiting = _shown(waiting)
    for key in sorted({*values, *waiting, *dropped}):
        if key in values:
            job.say(f"cur {key}: {values[key]}\n")
        if key in waiting:
            job.say(f"new {key}: {waiting[key]}\n")
        if key in dropped and key in values:
            job.say(f"del {key}: {values[key]}\n")
    return 0


def listsnapshot(job: Job) -> Steps:
    """``pct listsnapshot``: a tree that always ends with ``current``."""
    yield from job.took(0.07)
    conf = job.load()
    children: dict[str, list[str]] = {}
    for name, part in conf.snapshots.items():
        parent = part.values.get("parent", "")
        children.setdefault(parent if parent in conf.snapshots else "", []).append(name)

    def taken(name: str) -> tuple[int, str]:
        return int(conf.snapshots[name].values.get("snaptime", "0")), name

    def show(parent: str, depth: int) -> None:
        for name in sorted(children.get(parent, ()), key=taken):
            part = conf.snapshots[name]
            when = datetime.fromtimestamp(taken(name)[0], UTC).strftime("%Y-%m-%d %H:%M:%S")
            text = (part.description.split("\n")[0] if part.description else "") or "no-description"
            job.say(_line(depth, name, when, text))
            show(name, depth + 1)
        here = conf.values.get("parent", "")
        if (here if here in conf.snapshots else "") == parent:
            job.say(_line(depth, "current", "", "You are here!"))

    show("", 0)
    return 0


def _line(depth: int, name: str, when: str, text: str) -> str:
    prefix = " " * depth + "`->"
    return f"{prefix} {name:<{max(1, 30 - len(prefix))}} {when:<23} {text}\n"


def cpusets(job: Job) -> Steps:
    """``pct cpusets``."""
    yield from job.took(0.07)
    running = job.node.running()
    if not running:
        job.say("no running containers\n")
        return 0
    rows = [f"{vmid}:  {' '.join(str(n) for n in range(1))}" for vmid in running]
    rule = "-" * max(len(row) for row in rows)
    job.say(f"{rule}\n" + "".join(f"{row}\n" for row in rows) + f"{rule}\n")
    return 0


def _human(size: float) -> str:
    for unit in ("", "K", "M", "G", "T"):
        if size < 1024 or unit == "T":
            return f"{size:.1f}{unit}" if unit else f"{int(size)}"
        size /= 1024
    return ""


def df(job: Job) -> Steps:
    """``pct df``: usage figures are made up, the table is not."""
    yield from job.locked(lambda: _df(job))
    return 0


def _df(job: Job) -> Work:
    """A stopped container is mounted for it, which its lock may forbid."""
    yield from job.took(0.2)
    node = job.node
    mounted = not node.is_running(job.vmid)
    if mounted:
        job.warn(f"{job.vmid} doesn't exist\n")
    conf = job.load()
    if mounted:
        job.check_lock(conf)
    rows = [("MP", "Volume", "Size", "Used", "Avail", "Use%", "Path")]
    for mount in mounts(conf.values):
        if mount.kind == "volume":
            vol = storage.volume(node, mount.volume)
            size = (mount.size or storage.size_of(node, vol) or 8 * 1024**3) * 0.95
        else:
            size = 8 * 1024.0**3
        used = 2412544.0
        path = mount.options.get("mp", "/")
        text = f"{used / size * 100:.1f}"
        rows.append((mount.key, mount.volume, _human(size), _human(used), _human(size * 0.93), text, path))
    widths = [max(len(row[n]) for row in rows) for n in range(6)]
    for row in rows:
        left = " ".join(row[n].ljust(widths[n]) for n in range(2))
        right = " ".join(row[n].rjust(widths[n]) for n in range(2, 6))
        job.say(f"{left} {right} {row[6]}\n")

"""``pct exec`` and ``enter``: what can run inside a container that is only a model, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from nexcage.testing._model.pct.conf import parse_net
from nexcage.testing._model.pct.job import Job
from nexcage.testing._model.storage import Die
from nexcage.testing._model.tool import Steps

__all__ = ["enter", "exec_"]

_ATTACH = 'lxc-attach: {}: ../src/lxc/attach.c: lxc_attach_run_command: 1845 {} - Failed to exec "{}"\n'
_SIGNALS = {"HUP": 1, "INT": 2, "QUIT": 3, "KILL": 9, "USR1": 10, "USR2": 12, "TERM": 15}


def _running(job: Job) -> None:
    job.load()
    if not job.node.is_running(job.vmid):
        raise Die(f"container '{job.vmid}' not running!")


def enter(job: Job) -> Steps:
    """``pct enter``: a shell without anything to say."""
    _running(job)
    yield from job.took(0.05)
    return 0


def exec_(job: Job) -> Steps:
    """``pct exec``: a few programs, or whatever a real container has; the exit status is theirs."""
    _running(job)
    if not job.extra:
        job.ctx.err("missing command at /usr/share/perl5/PVE/CLI/pct.pm line 246.\n")
        return 126
    yield from job.took(0.09)
    job.node.attach(job.vmid, job.extra, job.param.get("keep-env", "1") == "1")
    return _run(job, job.extra)


def _environment(job: Job) -> Sequence[str]:
    if job.param.get("keep-env", "1") == "1":
        return (
            "PATH=/sbin:/bin:/usr/sbin:/usr/bin HOME=/root LANG=C.UTF-8 LC_ALL=C.UTF-8 TERM=linux container=lxc".split()
        )
    return "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=lxc TERM=linux".split()


def _run(job: Job, words: tuple[str, ...]) -> int:
    program, arguments = words[0].rpartition("/")[2], words[1:]
    if program == "true":
        return 0
    if program == "false":
        return 1
    if program == "echo":
        job.ctx.out(" ".join(arguments) + "\n")
    elif program == "id":
        job.ctx.out("uid=0(root) gid=0(root)\n")
    elif program == "env":
        job.ctx.out("".join(f"{line}\n" for line in _environment(job)))
    elif program == "hostname":
        job.ctx.out(job.load().values.get("hostname", f"CT{job.vmid}").split(".")[0] + "\n")
    elif program == "cat" and not arguments:
        job.ctx.out(job.ctx.stdin)
    elif program == "cat":
        return _cat(job, arguments)
    elif program == "sh" and len(arguments) >= 2 and arguments[0] == "-c":
        return _script(job, arguments[1])
    else:
        job.ctx.err(_ATTACH.format(job.vmid, "No such file or directory", words[0]))
        return 127
    return 0


def _cat(job: Job, paths: tuple[str, ...]) -> int:
    status = 0
    for path in paths:
        text = _guest_file(job, path)
        if text is None:
            job.ctx.err(f"cat: can't open '{path}': No such file or directory\n")
            status = 1
        else:
            job.ctx.out(text)
    return status


def _guest_file(job: Job, path: str) -> str | None:
    """The files that PVE writes inside a container."""
    values = job.load().values
    host = values.get("hostname", f"CT{job.vmid}")
    domain = values.get("searchdomain", "").split(" ")[0]
    if path == "/etc/hostname":
        return host.split(".")[0] + "\n"
    if path == "/etc/resolv.conf":
        lines = [f"search {values['searchdomain']}\n"] if domain else []
        lines += [f"nameserver {server}\n" for server in values.get("nameserver", "").split()]
        return f"# --- BEGIN PVE ---\n{''.join(lines)}# --- END PVE ---\n"
    if path == "/etc/network/interfaces":
        return _interfaces(values)
    if path == "/etc/hosts":
        found = re.search(r"(?:^|,)ip=([0-9.]+)/", values.get("net0", ""))
        names = f"{host}.{domain} {host}" if domain else host
        line = f"{found[1] if found else '127.0.1.1'} {names}\n"
        return f"127.0.0.1 localhost\n# --- BEGIN PVE ---\n::1 localhost.localnet localhost\n{line}# --- END PVE ---\n"
    return None


def _interfaces(values: Mapping[str, str]) -> str:
    parts = ["auto lo\niface lo inet loopback\n\n"]
    for key in sorted(key for key in values if re.fullmatch(r"net[0-9]+", key)):
        net = parse_net(values[key])
        address = net.get("ip", "manual")
        parts.append(f"auto {net['name']}\n")
        if "/" not in address:
            parts.append(f"iface {net['name']} inet {address}\n\n")
            continue
        gateway = f"\tgateway {net['gw']}\n" if "gw" in net else ""
        parts.append(f"iface {net['name']} inet static\n\taddress {address}\n{gateway}\n")
    return "".join(parts)


def _script(job: Job, script: str) -> int:
    """``sh -c``: echo, exit and kill, one after the other."""
    status = 0
    for part in (part.strip() for part in script.split(";")):
        if found := re.fullmatch(r"exit(?: ([0-9]+))?", part):
            return int(found[1] or status) & 255
        if found := re.fullmatch(r"kill -(?:SIG)?([A-Z0-9]+) \$\$", part):
            return 128 + _SIGNALS.get(found[1], int(found[1]) if found[1].isdigit() else 15)
        if found := re.fullmatch(r"echo (.*?)( ?>&2)?", part):
            (job.ctx.err if found[2] else job.ctx.out)(found[1].strip("'\"") + "\n")
            status = 0
        elif part:
            status = _run(job, tuple(part.split()))
    return status

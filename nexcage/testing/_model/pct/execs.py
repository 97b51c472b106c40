"""``pct exec`` and ``enter``: what can run inside a container that is only a model, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from nexcage.testing._model import guest
from nexcage.testing._model.node import Node
from nexcage.testing._model.pct.conf import parse_net, read
from nexcage.testing._model.pct.job import Job
from nexcage.testing._model.storage import Die
from nexcage.testing._model.tool import Steps

__all__ = ["enter", "exec_", "guest_file"]


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
    env = dict(one.split("=", 1) for one in _environment(job))
    return (yield from guest.run(guest.Guest(job.ctx, job.node, job.vmid, env), job.extra))


def _environment(job: Job) -> Sequence[str]:
    if job.param.get("keep-env", "1") == "1":
        return (
            "PATH=/sbin:/bin:/usr/sbin:/usr/bin HOME=/root LANG=C.UTF-8 LC_ALL=C.UTF-8 TERM=linux container=lxc".split()
        )
    return "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=lxc TERM=linux".split()


def guest_file(node: Node, vmid: int, path: str) -> str | None:
    """The files that PVE writes inside a container."""
    values = read(vmid, node.config(vmid) or "")[0].values
    host = values.get("hostname", f"CT{vmid}")
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

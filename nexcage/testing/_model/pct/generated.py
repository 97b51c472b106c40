"""The file that LXC's own tools read, made from the config by start and set; a template has none."""

from __future__ import annotations

import re

from nexcage.testing._model.pct.conf import Conf, parse_net
from nexcage.testing._model.pct.job import Job
from nexcage.testing._model.storage import Die

__all__ = ["write_lxc_config"]


def write_lxc_config(job: Job, conf: Conf) -> None:
    """Whoever changed the config before has changed it, even when this fails: a bridge is first looked at here."""
    path = f"/var/lib/lxc/{job.vmid}/config"
    if conf.values.get("template") == "1":
        job.node.files.remove(path)
        return
    if "rootfs" not in conf.values:
        raise Die("missing 'rootfs' configuration")
    for key in sorted(conf.values):
        if re.fullmatch(r"net[0-9]+", key):
            bridge = parse_net(conf.values[key]).get("bridge")
            if bridge is not None and not job.node.files.exists(f"/sys/class/net/{bridge}"):
                raise Die(f"bridge '{bridge}' does not exist")
    arch = {"amd64": "x86_64"}.get(conf.values.get("arch", "amd64"), conf.values.get("arch", "amd64"))
    lines = [
        f"lxc.arch = {arch}",
        f"lxc.rootfs.path = /var/lib/lxc/{job.vmid}/rootfs",
        f"lxc.uts.name = {conf.values.get('hostname', f'CT{job.vmid}').split('.')[0]}",
        f"lxc.cgroup2.memory.max = {int(conf.values.get('memory', '512')) * 1024**2}",
        *(f"{key} = {value}" for key, value in conf.raw),
    ]
    job.node.files.write(path, "\n".join(lines) + "\n")

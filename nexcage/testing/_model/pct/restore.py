"""``pct restore``: a container from a backup. A backup of the model is JSON: the config of then and how big the archive is."""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from typing import Any, NamedTuple

from nexcage.testing._model import storage
from nexcage.testing._model.node import Node
from nexcage.testing._model.pct import create as creating
from nexcage.testing._model.pct.conf import Conf, mounts, parse_net, print_mount, print_net, read
from nexcage.testing._model.pct.job import Job, Work
from nexcage.testing._model.pct.lifecycle import volumes_of
from nexcage.testing._model.pct.settings import random_mac
from nexcage.testing._model.storage import Die
from nexcage.testing._model.tool import Interrupted, Steps, Wait

__all__ = ["Backup", "restore"]

_DROPPED = re.compile("lock|parent|snaptime|snapstate|template|rootfs|(mp|unused)[0-9]+")


class Backup(NamedTuple):
    """What an archive of ``vzdump`` holds."""

    config: str
    size: int = 2037760

    @classmethod
    def read(cls, text: str) -> Backup | None:
        """None when the file is no backup."""
        try:
            found = json.loads(text)
            return cls(found["backup"], found.get("size", 2037760))
        except (ValueError, TypeError, KeyError):
            return None

    def __str__(self) -> str:
        return json.dumps({"backup": self.config, "size": self.size})

    @classmethod
    def of(cls, node: Node, vmid: int) -> Backup:
        """A container as it is now: its main part, without snapshots and what waits for the next start."""
        conf = read(vmid, node.config(vmid) or "")[0]
        return cls(Conf({k: v for k, v in conf.values.items() if k != "lock"}, raw=conf.raw).render())


def restore(job: Job) -> Steps:
    """``pct restore``; with ``--force`` over a stopped container that exists."""
    job.check_quorum()
    node = job.node
    replaces = node.config(job.vmid) is not None and job.flag("force")
    if replaces:
        _check_stopped(job)
        job.check_protection(job.load(), f"unable to restore CT {job.vmid}")
    else:
        creating.check_unused(node, job.vmid)
    creating.check_keys(job.param.get("ssh-public-keys", ""))
    creating.check_pool(job)
    wanted = creating.disks(job)
    _check_archive(job, wanted)
    creating.check_storages(job, wanted)
    conf = creating.asked(job, "")
    if replaces:
        locked = job.load()
        job.check_lock(locked)
        locked.values["lock"] = "create"
        job.save(locked)
    else:
        job.save(Conf({"lock": "create"}))

    def worker() -> Work:
        yield from job.locked(lambda: _restore(job, conf, wanted, replaces), timeout=5.0)
        if job.flag("start"):
            yield from creating.start_after(job)

    return (yield from job.worker("vzrestore", worker))


def _check_stopped(job: Job) -> None:
    if job.node.is_running(job.vmid):
        raise Die("can't overwrite running container")


def _check_archive(job: Job, wanted: dict[str, str]) -> None:
    archive = job.param["ostemplate"]
    if archive == "-" and "rootfs" not in wanted:
        raise Die("restore from pipe requires rootfs parameter")
    if storage.parse_id(archive) is not None and storage.volume(job.node, archive).kind != "backup":
        raise Die(f"unable to use volume {archive} - content type needs to be 'backup'")


def _restore(job: Job, conf: Conf, wanted: dict[str, str], replaces: bool) -> Work:
    before = job.load()
    made: list[storage.Volume] = []
    try:
        _check_stopped(job)
        path, backup = yield from _recovered(job)
        saved = read(job.vmid, backup.config)[0]
        _merge(job, conf, saved)
        yield from creating.fill(job, conf, wanted or _as_before(job, saved), made)
        yield from _unpack(job, path, backup)
    except (Die, Interrupted) as error:
        for vol in made:
            job.say(storage.free(job.node, vol))
        _put_back(job, before, replaces)
        text = error.text if isinstance(error, Die) else "received interrupt"
        raise Die(f"unable to restore CT {job.vmid} - {text}") from None
    if replaces:
        for old in volumes_of(job, before).values():
            if old.owner == job.vmid:
                job.say(storage.free(job.node, old))
    conf.values.setdefault("hostname", f"CT{job.vmid}")
    job.save(conf)


def _put_back(job: Job, before: Conf, replaces: bool) -> None:
    """What fails leaves nothing of a new container and no lock on an old one."""
    if not replaces:
        job.node.remove_config(job.vmid)
        return
    before.values.pop("lock", None)
    job.save(before)


def _recovered(job: Job) -> Generator[Wait, Any, tuple[str, Backup]]:  # Any: see Work
    name = job.param["ostemplate"]
    if name == "-":
        path, text = name, job.ctx.stdin.decode("utf-8", "replace")
    else:
        job.say(f"recovering backed-up configuration from '{name}'\n")
        path = storage.path_of(storage.volume(job.node, name)) if storage.parse_id(name) is not None else name
        found = job.node.files.read(path)
        if found is None:
            raise Die(creating.absent(name))
        text = found
    yield from job.took(0.2)
    backup = Backup.read(text)
    if backup is None:
        raise Die("ERROR: archive contains no configuration file")
    return path, backup


def _merge(job: Job, conf: Conf, saved: Conf) -> None:
    """What was given counts; what was not given is as it was saved, with other MAC addresses where asked."""
    kept = {key: value for key, value in saved.values.items() if not _DROPPED.fullmatch(key)}
    if job.flag("unique"):
        for key in sorted(key for key in kept if re.fullmatch("net[0-9]+", key)):
            kept[key] = print_net({**parse_net(kept[key]), "hwaddr": random_mac(job)})
    conf.values = {**kept, **conf.values}
    if job.param.get("unprivileged") == "0":
        conf.values.pop("unprivileged", None)
    conf.raw = conf.raw or saved.raw


def _as_before(job: Job, saved: Conf) -> dict[str, str]:
    """The volumes of then, new ones of the same size on the storage that was named."""
    wanted: dict[str, str] = {}
    for mount in mounts(saved.values):
        options = dict(mount.options)
        if mount.kind == "volume":
            size = mount.size
            if size is None:
                raise Die(f"unable to detect disk size - please specify {mount.key} (size)")
            options.pop("size")
            options["volume"] = f"{job.param.get('storage', 'local')}:{size / 1024**3:.6f}".rstrip("0").rstrip(".")
        wanted[mount.key] = print_mount(mount._replace(volume=options["volume"], options=options))
    if "rootfs" not in wanted:
        raise Die("rootfs configuration could not be recovered, please check and specify manually!")
    return wanted


def _unpack(job: Job, path: str, backup: Backup) -> Work:
    if path != "-":
        job.say(f"restoring '{job.param['ostemplate']}' now..\n")
        job.say(f"extracting archive '{path}'\n")
    yield from job.took(0.3)
    creating.unpacked(job, backup.size)
    job.say("merging backed-up and given configuration..\n")

"""``pct create``: checks, then a worker that allocates, unpacks, detects and writes; what fails is taken back."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Generator
from typing import Any, NamedTuple

from nexcage.testing._model import storage
from nexcage.testing._model.files import SIM
from nexcage.testing._model.node import Node
from nexcage.testing._model.oci_archive import image_of
from nexcage.testing._model.pct.conf import Conf, mounts, parse_mount, parse_net, print_mount, print_net
from nexcage.testing._model.pct.job import BadParameter, Job, Work
from nexcage.testing._model.pct.lifecycle import start_container
from nexcage.testing._model.pct.settings import new_disk, store, with_mac
from nexcage.testing._model.pve import packages
from nexcage.testing._model.storage import Die
from nexcage.testing._model.tool import Interrupted, Steps, Wait

__all__ = [
    "Template",
    "absent",
    "asked",
    "check_keys",
    "check_pool",
    "check_storages",
    "check_unused",
    "create",
    "disks",
    "fill",
    "start_after",
    "unpacked",
]

_OWN = frozenset(
    "vmid ostemplate storage force restore unique start pool password bwlimit ssh-public-keys ignore-unpack-errors "
    "ha-managed unprivileged".split()
)
_COMPRESSION = {".gz": "-z", ".bz2": "-j", ".xz": "-J", ".zst": "--zstd", ".lzo": "--lzop"}
_MAGIC = ("\x1f\udc8b", "(\udcb5/\udcfd")
"""How archives begin that are compressed with gzip and zstd, as `Files` read bytes."""


class Template(NamedTuple):
    """What a template archive of the model holds, written in it as JSON."""

    ostype: str | None = None
    arch: str | None = "amd64"
    ssh_keys: tuple[str, ...] = ()
    size: int = 2037760
    zones: bool = False
    init: str = "systemd"
    oci: dict[str, Any] | None = None  # Any: the image's config, JSON

    @classmethod
    def read(cls, text: str) -> Template | None:
        """None when the file is no archive. One that was sent to the node is a root file system of no known distribution: on disk it is
        the archive itself, in memory what is known of it.
        """
        if text.startswith(_MAGIC):
            return cls(size=len(text))
        if "ustar" in text[:512]:
            data = text.encode("utf-8", "surrogateescape")
            return cls(size=len(data), oci=image_of(data))
        try:
            said = json.loads(text)
            return cls(size=said["size"], oci=said.get("oci")) if "sha256" in said else cls(**said)
        except (ValueError, TypeError):
            return None


def check_unused(node: Node, vmid: int) -> None:
    """PVE refuses a VMID that any guest of the cluster has."""
    found = node.guest_node(vmid)
    if found is not None:
        raise Die(f"{found[0]} {vmid} already exists on node '{found[1]}'")


def check_pool(job: Job) -> None:
    """A pool that is asked for must be there."""
    if "pool" in job.param and not job.node.files.exists(f"/etc/pve/pools/{job.param['pool']}"):
        raise Die(f"403 Permission check failed (pool '{job.param['pool']}' does not exist)")


def create(job: Job) -> Steps:
    """``pct create``; with ``--restore`` it is ``pct restore``."""
    if job.flag("restore"):
        from nexcage.testing._model.pct.restore import restore  # it needs this module

        return (yield from restore(job))
    job.check_quorum()
    check_unused(job.node, job.vmid)
    check_keys(job.param.get("ssh-public-keys", ""))
    check_pool(job)
    _check_template(job)
    wanted = disks(job)
    check_storages(job, wanted)
    conf = asked(job, "1")

    def worker() -> Work:
        yield from job.locked(lambda: _create(job, conf, wanted), timeout=5.0)
        if job.flag("start"):
            yield from start_after(job)

    return (yield from job.worker("vzcreate", worker))


_KEY = re.compile(r"(?:\S+ +)?(ssh-[a-z0-9]+|ecdsa-sha2-\S+|sk-\S+) +[A-Za-z0-9+/]+={0,3}( .*)?")


def check_keys(text: str) -> None:
    """Public keys, one a line."""
    if not all(_KEY.fullmatch(line.strip()) for line in text.splitlines() if line.strip() and not line.startswith("#")):
        raise Die("SSH public key validation error")


def storage_keys(wanted: dict[str, str]) -> list[str]:
    """The rootfs first, then mount points by number."""
    return sorted(wanted, key=lambda key: -1 if key == "rootfs" else int(key[2:]))


def _check_template(job: Job) -> None:
    template = job.param["ostemplate"]
    if template == "-":
        raise Die("pipe can only be used with restore tasks")
    if storage.parse_id(template) is not None:
        vol = storage.volume(job.node, template)
        if vol.kind != "vztmpl":
            raise Die(f"unable to use volume {template} - content type needs to be 'vztmpl'")


def _check_storage(job: Job, name: str) -> None:
    if "rootdir" not in storage.check(job.node, name).content:
        raise BadParameter({"storage": f"storage '{name}' does not support container directories"})


def check_storages(job: Job, wanted: dict[str, str]) -> None:
    """Every storage that a volume is asked for must be usable for containers."""
    for key in storage_keys(wanted):
        mount = parse_mount(key, wanted[key])
        if mount.kind == "volume":
            parts = storage.parse_id(mount.volume)
            if parts is None:
                raise Die(f"unable to parse volume ID '{mount.volume}'")
            _check_storage(job, parts[0])
    if "rootfs" not in wanted:
        _check_storage(job, job.param.get("storage", "local"))


def disks(job: Job) -> dict[str, str]:
    """The volume options; a bare number means that many GiB on the default storage."""
    wanted: dict[str, str] = {}
    for key, value in job.param.items():
        if key == "rootfs" or re.fullmatch(r"mp[0-9]+", key):
            bare = re.fullmatch(r"[0-9]+(\.[0-9]+)?", value)
            wanted[key] = f"{job.param.get('storage', 'local')}:{value}" if bare else value
    if wanted and "rootfs" not in wanted:
        raise Die("mount points configured, but 'rootfs' not set - aborting")
    return wanted


def asked(job: Job, unprivileged: str) -> Conf:
    """Every option that is a config key, in the form it is written."""
    conf = Conf()
    for key in sorted(job.param):
        value = job.param[key]
        if key.startswith("unused"):
            job.warn(f"ignoring '{key}', cannot create/restore with unused volume\n")
        elif key not in _OWN and key != "rootfs" and not re.fullmatch(r"mp[0-9]+", key):
            value = store(job, key, value)
            conf.values[key] = with_mac(job, value) if re.fullmatch(r"net[0-9]+", key) else value
    if job.param.get("unprivileged", unprivileged) == "1":
        conf.values["unprivileged"] = "1"
    return conf


def _create(job: Job, conf: Conf, wanted: dict[str, str]) -> Work:
    node = job.node
    found = node.guest_node(job.vmid)
    if found is not None:
        taken = f"{found[0]} {job.vmid} already exists on node '{found[1]}'"
        raise Die(f"unable to create CT {job.vmid} - {taken}")
    job.save(Conf({"lock": "create"}))
    made: list[storage.Volume] = []
    try:
        yield from _build(job, conf, wanted or {"rootfs": f"{job.param.get('storage', 'local')}:4"}, made)
    except (Die, Interrupted) as error:
        for vol in made:
            job.say(storage.free(node, vol))
        node.remove_config(job.vmid)
        text = error.text if isinstance(error, Die) else f"{_tar(job, _archive_words(job))} failed: received interrupt"
        raise Die(f"unable to create CT {job.vmid} - {text}") from None


def fill(job: Job, conf: Conf, wanted: dict[str, str], made: list[storage.Volume]) -> Work:
    """Allocate what was asked for, look for what must be there, and mount all of it."""
    node = job.node
    for key in storage_keys(wanted):
        mount = parse_mount(key, wanted[key])
        if mount.kind == "volume" and storage.NEW_DISK.fullmatch(mount.volume):
            mount, vol = new_disk(job, mount)
            made.append(vol)
        elif mount.kind == "volume":
            old = storage.volume(node, mount.volume)
            if not storage.exists(node, old):
                raise Die(f"volume '{mount.volume}' does not exist")
            size = storage.size_of(node, old)
            if size is not None:
                mount = mount._replace(options={**mount.options, "size": str(size)})
        conf.values[key] = print_mount(mount)
    yield from job.took(0.25)
    for mount in mounts(conf.values):
        if mount.kind == "bind" and not node.files.exists(mount.volume) and mount.volume not in _HOST_DIRECTORIES:
            job.say("mounting container failed\n")
            raise Die(f"directory '{mount.volume}' does not exist")


def _build(job: Job, conf: Conf, wanted: dict[str, str], made: list[storage.Volume]) -> Work:
    node = job.node
    yield from fill(job, conf, wanted, made)
    template = yield from _unpack(job, conf)
    yield from job.took(0.2)
    _detect_system(job, conf, template)
    if template.arch is None and "arch" not in job.param:
        job.say("Falling back to amd64.\nUse `pct set VMID --arch ARCH` to change.\n")
    elif "arch" not in job.param:
        job.say(f"Detected container architecture: {template.arch}\n")
    conf.values.setdefault("arch", template.arch or "amd64")
    _set_up(job, conf, template)
    conf.values.setdefault("hostname", f"CT{job.vmid}")
    conf.values.setdefault("memory", "512")
    conf.values.setdefault("swap", "512")
    if job.flag("ha-managed"):
        node.files.write(f"{SIM}/ha/{job.vmid}", "started")
    job.save(conf)


_HOST_DIRECTORIES = frozenset(
    "/ /bin /boot /dev /etc /home /lib /media /mnt /opt /root /run /sbin /srv /sys /tmp /usr /var /proc /var/lib /var/tmp".split()
)


def _archive_words(job: Job) -> str:
    return _COMPRESSION.get("." + job.param["ostemplate"].rpartition(".")[2], "")


def _tar(job: Job, compression: str) -> str:
    """The command that unpacks, as errors quote it."""
    users = "lxc-usernsexec -m u:0:100000:65536 -m g:0:100000:65536 -- "
    if job.param.get("unprivileged", "1") != "1":
        users = ""
    option = f"{compression} " if compression else ""
    return (
        f"command '{users}tar xpf - {option}--totals --one-file-system -p --sparse --numeric-owner --acls --xattrs "
        "'--xattrs-include=user.*' '--xattrs-include=security.capability' '--warning=no-file-ignored' "
        f"'--warning=no-xattr-write' -C /var/lib/lxc/{job.vmid}/rootfs --skip-old-files --anchored --exclude './dev/*''"
    )


def absent(archive: str) -> str:
    """What is said of an archive that is not there."""
    return f"volume '{archive}' does not exist" if storage.parse_id(archive) else f"can't find file '{archive}'"


def unpacked(job: Job, size: int) -> None:
    """What tar says at its end."""
    rate = job.node.random.randrange(35, 180)
    human = f"{-(-size * 10 // 1024**2) / 10:.1f}MiB" if size >= 1024**2 else f"{size // 1024}KiB"
    job.say(f"Total bytes read: {size} ({human}, {rate}MiB/s)\n")


def _unpack(job: Job, conf: Conf) -> Generator[Wait, Any, Template]:  # Any: see Work
    node = job.node
    name = job.param["ostemplate"]
    path = storage.path_of(storage.volume(node, name)) if storage.parse_id(name) is not None else name
    text = node.files.read(path)
    if text is None:
        missing = absent(name)
        job.say(missing + "\n")
        raise Die(missing)
    found = re.search(r"\.tar(\.[^.]+)?$", path)
    if found is None:
        raise Die(f"file does not look like a template archive: {path}")
    if found[1] is not None and found[1] not in _COMPRESSION:
        raise Die(f"unrecognized compression format: {found[1]}")
    template = Template.read(text)
    if template is not None and template.oci is not None and path.endswith(".tar") and _knows_images(node):
        job.say("Detected OCI archive\n")
        if "error" in template.oci:
            raise Die(str(template.oci["error"]))
        yield from job.took(0.2)
        _check_room(job, conf, "")
        _apply_image(job, conf, template.oci)
        return template
    job.say(f"extracting archive '{path}'\n")
    _check_room(job, conf, _COMPRESSION.get(found[1] or "", ""))
    yield from job.took(0.2)
    if template is None:
        job.say("\ngzip: stdin: not in gzip format\ntar: Child returned status 1\n")
        job.say("tar: Error is not recoverable: exiting now\n")
        raise Die(f"{_tar(job, _COMPRESSION.get(found[1] or '', ''))} failed: exit code 2")
    unpacked(job, template.size)
    return template


def _knows_images(node: Node) -> bool:
    """pve-container 6.0.15, of Proxmox VE 9.1."""
    return tuple(map(int, packages(node)["pve-container"].split("."))) >= (6, 0, 15)


def _check_room(job: Job, conf: Conf, compression: str) -> None:
    for mount in mounts(conf.values):
        if mount.kind == "volume" and storage.full(job.node, storage.volume(job.node, mount.volume).storage):
            job.say("tar: ./usr/lib/x86_64-linux-gnu: Cannot mkdir: No space left on device\n")
            job.say("tar: Exiting with failure status due to previous errors\n")
            raise Die(f"{_tar(job, compression)} failed: exit code 2")


def _detect_system(job: Job, conf: Conf, template: Template) -> None:
    wanted = conf.values.get("ostype")
    if wanted is None:
        if template.ostype is None:
            job.say("/etc/os-release file not found and autodetection failed, falling back to 'unmanaged'\n")
        conf.values["ostype"] = template.ostype or "unmanaged"
    elif wanted not in ("unmanaged", template.ostype):
        job.say(f"got unexpected ostype ({template.ostype or 'unmanaged'} != {wanted})\n")


def _set_up(job: Job, conf: Conf, template: Template) -> None:
    """The edits inside: time zone and host keys."""
    zone = conf.values.get("timezone")
    if zone is not None and not template.zones and conf.values["ostype"] != "unmanaged":
        path = f"/usr/share/zoneinfo/{'Etc/UTC' if zone == 'host' else zone}"
        job.say(f"container does not have {path}, timezone can not be modified\n")
    host = conf.values.get("hostname", f"CT{job.vmid}").split(".")[0]
    for kind in template.ssh_keys:
        digest = b64encode(job.node.random.randbytes(32)).decode().rstrip("=")
        job.say(f"Creating SSH host key 'ssh_host_{kind}_key' - this may take some time ...\n")
        job.say(f"done: SHA256:{digest} root@{host}\n")


def _apply_image(job: Job, conf: Conf, image: dict[str, Any]) -> None:  # Any: JSON
    """Map an OCI image's config to the container's."""
    words = [*image.get("Entrypoint", []), *image.get("Cmd", [])]
    if words and words[0] != "/sbin/init":
        conf.values["entrypoint"] = " ".join(_quoted(word) for word in words)
        conf.values["cmode"] = "console"
        for key in sorted(key for key in conf.values if re.fullmatch(r"net[0-9]+", key)):
            net = parse_net(conf.values[key])
            if "host-managed" not in net:
                job.say(f"Auto-Enabling host-managed network for network device {key}.\n")
                conf.values[key] = print_net({**net, "host-managed": "1"})
    if image.get("Env"):
        conf.values["env"] = "\0".join(image["Env"])
    raw: list[tuple[str, str]] = []
    if "uid" in image:
        raw += [("lxc.init.uid", str(image["uid"])), ("lxc.init.gid", str(image.get("gid", image["uid"])))]
        raw.append(("lxc.init.groups", ",".join(str(n) for n in image.get("groups", []))))
    if image.get("WorkingDir"):
        raw.append(("lxc.init.cwd", image["WorkingDir"]))
    raw.append(("lxc.signal.halt", image.get("StopSignal", "SIGTERM")))
    for path in image.get("Volumes", {}):
        job.say(f"creating base directory for volume at {path}\n")
    conf.raw = tuple(raw)


def _quoted(word: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_@%+=:,./-]+", word):
        return word
    return "'" + word.replace("'", "'\\''") + "'"


def start_after(job: Job) -> Work:
    """Its failure is only a line of output: the create has succeeded."""

    def body() -> Work:
        yield from start_container(job)

    try:
        yield from job.locked(body)
    except Die as error:
        job.say(error.text + "\n")

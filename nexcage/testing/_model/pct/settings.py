"""``pct set`` and ``pct unlock``, and how pending values become live."""

from __future__ import annotations

import re
from collections.abc import Callable

from nexcage.testing._model import storage
from nexcage.testing._model.mkfs import mkfs_lines
from nexcage.testing._model.pct.conf import Conf, Mount, mounts, parse_mount, parse_net, print_mount, print_net
from nexcage.testing._model.pct.generated import write_lxc_config
from nexcage.testing._model.pct.job import BadParameter, Job, Work
from nexcage.testing._model.pct.options import DEV, config_prop
from nexcage.testing._model.schema import Errors, Refused, parse_properties, split_list
from nexcage.testing._model.storage import Die
from nexcage.testing._model.tool import Steps

__all__ = ["apply_pending", "new_disk", "random_mac", "set_", "store", "unlock"]

_LIVE = frozenset("description onboot startup protection hostname hookscript cores tags lock".split())
_MAX_UNUSED = 256


def set_(job: Job) -> Steps:
    """``pct set``."""
    changes = {key: value for key, value in job.param.items() if key not in ("vmid", "digest")}
    if not changes:
        raise Die("no options specified")
    delete = split_list(changes.pop("delete", ""))
    revert = split_list(changes.pop("revert", ""))
    _check_names(changes, delete, revert)
    job.load()

    def body() -> Work:
        conf = job.load()
        job.check_lock(conf)
        job.check_digest()
        yield from job.took(0.05)
        conf = job.load()
        errors = _update(job, conf, changes, delete, revert)
        if errors:
            raise BadParameter(errors)
        job.save(conf)
        write_lxc_config(job, job.load())

    yield from job.locked(body)
    return 0


def _known(name: str) -> bool:
    return config_prop(name) is not None and name != "snapstate"


def _check_names(changes: dict[str, str], delete: list[str], revert: list[str]) -> None:
    for name in revert:
        if not _known(name):
            raise BadParameter({"revert": f"unknown option '{name}'"})
        if name in changes:
            raise BadParameter({"revert": f"you can't use '-{name}' and '-revert {name}' at the same time"})
    for name in delete:
        if not _known(name):
            raise BadParameter({"delete": f"unknown option '{name}'"})
        if name in changes:
            raise BadParameter({"delete": f"you can't use '-{name}' and -delete {name}' at the same time"})
        if name in revert:
            raise BadParameter({"delete": f"you can't use '-delete {name}' and '-revert {name}' at the same time"})


# --- the three steps: into pending, clean up, make live ---------------------------------------------------------------


def _dropped(conf: Conf) -> list[str]:
    return sorted(name.lstrip("!") for name in re.split(r"[,;\s]+", conf.pending.get("delete", "")) if name)


def _set_dropped(conf: Conf, names: list[str]) -> None:
    if names:
        conf.pending["delete"] = ",".join(sorted(set(names)))
    else:
        conf.pending.pop("delete", None)


def _undrop(conf: Conf, name: str) -> None:
    _set_dropped(conf, [other for other in _dropped(conf) if other != name])


def _update(job: Job, conf: Conf, changes: dict[str, str], delete: list[str], revert: list[str]) -> Errors:
    for name in revert:
        conf.pending.pop(name, None)
        _undrop(conf, name)
    touched: set[str] = set()
    for name in delete:
        if name not in conf.values and name not in conf.pending:
            job.warn(f"cannot delete '{name}' - not set in current configuration!\n")
            continue
        touched.add(name)
        if name in ("memory", "rootfs", "ostype"):
            raise Die(f"unable to delete required option '{name}'")
        if re.fullmatch(r"(unused|mp)[0-9]+", name):
            job.check_protection(conf, f"can't remove CT {job.vmid} drive '{name}'")
        elif name == "unprivileged":
            raise Die(f"unable to delete read-only option: '{name}'")
        conf.pending.pop(name, None)
        _set_dropped(conf, [*_dropped(conf), name])
    for name in sorted(changes):
        touched.add(name)
        conf.pending[name] = _prepared(job, conf, name, changes[name])
        _undrop(conf, name)
    _clean(conf)
    errors: Errors = {}
    if job.node.is_running(job.vmid):
        _hotplug(job, conf, touched, errors)
    else:
        apply_pending(job, conf, touched, errors)
    return errors


def _prepared(job: Job, conf: Conf, name: str, value: str) -> str:
    """The value as it goes into pending, checked as far as the schema cannot."""
    if name == "rootfs" or re.fullmatch(r"mp[0-9]+", name):
        job.check_protection(conf, f"can't update CT {job.vmid} drive '{name}'")
        mount = parse_mount(name, value)
        if mount.kind == "volume":
            parts = storage.parse_id(mount.volume)
            if parts is None:
                raise Die(f"unable to parse volume ID '{mount.volume}'")
            if "rootdir" not in storage.find(job.node, parts[0]).content:
                raise Die(f"storage '{parts[0]}' does not allow content type 'rootdir' (Container)")
        return value
    if name == "unprivileged":
        raise Die(f"unable to modify read-only option: '{name}'")
    return store(job, name, value)


def store(job: Job, name: str, value: str) -> str:
    """A value as PVE writes it: lists joined its way, tags sorted, references checked."""
    if name == "hookscript":
        _check_hookscript(job, value)
    elif name in ("nameserver", "searchdomain"):
        return " ".join(split_list(value))
    elif name == "tags":
        return ";".join(sorted({tag.lower() for tag in split_list(value)}))
    elif re.fullmatch(r"net[0-9]+", name):
        net = parse_net(value)
        if "mtu" in net:
            mtu = _bridge_mtu(job, net.get("bridge", ""))
            if int(net["mtu"]) > mtu:
                raise Die(f"{name}: MTU size '{net['mtu']}' is bigger than bridge MTU '{mtu}'")
        if net.get("link_down") != "1" and net.get("host-managed") == "1" and net.get("ip6") == "auto":
            raise Die(f"{name}: SLAAC is not supported with host-managed")
    elif re.fullmatch(r"dev[0-9]+", name):
        path = parse_properties(DEV, value).get("path")
        if path is None:
            raise Die(f"Path is not defined for passthrough device {name}")
        if path not in _DEVICES and not job.node.files.exists(path):
            raise Die(f"Device {path} does not exist")
    return value


_DEVICES = frozenset(
    f"/dev/{name}"
    for name in "fuse null zero full random urandom tty kvm net/tun loop0 loop1 loop-control dri/card0 dri/renderD128".split()
)


def _bridge_mtu(job: Job, bridge: str) -> int:
    text = job.node.files.read(f"/sys/class/net/{bridge}/mtu")
    if text is None:
        raise Die(f"bridge '{bridge}' does not exist")
    return int(text)


def _check_hookscript(job: Job, volid: str) -> None:
    vol = storage.volume(job.node, volid)
    if vol.kind != "snippets":
        raise Die(f"'{volid}' is not in the snippets directory")
    if not storage.exists(job.node, vol):
        raise Die(f"script '{volid}' does not exist")


def _clean(conf: Conf) -> None:
    """Drop from pending what is so already."""
    for name in [name for name, value in conf.pending.items() if name != "delete" and conf.values.get(name) == value]:
        del conf.pending[name]
    _set_dropped(conf, [name for name in _dropped(conf) if name in conf.values])


# --- applying ---------------------------------------------------------------------------------------------------------


def apply_pending(job: Job, conf: Conf, only: set[str] | None, errors: Errors) -> None:
    """Make pending values live on a stopped container; all of them, or ``only`` these."""

    def attempt(name: str, action: Callable[[], None]) -> bool:
        try:
            action()
        except (Die, Refused) as error:
            errors[name] = f"unable to apply pending change {name} : {error.text.rstrip()}\n"
            job.warn(errors[name])
            return False
        return True

    for name in _dropped(conf):
        if (only is None or name in only) and attempt(name, lambda name=name: _release(job, conf, name)):  # type: ignore[misc]
            conf.values.pop(name, None)
            _undrop(conf, name)
    _clean(conf)
    for name in sorted(conf.pending):
        if name == "delete" or (only is not None and name not in only):
            continue
        if attempt(name, lambda name=name: _settle(job, conf, name, running=False)):  # type: ignore[misc]
            _make_live(conf, name, conf.pending.pop(name))


def _make_live(conf: Conf, name: str, value: str) -> None:
    """Set a value; the volume it replaces is kept as unused."""
    old = conf.values.get(name)
    conf.values[name] = value
    if old is not None and re.fullmatch(r"mp[0-9]+", name):
        mount = parse_mount(name, old)
        if mount.kind == "volume":
            _keep_unused(conf, mount.volume)


def _in_use(conf: Conf, volume: str) -> bool:
    parts = [conf.values, conf.pending, *(part.values for part in conf.snapshots.values())]
    return any(mount.volume == volume for values in parts for mount in mounts(values))


def _keep_unused(conf: Conf, volume: str) -> None:
    if _in_use(conf, volume) or any(conf.values.get(f"unused{n}") == volume for n in range(_MAX_UNUSED)):
        return
    key = next(f"unused{n}" for n in range(_MAX_UNUSED) if f"unused{n}" not in conf.values)
    conf.values[key] = volume


def _release(job: Job, conf: Conf, name: str) -> None:
    """What deleting a key does besides."""
    if re.fullmatch(r"mp[0-9]+", name):
        mount = parse_mount(name, conf.values[name])
        del conf.values[name]
        if mount.kind == "volume":
            _keep_unused(conf, mount.volume)
    elif re.fullmatch(r"unused[0-9]+", name):
        volid = conf.values[name]
        if not _in_use(conf, volid):
            vol = storage.volume(job.node, volid)
            if vol.owner == job.vmid:
                job.warn(storage.free(job.node, vol))
            else:
                job.warn(f"ignore deletion of '{volid}', CT {job.vmid} isn't the owner!\n")


def _settle(job: Job, conf: Conf, name: str, running: bool) -> None:
    """Bring a pending value into its final form."""
    value = conf.pending[name]
    if re.fullmatch(r"mp[0-9]+", name):
        mount = parse_mount(name, value)
        if mount.kind == "volume" and storage.NEW_DISK.fullmatch(mount.volume):
            new, vol = new_disk(job, mount)
            if running:
                try:
                    _mount_live(job)
                except Die:
                    storage.free(job.node, vol)
                    raise
            conf.pending[name] = print_mount(new)
        else:
            if running:
                _mount_live(job)
            conf.pending[name] = print_mount(_sized(job, mount))
    elif re.fullmatch(r"net[0-9]+", name):
        conf.pending[name] = with_mac(job, value)


def _sized(job: Job, mount: Mount) -> Mount:
    """The mount with the size its volume has."""
    if mount.kind != "volume":
        return mount
    vol = storage.volume(job.node, mount.volume)
    if not storage.exists(job.node, vol):
        job.warn(f"Could not rescan volume size - volume '{mount.volume}' does not exist\n")
        return mount
    size = storage.size_of(job.node, vol)
    return mount if size is None else mount._replace(options={**mount.options, "size": str(size)})


def new_disk(job: Job, mount: Mount) -> tuple[Mount, storage.Volume]:
    """Allocate what ``STORAGE:SIZE`` asks for; says what mke2fs says."""
    found = storage.NEW_DISK.fullmatch(mount.volume)
    assert found is not None
    place = storage.check(job.node, found[1])
    kib = int(float(found[2]) * 1024) * 1024
    vol = storage.allocate(job.node, place, job.vmid, kib)
    if vol.format == "raw":
        if place.kind == "dir":
            path = storage.path_of(vol)
            job.say(f"Formatting '{path}', fmt=raw size={kib * 1024} preallocation=off\n")
        job.say(mkfs_lines(kib * 1024, job.node.uuid()))
    options = {**mount.options, "volume": vol.id, "size": str(kib * 1024)}
    return Mount(mount.key, vol.id, options), vol


def _mount_live(job: Job) -> None:
    if not job.node.settings.get("apparmor", True):
        raise Die("failed to change apparmor profile: Invalid argument")


def random_mac(job: Job) -> str:
    """A MAC address with the prefix PVE uses."""
    return "BC:24:11:" + ":".join(f"{job.node.random.randrange(256):02X}" for _ in range(3))


def with_mac(job: Job, value: str) -> str:
    """A network as PVE writes it: with type and MAC address."""
    net = parse_net(value)
    net["type"] = "veth"
    if "hwaddr" not in net:
        net["hwaddr"] = random_mac(job)
    return print_net(net)


# --- while running ----------------------------------------------------------------------------------------------------


def _hotplug(job: Job, conf: Conf, only: set[str], errors: Errors) -> None:
    """Apply what can be applied to a running container; the rest stays pending."""
    for name in sorted(conf.pending):
        if name in only and name in _LIVE:
            conf.values[name] = conf.pending.pop(name)
    for name in _dropped(conf):
        if name not in only:
            continue
        if name in _LIVE or name in ("swap", "cpulimit", "cpuunits") or re.fullmatch(r"net[0-9]|unused[0-9]+", name):
            _release(job, conf, name)
            conf.values.pop(name, None)
            _undrop(conf, name)
    for name in sorted(conf.pending):
        if name == "delete" or name not in only or not _pluggable(conf, name):
            continue
        try:
            if re.fullmatch(r"net[0-9]+", name):
                _plug_net(job, conf, name)
            else:
                _settle(job, conf, name, running=True)
        except (Die, Refused) as error:
            errors[name] = f"unable to hotplug {name}: {error.text.rstrip()}\n"
            continue
        conf.values[name] = conf.pending.pop(name)


def _pluggable(conf: Conf, name: str) -> bool:
    if name in ("cpulimit", "cpuunits", "memory", "swap") or re.fullmatch(r"net[0-9]+", name):
        return True
    return re.fullmatch(r"(mp|dev)[0-9]+", name) is not None and name not in conf.values


def _plug_net(job: Job, conf: Conf, name: str) -> None:
    conf.pending[name] = with_mac(job, conf.pending[name])
    net = parse_net(conf.pending[name])
    bridge = net.get("bridge")
    if bridge is not None:
        _bridge_mtu(job, bridge)
    others = [parse_net(value) for key, value in conf.values.items() if re.fullmatch(r"net[0-9]+", key) and key != name]
    if any(other["name"] == net["name"] for other in others):
        device = f"veth{job.vmid}i{name[3:]}p"
        where = "../src/lxc/tools/lxc_device.c: lxc_device_main: 152"
        job.warn(f"lxc-device: {job.vmid}: {where} Failed to add {device} to {job.vmid}\n")
        raise Die(f"command 'lxc-device -n {job.vmid} add {device} {net['name']}' failed: exit code 1")


def unlock(job: Job) -> Steps:
    """``pct unlock``."""
    job.load()

    def body() -> Work:
        yield from job.took(0.02)
        conf = job.load()
        if conf.lock is None:
            raise Die("no lock found trying to remove any lock")
        del conf.values["lock"]
        job.save(conf)

    yield from job.locked(body)
    return 0

"""``qm``: its argv and what its words mean (pve-commands 7).

As with ``pct``: branch on exit zero or not and on the words, never on the number; and exit 0 is no proof.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from nexcage import names
from nexcage._core.command import Command, Result, nothing, shown
from nexcage._core.seen import Mark
from nexcage._core.spec import Net, Spec
from nexcage._core.vm import Vm
from nexcage.errors import (
    AlreadyExists,
    Blocked,
    Busy,
    CommandFailed,
    NexcageError,
    NodeNotUsable,
    NotFound,
    UnsupportedImage,
)
from nexcage.tools import config as _config
from nexcage.tools import pct
from nexcage.tools.pct.volumes import checked_digest

__all__ = [
    "Source",
    "classify",
    "create",
    "delsnapshot",
    "describe",
    "destroy",
    "ipconfig",
    "net",
    "power",
    "resize",
    "resume",
    "rollback",
    "shutdown",
    "snapshot",
    "source",
    "start",
    "stop",
    "suspend",
    "template",
    "template_disk",
    "unlock",
]

ROOM = 32
"""GiB of the empty disk beside an ISO image, where the spec says no size."""
_PLAIN = re.compile(r"[A-Za-z0-9_./+~@%:-]{1,255}")
_BOOTABLE = re.compile(r"(?:scsi|virtio|sata|ide)[0-9]+")
_WORDS = tuple(
    (re.compile(pattern, re.MULTILINE), meaning)
    for pattern, meaning in (
        (r"unable to create VM \d+: config file already exists", "taken"),
        (r"Configuration file 'nodes/([^/']+)/qemu-server/\d+\.conf' does not exist", "gone"),
        (r"unable to find configuration file for VM \d+ on node '([^']*)'", "gone"),
        (r"VM \d+ is (running) - destroy failed", "running"),
        (r"(linked clones? of base)|base volume '([^']*)' is still in use", "blocked"),
        (r"(you can't start a vm if it's a template)", "blocked"),
        (r"please run as root", "root"),
        (r"qm: (?:command )?not found|'?qm'?: No such file or directory|No such file or directory: '?qm\b", "missing"),
    )
)


def classify(command: Command[Any], result: Result, node: str) -> NexcageError:
    """The error for what ``qm`` said; CommandFailed with its own words when they mean nothing more precise."""
    said = shown(result.stderr)
    for pattern, meaning in _WORDS:
        if match := pattern.search(said):
            group = next((g for g in match.groups() if g), match[0])
            plain = CommandFailed(node, command.argv, result.exit or 0, said, shown(result.stdout))
            return _meaning(meaning, group, command, node).noted(str(plain))
    return _no_qm(node) if result.exit == 127 else pct.classify(command, result, node)


def _meaning(meaning: str, group: str, command: Command[Any], node: str) -> NexcageError:
    vmid = next((word for word in command.argv if word.isdigit()), "?")
    what = f"virtual machine {vmid} on {node}"
    match meaning:
        case "taken":
            return AlreadyExists("VMID", vmid)
        case "gone":
            return NotFound("virtual machine", vmid, f"is not on node {group}")
        case "running":
            return Busy(what, "it is running")
        case "blocked":
            return Blocked(what, group)
        case "root":
            return NodeNotUsable(node, "qm needs root; log in as root or allow `sudo -n` there")
        case _:
            return _no_qm(node)


def _no_qm(node: str) -> NodeNotUsable:
    return NodeNotUsable(
        node, "there is no `qm`: this is not a Proxmox VE node (try `nexcage sim up` for a simulated one)"
    )


def _command(*argv: str, timeout: float, stdin: bytes = b"", **more: Any) -> Command[None]:  # Any: Command's own fields
    return Command(("qm", *argv), nothing, stdin=stdin, cancel="term", timeout=timeout, classify=classify, **more)


# ---- making ------------------------------------------------------------------------------------------------------------


class Source(msgspec.Struct, frozen=True):
    """What a virtual machine is made from: ``import``, a disk that is copied, or ``cdrom``, an ISO image put in beside an empty disk."""

    kind: Literal["import", "cdrom"]
    volume: str


def source(image: names.ImageRef, disk: str = "") -> Source:
    """What ``image`` (of kind ``disk``) is to ``qm``; ``disk``: of ``vm:template/VMID``, the disk that it boots from.

    Raises UnsupportedImage for what would not stay in its place inside ``qm``'s comma lists.
    """
    volume = disk or image.path or f"{image.storage}:{image.name}"
    if not _PLAIN.fullmatch(volume):
        raise UnsupportedImage("image", volume, "letters, digits and _ . / + ~ @ % : - only, for a virtual machine")
    return Source("cdrom" if volume.endswith(".iso") else "import", volume)


def create(mark: Mark, made_from: Source, spec: Spec, name: str, *, held: bool = False) -> Command[None]:
    """``qm create``. Keys go through standard input, never argv. ``held``: with the lock of a create left on, for what is still to be
    done to it; until `unlock` it counts as half made.
    """
    vm, storage = spec.vm or Vm(), spec.storage or "local"
    argv = ["create", str(mark.vmid), "--name", name, "--memory", str(spec.memory)]
    if spec.cores is not None:
        argv += ["--cores", str(spec.cores)]
    if vm.cpu is not None:
        argv += ["--cpu", vm.cpu]
    argv += ["--ostype", vm.ostype, "--scsihw", "virtio-scsi-pci"]
    argv += _disks(made_from, storage, spec.size)
    for index, one in enumerate(spec.nets):
        argv += [f"--net{index}", net(one)]
    if made_from.kind == "import":
        argv += _cloud_init(vm, spec)
    if vm.agent:
        argv += ["--agent", "1"]
    if spec.onboot:
        argv += ["--onboot", "1"]
    argv += _besides(spec)
    description = f"{mark}\n{spec.description}" if spec.description else str(mark)
    argv += ["--tags", ";".join(sorted({"nexcage", *map(names.tag, spec.tags)})), "--description", description]
    if held:
        argv += ["--lock", "create"]
    keys = "".join(f"{key}\n" for key in spec.ssh_public_keys).encode()
    if keys:
        argv += ["--sshkeys", "/dev/stdin"]
    return _command(*argv, timeout=1800.0, stdin=keys, weight="create", tries={"vmid": mark.vmid})


def _disks(made_from: Source, storage: str, size: int | None) -> list[str]:
    if made_from.kind == "cdrom":
        disks = ["--scsi0", f"{storage}:{size or ROOM}", "--ide2", f"{made_from.volume},media=cdrom"]
        return [*disks, "--boot", "order=scsi0;ide2"]
    disks = ["--scsi0", f"{storage}:0,import-from={made_from.volume}", "--ide2", f"{storage}:cloudinit"]
    return [*disks, "--boot", "order=scsi0", "--serial0", "socket"]  # what cloud images print to


def _besides(spec: Spec) -> list[str]:
    """What a Spec may say besides what every virtual machine has."""
    argv = ["--cpulimit", _word(spec.cpulimit)] if spec.cpulimit is not None else []
    argv += ["--cpuunits", str(spec.cpuunits)] if spec.cpuunits is not None else []
    argv += ["--startup", spec.startup] if spec.startup else []
    argv += ["--hookscript", spec.hookscript] if spec.hookscript else []
    argv += ["--pool", spec.pool] if spec.pool else []
    return [*argv, "--protection", "1"] if spec.protection else argv


def _cloud_init(vm: Vm, spec: Spec) -> list[str]:
    argv = ["--ciuser", vm.user] if vm.user is not None else []
    argv += ["--nameserver", " ".join(spec.nameserver)] if spec.nameserver else []
    argv += ["--searchdomain", " ".join(spec.searchdomain)] if spec.searchdomain else []
    for index, one in enumerate(spec.nets):
        if text := ipconfig(one):
            argv += [f"--ipconfig{index}", text]
    return argv


def net(value: Net) -> str:
    """The card, as ``qm`` spells it: ``virtio=BC:24:11:00:00:01,bridge=vmbr0``. Its name and addresses are the guest's (`ipconfig`)."""
    parts = [f"virtio={value.hwaddr}" if value.hwaddr else "virtio"]
    for key in ("bridge", "firewall", "mtu", "rate", "tag"):
        given: str | float | None = getattr(value, key)
        if given is not None:
            parts.append(f"{key}={_word(given)}")
    return ",".join(parts)


def ipconfig(value: Net) -> str:
    """The addresses that cloud-init gives the card: ``ip=10.0.0.7/24,gw=10.0.0.1``; empty for none."""
    given = (("ip", value.ip), ("gw", value.gw), ("ip6", value.ip6), ("gw6", value.gw6))
    return ",".join(f"{key}={word}" for key, word in given if word not in (None, "manual"))


def _word(value: str | float) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return (
        f"{value:.6f}".rstrip("0").rstrip(".")
        if isinstance(value, float)
        else value
        if isinstance(value, str)
        else str(value)
    )


def describe(vmid: int, tags: str, description: str, *, digest: str) -> Command[None]:
    """Set its tags (joined by ;) and its notes, if its config still has this digest; raises Changed."""
    words = ("--tags", tags, "--description", description, "--digest", checked_digest(digest))
    return _command("set", str(names.vmid(vmid)), *words, timeout=120.0)


def resize(vmid: int, disk: str, size: str) -> Command[None]:
    """Let a disk grow to ``size`` (``20G``, ``2560M``), whatever lock is on. ``qm`` exits 0 although it failed."""
    return _command("disk", "resize", str(vmid), disk, size, "--skiplock", "1", timeout=300.0, check=_complained)


def _complained(command: Command[Any], result: Result, node: str) -> NexcageError | None:
    """The error of a command whose exit status says nothing; that a disk has the size already is none."""
    lines = shown(result.stderr).splitlines()
    said = [line for line in lines if line and not line.startswith(("WARN", "Task finished", "trying to acquire"))]
    if not said or any("already at specified size" in line for line in said):
        return None
    return classify(command, result, node)


def unlock(vmid: int) -> Command[None]:
    """Take the lock off its config."""
    return _command("unlock", str(vmid), timeout=60.0)


def template_disk(vmid: int) -> Command[str]:
    """The disk that a template boots from (``local-zfs:base-9000-disk-0``). Raises NotFound when it is not on the node, and
    UnsupportedImage when it is no template.
    """
    return Command(
        ("qm", "config", str(vmid), "--current", "1"),
        lambda result: _boot_disk(vmid, result),
        safe=True,
        weight="read",
        timeout=60.0,
        classify=classify,
    )


def _boot_disk(vmid: int, result: Result) -> str:
    values = _config.parse(result.stdout.decode("utf-8", "backslashreplace")).values
    if values.get("template") != "1":
        raise UnsupportedImage("image", f"vm:template/{vmid}", f"a template there; `qm template {vmid}` makes it one")
    order = values.get("boot", "").removeprefix("order=").split(";")
    for key in (*order, "scsi0", "virtio0", "sata0", "ide0"):
        volume, _, options = values.get(key, "").partition(",")
        if _BOOTABLE.fullmatch(key) and volume not in ("", "none", "cdrom") and "media=cdrom" not in options:
            return volume
    raise UnsupportedImage("image", f"vm:template/{vmid}", "one that has a disk to boot from")


# ---- its life ----------------------------------------------------------------------------------------------------------


def start(vmid: int) -> Command[None]:
    """Start it; returns when its kvm process runs."""
    return _command("start", str(vmid), timeout=300.0)


def shutdown(vmid: int, timeout: float) -> Command[None]:
    """Ask the guest (its agent, else by the power button) to power down, wait ``timeout`` seconds, then pull the plug."""
    seconds = max(1, round(timeout))
    return _command("shutdown", str(vmid), "--timeout", str(seconds), "--forceStop", "1", timeout=2.0 * seconds + 60.0)


def stop(vmid: int, *, overrule: bool = False) -> Command[None]:
    """Pull the plug; ``overrule`` ends a shutdown of it that is under way and holds the lock."""
    return _command("stop", str(vmid), *(("--overrule-shutdown", "1") if overrule else ()), timeout=120.0)


def power(vmid: int) -> Command[None]:
    """Press its power button and wait for nothing."""
    return _command("monitor", str(vmid), timeout=60.0, stdin=b"system_powerdown\nquit\n")


def suspend(vmid: int) -> Command[None]:
    """Pause its processors; it stays in memory."""
    return _command("suspend", str(vmid), timeout=60.0)


def resume(vmid: int) -> Command[None]:
    """Let them go on."""
    return _command("resume", str(vmid), timeout=60.0)


def snapshot(vmid: int, name: str, description: str = "") -> Command[None]:
    """Keep its disks and settings, not its memory."""
    options = ("--description", description) if description else ()
    return _command("snapshot", str(vmid), names.snapshot(name), *options, timeout=600.0)


def delsnapshot(vmid: int, name: str) -> Command[None]:
    """Remove one."""
    return _command("delsnapshot", str(vmid), names.snapshot(name), timeout=600.0)


def rollback(vmid: int, name: str) -> Command[None]:
    """Go back to one: a running machine is switched off and stays so."""
    return _command("rollback", str(vmid), names.snapshot(name), timeout=1200.0)


def template(vmid: int) -> Command[None]:
    """Make it a template, for ever. ``qm`` exits 0 although it failed."""
    return _command("template", str(vmid), timeout=300.0, check=_complained)


def destroy(vmid: int, *, purge: bool = False) -> Command[None]:
    """Remove it with its disks; it must not run."""
    return _command("destroy", str(vmid), *(("--purge", "1") if purge else ()), timeout=600.0)

"""Devices, network devices and the rules of the device cgroup on LXC."""

from __future__ import annotations

import re

from msgspec import UNSET

from nexcage._core.bundle import Device, DeviceRule, Linux
from nexcage._core.bundle.flaws import at
from nexcage._core.bundle_plan.draft import Draft

__all__ = ["DEFAULTS", "map_devices", "map_net_devices", "map_rules"]

DEFAULTS: dict[str, tuple[int, int]] = {
    "/dev/null": (1, 3),
    "/dev/zero": (1, 5),
    "/dev/full": (1, 7),
    "/dev/random": (1, 8),
    "/dev/urandom": (1, 9),
    "/dev/tty": (5, 0),
    "/dev/console": (5, 1),
    "/dev/ptmx": (5, 2),
}
_ALWAYS = ("c *:* m", "b *:* m", *(f"c {major}:{minor} rwm" for major, minor in DEFAULTS.values()), "c 136:* rwm")
_PATH = re.compile(r"/dev(?:/[A-Za-z0-9_.:+@-]+)+")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_FIRST_NET = 100  # PVE's own net0 to net31 are lxc.net.0 to lxc.net.31
_MOST = 256


def map_devices(draft: Draft, devices: tuple[Device, ...]) -> None:
    for index, device in enumerate(devices):
        pointer = f"/linux/devices/{index}"
        if DEFAULTS.get(device.path) == (device.major, device.minor) and device.type in "cu":
            _default(draft, pointer, device)
        else:
            _device(draft, pointer, device)


def _default(draft: Draft, pointer: str, device: Device) -> None:
    text = f"{device.path}, which LXC makes by itself"
    if device.file_mode in (UNSET, 0o666) and not device.uid and not device.gid:
        draft.apply(pointer, text)
    else:
        draft.near(pointer, text, "LXC makes it root's own, with mode 0666")


def _device(draft: Draft, pointer: str, device: Device) -> None:
    slot = sum(1 for key in draft.options if key.startswith("dev"))
    path, parts = device.path, device.path.split("/")
    if device.type == "p":
        draft.refuse(pointer, "PVE passes devices of the node only; it cannot make a FIFO")
    elif not _PATH.fullmatch(path) or "." in parts or ".." in parts:
        draft.refuse(pointer, "PVE passes devices below /dev only, by their path on the node")
    elif slot >= _MOST:
        draft.refuse(pointer, f"PVE takes {_MOST} devices")
    else:
        kind = "b" if device.type == "b" else "c"
        draft.need(pointer, "device", f"{kind} {path} {_number(device.major)} {_number(device.minor)}")
        how = (
            f"the node's own {path}; create looks whether it is {kind} {_number(device.major)}:{_number(device.minor)}"
        )
        draft.near(pointer, draft.option(f"dev{slot}", ",".join(_words(device))), how)


def _words(device: Device) -> list[str]:
    words = [device.path]
    if device.file_mode is not UNSET:
        words.append(f"mode=0{device.file_mode:03o}")
    for name, value in (("uid", device.uid), ("gid", device.gid)):
        if value is not UNSET:
            words.append(f"{name}={value}")
    return words


def _number(value: object) -> str:
    return str(value) if isinstance(value, int) else "-"


def map_net_devices(draft: Draft, linux: Linux) -> None:
    for slot, (host, device) in enumerate(linux.net_devices.items(), _FIRST_NET):
        pointer = at("/linux/netDevices", host)
        name = device.name or host
        if not _NAME.fullmatch(host) or not _NAME.fullmatch(name) or {host, name} & {".", ".."}:
            draft.refuse(pointer, "PVE and LXC take interface names of 1 to 15 of A-Za-z0-9_.-")
            continue
        draft.need(pointer, "interface", host)
        text = draft.line(f"lxc.net.{slot}.type", "phys")
        for key, value in (("link", host), ("name", name), ("flags", "up")):
            draft.line(f"lxc.net.{slot}.{key}", value)
        draft.near(pointer, f"{text}, link {host}, name {name}", "its addresses are not carried over: LXC sets none")


def map_rules(draft: Draft, rules: tuple[DeviceRule, ...]) -> None:
    """In order; after a denial the default devices are allowed again, as runc and crun do."""
    for index, rule in enumerate(rules):
        pointer = f"/linux/resources/devices/{index}"
        access = "rwm" if rule.access is UNSET else rule.access
        kind = rule.type or "a"
        if kind not in ("a", "b", "c") or not set(access) <= set("rwm"):
            draft.refuse(pointer, "the kernel knows the types a, b and c and the accesses r, w and m")
        elif not access:
            draft.refuse(pointer, "without a letter it means nothing to some runtimes and everything to others")
        else:
            key = f"lxc.cgroup2.devices.{'allow' if rule.allow else 'deny'}"
            texts = [draft.line(key, value) for value in _rule(rule, kind, access)]
            draft.apply(pointer, "; ".join(texts))
    if any(not rule.allow for rule in rules):
        for value in _ALWAYS:
            draft.line("lxc.cgroup2.devices.allow", value)


def _rule(rule: DeviceRule, kind: str, access: str) -> list[str]:
    major, minor = ("*" if value is UNSET or value < 0 else str(value) for value in (rule.major, rule.minor))
    if kind == "a" and (major, minor) == ("*", "*") and set(access) == set("rwm"):
        return ["a"]
    letters = "".join(letter for letter in "rwm" if letter in access)
    return [f"{one} {major}:{minor} {letters}" for one in (("c", "b") if kind == "a" else (kind,))]

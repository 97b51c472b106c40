"""``linux.resources`` of config.json on PVE: its own options where they are exact, cgroup v2 files where they are not."""

from __future__ import annotations

import re
from decimal import ROUND_UP, Decimal

from msgspec import UNSET

from nexcage._core.bundle import BlockIO, Cpu, Memory, Network, Resources
from nexcage._core.bundle.flaws import at
from nexcage._core.bundle.rules_resources import KERNEL_TIMES
from nexcage._core.bundle_plan.devices import map_rules
from nexcage._core.bundle_plan.draft import Draft
from nexcage._core.bundle_plan.weights import io_weight, weight
from nexcage._core.bundle_plan.words import clean, mebibytes, single

__all__ = ["map_resources"]

_BASE = "/linux/resources"
_LEAST = 16  # MiB, pct's own limit
_SWAP = 512  # MiB, what a create sends when nobody says anything
_PERIOD = 100_000  # microseconds; PVE's, and the kernel's default
_FILE = re.compile(r"[A-Za-z0-9_]+(?:\.[A-Za-z0-9_-]+)+")
_LIST = re.compile(r"[0-9]+(?:-[0-9]+)?(?:,[0-9]+(?:-[0-9]+)?)*")
_V1 = "it exists in version 1 of cgroups only, and PVE has version 2"


def map_resources(draft: Draft, resources: Resources) -> None:
    _memory(draft, resources.memory)
    _cpu(draft, resources.cpu)
    if resources.pids is not UNSET:
        limit = resources.pids.limit
        draft.set_line(f"{_BASE}/pids/limit", "lxc.cgroup2.pids.max", "max" if limit < 0 else str(limit))
    map_rules(draft, resources.devices)
    _block(draft, resources.block_io)
    for index, page in enumerate(resources.hugepage_limits):
        draft.set_line(f"{_BASE}/hugepageLimits/{index}", f"lxc.cgroup2.hugetlb.{page.page_size}.max", str(page.limit))
    _network(draft, resources.network)
    for name, limits in resources.rdma.items():
        pointer = at(f"{_BASE}/rdma", name)
        given = {"hca_handle": limits.hca_handles, "hca_object": limits.hca_objects}
        words = [f"{key}={value}" for key, value in given.items() if value is not UNSET]
        if not clean(name):
            draft.refuse(pointer, "the device's name cannot be written as one word of a line")
        elif not words:
            draft.apply(pointer, "nothing: no limit is named")
        else:
            draft.set_line(pointer, "lxc.cgroup2.rdma.max", " ".join((name, *words)))
    for name, value in resources.unified.items():
        _unified(draft, at(f"{_BASE}/unified", name), name, value)


def _unified(draft: Draft, pointer: str, name: str, value: str) -> None:
    if not _FILE.fullmatch(name) or name.startswith("cgroup."):
        draft.refuse(pointer, "it is not the name of a controller's file")
    elif not _spelled(name, value):
        draft.refuse(pointer, "the value cannot be written as one line")
    else:
        for line in value.split("\n")[1:]:
            draft.line(f"lxc.cgroup2.{name}", line)
        draft.set_line(pointer, f"lxc.cgroup2.{name}", value.partition("\n")[0])


def _spelled(name: str, value: str) -> bool:
    """Files of devices take a line for each, so LXC may write them one by one."""
    lines = value.split("\n") if name.startswith(("io.", "rdma.")) else [value]
    return all(line and single(line) for line in lines)


def _memory(draft: Draft, memory: Memory) -> None:
    base = f"{_BASE}/memory"
    if memory.limit is not UNSET:
        _limit(draft, f"{base}/limit", memory.limit, swapless=not memory.swap)
    if memory.swap is not UNSET:
        _swap(draft, f"{base}/swap", memory.swap, memory.limit if memory.limit is not UNSET else 0)
    if memory.reservation is not UNSET:
        low = "max" if memory.reservation < 0 else str(memory.reservation)
        draft.set_line(f"{base}/reservation", "lxc.cgroup2.memory.low", low)
    for name, value in (("kernel", memory.kernel), ("kernelTCP", memory.kernel_tcp)):
        if value is not UNSET and value < 0:
            draft.apply(f"{base}/{name}", "nothing: there is no limit of its own")
        elif value is not UNSET:
            draft.refuse(f"{base}/{name}", _V1)
    if memory.swappiness is not UNSET:
        draft.refuse(f"{base}/swappiness", _V1)
    _switches(draft, memory, base)


def _switches(draft: Draft, memory: Memory, base: str) -> None:
    if memory.disable_oom_killer is True:
        draft.refuse(f"{base}/disableOOMKiller", _V1)
    elif memory.disable_oom_killer is False:
        draft.apply(f"{base}/disableOOMKiller", "the default")
    if memory.use_hierarchy is True:
        draft.apply(f"{base}/useHierarchy", "the only way of cgroup v2")
    elif memory.use_hierarchy is False:
        draft.near(f"{base}/useHierarchy", "cgroup v2", "there it is always hierarchical")
    if memory.check_before_update is True:
        draft.near(f"{base}/checkBeforeUpdate", "nothing at create", "an update does not look at what is in use first")
    elif memory.check_before_update is False:
        draft.apply(f"{base}/checkBeforeUpdate", "the default")


def _limit(draft: Draft, pointer: str, limit: int, *, swapless: bool) -> None:
    """``swapless``: the document sets no bound to swap."""
    if limit < 0:
        draft.line("lxc.cgroup2.memory.max", "max")
        how = "pct shows its default for `memory`; the lines in the file win at start"
        draft.near(pointer, draft.line("lxc.cgroup2.memory.high", "max"), how)
    elif limit == 0:
        draft.apply(pointer, "nothing: 0 asks for no limit")
    else:
        size = max(_LEAST, mebibytes(limit))
        rounded = "" if size << 20 == limit else f"{limit} bytes become {size} MiB; "
        told = rounded + "PVE throttles at 99.2 % of it (memory.high)"
        if swapless:
            told += f"; beside it swap: {_SWAP} MiB, nexcage's default, unless --swap says otherwise"
        draft.near(pointer, draft.option("memory", str(size)), told)


def _swap(draft: Draft, pointer: str, swap: int, limit: int) -> None:
    """``swap`` is memory plus swap; PVE's option is the difference."""
    if swap < 0:
        draft.set_line(pointer, "lxc.cgroup2.memory.swap.max", "max")
    elif swap == 0:
        draft.apply(pointer, "nothing: 0 asks for no limit")
    elif limit <= 0:
        draft.refuse(pointer, "it is memory plus swap, and memory.limit is not given")
    elif swap < limit:
        draft.refuse(pointer, "it is memory plus swap, and less than memory.limit")
    else:
        room = swap - limit
        text = draft.option("swap", str(mebibytes(room)))
        if room % (1 << 20):
            draft.near(pointer, text, f"{room} bytes become {mebibytes(room)} MiB")
        else:
            draft.apply(pointer, text)


def _cpu(draft: Draft, cpu: Cpu) -> None:
    base = f"{_BASE}/cpu"
    if cpu.shares:
        how = "cgroup v2 has weights; the formula is that of runc 1.3.2 and crun 1.23"
        draft.near(f"{base}/shares", draft.option("cpuunits", str(weight(cpu.shares))), how)
    elif cpu.shares is not UNSET:
        draft.apply(f"{base}/shares", "nothing: 0 asks for the default")
    _bandwidth(draft, cpu, base)
    for name, value in (("realtimeRuntime", cpu.realtime_runtime), ("realtimePeriod", cpu.realtime_period)):
        if value is not UNSET:
            draft.refuse(f"{base}/{name}", _V1)
    for name, text in (("cpus", cpu.cpus), ("mems", cpu.mems)):
        if text is not UNSET:
            _set_of(draft, f"{base}/{name}", f"lxc.cgroup2.cpuset.{name}", "".join(text.split()))
    if cpu.idle is not UNSET:
        if cpu.idle in (0, 1):
            draft.set_line(f"{base}/idle", "lxc.cgroup2.cpu.idle", str(cpu.idle))
        else:
            draft.refuse(f"{base}/idle", "the kernel takes 0 and 1")


def _set_of(draft: Draft, pointer: str, key: str, value: str) -> None:
    if not value:
        draft.apply(pointer, "nothing: the list is empty")
    elif _LIST.fullmatch(value):
        draft.set_line(pointer, key, value)
    else:
        draft.refuse(pointer, "it is not a list of numbers and ranges such as 0-3,7")


def _bandwidth(draft: Draft, cpu: Cpu, base: str) -> None:
    period = cpu.period or _PERIOD
    if cpu.quota is not UNSET and 0 < cpu.quota < KERNEL_TIMES[0]:
        draft.refuse(f"{base}/quota", f"the kernel takes no less than {KERNEL_TIMES[0]} microseconds")
    elif cpu.quota is not UNSET and cpu.quota > 0 and not KERNEL_TIMES[0] <= period <= KERNEL_TIMES[1]:
        draft.refuse(f"{base}/quota", "the kernel does not take its period")
    elif cpu.quota is not UNSET and cpu.quota > 0:
        share = Decimal(cpu.quota) / Decimal(period)
        text = draft.option(
            "cpulimit", f"{max(share.quantize(Decimal('0.00001'), ROUND_UP).normalize(), Decimal('0.01')):f}"
        )
        if share > 8192:
            draft.refuse(f"{base}/quota", "PVE takes at most 8192 processors")
            draft.options.pop("cpulimit")
        else:
            if period != _PERIOD or share < Decimal("0.01"):
                text += " and " + draft.line("lxc.cgroup2.cpu.max", f"{cpu.quota} {period}")
            draft.apply(f"{base}/quota", text)
    elif cpu.quota is not UNSET:
        draft.apply(f"{base}/quota", draft.option("cpulimit", "0") if cpu.quota < 0 else "nothing: 0 asks for no limit")
    if cpu.period is not UNSET:
        limited = "cpulimit" in draft.options and cpu.quota
        draft.apply(f"{base}/period", "cpulimit and lxc.cgroup2.cpu.max" if limited else "nothing: there is no quota")
    if cpu.burst is not UNSET:
        draft.set_line(f"{base}/burst", "lxc.cgroup2.cpu.max.burst", str(cpu.burst))


def _block(draft: Draft, block: BlockIO) -> None:
    base = f"{_BASE}/blockIO"
    numbers = "the numbers are those of the node's devices"
    if block.weight:
        how = "scaled from 10..1000 to cgroup v2's 1..10000"
        draft.set_line(f"{base}/weight", "lxc.cgroup2.io.weight", f"default {io_weight(block.weight)}", how)
    elif block.weight is not UNSET:
        draft.apply(f"{base}/weight", "nothing: 0 asks for the default")
    if block.leaf_weight is not UNSET:
        draft.refuse(f"{base}/leafWeight", _V1)
    for index, device in enumerate(block.weight_device):
        pointer = f"{base}/weightDevice/{index}"
        value = f"{device.major}:{device.minor} {io_weight(device.weight or 0)}"
        places = [f"{pointer}/major", f"{pointer}/minor"] if device.leaf_weight is not UNSET else [pointer]
        if device.leaf_weight is not UNSET:
            draft.refuse(f"{pointer}/leafWeight", _V1)
            places += [f"{pointer}/weight"] if device.weight is not UNSET else []
        text = draft.line("lxc.cgroup2.io.weight", value) if device.weight else "nothing: no weight is given"
        for place in places:
            draft.near(place, text, numbers)
    throttles = {
        ("throttleReadBpsDevice", "rbps"): block.throttle_read_bps_device,
        ("throttleWriteBpsDevice", "wbps"): block.throttle_write_bps_device,
        ("throttleReadIOPSDevice", "riops"): block.throttle_read_iops_device,
        ("throttleWriteIOPSDevice", "wiops"): block.throttle_write_iops_device,
    }
    for (name, word), devices in throttles.items():
        for index, one in enumerate(devices):
            value = f"{one.major}:{one.minor} {word}={one.rate or 'max'}"
            draft.set_line(f"{base}/{name}/{index}", "lxc.cgroup2.io.max", value, numbers)


def _network(draft: Draft, network: Network) -> None:
    if network.class_id is not UNSET:
        draft.refuse(f"{_BASE}/network/classID", _V1)
    for index in range(len(network.priorities)):
        draft.refuse(f"{_BASE}/network/priorities/{index}", _V1)

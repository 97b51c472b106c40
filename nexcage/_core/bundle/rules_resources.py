"""Rules for ``linux.resources`` of config.json that its schema does not have."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import UNSET

from nexcage._core.bundle.flaws import Flaw, at
from nexcage._core.bundle.resources import BlockIO, Cpu, DeviceRule, Memory, Network, Rdma, Resources
from nexcage._core.bundle.shapes import not_cpus, unknown_words
from nexcage.errors import escaped

__all__ = ["KERNEL_TIMES", "resource_flaws"]

_AT = "/linux/resources"
KERNEL_TIMES = _SHORTEST, _LONGEST = 1000, 1_000_000
"""Microseconds that the kernel's scheduler takes as a quota at least, and as a period."""


def resource_flaws(given: Resources) -> Iterator[Flaw]:
    """``linux.resources`` of a document, also of one that changes a running container."""
    for index, rule in enumerate(given.devices):
        yield from _device(rule, at(_AT, "devices", index))
    yield from _memory(given.memory)
    yield from _cpu(given.cpu)
    if given.pids and given.pids.limit < -1:
        yield Flaw(at(_AT, "pids", "limit"), "is less than -1, which means without a limit", legal=True)
    yield from _block_io(given.block_io)
    yield from _network(given.network)
    for name, limits in given.rdma.items():
        yield from _rdma(limits, at(_AT, "rdma", name))
    for name in given.unified:
        if not name or "/" in name or name in (".", ".."):
            yield Flaw(at(_AT, "unified", name), f"{escaped(name)} is not the name of a file of a cgroup")


def _device(rule: DeviceRule, pointer: str) -> Iterator[Flaw]:
    if rule.type is not UNSET and rule.type not in ("", "a", "b", "c"):
        yield Flaw(at(pointer, "type"), f"{escaped(rule.type)} is none of a, b, c")
    if rule.access is not UNSET and unknown_words(rule.access, "rwm"):
        yield Flaw(at(pointer, "access"), f"{escaped(rule.access)} is not made of r, w and m")
    for name, number in (("major", rule.major), ("minor", rule.minor)):
        if isinstance(number, int) and number < -1:
            yield Flaw(at(pointer, name), "is less than -1, which means every one")


def _memory(given: Memory) -> Iterator[Flaw]:
    pointer = at(_AT, "memory")
    sizes = {
        "limit": given.limit,
        "reservation": given.reservation,
        "swap": given.swap,
        "kernel": given.kernel,
        "kernelTCP": given.kernel_tcp,
    }
    for name, size in sizes.items():
        if isinstance(size, int) and size < -1:
            yield Flaw(at(pointer, name), "is less than -1, which means without a limit")
    limit, swap = given.limit or 0, given.swap or 0
    if swap > 0 and limit <= 0:
        yield Flaw(at(pointer, "swap"), "needs a memory limit: it is memory and swap together", legal=True)
    elif 0 < swap < limit:
        yield Flaw(at(pointer, "swap"), "is less than the memory limit: it is memory and swap together")
    if 0 < limit < (given.reservation or 0):
        yield Flaw(at(pointer, "reservation"), "is more than the memory limit", fatal=False)
    if given.swappiness and given.swappiness > 100:
        yield Flaw(at(pointer, "swappiness"), "is not between 0 and 100")


def _cpu(given: Cpu) -> Iterator[Flaw]:
    pointer = at(_AT, "cpu")
    for name, text in (("cpus", given.cpus), ("mems", given.mems)):
        if text and (reason := not_cpus(text)):
            yield Flaw(at(pointer, name), reason)
    if given.idle not in (UNSET, 0, 1):
        yield Flaw(at(pointer, "idle"), "is neither 0 nor 1")
    quota, burst = given.quota or 0, given.burst or 0
    if 0 < quota < burst:
        yield Flaw(at(pointer, "burst"), "is more than the quota")
    if 0 < quota < _SHORTEST:
        yield Flaw(at(pointer, "quota"), f"is less than {_SHORTEST}, the shortest time of the kernel", legal=True)
    if quota > 0 and given.period and not _SHORTEST <= given.period <= _LONGEST:
        yield Flaw(at(pointer, "period"), f"is not between {_SHORTEST} and {_LONGEST}", legal=True)


def _block_io(given: BlockIO) -> Iterator[Flaw]:
    pointer = at(_AT, "blockIO")
    for index, device in enumerate(given.weight_device):
        if device.weight is UNSET and device.leaf_weight is UNSET:
            yield Flaw(at(pointer, "weightDevice", index), "needs weight or leafWeight")
    throttles = {
        "throttleReadBpsDevice": given.throttle_read_bps_device,
        "throttleWriteBpsDevice": given.throttle_write_bps_device,
        "throttleReadIOPSDevice": given.throttle_read_iops_device,
        "throttleWriteIOPSDevice": given.throttle_write_iops_device,
    }
    for name, devices in throttles.items():
        for index, throttle in enumerate(devices):
            if throttle.rate is UNSET:
                yield Flaw(at(pointer, name, index, "rate"), "is required")


def _network(given: Network) -> Iterator[Flaw]:
    for index, one in enumerate(given.priorities):
        if not one.name:
            yield Flaw(at(_AT, "network", "priorities", index, "name"), "must not be empty")


def _rdma(limits: Rdma, pointer: str) -> Iterator[Flaw]:
    if limits.hca_handles is UNSET and limits.hca_objects is UNSET:
        yield Flaw(pointer, "needs hcaHandles or hcaObjects")

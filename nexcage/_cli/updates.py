"""The options of ``nexcage update``: ours, and those that ``runc update`` has."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from nexcage import Intent, InvalidInput, Net, Update
from nexcage._cli.dialects import mebibytes, number, tags
from nexcage._cli.oci_resources import fields_of, read_resources, refuse_others, weight
from nexcage._cli.parser import Call
from nexcage._cli.streams import Streams

__all__ = ["change"]

_PERIOD = 100_000  # microseconds that --cpu-quota is a part of, unless said otherwise


def change(call: Call, streams: Streams) -> Callable[[str, str | None], Intent]:
    """What makes the intent for a container; raises InvalidInput for an option that cannot be."""
    refuse_others(call)
    path = call.text("resources")
    # As with the runtimes, a document is all that is said.
    fields = _fields(call) if path is None else fields_of(read_resources(path, streams))
    if not any(value not in (None, "") for key, value in fields.items() if key != "digest"):
        raise call.usage("what is to be changed?", "nexcage help update")
    return lambda id, key: Update(id, op_id=key, **fields)


def _fields(call: Call) -> dict[str, Any]:  # Any: the keywords of Update
    fields: dict[str, Any] = {}
    memory = _memory(call, "memory")
    if memory is not None:
        fields["memory"] = memory
    if (swap := call.text("swap")) is not None:
        fields["swap"] = mebibytes("swap", swap)
    if (both := _memory(call, "memory_swap")) is not None:
        if memory is None or both < memory:
            raise InvalidInput(
                "memory-swap", both, "at least --memory, and given with it: it is the sum of memory and swap"
            )
        fields["swap"] = both - memory
    for key in ("cores", "cpuunits"):
        if (given := call.text(key)) is not None:
            fields[key] = number(key, given)
    fields |= _cpu(call)
    for key in ("hostname", "description", "digest"):
        if (given := call.text(key)) is not None:
            fields[key] = given
    for key in ("onboot", "protection"):
        if call.flag(key) or call.flag(f"no_{key}"):
            fields[key] = call.flag(key)
    if found := tags(call):
        fields["tags"] = found
    if nets := call.many("net"):
        fields["nets"] = {key: Net.parse(value) for key, value in map(_keyed, nets)}
    if mounts := call.many("mount"):
        fields["mounts"] = dict(map(_keyed, mounts))
    if unset := call.many("unset"):
        fields["unset"] = tuple(key for given in unset for key in re.split("[;,]", given))
    return fields


def _memory(call: Call, key: str) -> int | None:
    """MiB; an OCI engine gives bytes."""
    given = call.text(key)
    if given is None:
        return None
    if call.oci and given.isascii() and given.isdigit():
        return -(-int(given) // (1 << 20))
    return mebibytes(key, given)


def _cpu(call: Call) -> dict[str, Any]:  # Any: the keywords of Update
    fields: dict[str, Any] = {}
    if (limit := call.text("cpulimit")) is not None:
        if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,6})?", limit):
            raise InvalidInput("cpulimit", limit, "a number of cores such as 1.5, 0 for no limit")
        fields["cpulimit"] = float(limit)
    if (quota := call.text("cpu_quota")) is not None:
        period = number("cpu-period", call.text("cpu_period") or str(_PERIOD))
        fields["cpulimit"] = 0.0 if quota == "-1" else number("cpu-quota", quota) / (period or _PERIOD)
    if (shares := call.text("cpu_share")) is not None:
        fields["cpuunits"] = weight(number("cpu-share", shares))
    return fields


def _keyed(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput("update", text, "KEY=VALUE: net0=name=eth0,bridge=vmbr0,ip=dhcp or mp0=local-zfs:8,mp=/data")
    return key, value

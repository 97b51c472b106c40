"""``update`` as the OCI runtimes take it, for containers that no runtime of this machine has: limits as settings of the container.

Everything that was said is set or refused; nothing is dropped in silence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from nexcage import InvalidInput, InvalidPath
from nexcage._cli.parser import Call

if TYPE_CHECKING:
    from nexcage._cli.streams import Streams

__all__ = ["fields_of", "read_resources", "read_text", "refuse_others", "weight"]

Json = dict[str, Any]  # Any: whatever JSON can say

_MIB = 1 << 20
_KNOWN = {"memory": ("limit", "swap"), "cpu": ("shares", "quota", "period")}
_CANNOT = (
    *("memory_reservation", "cpuset_cpus", "cpuset_mems", "cpu_rt_period", "cpu_rt_runtime", "pids_limit"),
    *("blkio_weight", "kernel_memory", "kernel_memory_tcp", "l3_cache_schema", "mem_bw_schema"),
)


def refuse_others(call: Call) -> None:
    """Raise for the options that only a runtime has."""
    given = [name for name in _CANNOT if call.given(name)]
    if given:
        flag = given[0].replace("_", "-")
        raise InvalidInput(flag, call.text(given[0]), "only with crun or runc on this machine")
    if call.given("resources") and not call.oci:
        raise call.usage("--resources is an OCI runtime's: it goes with --root, --log or --systemd-cgroup")


def read_text(path: str, streams: Streams) -> str:
    """The document as it is written; ``-`` is standard input."""
    try:
        return streams.document(path)
    except OSError as error:
        raise InvalidPath("resources", path, f"a readable file ({error.strerror})") from None
    except ValueError as error:
        raise InvalidInput("resources", path, f"a document with resources ({error})") from None


def read_resources(path: str, streams: Streams) -> Json:
    """The document; ``-`` is standard input."""
    text = read_text(path, streams)
    try:
        return msgspec.json.decode(text, type=Json)
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise InvalidInput("resources", path, f"a document with resources ({error})") from None


def fields_of(document: Json) -> Json:
    """The keywords of Update. What is 0, -1 for no limit or absent is left as the runtimes read it."""
    for section, value in document.items():
        entries: Json = value if isinstance(value, dict) else {"": value}  # pyright: ignore[reportUnknownVariableType]
        for key, amount in entries.items():
            if amount and key not in _KNOWN.get(section, ()):
                raise InvalidInput(
                    f"resources.{section}.{key}".rstrip("."), amount, "only with crun or runc on this machine"
                )
    memory: Json = document.get("memory") or {}
    cpu: Json = document.get("cpu") or {}
    fields: Json = {}
    limit, both = _whole(memory, "memory", "limit"), _whole(memory, "memory", "swap")
    if limit:
        if limit < 0:
            raise InvalidInput("resources.memory.limit", limit, "a limit: there is none for no limit here")
        fields["memory"] = -(-limit // _MIB)
    if both:
        if not limit or both < limit:
            raise InvalidInput(
                "resources.memory.swap", both, "at least memory.limit, and given with it: it is the sum of both"
            )
        fields["swap"] = -(-both // _MIB) - fields["memory"]
    if quota := _whole(cpu, "cpu", "quota"):
        fields["cpulimit"] = max(0, quota) / (_whole(cpu, "cpu", "period") or 100_000)
    if shares := _whole(cpu, "cpu", "shares"):
        fields["cpuunits"] = weight(shares)
    return fields


def weight(shares: int) -> int:
    """The weight of a cgroup v2 (1 to 10000) for shares (2 to 262144)."""
    return max(1, 1 + (min(max(2, shares), 262_144) - 2) * 9999 // 262_142)


def _whole(section: Json, name: str, key: str) -> int:
    value = section.get(key) or 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(f"resources.{name}.{key}", value, "a whole number")
    return value

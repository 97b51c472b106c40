"""What containers use, from the files of their cgroups (v2, and v1 where a node still has it), and their processes. Nothing is started
in a container for it, and one command answers for all containers of a node.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from nexcage._core.command import Command, Result
from nexcage._core.inside import Process, Stats
from nexcage._core.seen import Mark
from nexcage.tools.attach import refused

__all__ = ["PROCESSES", "SHOWN", "USAGE", "processes", "running", "usage", "used"]

USAGE = r"""R=${NEXCAGE_NODE_ROOT-}
exec 2>/dev/null
echo '@nexcage uptime'; cat /proc/uptime
echo '@nexcage files'
cd "$R/sys/fs/cgroup/lxc" && {
  grep -Hs '' [0-9]*/memory.current [0-9]*/memory.max [0-9]*/memory.swap.current [0-9]*/io.stat [0-9]*/pids.current
  grep -Hs '^usage_usec ' [0-9]*/cpu.stat
  grep -Hs '^inactive_file ' [0-9]*/memory.stat
}
cd "$R/sys/fs/cgroup/memory/lxc" && {
  grep -Hs '' [0-9]*/memory.usage_in_bytes [0-9]*/memory.limit_in_bytes [0-9]*/memory.memsw.usage_in_bytes
  grep -Hs '^total_inactive_file ' [0-9]*/memory.stat
}
cd "$R/sys/fs/cgroup/cpuacct/lxc" && grep -Hs '' [0-9]*/cpuacct.usage
cd "$R/sys/fs/cgroup/blkio/lxc" && grep -HsE ' (Read|Write) ' [0-9]*/blkio.throttle.io_service_bytes
cd "$R/sys/fs/cgroup/pids/lxc" && grep -Hs '' [0-9]*/pids.current
echo '@nexcage end'
"""

SHOWN = r"""cd "$R/proc" || exit
echo '@nexcage status'; printf '%s/status\n' $pids | xargs -r grep -aHsE '^(Name|State|PPid|Uid|VmRSS|NSpid):'
echo '@nexcage stat'; printf '%s/stat\n' $pids | xargs -r grep -aHs ''
echo '@nexcage end'
printf '%s/cmdline\n' $pids | xargs -r grep -azHs ''
exit 0
"""
"""The end of a script: what `running` reads of the processes ``$pids``."""

PROCESSES = (
    r"""R=${NEXCAGE_NODE_ROOT-}
sed '/^\[/q' "$R/etc/pve/lxc/$2.conf" 2>/dev/null | grep -qxF -e "#$1" || {
  echo 'nexcage: the container does not carry our mark' >&2
  exit 9
}
exec 2>/dev/null
set -- "$R/sys/fs/cgroup/lxc/$2" "$R/sys/fs/cgroup/pids/lxc/$2" "$R/sys/fs/cgroup/memory/lxc/$2"
pids=$(find "$@" -name cgroup.procs -exec cat {} + | sort -nu)
"""
    + SHOWN
)

_LINE = re.compile(rb"^([1-9][0-9]{2,8})/([a-z_.]+):(.*)$", re.MULTILINE)
_OF_PROCESS = re.compile(rb"^([0-9]{1,10})/(status|stat):(.*)$", re.MULTILINE)
_TICKS = 100
_UNLIMITED = 1 << 60  # v1 says "no limit" as the largest multiple of a page


def usage() -> Command[dict[int, Stats]]:
    """What every running container of the node uses, by VMID."""
    return Command(("sh", "-c", USAGE, "usage"), used, safe=True, weight="read", timeout=30.0, cap=64 << 20)


def processes(mark: Mark) -> Command[tuple[Process, ...]]:
    """The processes of one container, by their pids; raises NotOurs."""
    return Command(
        ("sh", "-c", PROCESSES, "processes", str(mark), str(mark.vmid)),
        running,
        safe=True,
        weight="read",
        timeout=30.0,
        cap=64 << 20,
        classify=lambda _, result, node: refused(mark, result, node),
    )


# ---- usage -----------------------------------------------------------------------------------------------------------------


def used(result: Result) -> dict[int, Stats]:
    """The answer of `USAGE`, by number."""
    head, end, _ = result.stdout.rpartition(b"@nexcage end\n")
    before, marker, files = head.partition(b"@nexcage files\n")
    if not (end and marker) or result.dropped:
        raise ValueError("the answer about what containers use is not complete")
    uptime = before.partition(b"@nexcage uptime\n")[2].split()[:1]
    at = float(uptime[0]) if uptime and re.fullmatch(rb"[0-9]{1,12}(\.[0-9]+)?", uptime[0]) else 0.0
    found: dict[int, dict[str, list[bytes]]] = {}
    for vmid, name, text in _LINE.findall(files):
        found.setdefault(int(vmid), {}).setdefault(name.decode(), []).append(text)
    return {vmid: _stats(vmid, at, files) for vmid, files in found.items()}


def _stats(vmid: int, at: float, files: Mapping[str, list[bytes]]) -> Stats:
    def first(*names: str) -> int:
        for name in names:
            for text in files.get(name, ())[:1]:
                return _number(text.split()[-1] if text.split() else b"")
        return 0

    memory = first("memory.current", "memory.usage_in_bytes")
    limit = first("memory.max", "memory.limit_in_bytes")
    swap = first("memory.swap.current")
    if "memory.memsw.usage_in_bytes" in files:
        swap = max(0, first("memory.memsw.usage_in_bytes") - memory)
    read, written = _transferred(files)
    return Stats(
        vmid=vmid,
        at=at,
        cpu=first("cpu.stat") / 1e6 if "cpu.stat" in files else first("cpuacct.usage") / 1e9,
        memory=max(0, memory - first("memory.stat")),
        memory_limit=0 if limit >= _UNLIMITED else limit,
        swap=swap,
        read=read,
        written=written,
        pids=first("pids.current"),
    )


def _transferred(files: Mapping[str, list[bytes]]) -> tuple[int, int]:
    """Bytes that were read from and written to all block devices."""
    lines = b"\n".join(files.get("io.stat", ()))
    read = sum(map(_number, re.findall(rb"\brbytes=([0-9]+)", lines)))
    written = sum(map(_number, re.findall(rb"\bwbytes=([0-9]+)", lines)))
    old = b"\n".join(files.get("blkio.throttle.io_service_bytes", ()))
    read += sum(map(_number, re.findall(rb" Read ([0-9]+)", old)))
    return read, written + sum(map(_number, re.findall(rb" Write ([0-9]+)", old)))


def _number(word: bytes) -> int:
    return int(word) if word.isdigit() and len(word) < 20 else 0  # "max" is no limit


# ---- processes -------------------------------------------------------------------------------------------------------------


def running(result: Result) -> tuple[Process, ...]:
    """The answer of `PROCESSES`."""
    head, end, tail = result.stdout.partition(
        b"\n@nexcage end\n"
    )  # a line of its own: names of processes hold anything
    if not end or result.dropped:
        raise ValueError("the list of processes is not complete")
    status: dict[int, dict[bytes, bytes]] = {}
    stat: dict[int, bytes] = {}
    for pid, kind, text in _OF_PROCESS.findall(head):
        if kind == b"stat":
            stat[int(pid)] = stat.get(int(pid), b"") + text  # a name may hold a line break
        else:
            key, _, value = text.partition(b":")
            status.setdefault(int(pid), {})[key] = value.strip()
    argv = dict(_arguments(tail))
    found = (_process(pid, status[pid], stat.get(pid, b""), argv.get(pid, ())) for pid in sorted(status))
    return tuple(found)


def _arguments(data: bytes) -> Iterator[tuple[int, tuple[str, ...]]]:
    words: dict[int, list[str]] = {}
    for record in data.split(b"\0"):
        place, marker, word = record.partition(b"/cmdline:")
        if marker and place.isdigit() and len(place) < 11:
            words.setdefault(int(place), []).append(word.decode("utf-8", "surrogateescape"))
    for pid, found in words.items():
        yield pid, tuple(found)


def _process(pid: int, status: Mapping[bytes, bytes], stat: bytes, argv: tuple[str, ...]) -> Process:
    def number(key: bytes, at: int = 0) -> int:
        fields = status.get(key, b"").split()
        return _number(fields[at]) if -len(fields) <= at < len(fields) else 0

    fields = stat.rpartition(b") ")[2].split()  # from the third field of proc(5) on
    ticks = [_number(field) for field in fields] if len(fields) > 19 else [0] * 20
    return Process(
        pid=pid,
        inner=number(b"NSpid", -1) or pid,
        parent=number(b"PPid"),
        name=status.get(b"Name", b"").decode("utf-8", "backslashreplace"),
        uid=number(b"Uid"),
        state=status.get(b"State", b"").decode("ascii", "replace")[:1],
        memory=number(b"VmRSS") * 1024,
        seconds=(ticks[11] + ticks[12]) / _TICKS,
        started=ticks[19] / _TICKS,
        argv=argv,
    )

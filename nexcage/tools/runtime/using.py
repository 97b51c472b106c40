r"""What containers of ``crun`` and ``runc`` run and use: their processes, and the files of their cgroups (v1 and v2).

Nothing is started in a container for it, and one command answers for all containers of a node.
"""

from __future__ import annotations

import re

import msgspec

from nexcage._core.command import Command, Result
from nexcage._core.inside import Process, Stats
from nexcage._core.seen import Mark
from nexcage.tools import cgroup
from nexcage.tools.runtime.call import OURS, PLACES, RUN, Runtime
from nexcage.tools.runtime.words import classify

__all__ = ["PROCESSES", "USAGE", "processes", "usage"]

PROCESSES = (
    PLACES
    + OURS
    + RUN
    + r"""said=$(call ps --format json "$id" 2> /dev/null)
rm -f "$log"
exec 2>/dev/null
pids=$(printf '%s\n' "$said" | tr -cs 0-9 '\n')
"""
    + cgroup.SHOWN
)

# The init's own cgroups, and only those that its runtime says that it made: a pid may have been given away again.
USAGE = r"""R=${NEXCAGE_NODE_ROOT-}
exec 2>/dev/null
echo '@nexcage uptime'; cat /proc/uptime
echo '@nexcage dirs'
places() {
  for kept in "$R"/var/lib/nexcage-oci/*/*; do
    m= r= p=
    { IFS= read -r m; IFS= read -r r; } < "$kept/mark" && read -r p < "$kept/pid"
    case $p in ''|*[!0-9]*) [ -s "$kept/pid" ] || continue; p=$(cat "$kept/pid") ;; esac
    case $p in ''|*[!0-9]*) continue ;; esac
    n=${m#* vmid=} n=${n%% *} fleet=${kept%/*}
    root=$R/run/nexcage-oci/${fleet##*/}/$r/${kept##*/}
    while IFS=: read -r _ c d; do
      case $c in
        '') for h in "$R/sys/fs/cgroup" "$R/sys/fs/cgroup/unified"; do [ -e "$h/cgroup.procs" ] && break; done ;;
        name=*) continue ;;
        *) h=$R/sys/fs/cgroup/$c ;;
      esac
      [ "${#d}" -gt 1 ] && grep -qsF -e "$d" "$root/state.json" "$root/status" && echo "$n $h$d"
    done < "$R/proc/$p/cgroup"
  done
}
all=$(places)
printf '%s\n' "$all"
echo '@nexcage files'
printf '%s\n' "$all" | while read -r _ d; do
  for f in memory.current memory.max memory.swap.current io.stat pids.current cpu.stat memory.stat memory.usage_in_bytes \
    memory.limit_in_bytes memory.memsw.usage_in_bytes cpuacct.usage blkio.throttle.io_service_bytes; do
    printf '%s/%s\0' "$d" "$f"
  done
done | xargs -0r grep -aHsZ ''
echo '@nexcage end'
"""

_DIRECTORY = re.compile(rb"^([0-9]{1,10}) (/.*)$", re.MULTILINE)
_FILE = re.compile(rb"^(/[^\0\n]*)/([a-z_.]+)\0(.*)$", re.MULTILINE)
_KEPT = {b"cpu.stat": (b"usage_usec ",), b"memory.stat": (b"inactive_file ", b"total_inactive_file ")}


def processes(runtime: Runtime, mark: Mark) -> Command[tuple[Process, ...]]:
    """Its processes, by their pids; raises NotOurs."""
    argv = ("sh", "-c", PROCESSES, "nexcage", str(mark), runtime.program, runtime.name, "ps")
    return Command(argv, cgroup.running, safe=True, weight="read", timeout=30.0, cap=64 << 20, classify=classify)


def usage() -> Command[dict[int, Stats]]:
    """What every running container of both programs uses, by number."""
    return Command(("sh", "-c", USAGE, "usage"), _used, safe=True, weight="read", timeout=30.0, cap=64 << 20)


def _used(result: Result) -> dict[int, Stats]:
    """As `cgroup.used` reads it, with the number in place of the directory."""
    head, marker, rest = result.stdout.partition(b"@nexcage files\n")
    body, end, _ = rest.rpartition(b"@nexcage end\n")
    if not (marker and end) or result.dropped:
        raise ValueError("the answer about what containers use is not complete")
    numbers = {place: number for number, place in _DIRECTORY.findall(head)}
    lines = [
        b"%s/%s:%s\n" % (numbers[place], name, text)
        for place, name, text in _FILE.findall(body)
        if place in numbers and text.startswith(_KEPT.get(name, (b"",)))
    ]
    answer = b"".join((head, marker, *lines, end))
    return cgroup.used(msgspec.structs.replace(result, stdout=answer))

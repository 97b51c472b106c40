r"""Looking at a node that runs OCI bundles: all containers of ``crun`` and ``runc``, by one process of each program however many there are.

Nothing on the node can fake a part of the answer: what a program or a file says has a blank in front of every line, and names
that no id can have are left out. The start times of processes come from ``/proc``, so that a pid that was given away again is seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from zlib import crc32

import msgspec

from nexcage._core.command import Command, Result, shown
from nexcage._core.seen import Guest, Look, Mark
from nexcage.errors import NodeNotUsable
from nexcage.tools import looking
from nexcage.tools.runtime.answers import Listed, listed, state
from nexcage.tools.runtime.call import Runtime

__all__ = ["LOOK", "look"]

FOREIGN = 2_000_000_000
"""Numbers from here on stand for containers that have none of ours."""

LOOK = (
    r"""R=${NEXCAGE_NODE_ROOT-} crun=$1 runc=$2
shift 2
exec 2>/dev/null
"""
    + looking.BOOT
    + r"""m=; read -r m < "$R/proc/sys/kernel/hostname"
echo '@nexcage name'; { [ "$m" ] && printf '%s\n' "$m"; } || uname -n
"""
    + looking.MEMORY
    + r"""plain() { case $1 in ''|*[!A-Za-z0-9_.+-]*) return 1 ;; esac; }
stats() { # of the processes that a list names
  for p in $(printf '%s\n' "$1" | tr ',' '\n' | sed -n 's/.*"pid": *\([1-9][0-9]*\)[^0-9]*$/\1/p'); do
    s=
    while IFS= read -r l; do s="$s$l "; done < "$R/proc/$p/stat"
    echo "$p ${s##*) }"
  done
}
for root in "$R"/run/nexcage-oci/*/crun "$R"/run/nexcage-oci/*/runc; do
  [ -d "$root" ] || continue
  name=${root##*/} fleet=${root%/*}
  fleet=${fleet##*/}
  plain "$fleet" || continue
  ids=
  for d in "$root"/*; do [ -d "$d" ] && plain "${d##*/}" && ids="$ids ${d##*/}"; done
  [ "$ids" ] || continue
  case $name in crun) program=$crun ;; *) program=$runc ;; esac
  said=$(eval "$program"' --root "$root" list -f json')
  x=$?
  echo "@nexcage list $name $fleet $x"
  if [ $x -eq 0 ]; then
    sed 's/^/ /' <<EOF
$said
EOF
    echo "@nexcage stats $name $fleet"
    stats "$said"
  elif [ $x -ne 127 ]; then # one that breaks the list costs only itself
    for id in $ids; do
      said=$(eval "$program"' --root "$root" state "$id"') || continue
      echo "@nexcage state $name $fleet $id"
      printf '%s\n' "$said" | sed 's/^/ /'
      echo "@nexcage stats $name $fleet"
      stats "$said"
    done
  fi
  echo "@nexcage names $name $fleet" # those that were there before the list and still are
  for id in $ids; do [ -d "$root/$id" ] && echo "$id"; done
done
echo '@nexcage marks'
for d in "$R"/var/lib/nexcage-oci/*/*; do
  fleet=${d%/*}
  plain "${d##*/}" && plain "${fleet##*/}" && [ -f "$d/mark" ] || continue
  m= r= b= g= t=
  { IFS= read -r m; IFS= read -r r; IFS= read -r b; } < "$d/mark"
  [ ! -e "$d/going" ] || g=going
  [ ! -d "$R/run/nexcage-oci/${fleet##*/}/$r/${d##*/}" ] || t=there
  printf ' %s %s %s %s %s %s %s\n' "${fleet##*/}" "${d##*/}" "${r:--}" "${b:--}" "${g:--}" "${t:--}" "$m"
done
"""
    + looking.OPS
    + "echo '@nexcage end'\n"
)

_PART = re.compile(rb"^@nexcage ([a-z]+)((?: [A-Za-z0-9_.+-]+)*)$")
_MARK = re.compile(rb"^ (\S+) (\S+) (crun|runc) ([0-9A-Za-z-]+) (going|-) (there|-) (nexcage fleet=.*)$", re.MULTILINE)
_ID = re.compile(r"[A-Za-z0-9_.+-]+")
_UPTIME = re.compile(rb"[0-9]{1,12}(?:[.][0-9]{1,6})?")


class _Part(msgspec.Struct, frozen=True):
    kind: str
    words: tuple[str, ...]
    body: bytes


class _Kept(msgspec.Struct, frozen=True):
    """What lies beside a container: its mark, the runtime that was to make it, whether its delete has begun, and whether the container
    is there now (it may have come after the list).
    """

    mark: Mark
    runtime: str
    boot_id: str
    going: bool
    there: bool


def look(
    node: str, ops: tuple[str, ...] = (), *, crun: Runtime | None = None, runc: Runtime | None = None
) -> Command[Look]:
    """Everything about all containers of both programs; ``ops`` as for `nexcage.tools.lxc.look`."""
    programs = ((crun or Runtime("crun")).program, (runc or Runtime("runc")).program)
    return Command(
        ("sh", "-c", LOOK, "nexcage", *programs, *ops),
        lambda result: _look(node, result),
        safe=True,
        weight="read",
        timeout=30.0,
        cap=64 << 20,
    )


def _look(node: str, result: Result) -> Look:
    if result.dropped:
        raise ValueError(f"the look at {node} is longer than {len(result.stdout)} bytes")
    parts = tuple(_parts(result.stdout))
    if not parts or parts[-1].kind != "end" or "ops" not in {part.kind for part in parts}:
        raise ValueError("the look ended early")
    first = {part.kind: part.body for part in reversed(parts)}
    name = shown(first.get("name", b"").strip())
    boot_id = shown(first.get("boot", b"").strip())
    if not boot_id:
        raise NodeNotUsable(node, "its /proc/sys/kernel/random/boot_id cannot be read: it is not a Linux node")
    kept = {(k.mark.fleet, k.mark.id): k for k in _kept(first.get("marks", b""))}
    guests = dict(_numbered(_guests(node, parts, kept, boot_id)))
    uptime = _UPTIME.match(first.get("uptime", b""))
    memory = first.get("memory", b"").split()[:1]
    return Look(
        node=node,
        pve=name or node,
        boot_id=boot_id,
        guests=guests,
        vmids=dict.fromkeys(guests, name or node),
        ops=tuple(shown(first["ops"]).split()),
        memory=int(memory[0]) // 1024 if memory and memory[0].isdigit() and len(memory[0]) < 19 else 0,
        uptime=float(uptime[0]) if uptime else 0.0,
    )


def _parts(stdout: bytes) -> Iterator[_Part]:
    """What stands between marker lines; what a login shell printed before the first is left out, and nothing counts behind the end."""
    head: re.Match[bytes] | None = None
    body: list[bytes] = []
    for line in stdout.split(b"\n"):
        found = _PART.match(line) if line.startswith(b"@nexcage ") else None
        if found is None:
            body.append(line)
            continue
        if head is not None:
            yield _part(head, body)
        head, body = found, []
        if found[1] == b"end":
            yield _part(found, [])
            return


def _part(head: re.Match[bytes], body: list[bytes]) -> _Part:
    words = tuple(head[2].decode("ascii").split())
    return _Part(head[1].decode("ascii"), words, b"\n".join(body))


def _kept(text: bytes) -> Iterator[_Kept]:
    for fleet, id, runtime, boot, going, there, line in _MARK.findall(text):
        mark = Mark.find(line.decode("utf-8", "backslashreplace"))
        if mark is not None and (mark.fleet.encode(), mark.id.encode()) == (
            fleet,
            id,
        ):  # not that of a copied directory
            yield _Kept(mark, runtime.decode(), boot.decode(), going == b"going", there == b"there")


def _guests(node: str, parts: Iterable[_Part], kept: Mapping[tuple[str, str], _Kept], boot_id: str) -> Iterator[Guest]:
    """Containers by their program, then marks of this boot without one."""
    there: dict[tuple[str, str, str], Listed | None] = {}
    stats: dict[tuple[str, int], bytes] = {}
    for part in parts:
        _add(node, part, there, stats)
    shown_: set[tuple[str, str]] = set()
    for (runtime, fleet, id), one in there.items():
        known = kept.get((fleet, id))
        ours = known if known is not None and known.runtime == runtime else None
        if ours is not None:
            shown_.add((fleet, id))
        yield _guest(runtime, id, one, ours, stats.get((runtime, one.pid), b"") if one else b"")
    for key, known in kept.items():
        if key not in shown_ and known.boot_id == boot_id:
            yield _guest(known.runtime, known.mark.id, None, known, late=known.there)


def _add(
    node: str, part: _Part, there: dict[tuple[str, str, str], Listed | None], stats: dict[tuple[str, int], bytes]
) -> None:
    match part.kind, part.words:
        case "names", (runtime, fleet):
            for word in part.body.split():
                there.setdefault((runtime, fleet, word.decode("ascii", "replace")), None)
        case "list", (runtime, _, "127"):
            raise NodeNotUsable(node, f"there is no `{runtime}`, and there are containers of it")
        case "list", (runtime, fleet, "0"):
            there.update({(runtime, fleet, one.id): one for one in listed(part.body) if _ID.fullmatch(one.id)})
        case "state", (runtime, fleet, id):
            one = state(part.body)
            if one.id == id:
                there[runtime, fleet, id] = one
        case "stats", (runtime, _):
            for line in part.body.splitlines():
                word, _, rest = line.partition(b" ")
                if _is_number(word):
                    stats[runtime, int(word)] = rest
        case _:
            pass


def _guest(
    runtime: str, id: str, one: Listed | None, kept: _Kept | None, stat: bytes = b"", *, late: bool = False
) -> Guest:
    # From the third field of proc(5) on: the state, and 19 words later the start time.
    words = stat.split(None, 20)
    alive = one is not None and one.pid > 0 and one.status != "stopped" and words[:1] not in ([], [b"Z"], [b"X"])
    # As PVE has it: what is half made still carries its mark, what is half deleted carries none any more.
    half = "" if kept is None or one is not None or late else "destroyed" if kept.going else "create"
    return Guest(
        kept.mark.vmid if kept else FOREIGN + crc32(f"{runtime}/{id}".encode()) % 1_000_000_000,
        running=alive,
        frozen=alive and one is not None and one.status == "paused",
        waiting=alive and one is not None and one.status in ("created", "creating"),
        pid=one.pid if alive and one is not None else 0,
        started=int(words[19]) if alive and len(words) > 19 and _is_number(words[19]) else 0,
        name=id,
        lock=half,
        mark=kept.mark if kept and half != "destroyed" else None,
        broken=one is None,
        kind="oci",
        runtime=runtime,
    )


def _numbered(guests: Iterable[Guest]) -> Iterator[tuple[int, Guest]]:
    """By number; of two that claim the same one the second gets another, so that it is seen."""
    taken: set[int] = set()
    for guest in guests:
        number = guest.vmid
        while number in taken:
            number = max(number + 1, FOREIGN)
        taken.add(number)
        yield number, guest if number == guest.vmid else msgspec.structs.replace(guest, vmid=number)


def _is_number(word: bytes) -> bool:
    return word.isdigit() and len(word) < 19

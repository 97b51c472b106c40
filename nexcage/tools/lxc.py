"""LXC's own tools, and looking at a node without starting a Perl tool (pve-commands 3.5).

Every path is below ``${NEXCAGE_NODE_ROOT-}``, which real nodes never set. The output is framed by marker lines, because a login
shell may print a banner first; a look without its last marker is not an answer.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal

import msgspec

from nexcage._core.command import Command, Result, nothing, shown
from nexcage._core.details import Details, Snap
from nexcage._core.seen import Guest, Look, Mark, Task
from nexcage.errors import CommandFailed, IllegalTransition, NexcageError, NodeNotUsable, NotOurs
from nexcage.tools import config, ha, kvm

__all__ = ["GUARD", "LOOK", "SIGNAL", "freeze", "guarded", "look", "signal", "unfreeze"]

LOOK = (
    r"""R=${NEXCAGE_NODE_ROOT-}
exec 2>/dev/null
echo '@nexcage boot'; cat "$R/proc/sys/kernel/random/boot_id"
echo '@nexcage uptime'; cat /proc/uptime
echo '@nexcage name'; readlink "$R/etc/pve/local" ||
  { echo '@nexcage why'; id -u; PATH=$PATH:/usr/sbin command -v pct || ls -d "$R/etc/pve"; }
echo '@nexcage memory'; sed -n 's/^MemAvailable: *//p' "$R/proc/meminfo"
echo '@nexcage members'; cat "$R/etc/pve/.members"
m=; read -r m < "$R/etc/pve/local/lrm_status"; printf '@nexcage lrm\n%s\n' "$m"
echo '@nexcage vmlist'; cat "$R/etc/pve/.vmlist"
echo '@nexcage running'
waiting=
for id in $(sed -n 's#.* @/var/lib/lxc/\([0-9]\{1,\}\)/command$#\1#p' "$R/proc/net/unix" | sort -nu); do
  m= p= s=
  read -r m < "$R/sys/fs/cgroup/lxc.monitor/$id/cgroup.procs" && read -r p s < "$R/proc/$m/task/$m/children"
  case $p in ''|*[!0-9]*) p=$(lxc-info -n "$id" -p -H) ;; esac
  s=
  read -r s < "$R/proc/$p/stat"
  echo "$id ${p:-0} ${s##*) }"
  m=
  read -r m < "$R/proc/$p/comm"
  # Only the node's own copy of the init is believed when it says that it waits.
  if [ "$m" = nexcage-gate ]; then
    m=$(sed -n '/^\[/q; s#^lxc[.]mount[.]entry: \(/[^ ]*/inside\) [.]nexcage none bind.*#\1#p' "$R/etc/pve/lxc/$id.conf")
    [ "$R/proc/$p/exe" -ef "$R$m/init" ] && waiting="$waiting $id"
  fi
done
echo '@nexcage waiting'; echo $waiting
echo '@nexcage frozen'
cd "$R/sys/fs/cgroup/lxc" && grep -ls '^1' */cgroup.freeze
cd "$R/sys/fs/cgroup/freezer/lxc" && grep -ls FROZEN */freezer.state
echo '@nexcage tasks'
while read -r u saved ended rest; do
  [ -z "$ended" ] || continue
  p=${u#UPID:*:} p=${p%%:*}
  case $p in ''|*[!0-9A-F]*) continue ;; esac
  [ -d "$R/proc/$((0x$p))" ] && echo "$u"
done < "$R/var/log/pve/tasks/active"
echo '@nexcage ops'
for op in "$@"; do
  # From standard input, so that grep does not find its own command line; cmdline shows a shell that has not come to its exec yet.
  # A simulated node on this machine runs its tools as real processes: those are in the real /proc, which is only read.
  # The whole id: order-1 is not order-17.
  printf '%s\n' "$op" | sed 's/[.]/[.]/g; s/.*/NEXCAGE_OP_ID=&([^A-Za-z0-9_.-]|$)/' |
    grep -qsazE -f - "$R"/proc/[0-9]*/environ /proc/[0-9]*/environ /proc/[0-9]*/cmdline && echo "$op"
done
echo '@nexcage configs'
cd "$R/etc/pve/lxc" && { ls; echo '@nexcage texts'; grep -aH '' /dev/null *.conf; }
"""
    + kvm.VMS
    + "echo '@nexcage end'\n"
)

# The mark is looked for in the same breath as the command that follows: whoever replaced the container a moment ago
# is left alone.
GUARD = r"""R=${NEXCAGE_NODE_ROOT-}
conf=$R/etc/pve/lxc/$2.conf
[ -e "$conf" ] || conf=$R/etc/pve/qemu-server/$2.conf
if [ -e "$conf" ] && ! sed '/^\[/q' "$conf" | grep -qxF -e "#$1"; then
  echo 'nexcage: the container does not carry our mark' >&2
  exit 9
fi
shift 2
exec "$@"
"""

SIGNAL = r"""R=${NEXCAGE_NODE_ROOT-}
sed '/^\[/q' "$R/etc/pve/lxc/$2.conf" | grep -qxF -e "#$1" || { echo 'nexcage: the container does not carry our mark' >&2; exit 9; }
pid=$(lxc-info -n "$2" -p -H)
case $pid in ''|*[!0-9]*) echo "nexcage: container $2 has no init process" >&2; exit 8 ;; esac
env kill "-$3" "$pid" && echo "$pid"
"""

_UPID = re.compile(r"UPID:([^:]+):([0-9A-F]{8,9}):([0-9A-F]{8,9}):([0-9A-F]{8}):([a-z0-9_]+):([^:]*):([^:]*):")
_SECTIONS = (
    "boot uptime name memory members lrm vmlist running waiting frozen tasks ops configs texts vms vmconfigs vmtexts vmstates"
).split()
_OPTIONAL = ("uptime", "vmstates", "lrm", "waiting")
_GATED = re.compile(r"/\S+/inside \.nexcage none bind.*")
_UPTIME = re.compile(rb"[0-9]{1,12}(?:[.][0-9]{1,6})?")
_CONF = re.compile(rb"^([1-9][0-9]{2,8})\.conf$", re.MULTILINE)
_FILE = re.compile(rb"^([1-9][0-9]{2,8})\.conf:.*(?:\n\1\.conf:.*)*", re.MULTILINE)  # grep prints its lines together


def freeze(vmid: int) -> Command[None]:
    """Pause: the container's own cgroup freezer; freezing a frozen one succeeds."""
    return Command(("lxc-freeze", "-n", str(vmid)), nothing, timeout=60.0)


def unfreeze(vmid: int) -> Command[None]:
    """Resume; does nothing (exit 0) unless LXC itself believes that it is frozen."""
    return Command(("lxc-unfreeze", "-n", str(vmid)), nothing, timeout=60.0)


def guarded(mark: Mark, command: Command[None]) -> Command[None]:
    """``command``, run only while the container still carries ``mark`` (or has no config at all)."""
    wrapped = ("sh", "-c", GUARD, "nexcage", str(mark), str(mark.vmid), *command.argv)
    check = None if command.check is None else _guard_check(command)
    return msgspec.structs.replace(command, argv=wrapped, classify=_guard_errors(mark, command), check=check)


def signal(mark: Mark, number: int) -> Command[int]:
    """Send signal ``number`` to init from the host; its pid as it was at that moment. Raises NotOurs, IllegalTransition."""

    def classify(command: Command[Any], result: Result, node: str) -> NexcageError:
        if result.exit == 8:
            return IllegalTransition(mark.id, "kill", "stopped", reason="it has no process")
        return _identity(mark, result, node) or CommandFailed(
            node, _short(command), result.exit or 1, shown(result.stderr)
        )

    argv = ("sh", "-c", SIGNAL, "kill", str(mark), str(mark.vmid), str(number))
    return Command(argv, _pid, timeout=30.0, classify=classify)


def look(node: str, ops: tuple[str, ...] = ()) -> Command[Look]:
    """Everything about all containers of a node in one command that only reads files.

    ``ops``: operation ids to look for among the node's processes (in their environment); a lost command may still be running.
    """
    return Command(
        ("sh", "-c", LOOK, "nexcage", *ops),
        lambda result: _look(node, result),
        safe=True,
        weight="read",
        timeout=30.0,
        cap=64 << 20,
    )


def _guard_check(inner: Command[None]) -> Callable[[Command[Any], Result, str], NexcageError | None]:
    def check(_: Command[Any], result: Result, node: str) -> NexcageError | None:
        return None if inner.check is None else inner.check(inner, result, node)

    return check


def _guard_errors(mark: Mark, inner: Command[None]) -> Callable[[Command[Any], Result, str], NexcageError]:
    def classify(_: Command[Any], result: Result, node: str) -> NexcageError:
        return _identity(mark, result, node) or _by_id(mark, inner.classify(inner, result, node))

    return classify


def _by_id(mark: Mark, error: NexcageError) -> NexcageError:
    """The same by the container's id: the tool knows only its VMID."""
    if not isinstance(error, IllegalTransition) or error.id != str(mark.vmid):
        return error
    reason = str(error).partition(": ")[2]
    known = IllegalTransition(mark.id, error.op, error.state, error.allowed, reason)
    return known.noted(*getattr(error, "__notes__", ()))


def _identity(mark: Mark, result: Result, node: str) -> NexcageError | None:
    if result.exit == 9 and b"does not carry our mark" in result.stderr:
        return NotOurs(mark.id, node, mark.vmid, "it does not carry our mark")
    return None


def _short(command: Command[Any]) -> tuple[str, ...]:
    return ("kill", *command.argv[-2:])


def _pid(result: Result) -> int:
    word = result.stdout.split()[-1:]
    if not word or not word[0].isdigit():
        raise ValueError("no pid in the answer")
    return int(word[0])


# ---- reading a look ------------------------------------------------------------------------------------------------------------


def _look(node: str, result: Result) -> Look:
    if result.dropped:
        raise ValueError(f"the look at {node} is longer than {len(result.stdout)} bytes")
    parts, seen = _sections(result.stdout)
    if "end" not in seen:
        raise ValueError("the look ended early")
    pve = shown(parts["name"].strip()).rsplit("/", 1)[-1]
    if not pve:
        raise NodeNotUsable(node, _no_pve(parts.get("why", b"")))
    lacks = [name for name in _SECTIONS if name not in seen and name not in _OPTIONAL]
    if lacks:  # an empty list of configs and one that could not be read are not the same
        raise ValueError(f"the look lacks {', '.join(lacks)}")
    if not (parts["vmlist"].lstrip().startswith(b"{") and parts["vmlist"].rstrip().endswith(b"}")):
        raise ValueError("the cluster's list of guests cannot be read")
    return Look(
        node=node,
        pve=pve,
        boot_id=shown(parts["boot"].strip()),
        guests=_guests(parts),
        vmids=_Vmids(parts["vmlist"]),
        tasks=tuple(_tasks(parts["tasks"])),
        ops=tuple(shown(parts["ops"]).split()),
        quorate=_quorate(parts["members"]),
        memory=_kib(parts["memory"]) // 1024,
        uptime=_seconds(parts["uptime"]),
        details=_AllDetails(parts["texts"], parts["vmtexts"]),
        maintenance=ha.maintained(parts["lrm"]),
    )


def _no_pve(why: bytes) -> str:
    """Why /etc/pve/local cannot be read there, and what to do: by the login's uid and what there is of PVE."""
    uid, *found = why.decode("utf-8", "replace").split("\n", 1)
    if not (found and found[0].strip()):
        return "there is no `pct`: this is not a Proxmox VE node (name one with --hosts, or try `nexcage sim up` for a simulated one)"
    if uid.strip() != "0":
        return "its login is not root and may not read /etc/pve: log in as root, or allow `sudo -n` there"
    return "pmxcfs is down, /etc/pve is empty: see `systemctl status pve-cluster` there"


def _sections(stdout: bytes) -> tuple[dict[str, bytes], set[str]]:
    parts: dict[str, bytes] = dict.fromkeys(_SECTIONS, b"")
    seen: set[str] = set()
    for block in (b"\n" + stdout).split(b"\n@nexcage ")[1:]:
        name, _, body = block.partition(b"\n")
        word = name.decode("ascii", "replace")
        if word not in seen:  # what a config says later cannot replace it
            seen.add(word)
            parts[word] = body
    return parts, seen


class _Cluster(msgspec.Struct):
    quorate: int | str = 1


class _Members(msgspec.Struct):
    cluster: _Cluster | None = None


_MEMBERS = msgspec.json.Decoder(_Members)


def _quorate(members: bytes) -> bool:
    """`.members` says so; a stand-alone node has no cluster there and is its own quorum."""
    try:
        cluster = _MEMBERS.decode(members).cluster
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True
    return cluster is None or cluster.quorate not in (0, "0")


def _seconds(data: bytes) -> float:
    match = _UPTIME.match(data)
    return float(match[0]) if match else 0.0


def _kib(data: bytes) -> int:
    word = data.split()[:1]
    return int(word[0]) if word and word[0].isdigit() and len(word[0]) < 19 else 0


class _Entry(msgspec.Struct):
    node: str = ""


class _VmList(msgspec.Struct):
    ids: dict[str, _Entry] = {}


_DECODER = msgspec.json.Decoder(_VmList)


class _Vmids(Mapping[int, str]):
    """`.vmlist`, read when somebody asks: most looks are about one node's containers only."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    def __getitem__(self, vmid: int) -> str:
        return _vmids(self._text)[vmid]

    def __contains__(self, vmid: object) -> bool:
        # Who looks for a free one mostly finds one, and need not read what may be thousands of lines for it.
        return f'"{vmid}"'.encode() in self._text and vmid in _vmids(self._text)

    def __iter__(self) -> Iterator[int]:
        return iter(_vmids(self._text))

    def __len__(self) -> int:
        return len(_vmids(self._text))


@lru_cache(maxsize=256)
def _vmids(text: bytes) -> dict[int, str]:
    try:
        ids = _DECODER.decode(text).ids
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return {
        int(word): entry.node for word, entry in ids.items() if word.isascii() and word.isdigit() and len(word) < 10
    }


def _tasks(data: bytes) -> Iterator[Task]:
    for match in map(_UPID.match, data.decode("utf-8", "replace").splitlines()):
        if match and match[6].isdigit() and len(match[6]) < 10:
            yield Task(match[0], match[5], int(match[6]), int(match[2], 16))


def _guests(parts: Mapping[str, bytes]) -> dict[int, Guest]:
    guests = dict(_configured(parts["configs"], parts["texts"], "lxc"))
    if vms := _configured(parts["vmconfigs"], parts["vmtexts"], "vm"):
        guests |= kvm.alive(vms, parts["vms"], parts["vmstates"])
    frozen = {int(word) for word in re.findall(rb"^([0-9]{1,9})/", parts["frozen"], re.MULTILINE)}
    waiting = {int(word) for word in parts["waiting"].split() if _is_number(word)}
    for line in parts["running"].splitlines():
        words = line.split(None, 22)
        if len(words) < 2 or not (_is_number(words[0]) and _is_number(words[1])):
            continue
        vmid = int(words[0])
        known = guests.get(vmid)
        if known is not None and known.kind == "lxc":
            # What follows is /proc/PID/stat from its third field on; the start time is the 22nd (proc(5)).
            started = int(words[21]) if len(words) > 21 and _is_number(words[21]) else 0
            guests[vmid] = msgspec.structs.replace(
                known,
                running=True,
                frozen=vmid in frozen,
                pid=int(words[1]),
                started=started,
                waiting=vmid in waiting,
            )
    return guests


def _is_number(word: bytes) -> bool:
    return word.isdigit() and len(word) < 19


@lru_cache(maxsize=256)
def _files(texts: bytes) -> Mapping[bytes, bytes]:
    return {match[1]: match[0] for match in _FILE.finditer(texts)}


@lru_cache(maxsize=256)
def _configured(configs: bytes, texts: bytes, kind: Literal["lxc", "vm"]) -> Mapping[int, Guest]:
    """What the config files of a node say; cached whole, because between two looks it is mostly the running ones that change."""
    lines = _files(texts)
    return {int(vmid): _known(int(vmid), lines.get(vmid, b""), kind) for vmid in _CONF.findall(configs)}


@lru_cache(maxsize=20_000)
def _known(vmid: int, text: bytes, kind: Literal["lxc", "vm"]) -> Guest:
    """What one config file says, of whose lines each is still behind its name; cached, because most files have not changed."""
    data = _bare(vmid, text)
    parsed = config.parse((data if kind == "lxc" else kvm.plain(data)).decode("utf-8", "backslashreplace"))
    main = parsed.values
    memory = main.get("memory", "").removeprefix("current=")
    named = main.get("name", f"VM {vmid}") if kind == "vm" else main.get("hostname", f"CT{vmid}")
    return Guest(
        vmid,
        name=named,
        lock=main.get("lock", ""),
        template=main.get("template", "") == "1",
        tags=tuple(tag for tag in re.split(r"[;, ]+", main.get("tags", "")) if tag),
        mark=Mark.find(parsed.description),
        gated=any(key == "lxc.mount.entry" and _GATED.fullmatch(value) for key, value in parsed.raw),
        memory=int(memory) if memory.isascii() and memory.isdigit() and len(memory) < 12 else 0,
        broken=bool(parsed.broken),
        kind=kind,
    )


def _bare(vmid: int, text: bytes) -> bytes:
    """The file without its name in front of each line."""
    return (b"\n" + text).replace(b"\n%d.conf:" % vmid, b"\n")[1:]


class _AllDetails(Mapping[int, Details]):
    """Read when somebody asks: most looks are about states."""

    def __init__(self, texts: bytes, vmtexts: bytes) -> None:
        self._texts = texts
        self._vmtexts = vmtexts

    def __getitem__(self, vmid: int) -> Details:
        name = b"%d" % vmid
        if (text := _files(self._texts).get(name)) is not None:
            return _details(vmid, text, "lxc")
        return _details(vmid, _files(self._vmtexts)[name], "vm")

    def __iter__(self) -> Iterator[int]:
        return map(int, (*_files(self._texts), *_files(self._vmtexts)))

    def __len__(self) -> int:
        return len(_files(self._texts)) + len(_files(self._vmtexts))


@lru_cache(maxsize=1000)
def _details(vmid: int, text: bytes, kind: Literal["lxc", "vm"]) -> Details:
    data = _bare(vmid, text) + b"\n"  # as PVE writes it: every line ends
    parsed = config.parse((data if kind == "lxc" else kvm.plain(data)).decode("utf-8", "backslashreplace"))
    waiting: Mapping[str, str] = parsed.pending.values if parsed.pending is not None else {}
    dropped = [name.lstrip("!") for name in re.split(r"[,;\s]+", waiting.get("delete", "")) if name]
    snaps = {name: Snap.read(name, part.values, part.description) for name, part in parsed.snapshots.items()}
    return Details(
        digest=hashlib.sha1(data).hexdigest(),  # noqa: S324 (what PVE takes)
        values=parsed.effective(),
        pending=tuple(sorted({*(key for key in waiting if key != "delete"), *dropped})),
        description=parsed.description,
        snapshots=snaps,
    )

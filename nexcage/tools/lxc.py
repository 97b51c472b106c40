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
from nexcage.tools import config, ha, kvm, looking

__all__ = ["GUARD", "LOOK", "SIGNAL", "freeze", "guarded", "look", "signal", "unfreeze"]

LOOK = (
    r"""R=${NEXCAGE_NODE_ROOT-}
exec 2>/dev/null
"""
    + looking.BOOT
    + r"""echo '@nexcage name'
{ [ -L "$R/etc/pve/local" ] && cd -P "$R/etc/pve/local" && printf '%s\n' "${PWD##*/}"; } || readlink "$R/etc/pve/local" ||
  { echo '@nexcage why'; id -u; PATH=$PATH:/usr/sbin command -v pct || ls -d "$R/etc/pve"; }
"""
    + looking.MEMORY
    + r"""m=; read -r m < "$R/etc/pve/local/lrm_status"; printf '@nexcage lrm\n%s\n@nexcage members\n' "$m"
cat "$R/etc/pve/.members" - "$R/etc/pve/.vmlist" <<'EOF'

@nexcage vmlist
EOF
printf '\n@nexcage running\n'
set -f
found=$(sed -n '/^UPID:/!s#.* @/var/lib/lxc/\([1-9][0-9]*\)/command$#\1#p; s/^\(UPID:[^ ]*\) *[^ ]* *$/\1/p' \
  "$R/proc/net/unix" "$R/var/log/pve/tasks/active")
waiting= frozen=
for id in $found; do
  case $id in *[!0-9]*) continue ;; esac
  # Whoever talks to a container has a socket of the same name.
  eval "m=\${shown_$id-} shown_$id=yes"
  [ -z "$m" ] || continue
  m= p= s=
  read -r m < "$R/sys/fs/cgroup/lxc.monitor/$id/cgroup.procs" && read -r p s < "$R/proc/$m/task/$m/children"
  case $p in ''|*[!0-9]*) p=$(lxc-info -n "$id" -p -H) ;; esac
  s=
  read -r s < "$R/proc/$p/stat"
  printf '%s\n' "$id ${p:-0} ${s##*) }"
  m=
  read -r m < "$R/proc/$p/comm"
  # Only the node's own copy of the init is believed when it says that it waits.
  if [ "$m" = nexcage-gate ]; then
    m=$(sed -n '/^\[/q; s#^lxc[.]mount[.]entry: \(/[^ ]*/inside\) [.]nexcage none bind.*#\1#p' "$R/etc/pve/lxc/$id.conf")
    [ "$R/proc/$p/exe" -ef "$R$m/init" ] && waiting="$waiting $id"
  fi
  m= s=
  read -r m < "$R/sys/fs/cgroup/lxc/$id/cgroup.freeze"
  case $m in 1*) frozen="$frozen $id/cgroup.freeze" ;; esac
  [ -d "$R/sys/fs/cgroup/freezer/lxc" ] && read -r s < "$R/sys/fs/cgroup/freezer/lxc/$id/freezer.state"
  case $s in *FROZEN*) frozen="$frozen $id/freezer.state" ;; esac
done
printf '@nexcage waiting\n%s\n@nexcage frozen\n' "${waiting# }"
[ -z "$frozen" ] || printf '%s\n' $frozen
echo '@nexcage tasks'
for u in $found; do
  p=${u#UPID:*:} p=${p%%:*}
  case $u in UPID:*) ;; *) continue ;; esac
  case $p in ''|*[!0-9A-F]*) continue ;; esac
  [ -d "$R/proc/$((0x$p))" ] && printf '%s\n' "$u"
done
set +f
"""
    + looking.OPS
    + r"""echo '@nexcage configs'
cd "$R/etc/pve/lxc" && {
  set -- *.conf
  [ "$1" != '*.conf' ] || shift
  [ $# -eq 0 ] || printf '%s\n' "$@"
  echo '@nexcage texts'
  [ $# -eq 0 ] || grep -aH '' /dev/null "$@"
}
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
_SECTIONS = b"boot name memory members vmlist running frozen tasks ops configs texts vms vmconfigs vmtexts".split()
_NEEDED = frozenset(_SECTIONS)
_GATED = re.compile(r"/\S+/inside \.nexcage none bind.*")
_UPTIME = re.compile(rb"[0-9]{1,12}(?:[.][0-9]{1,6})?")
_CONF = re.compile(rb"[1-9][0-9]{2,8}\.conf")
_FROZEN = re.compile(rb"^([0-9]{1,9})/", re.MULTILINE)
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
    parts = _sections(result.stdout)
    if b"end" not in parts:
        raise ValueError("the look ended early")
    pve = shown(parts.get(b"name", b"").strip()).rpartition("/")[2]
    if not pve:
        raise NodeNotUsable(node, _no_pve(parts.get(b"why", b"")))
    if not parts.keys() >= _NEEDED:  # an empty list of configs and one that could not be read are not the same
        raise ValueError(f"the look lacks {', '.join(name.decode() for name in _SECTIONS if name not in parts)}")
    vmlist = parts[b"vmlist"].strip()
    if not (vmlist.startswith(b"{") and vmlist.endswith(b"}")):
        raise ValueError("the cluster's list of guests cannot be read")
    return Look(
        node=node,
        pve=pve,
        boot_id=shown(parts[b"boot"].strip()),
        guests=_guests(parts),
        vmids=_Vmids(vmlist),
        tasks=_tasks(parts[b"tasks"]),
        ops=tuple(shown(parts[b"ops"]).split()),
        quorate=_quorate(parts[b"members"]),
        memory=_kib(parts[b"memory"]) // 1024,
        uptime=_seconds(parts.get(b"uptime", b"")),
        details=_AllDetails(parts),
        maintenance=ha.maintained(parts.get(b"lrm", b"")),
    )


def _no_pve(why: bytes) -> str:
    """Why /etc/pve/local cannot be read there, and what to do: by the login's uid and what there is of PVE."""
    uid, *found = why.decode("utf-8", "replace").split("\n", 1)
    if not (found and found[0].strip()):
        return "there is no `pct`: this is not a Proxmox VE node (name one with --hosts, or try `nexcage sim up` for a simulated one)"
    if uid.strip() != "0":
        return "its login is not root and may not read /etc/pve: log in as root, or allow `sudo -n` there"
    return "pmxcfs is down, /etc/pve is empty: see `systemctl status pve-cluster` there"


def _sections(stdout: bytes) -> dict[bytes, bytes]:
    """The parts by their names. The first of a name counts, so what a config says later cannot replace it."""
    parts: dict[bytes, bytes] = {}
    for block in (b"\n" + stdout).split(b"\n@nexcage ")[1:]:
        name, _, body = block.partition(b"\n")
        if name not in parts:
            parts[name] = body
    return parts


class _Cluster(msgspec.Struct):
    quorate: int | str = 1


class _Members(msgspec.Struct):
    cluster: _Cluster | None = None


_MEMBERS = msgspec.json.Decoder(_Members)


@lru_cache(maxsize=256)
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


def _tasks(data: bytes) -> tuple[Task, ...]:
    found = map(_UPID.match, data.decode("utf-8", "replace").splitlines()) if data else ()
    return tuple(
        Task(match[0], match[5], int(match[6]), int(match[2], 16))
        for match in found
        if match and match[6].isdigit() and len(match[6]) < 10
    )


def _guests(parts: Mapping[bytes, bytes]) -> dict[int, Guest]:
    texts = _files(parts[b"configs"], parts[b"texts"])
    guests = {vmid: _known(vmid, text, "lxc") for vmid, text in texts.items()}
    if vms := _files(parts[b"vmconfigs"], parts[b"vmtexts"]):
        known = {vmid: _known(vmid, text, "vm") for vmid, text in vms.items()}
        guests |= kvm.alive(known, parts[b"vms"], parts.get(b"vmstates", b""))
    frozen = {int(word) for word in _FROZEN.findall(parts[b"frozen"])}
    waiting = {int(word) for word in parts.get(b"waiting", b"").split() if _is_number(word)}
    for line in parts[b"running"].split(b"\n"):
        words = line.split(b" ", 22)
        if len(words) < 2 or not (_is_number(words[0]) and _is_number(words[1])):
            continue
        vmid = int(words[0])
        if vmid in texts and vmid not in vms:
            # What follows is /proc/PID/stat from its third field on; the start time is the 22nd (proc(5)).
            started = int(words[21]) if len(words) > 21 and _is_number(words[21]) else 0
            guests[vmid] = _running(vmid, texts[vmid], int(words[1]), started, vmid in frozen, vmid in waiting)
    return guests


def _is_number(word: bytes) -> bool:
    return word.isdigit() and len(word) < 19


@lru_cache(maxsize=256)
def _files(configs: bytes, texts: bytes) -> Mapping[int, bytes]:
    """The lines of each config file, each line behind the file's name; cached, because mostly no config has changed."""
    names = configs.removesuffix(b"\n").split(b"\n")
    found = _in_order(names, texts)
    if found is None:
        found = {match[1] + b".conf": match[0] for match in _FILE.finditer(texts)}
    return {vmid: found.get(name, b"") for name in names if (vmid := _vmid(name))}


@lru_cache(maxsize=20_000)
def _vmid(name: bytes) -> int:
    """Whose config a file is, by its name; 0 for none."""
    return int(name[:-5]) if _CONF.fullmatch(name) else 0


def _in_order(names: list[bytes], texts: bytes) -> dict[bytes, bytes] | None:
    """The same, if each file has lines and they stand in the order of ``names``: then only the first line of each is searched."""
    if not texts.startswith(names[0] + b":"):
        return None
    found: dict[bytes, bytes] = {}
    last, start = names[0], 0
    for name in names[1:]:
        end = texts.find(b"\n%b:" % name, start)
        if end < 0:
            return None
        found[last] = texts[start:end]
        last, start = name, end + 1
    found[last] = texts[start:].removesuffix(b"\n")
    return found


@lru_cache(maxsize=20_000)
def _running(vmid: int, text: bytes, pid: int, started: int, frozen: bool, waiting: bool) -> Guest:
    """The same container while it runs; cached, so that one of which nothing has changed costs next to nothing."""
    known = _known(vmid, text, "lxc")
    return msgspec.structs.replace(known, running=True, frozen=frozen, pid=pid, started=started, waiting=waiting)


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

    def __init__(self, parts: Mapping[bytes, bytes]) -> None:
        self._texts = parts[b"configs"], parts[b"texts"]
        self._vmtexts = parts[b"vmconfigs"], parts[b"vmtexts"]

    def __getitem__(self, vmid: int) -> Details:
        if text := _files(*self._texts).get(vmid):
            return _details(vmid, text, "lxc")
        if text := _files(*self._vmtexts).get(vmid):
            return _details(vmid, text, "vm")
        raise KeyError(vmid)

    def __iter__(self) -> Iterator[int]:
        return (vmid for texts in (self._texts, self._vmtexts) for vmid, text in _files(*texts).items() if text)

    def __len__(self) -> int:
        return sum(1 for _ in self)


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

r"""What a container made from a bundle needs besides ``pct create``: its template, its ``lxc.*`` lines, its files on the node.

The rootfs arrives as a template that is kept (``nexcage-HASH.tar.zst``) or one that nobody sees (``.nexcage-HASH.tar.zst``). A create
works from a link of its own (``nexcage-HASH-OP.tar.zst``), noted down on the node, so that whoever ends it takes that away and nobody
else's; what nobody sees goes with its last link.

``pct create`` leaves its lock on (``--lock create``) and only says that it is ``making`` our mark. The lines that ``pct`` does not take
are written with the mark, and without the lock, by one rename of the whole config: what carries our mark is complete.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from nexcage._core.bundle_plan.model import Need
from nexcage._core.command import Command, Result, nothing, shown
from nexcage._core.seen import Mark
from nexcage.errors import CommandFailed, InvalidInput, NexcageError, NodeNotUsable, NotFound, NotOurs

__all__ = ["FINISH", "LACKING", "LINK", "PLACE", "TIDY", "directory", "finish", "lacking", "link", "note", "tidy"]

PLACE = "/var/lib/nexcage-lxc"
"""Where nodes keep what belongs to a container beside its config: ``FLEET/ID/``."""

_GONE = 66
_CHANGED = 9
_LINE = re.compile(r"lxc\.[a-z0-9_.-]+")
_BREAKS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_FILE = re.compile(r"(?:[a-z]{1,16}/)?[a-z][a-z0-9.-]{0,63}")
_MOST = 256 << 10  # of lines: pmxcfs takes a megabyte, with all snapshots

_DROP = r"""R=${NEXCAGE_NODE_ROOT-}
drop() { # the template of the operation that is noted in $1; the one that it was linked from goes with its last link
  [ -f "$1" ] || return 0
  link= base=
  { read -r link; read -r base; } < "$1"
  case $link in */nexcage-*) rm -f -- "$R$link" ;; esac
  case $base in
    */.nexcage-*) n=$(stat -c %h -- "$R$base" 2>/dev/null) && { [ "$n" -gt 1 ] || rm -f -- "$R$base"; } ;;
  esac
  rm -f -- "$1"
}
"""

LACKING = r"""R=${NEXCAGE_NODE_ROOT-} n=0
mapped() { # whether root may map $2 ids from $1 on, by the file $3
  while IFS=: read -r who first count; do
    case $who in root|0) ;; *) continue ;; esac
    [ "$first" -le "$1" ] && [ $((first + count)) -ge $(($1 + $2)) ] && return 0
  done < "$3"
  return 1
} 2>/dev/null
while [ $# -gt 1 ]; do
  kind=$1 value=$2 why=
  shift 2
  case $kind in
    path) [ -e "$R$value" ] || why="$value does not exist" ;;
    directory) [ -d "$R$value" ] || why="$value is no directory" ;;
    machine) [ "$(uname -m)" = "$value" ] || why="its init is built for $value, and the node is $(uname -m)" ;;
    interface) [ -e "$R/sys/class/net/$value" ] || why="there is no interface $value" ;;
    apparmor) grep -qsF -e "$value (" "$R/sys/kernel/security/apparmor/profiles" ||
      why="the AppArmor profile $value is not loaded" ;;
    subuid|subgid) mapped ${value% *} ${value#* } "$R/etc/$kind" || why="/etc/$kind does not let root map $value" ;;
    device)
      type=${value%% *} rest=${value#* } path=${rest% * *} numbers=${rest#"$path "}
      if [ ! -e "$R$path" ]; then why="$path does not exist"
      elif [ -z "$R" ]; then
        found=$(stat -Lc '%F %t %T' -- "$path") || found=
        case $type:$found in
          [cu]:character*|b:block*|p:fifo*|-:*) ;;
          *) why="$path is no device of type $type" ;;
        esac
        if [ -z "$why" ] && [ "$type" != p ]; then
          found=${found#*file }
          have="$((0x${found% *})) $((0x${found#* }))"
          case $numbers in *-*|"$have") ;; *) why="$path is $have and not $numbers" ;; esac
        fi
      fi ;;
    *) why="nobody knows what $kind is" ;;
  esac
  [ -z "$why" ] || echo "@nexcage $n $why"
  n=$((n + 1))
done
echo '@nexcage end'
"""

LINK = (
    _DROP
    + r"""link=$1 note=$R$2
shift 2
umask 077
mkdir -p -- "${note%/*}" || exit 73
find "${note%/*}" -maxdepth 1 -type f -mmin +1440 | while read -r old; do drop "$old"; done
# What was sent to a create that never began.
find "$R${link%/*}" -maxdepth 1 -type f -name '.nexcage-*.tar*' -links 1 -mmin +1440 -delete 2>/dev/null
for from in "$@"; do
  [ -f "$R$from" ] || continue
  printf '%s\n%s\n' "$link" "$from" > "$note" || exit 73
  ln -f -T -- "$R$from" "$R$link" 2>/dev/null || cp -f -T --reflink=auto -- "$R$from" "$R$link" || continue
  exit 0
done
echo 'nexcage: the template is not there' >&2
exit 66
"""
)

FINISH = (
    _DROP
    + r"""mark=$1 vmid=$2 ro=$3 dir=$R$4 note=$R$5
shift 5
no() { echo "nexcage: $2" >&2; exit "$1"; }
conf=$R/etc/pve/lxc/$vmid.conf
umask 077
mkdir -p -- "${dir%/*}" && rm -rf -- "$dir" && mkdir -- "$dir" || no 73 "$dir cannot be made"
chmod 711 -- "${dir%/*/*}" "${dir%/*}" "$dir" # root of a container that is nobody here comes through, and sees no names
owner=$1 held=$2
shift 2
while [ $# -gt 2 ]; do
  case $1 in
    */*)
      if [ ! -d "$dir/${1%/*}" ]; then
        mkdir -m 755 -- "$dir/${1%/*}" && mkfifo -- "$dir/${1%/*}/gate" "$dir/${1%/*}/said" || no 73 "$dir cannot be made"
      fi ;;
  esac
  head -c "$2" > "$dir/$1" && [ "$(stat -c %s -- "$dir/$1")" = "$2" ] && chmod "$3" -- "$dir/$1" ||
    no 73 "$dir/$1 cannot be written"
  case $1 in
    */*) # whoever simulates a node as another user than root has nobody to keep it from
      [ "$(id -u)" != 0 ] || chown -h "$owner:$owner" -- "$dir/$1" "$dir/${1%/*}/gate" "$dir/${1%/*}/said" ||
        no 73 "$dir/$1 cannot be given away" ;;
  esac
  shift 3
done
find "$dir" -type f -exec sync -- {} + && sync -- "$dir"
mkdir -p -- "$R/run/lock/lxc"
exec 9>> "$R/run/lock/lxc/pve-config-$vmid.lock" && flock -w 10 9 || no 75 "can't lock file '/run/lock/lxc/pve-config-$vmid.lock'"
grep -qxF -e "#making $mark" "$conf" || no 9 'the container does not carry our mark'
grep -qxF 'lock: create' "$conf" || { [ "$held" = 1 ] && ! grep -q '^lock:' "$conf"; } || no 9 'somebody has changed it since it was made'
! grep -q '^\[' "$conf" || no 9 'somebody has changed it since it was made'
drop "$note"
{
  awk -v mark="$mark" -v ro="$ro" -v held="$held" '$0 == "lock: create" && !held { next }
    $0 == "#making " mark && !held { print "#" mark; next }
    ro && /^rootfs: / { print $0 ",ro=1"; next }
    { print }' "$conf" && { [ "$held" != 1 ] || grep -xF 'lock: create' "$conf" >/dev/null || echo 'lock: create'; } &&
    cat -- "$dir/lines"
} > "$conf.tmp.$$" && mv -f -- "$conf.tmp.$$" "$conf" || { rm -f -- "$conf.tmp.$$"; no 73 "$conf cannot be written"; }
"""
)

TIDY = (
    _DROP
    + r"""dir=$R$1 mark=$2 note=$R$3
drop "$note"
[ -d "$dir" ] || exit 0
case $(cat -- "$dir/mark" 2>/dev/null) in "$mark"|'') rm -rf -- "$dir" || exit 73 ;; esac
rmdir -- "${dir%/*}" 2>/dev/null
exit 0
"""
)


def directory(mark: Mark) -> str:
    """Where a node keeps what belongs to this container."""
    return f"{PLACE}/{mark.fleet}/{mark.id}"


def note(mark: Mark) -> str:
    """The file that says which template belongs to an operation."""
    return f"{PLACE}/{mark.fleet}/.templates/{mark.op}"


def lacking(needs: Sequence[Need]) -> Command[tuple[tuple[Need, str], ...]]:
    """Which of these things are not so on the node, each with what is wrong."""
    words = [word for need in needs for word in (need.kind, need.value)]
    argv = ("sh", "-c", LACKING, "nexcage", *words)
    return Command(argv, lambda result: _lacking(tuple(needs), result), safe=True, weight="read", timeout=30.0)


def link(mark: Mark, path: str, *sources: str) -> Command[None]:
    """Make ``path`` the template of the operation, from the first of ``sources`` that is there; raises NotFound where none is."""

    def classify(_: Command[Any], result: Result, node: str) -> NexcageError:
        if result.exit == _GONE:
            return NotFound("template", sources[-1], f"does not exist on {node}")
        return NodeNotUsable(node, f"{path} cannot be made: {shown(result.stderr).strip()}")

    argv = ("sh", "-c", LINK, "pvesm", path, note(mark), *sources)
    return Command(argv, nothing, classify=classify, timeout=900.0)


def finish(
    mark: Mark,
    lines: Sequence[tuple[str, str]],
    files: Sequence[tuple[str, int, bytes]],
    *,
    readonly: bool,
    owner: int = 0,
    held: bool = False,
) -> Command[None]:
    """Complete a container that was made with its lock left on: files beside it (name, mode, content), its ``lxc.*`` lines, then the lock
    goes. Files in a directory belong to ``owner``, who is root inside, and get FIFOs ``gate`` and ``said`` beside them. Raises NotOurs
    when it is not as it was made. ``held``: it is not complete yet, so lock and mark stay as they are (`nexcage.tools.gate.seal`).
    """

    def classify(_: Command[Any], result: Result, node: str) -> NexcageError:
        said = shown(result.stderr).strip().removeprefix("nexcage: ")
        if result.exit == _CHANGED:
            return NotOurs(mark.id, node, mark.vmid, said)
        return CommandFailed(node, ("finish", mark.id), result.exit or 0, said)

    text = "".join(map(_line, lines)).encode("utf-8", "surrogateescape")
    if len(text) > _MOST:
        raise InvalidInput("bundle", f"{len(text)} bytes of lxc lines", f"at most {_MOST}")
    content = (("mark", 0o600, f"{mark}\n".encode()), ("lines", 0o600, text), *files)
    words: list[str] = []
    for name, mode, data in content:
        if not _FILE.fullmatch(name):
            raise InvalidInput("file", name, "lower-case letters, digits, . and -, in at most one directory")
        words += [name, str(len(data)), f"{mode:o}"]
    facts = (
        str(mark),
        str(mark.vmid),
        "1" if readonly else "0",
        directory(mark),
        note(mark),
        str(owner),
        "1" if held else "0",
    )
    argv = ("sh", "-c", FINISH, "finish", *facts, *words)
    return Command(
        argv, nothing, stdin=b"".join(data for _, _, data in content), classify=classify, cancel="term", timeout=120.0
    )


def tidy(mark: Mark) -> Command[None]:
    """Remove what was kept for this container and the template of its create; what another create has made there stays."""
    argv = ("sh", "-c", TIDY, "pvesm", directory(mark), str(mark), note(mark))
    return Command(argv, nothing, timeout=60.0)


def _line(line: tuple[str, str]) -> str:
    key, value = line
    if not _LINE.fullmatch(key) or value != value.strip() or _BREAKS.search(value):
        raise InvalidInput(key, value, "one line of text without blanks at its ends")
    return f"{key}: {value}\n"


def _lacking(needs: tuple[Need, ...], result: Result) -> tuple[tuple[Need, str], ...]:
    text = shown(result.stdout, len(result.stdout))
    if not text.endswith("@nexcage end\n"):
        raise ValueError("it ends before its last line")
    found = re.findall(r"^@nexcage ([0-9]{1,6}) (.+)$", text, re.MULTILINE)
    return tuple((needs[int(number)], why) for number, why in found if int(number) < len(needs))

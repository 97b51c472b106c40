r"""The gate in front of the program of a container that was made from a bundle.

Such a container has an init of ours (`nexcage._backends.shim`). It runs from a directory of the node that the container sees
read-only as ``/.nexcage`` until its program runs, and waits there for a line in a FIFO, so that what is created has a process. It waits
only until the first start: from then on the file ``open`` lies beside it, and whoever starts the container (PVE at boot, the HA
manager, somebody by hand) starts its program.
"""

from __future__ import annotations

import re
from typing import Any

from nexcage._core.command import Command, Result, nothing, shown
from nexcage._core.seen import Mark
from nexcage.errors import CommandFailed, IllegalTransition, NexcageError, NotOurs
from nexcage.tools import bundling, pct

__all__ = [
    "HOOK_FAILED",
    "OPEN",
    "REACHED",
    "READ",
    "SEAL",
    "START",
    "once",
    "open_",
    "reached",
    "read",
    "seal",
    "start",
]

HOOK_FAILED = 12
"""The exit status of an opening whose ``startContainer`` hook failed."""
_PATIENCE = 10  # seconds in which an init that has been started is at its gate
_GUARD = r"""R=${NEXCAGE_NODE_ROOT-} mark=$1 vmid=$2 gate=$R$3/inside
no() { echo "nexcage: $2" >&2; exit "$1"; }
conf=$R/etc/pve/lxc/$vmid.conf
carries() { sed '/^\[/q' "$conf" 2>/dev/null | grep -qxF -e "$1"; }
"""

START = (
    _GUARD
    + r"""carries "#making $mark" || carries "#$mark" || no 9 'the container does not carry our mark'
[ "$4" != closed ] || rm -f -- "$gate/open"
carries 'lock: create' && exec pct start "$vmid" --skiplock 1
exec pct start "$vmid"
"""
)

REACHED = (
    _GUARD
    + r"""n=$(($4 * 20)) pid=
while :; do
  pid=$(lxc-info -n "$vmid" -p -H 2>/dev/null)
  case $pid in
    ''|*[!0-9]*) no 8 'its init ended before it came to the gate' ;;
  esac
  name=
  read -r name 2>/dev/null < "$R/proc/$pid/comm"
  [ "$name" = nexcage-gate ] && [ "$R/proc/$pid/exe" -ef "$gate/init" ] && break
  n=$((n - 1))
  [ $n -gt 0 ] || no 5 'its init did not come to the gate'
  sleep 0.05
done
echo "$pid"
"""
)

OPEN = (
    _GUARD
    + r"""carries "#$mark" || no 9 'the container does not carry our mark'
op=${NEXCAGE_OP_ID:-start} n=$(($4 * 20)) tried=0
pid=$(lxc-info -n "$vmid" -p -H 2>/dev/null)
case $pid in ''|*[!0-9]*) no 8 "container $vmid has no init process" ;; esac
rm -f -- "$R$3"/begun.poststart.* # those belong to the start before
echo "$op" > "$gate/open" || no 73 "$gate/open cannot be written"
# Both ends are opened, so that neither opening nor writing ever waits for the other side.
exec 4<> "$gate/said" 3<> "$gate/gate" || no 73 "$gate cannot be opened"
dd bs=65536 count=1 iflag=nonblock <&4 >/dev/null 2>&1
[ ! "$R/proc/$pid/exe" -ef "$gate/init" ] || echo "open $op" >&3
while [ "$R/proc/$pid/exe" -ef "$gate/init" ]; do
  [ "$(lxc-info -n "$vmid" -p -H 2>/dev/null)" = "$pid" ] || break
  tried=$((tried + 1))
  if [ $tried -gt 200 ]; then # its hooks take their time
    n=$((n - 10))
    sleep 0.5
  else
    n=$((n - 1))
    sleep 0.05
    [ $((tried % 20)) != 0 ] || echo "open $op" >&3
  fi
  [ $n -gt 0 ] || no 5 'it did not pass the gate in time'
done
said=$(dd bs=4096 count=1 iflag=nonblock <&4 2>/dev/null)
case $said in failed\ 121\ *) no 12 "${said#failed 121 }" ;; failed\ *) said=${said#failed }; no 7 "${said#* }" ;; esac
echo "$pid"
"""
)

SEAL = (
    _GUARD
    + r"""exec 9>> "$R/run/lock/lxc/pve-config-$vmid.lock" && flock -w 10 9 || no 75 "can't lock the config of $vmid"
carries "#$mark" && ! carries 'lock: create' && exit 0
carries "#making $mark" && carries 'lock: create' || no 9 'somebody has changed it since it was made'
awk -v mark="$mark" '$0 == "lock: create" { next }
  $0 == "#making " mark { print "#" mark; next }
  { print }' "$conf" > "$conf.tmp.$$" && mv -f -- "$conf.tmp.$$" "$conf" || { rm -f -- "$conf.tmp.$$"; no 73 "$conf cannot be written"; }
"""
)

READ = r"""dir=${NEXCAGE_NODE_ROOT-}$3
if [ "$(cat -- "$dir/mark" 2>/dev/null)" = "$1" ] && [ -s "$dir/$4" ]; then
  echo '@nexcage kept'
  exec cat -- "$dir/$4"
fi
echo '@nexcage none'
"""

_WHY = re.compile(r"nexcage: (.*)")


def start(mark: Mark) -> Command[None]:
    """``pct start`` of a container, which may still be locked by its create: it comes to its gate, and waits there."""
    plain = pct.start(mark.vmid)

    def classify(command: Command[Any], result: Result, node: str) -> NexcageError:
        return _not_ours(mark, result, node) or plain.classify(command, result, node)

    argv = ("sh", "-c", START, "gate", str(mark), str(mark.vmid), bundling.directory(mark), "closed")
    return Command(
        argv,
        nothing,
        cancel=plain.cancel,
        timeout=plain.timeout,
        classify=classify,
        check=plain.check,
        weight=plain.weight,
    )


def reached(mark: Mark) -> Command[int]:
    """Wait until it is at its gate; the pid of its init."""
    argv = ("sh", "-c", REACHED, "gate", str(mark), str(mark.vmid), bundling.directory(mark), str(_PATIENCE))
    return Command(argv, _pid, safe=True, weight="read", timeout=_PATIENCE + 30.0, classify=_classified(mark, "create"))


def open_(mark: Mark, seconds: int) -> Command[int]:
    """Let it pass, and wait until its program runs (its ``startContainer`` hooks may take so many ``seconds``); the pid of its init. Raises
    CommandFailed with the reason when the program cannot be run.
    """
    most = _PATIENCE + seconds
    argv = ("sh", "-c", OPEN, "gate", str(mark), str(mark.vmid), bundling.directory(mark), str(most))
    return Command(argv, _pid, timeout=most + 30.0, classify=_classified(mark, "start"))


def seal(mark: Mark, why: str) -> Command[None]:
    """The create has come to its end: the container carries our mark, and its lock goes. ``why`` it has no process; empty when it has."""
    argv = ("sh", "-c", SEAL, "gate", str(mark), str(mark.vmid), bundling.directory(mark))
    facts = {"gate": why} if why else {}
    return Command(argv, nothing, timeout=60.0, classify=_classified(mark, "create"), tries=facts)


def read(mark: Mark, name: str) -> Command[bytes | None]:
    """A file that is kept beside this container; None when there is none, or it belongs to another one."""

    def parse(result: Result) -> bytes | None:
        head, _, data = result.stdout.partition(b"@nexcage kept\n")
        if result.dropped or not (data or head.endswith(b"@nexcage none\n")):
            raise ValueError("it ends before its last line")
        return data or None

    argv = ("sh", "-c", READ, "nexcage", str(mark), str(mark.vmid), bundling.directory(mark), name)
    return Command(argv, parse, safe=True, weight="read", timeout=30.0)


def once(mark: Mark, name: str) -> str:
    """The file that says that something was begun for this container."""
    return f"{bundling.directory(mark)}/begun.{name}"


def _classified(mark: Mark, op: str) -> Any:  # Any: the signature is Command's
    def classify(_: Command[Any], result: Result, node: str) -> NexcageError:
        if (error := _not_ours(mark, result, node)) is not None:
            return error
        if result.exit == 8 and op == "start":
            return IllegalTransition(mark.id, op, "stopped", reason="it has no process")
        found = _WHY.findall(shown(result.stderr))
        return CommandFailed(node, (op, mark.id), result.exit or 0, found[-1] if found else shown(result.stderr))

    return classify


def _not_ours(mark: Mark, result: Result, node: str) -> NexcageError | None:
    if result.exit == 9 and b"nexcage: " in result.stderr:
        why = shown(result.stderr).strip().removeprefix("nexcage: ")
        return NotOurs(mark.id, node, mark.vmid, why)
    return None


def _pid(result: Result) -> int:
    word = result.stdout.split()[-1:]
    if not word or not word[0].isdigit() or len(word[0]) > 10:
        raise ValueError("no pid in the answer")
    return int(word[0])

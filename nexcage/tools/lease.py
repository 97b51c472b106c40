r"""A lease that the nodes of a Proxmox VE cluster keep for drivers on several hosts.

Two things in pmxcfs, which is one file system for the whole cluster::

    /etc/pve/priv/lock/nexcage-FLEET                        a directory: somebody holds it
    /etc/pve/priv/nexcage-FLEET.lease.EPOCH.HOLDER.HOST     an empty file: who

``mkdir`` of the directory succeeds for one only. pmxcfs lets it go 120 s after its last ``touch`` (which it allows to the node that
made it, no other), when somebody asks by setting its time to 0. A taker that was stopped on the way may wake after that and go on
as if it had the directory, so what counts is the second one: taking is one ``mv`` of the file of the last epoch to a name with the
next epoch and the taker. Whoever comes late finds nothing to move. So no epoch is ever had by two.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from nexcage._core.command import Command, Result
from nexcage.errors import CommandFailed, NexcageError, NodeNotUsable, NoQuorum

__all__ = ["HOLD", "RELEASE", "Standing", "hold", "host_word", "release"]

_NEWEST = r"""R=${NEXCAGE_NODE_ROOT-} F=$1 H=$2
P=$R/etc/pve/priv
L=$P/lock/nexcage-$F
N=$P/nexcage-$F.lease
say() { echo "@nexcage lease $*"; exit 0; }
newest() { # epoch, holder and host of the highest; how many have that epoch
  e=-1 h=none w=none n=0
  for f in "$N".*; do
    r=${f#"$N".} x=${f#"$N".} x=${x%%.*} r=${r#*.} y=${r%%.*} z=${r#*.}
    case $x in ''|*[!0-9]*|???????????????????*) continue ;; esac
    case $z in ''|*.*) continue ;; esac
    if [ "$x" -gt "$e" ]; then e=$x h=$y w=$z n=1; elif [ "$x" -eq "$e" ]; then n=$((n + 1)); fi
  done
}
"""

HOLD = (
    _NEWEST
    + r"""W=$3 K=$4 T=$5
umask 077
[ -e "$R/etc/pve/local" ] || say unusable
case $(cat "$R/etc/pve/.members") in *'"quorate": 0'*) say noquorum ;; esac
mkdir "$P/lock" 2>/dev/null
lock() {
  mkdir "$L" 2>/dev/null && return
  touch -c -d @0 "$L" 2>/dev/null # asks pmxcfs to let go of an expired one
  sleep 0.3
  mkdir "$L" 2>/dev/null
}
newest
if [ "$h" = "$H" ] && [ "$n" = 1 ] && [ "$e" -ge "$K" ]; then
  renewed=0
  if { touch -c "$L" && [ -d "$L" ]; } 2>/dev/null || lock; then renewed=1; fi
  newest
  [ "$h" != "$H" ] || say mine "$renewed" "$e" "$h" "$w"
  say held 0 "$e" "$h" "$w"
fi
renewed=1
if ! lock; then
  [ -d "$L" ] || say failed
  newest
  [ "$h" = "$H" ] && [ "$n" = 1 ] || say held 0 "$e" "$h" "$w"
  { touch -c "$L" && [ -d "$L" ]; } 2>/dev/null || renewed=0 # its own, and it needs a higher epoch
fi
newest
if [ "$e" -lt 0 ]; then
  : > "$N.0.none.none" || say failed
  newest
fi
next=$((e + 1))
[ "$next" -gt "$K" ] || next=$((K + 1))
[ "$e" -gt 0 ] || [ "$next" -ge "$T" ] || next=$T
mv -f "$N.$e.$h.$w" "$N.$next.$H.$W" 2>/dev/null
newest
if [ "$e" != "$next" ] || [ "$h" != "$H" ] || [ "$n" != 1 ]; then
  rm -f "$N.$next.$H.$W"
  newest
  say held 0 "$e" "$h" "$w"
fi
for f in "$N".*; do
  x=${f#"$N".} x=${x%%.*}
  case $x in ''|*[!0-9]*) continue ;; esac
  [ "$x" -ge "$e" ] || rm -f "$f"
done
say mine "$renewed" "$e" "$h" "$w"
"""
)

RELEASE = (
    _NEWEST
    + r"""newest
[ "$h" != "$H" ] || rmdir "$L" 2>/dev/null
exit 0
"""
)

_ANSWER = re.compile(
    rb"@nexcage lease (?:(mine|held) ([01]) (-1|[0-9]{1,18}) ([0-9A-Za-z_-]{1,64}) ([0-9A-Za-z_-]{1,64})"
    rb"|(noquorum|unusable|failed))\n"
)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Who has the lease. ``renewed``: the lock directory has its full time again (of ours only, and only through its own node)."""

    mine: bool
    renewed: bool
    epoch: int
    holder: str
    host: str


def host_word(host: str) -> str:
    """A host's name as a part of a file name."""
    return re.sub(r"[^0-9A-Za-z_-]", "-", host)[:63] or "unknown"


def hold(fleet: str, holder: str, host: str, *, highest: int, now: float) -> Command[Standing]:
    """Take or renew it. ``highest``: the epoch that the holder has had; ``now`` is where a fleet's first epoch begins.

    Asking again is harmless: it is the same holder's, under the same epoch.
    """
    words = (fleet, holder, host_word(host), str(highest), str(max(1, int(now))))
    return Command(
        ("sh", "-c", HOLD, "nexcage", *words),
        _standing,
        safe=True,
        weight="read",
        timeout=30.0,
        cap=4096,
        check=_check,
    )


def release(fleet: str, holder: str) -> Command[None]:
    """Let go of it, if it is this holder's; the epoch stays written down."""
    return Command(
        ("sh", "-c", RELEASE, "nexcage", fleet, holder),
        lambda _: None,
        safe=True,
        weight="read",
        timeout=10.0,
        cap=4096,
    )


def _check(command: Command[Any], result: Result, node: str) -> NexcageError | None:  # Any: whatever it parses to
    match = _ANSWER.search(result.stdout)
    if match is None:
        return CommandFailed(node, command.argv[:2], result.exit or 0, "no lease in the answer")
    match match[6]:
        case b"noquorum":
            return NoQuorum(node, "the fleet's lease cannot be kept until its cluster is quorate again")
        case b"unusable":
            return NodeNotUsable(node, "the fleet's lease is kept in /etc/pve, and pmxcfs is not mounted there")
        case b"failed":
            return NodeNotUsable(node, "the fleet's lease cannot be written below /etc/pve/priv there")
        case _:
            return None


def _standing(result: Result) -> Standing:
    match = _ANSWER.search(result.stdout)
    if match is None or match[1] is None:
        raise ValueError("no lease in the answer")
    kind, renewed, epoch, holder, host, _ = match.groups()
    return Standing(
        mine=kind == b"mine",
        renewed=renewed == b"1",
        epoch=max(0, int(epoch)),
        holder=holder.decode("ascii"),
        host=host.decode("ascii"),
    )

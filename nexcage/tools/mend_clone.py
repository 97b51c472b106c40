r"""Removing what a killed ``pct clone`` leaves: PVE's lock on its source, and a new config with nothing but a lock.

The node itself proves in the same breath that both are ours: no task works on either of them, the source carries our mark, and nobody has
made or restored a container of that VMID since our step began. A config with more in it stays and is reported.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nexcage._core.command import Command, Result
from nexcage._core.seen import Mark, Settled
from nexcage.errors import NexcageError, NotOurs
from nexcage.tools import pct

__all__ = ["MEND", "mend"]

MEND = r"""R=${NEXCAGE_NODE_ROOT-} vmid=$1 source=$2 from=$3 at=$4
conf=$R/etc/pve/lxc/$vmid.conf base=$R/etc/pve/lxc/$source.conf
no() { echo "nexcage: $vmid is not provably ours: $1" >&2; exit 9; }
for upid in $(cd "$R/var/log/pve/tasks" && cat active index index.1 2>/dev/null |
  sed -n "s/^\(UPID:[^ ]*:\($vmid\|$source\):[^ ]*\).*/\1/p" | sort -u); do
  IFS=:; set -- $upid; unset IFS
  case $3$5 in *[!0-9A-F]*) continue ;; esac
  [ "$7" = "$vmid" ] || [ "$7" = "$source" ] || continue
  [ ! -d "$R/proc/$((0x$3))" ] || no 'a task works on it'
  [ "$7" = "$vmid" ] && [ $((0x$5)) -ge $((at - 1)) ] || continue
  case $6 in vzcreate | vzrestore) no 'somebody has made another one since' ;; esac
done
if [ -e "$base" ] && sed '/^\[/q' "$base" | grep -qxF -e "#$from" && sed '/^\[/q' "$base" | grep -qxF 'lock: disk'; then
  pct unlock "$source" || exit
fi
[ -e "$conf" ] || exit 0
text=$(cat "$conf")
case $text in 'lock: create' | '') ;; *) no 'its config has more than a lock' ;; esac
[ -z "$text" ] || pct unlock "$vmid" || exit
umount "$R/var/lib/lxc/$vmid/rootfs" 2>/dev/null
exec pct destroy "$vmid" --destroy-unreferenced-disks 1
"""


def mend(id: str, vmid: int, source: Mark, proof: Settled) -> Command[None]:
    """Remove the half-made copy ``vmid`` and its lock on ``source``; nothing when both are gone. Raises NotOurs without a proof."""

    def classify(command: Command[Any], result: Result, node: str) -> NexcageError:
        if result.exit == 9 and b"not provably ours" in result.stderr:
            return NotOurs(id, node, vmid, result.stderr.decode("utf-8", "replace").strip().removeprefix("nexcage: "))
        return pct.classify(command, result, node)

    argv = ("sh", "-c", MEND, "mend", str(vmid), str(source.vmid), str(source), str(proof.at))
    tries = {"at": proof.at, "started": proof.started}
    return msgspec.structs.replace(pct.destroy(vmid), argv=argv, classify=classify, tries=tries)

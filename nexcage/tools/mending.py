r"""Removing what a killed ``pct create`` or ``pct destroy`` leaves: a config with nothing but PVE's lock (pct-observed 5 and 9).

The mark of a container is written at the end of its create and is gone at the beginning of its destroy, so the node itself proves
in the same breath that this debris is ours: it is nothing but that lock, no worker of that VMID is alive, and since our command began
there has been no other worker of that kind, but for one while each command ran that was to remove it and did not get through; nor has
anybody made another one there then. Only then are lock, mount and volumes removed.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nexcage._core.command import Command, Result
from nexcage._core.seen import Mark, Settled
from nexcage.errors import NexcageError, NotOurs
from nexcage.tools import pct

__all__ = ["MEND", "mend"]

MEND = r"""R=${NEXCAGE_NODE_ROOT-} vmid=$1 lock=$2 kind=$3 at=$4 started=$5 mark=${6-} making=${7-} again=${8-}
case $kind in
  qm*) tool=qm conf=$R/etc/pve/qemu-server/$vmid.conf ;;
  *) tool=pct conf=$R/etc/pve/lxc/$vmid.conf ;;
esac
[ -e "$conf" ] || exit 0
no() { echo "nexcage: $vmid is not provably ours: $1" >&2; exit 9; }
text=$(cat "$conf")
marked() { [ "$mark" ] && sed '/^\[/q' "$conf" | grep -qxF -e "#$mark" && grep -qxF "lock: $lock" "$conf"; }
case $text in "lock: $lock"|'') ;; *) marked || no 'its config has more than a lock' ;; esac
other= turns=' '
for upid in $(cd "$R/var/log/pve/tasks" && cat active index index.1 2>/dev/null |
  sed -n "s/^\(UPID:[^ ]*:$vmid:[^ ]*\).*/\1/p" | sort -u); do
  IFS=:; set -- $upid; unset IFS
  case $3$4$5 in *[!0-9A-F]*) continue ;; esac
  [ "$7" = "$vmid" ] || continue
  [ ! -d "$R/proc/$((0x$3))" ] || no 'a task works on it'
  case $again-$6 in
    [0-9]*create | [0-9]*restore)
      [ $((0x$5)) -lt "$at" ] || [ $((0x$4)) -lt "$started" ] || no 'somebody has made another one since' ;;
  esac
  [ "$6" = "$kind" ] || [ "$kind-$6" = vzcreate-vzrestore ] || continue
  if [ $((0x$5)) -ge $((at - 1)) ] || [ $((0x$4)) -ge "$started" ]; then
    turn=0 # each command of ours ran one of them
    for ran in $again; do [ $((0x$4)) -lt "${ran%-*}" ] || [ $((0x$4)) -gt "${ran#*-}" ] || turn=$ran; done
    case $turns in *" $turn "*) other=1 ;; *) turns="$turns$turn " ;; esac
  fi
done
# One that says that it is being made for us is ours, whatever tasks there were; also after a reboot, when no claim tells.
{ [ "$making" ] && [ "$text" != "lock: $lock" ]; } || [ -z "$other" ] || no 'another task of that kind came after ours'
if [ "$making" ] && [ "$text" ] && [ "$text" != "lock: $lock" ]; then # from here on it is like any other that is half made
  echo "lock: $lock" > "$conf.tmp.$$" && mv -f "$conf.tmp.$$" "$conf" || exit
fi
[ $tool = pct ] || exec qm destroy "$vmid" --skiplock 1 --destroy-unreferenced-disks 1
[ -z "$text" ] || pct unlock "$vmid" || exit
umount "$R/var/lib/lxc/$vmid/rootfs" 2>/dev/null
# It may already wait at its gate.
exec pct destroy "$vmid" ${making:+--force 1} --destroy-unreferenced-disks 1
"""


def mend(
    id: str, vmid: int, lock: str, proof: Settled, *, mark: Mark | None = None, making: Mark | None = None
) -> Command[None]:
    """Remove the half-made (lock ``create``) or half-deleted (``destroyed``) container ``vmid``; nothing when it is gone already.

    ``proof``: what the node knows of our step that worked on it; it is journaled with this one, because whoever has to do this again
    needs the same. ``mark``: it is a virtual machine, which may carry that beside the lock. ``making``: it is a container that may say
    that it is to carry that. Raises NotOurs when the node cannot prove that it is ours.
    """

    def classify(command: Command[Any], result: Result, node: str) -> NexcageError:
        if result.exit == 9 and b"not provably ours" in result.stderr:
            return NotOurs(id, node, vmid, result.stderr.decode("utf-8", "replace").strip().removeprefix("nexcage: "))
        return pct.classify(command, result, node)

    kind = {"create": "vzcreate", "destroyed": "vzdestroy"}[lock]
    if mark is not None:
        kind = kind.replace("vz", "qm")
    facts = (str(vmid), lock, kind, str(proof.at), str(proof.started), *(() if mark is None else (str(mark),)))
    if making is not None and lock == "create":
        facts += (f"making {making}", "1")
    again = " ".join(proof.again) if lock == "destroyed" else ""  # the others of that kind were not to remove it
    if again:
        facts = (*(*facts, "", "")[:7], again)
    argv = ("sh", "-c", MEND, "mend", *facts)
    destroy = pct.destroy(vmid)
    tries: dict[str, str | int] = {"at": proof.at, "started": proof.started}
    if again:
        tries["again"] = again
    return msgspec.structs.replace(destroy, argv=argv, classify=classify, tries=tries)

r"""Removing what a killed ``pct snapshot`` or ``pct delsnapshot`` leaves: PVE's lock, and a section that says how far it came.

The node itself proves in the same breath that it may go: the container carries our mark, the section is one that our operation made
(or one that we were removing), the lock is of that kind, and no task works on it.
"""

from __future__ import annotations

from typing import Any, Literal

from nexcage._core.command import Command, Result, nothing
from nexcage._core.seen import Mark
from nexcage.errors import NexcageError, NotOurs
from nexcage.tools import pct

__all__ = ["MEND", "mend"]

MEND = r"""R=${NEXCAGE_NODE_ROOT-} mark=$1 vmid=$2 name=$3 want=$4 op=$5 tool=${6:-pct}
case $tool in
  qm) conf=$R/etc/pve/qemu-server/$vmid.conf ;;
  *) conf=$R/etc/pve/lxc/$vmid.conf ;;
esac
[ -e "$conf" ] || exit 0
no() { echo "nexcage: $vmid is not provably ours: $1" >&2; exit 9; }
sed '/^\[/q' "$conf" | grep -qxF -e "#$mark" || no 'it does not carry our mark'
part=$(sed -n "/^\[$name\]/,/^\[/p" "$conf")
lock=$(sed -n '/^\[/q; s/^lock: //p' "$conf")
for upid in $(sed -n "s/^\(UPID:[^ ]*:$vmid:[^ ]*\).*/\1/p" "$R/var/log/pve/tasks/active" 2>/dev/null); do
  IFS=:; set -- $upid; unset IFS
  case $3 in *[!0-9A-F]*) continue ;; esac
  [ "$7" = "$vmid" ] || continue
  [ ! -d "$R/proc/$((0x$3))" ] || no 'a task works on it'
done
if [ "$want" = snapshot ] && [ -n "$part" ]; then
  printf '%s\n' "$part" | grep -qxF 'snapstate: prepare' || no 'the snapshot is whole'
  printf '%s\n' "$part" | grep -qxF "#nexcage op=$op" || no 'the snapshot is of another operation'
fi
case $lock in
  '') ;;
  "$want") "$tool" unlock "$vmid" || exit ;;
  *) no "its lock is $lock" ;;
esac
[ -n "$part" ] || exit 0
exec "$tool" delsnapshot "$vmid" "$name" --force 1
"""


def mend(mark: Mark, name: str, lock: str, op_id: str, *, tool: Literal["pct", "qm"] = "pct") -> Command[None]:
    """Remove the snapshot ``name`` that ``op_id`` left incomplete, with its lock (``snapshot`` or ``snapshot-delete``).

    Nothing when it is gone. Raises NotOurs when the node cannot prove that it may go.
    """

    def classify(command: Command[Any], result: Result, node: str) -> NexcageError:
        if result.exit == 9 and b"not provably ours" in result.stderr:
            why = result.stderr.decode("utf-8", "replace").strip().removeprefix("nexcage: ")
            return NotOurs(mark.id, node, mark.vmid, why)
        return pct.classify(command, result, node)

    more = () if tool == "pct" else (tool,)
    argv = ("sh", "-c", MEND, "mend", str(mark), str(mark.vmid), name, lock, op_id, *more)
    return Command(argv, nothing, cancel="term", timeout=600.0, classify=classify)

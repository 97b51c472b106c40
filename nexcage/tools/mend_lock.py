r"""Taking away the lock of a ``pct migrate`` that has failed and could not do that itself, because the cluster had lost its quorum, say.

The node proves in the same breath that it is ours: the container is here and carries our mark, no task works on it, and since our command
began there has been one migration of it and no other, which began while our command ran.
"""

from __future__ import annotations

from typing import Any

from nexcage._core.command import Command, Result, nothing
from nexcage._core.evidence import ran
from nexcage._core.seen import Mark, Settled
from nexcage.errors import NexcageError, NotOurs
from nexcage.tools import pct

__all__ = ["MEND", "mend"]

MEND = r"""R=${NEXCAGE_NODE_ROOT-} mark=$1 vmid=$2 at=$3 from=$4 to=$5 conf=$R/etc/pve/lxc/$2.conf
[ -e "$conf" ] || exit 0
no() { echo "nexcage: the lock of $vmid is not provably ours: $1" >&2; exit 9; }
main=$(sed '/^\[/q' "$conf")
printf '%s\n' "$main" | grep -q '^lock: ' || exit 0
printf '%s\n' "$main" | grep -qxF -e "#$mark" || no 'it does not carry our mark'
printf '%s\n' "$main" | grep -qxF 'lock: migrate' || no 'it is another one'
own=0
for upid in $(cd "$R/var/log/pve/tasks" && cat active index index.1 2>/dev/null |
  sed -n "s/^\(UPID:[^ ]*:$vmid:[^ ]*\).*/\1/p" | sort -u); do
  IFS=:; set -- $upid; unset IFS
  case $3$4$5 in *[!0-9A-F]*) continue ;; esac
  [ "$7" = "$vmid" ] || continue
  [ ! -d "$R/proc/$((0x$3))" ] || no 'a task works on it'
  [ "$6" = vzmigrate ] || continue
  if [ $((0x$5)) -ge $((at - 1)) ] || [ $((0x$4)) -ge "$from" ]; then
    [ $((0x$4)) -ge "$from" ] && [ $((0x$4)) -le "$to" ] || no 'another migration came after ours'
    own=$((own + 1))
  fi
done
[ $own = 1 ] || no "$own migrations began since ours"
exec pct unlock "$vmid"
"""


def mend(mark: Mark, proof: Settled) -> Command[None]:
    """Unlock the container; nothing when it has no lock, or is not here any more. ``proof``: what the node knows of our ``pct migrate``.

    Raises NotOurs when the node cannot prove that the lock is ours.
    """

    def classify(command: Command[Any], result: Result, node: str) -> NexcageError:
        if result.exit == 9 and b"not provably ours" in result.stderr:
            why = result.stderr.decode("utf-8", "replace").strip().removeprefix("nexcage: ")
            return NotOurs(mark.id, node, mark.vmid, why)
        return pct.classify(command, result, node)

    while_ = proof.again[0] if proof.again else ran(proof)
    from_, _, to = while_.partition("-")
    argv = ("sh", "-c", MEND, "mend", str(mark), str(mark.vmid), str(proof.at), from_, to)
    tries: dict[str, str | int] = {"at": proof.at, "started": proof.started, "again": while_}
    return Command(argv, nothing, cancel="term", timeout=60.0, classify=classify, tries=tries)

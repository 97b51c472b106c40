"""What a container has said: its console's log file where its config names one, else the journal or the log inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nexcage._core.command import Command, Result, nothing, shown
from nexcage._core.seen import Mark
from nexcage.errors import InvalidInput, NexcageError, NotFound
from nexcage.tools import inside
from nexcage.tools.attach import refused

__all__ = ["LOGS", "logs", "unshown"]

LOGS = r"""R=${NEXCAGE_NODE_ROOT-}
fail() { echo "nexcage: $2" >&2; exit "$1"; }
sed '/^\[/q' "$R/etc/pve/lxc/$2.conf" 2>/dev/null | grep -qxF -e "#$1" || fail 9 'the container does not carry our mark'
file=$(sed '/^\[/q' "$R/etc/pve/lxc/$2.conf" | sed -n 's/^lxc\.console\.logfile *[:=] *//p' | tail -n 1)
if [ -n "$file" ]; then
  [ -f "$R$file" ] || fail 5 "its console's log $file is not there yet"
  echo '@nexcage inside' >&2
  [ -n "$4" ] && exec tail -n "$3" -F "$R$file" 2>/dev/null
  exec tail -n "$3" "$R$file"
fi
case $(lxc-info -n "$2" -p -H 2>/dev/null) in
  ''|*[!0-9]*) fail 5 'its config has no lxc.console.logfile, and it does not run, so that its own journal cannot be read' ;;
esac
cd /
echo '@nexcage inside' >&2
exec lxc-attach -n "$2" --clear-env -- sh -c "$5" logs "$3" "$4" </dev/null
"""


def logs(mark: Mark, lines: int, *, follow: bool = False) -> Command[None]:
    """The newest ``lines`` lines; with ``follow`` what comes after them, until it is ended. Raises NotFound, NotOurs."""
    if isinstance(lines, bool) or not isinstance(lines, int) or not 0 <= lines <= 1_000_000:
        raise InvalidInput("lines", lines, "a number from 0 to 1000000")
    argv = ("sh", "-c", LOGS, "logs", str(mark), str(mark.vmid), str(lines), "follow" if follow else "", inside.LOGS)
    return Command(argv, nothing, safe=True, cap=64 << 20, timeout=None if follow else 60.0, classify=_classify(mark))


def _classify(mark: Mark) -> Callable[[Command[Any], Result, str], NexcageError]:
    def classify(_: Command[Any], result: Result, node: str) -> NexcageError:
        return unshown(mark, result, node)

    return classify


def unshown(mark: Mark, result: Result, node: str) -> NexcageError:
    """Why there is no log to show."""
    if result.exit == 5:
        reason = shown(result.stderr).rpartition("nexcage: ")[2].strip()
        return NotFound("log of container", mark.id, f"cannot be shown: {reason}")
    return refused(mark, result, node)

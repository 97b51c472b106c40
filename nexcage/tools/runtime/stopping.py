r"""Stopping a container of ``crun`` or ``runc``: its own stop signal, then SIGKILL. The programs have no word for it.

The script waits for the end of the init that it has signalled, which it knows by its start time, and asks no program meanwhile. A frozen
container acts on no signal, so it goes on before the first one. The signal is that of the image
(``org.opencontainers.image.stopSignal``), else SIGTERM.
"""

from __future__ import annotations

from nexcage._core.command import Command, nothing
from nexcage._core.seen import Mark
from nexcage.tools.runtime.call import OURS, PLACES, RUN, Runtime
from nexcage.tools.runtime.words import classify

__all__ = ["STOP", "stop"]

STOP = (
    PLACES
    + OURS
    + RUN
    + r"""verb=$1 deadline=$2
state=$(call state "$id") || { said $?; exit; }
rm -f "$log"
word() { printf '%s\n' "$state" | sed -n "s/.*\"$1\": *\"\{0,1\}\([A-Za-z0-9+-]*\).*/\1/p" | head -n 1; }
pid=$(word pid) status=$(word status) signal=$(word org.opencontainers.image.stopSignal)
start() { # of a process that lives: the 20th word behind its name
  line=
  read -r line < "$R/proc/$pid/stat"
  set -- ${line##*) }
  [ "${1:-Z}" != Z ] && [ "$1" != X ] && echo "${20}"
} 2>/dev/null
born=$(start) || exit 0
gone() { [ "$(start)" != "$born" ]; }
if [ "$deadline" -gt 0 ]; then
  [ "$status" != paused ] || call resume "$id"
  call kill "$id" "${signal:-TERM}" || { x=$?; gone || { said $x; exit; }; }
  rm -f "$log"
  until gone || [ "$deadline" -le 0 ]; do sleep 0.1; deadline=$((deadline - 1)); done
  gone && exit 0
  status=running
fi
call kill "$id" KILL || { x=$?; gone || { said $x; exit; }; }
rm -f "$log"
[ "$status" != paused ] || { call resume "$id" 2> /dev/null; rm -f "$log"; } # one that is frozen dies when it goes on
tenths=100
until gone; do
  [ $tenths -gt 0 ] || { echo "nexcage: its init $pid does not die" >&2; exit 4; }
  sleep 0.1
  tenths=$((tenths - 1))
done
"""
)


def stop(runtime: Runtime, mark: Mark, timeout: float) -> Command[None]:
    """Ask it to stop, and kill it ``timeout`` seconds later (0: at once). Its other processes end with its init."""
    tenths = max(0, round(timeout * 10))
    argv = ("sh", "-c", STOP, "nexcage", str(mark), runtime.program, runtime.name, "stop", str(tenths))
    return Command(argv, nothing, timeout=timeout + 60.0, classify=classify)

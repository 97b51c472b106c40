r"""Claims: what a node keeps of one step of an operation, so that its command runs at most once and its answer is not lost.

A claim is a directory ``${NEXCAGE_NODE_ROOT-}/run/nexcage-ops/FLEET/OPID.STEP`` (0700, on tmpfs, so that a reboot voids it)::

    go        a symbolic link, made once and never changed. It says who was first:
              run:PID:START:AT   a supervisor (its pid, its start time in clock ticks, Unix seconds) runs the command
              void               somebody asked before it began, and now it never will
    out, err  what the command printed, within the cap (only where there is something)
    status    put there by rename when it has ended: EXIT SIGNALLED DROPPED LATE SECONDS UPTIME

``symlink(2)`` is the arbiter: it is atomic, it fails when the name exists, and its text is there with it. So a start that comes
late (out of a buffer of a lost link, say) finds the link and runs nothing, and asking (`settle`) is always an answer.
A supervisor is its own session and outlives the link; it ends its command at the deadline by the command's class.
`status` is kept for `KEPT` seconds of the node's uptime, so a clock that jumps sweeps nothing.

The runner (``_transports/runner.pl``) keeps the same directories; here is what nodes without it do, in POSIX sh.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from nexcage._core.command import MIB, Claim, Command, Result, nothing
from nexcage._core.seen import Settled
from nexcage.errors import NodeNotUsable, NodeUnreachable

__all__ = ["CLAIM", "KEPT", "SETTLE", "SHOWN", "SWEEP", "Settled", "claimed", "settle", "sweep", "unclaimed"]

SHOWN = 32 * 1024
"""Bytes of each output that `settle` brings along."""
KEPT = 6 * 3600.0
"""Seconds of the node's uptime that an ended claim stays; one younger than this that is not there never began."""

_LEADS = r"""leads() { # wait until process $1 leads a session: just forked, it would forget a signal before it execs
  while kill -s 0 "$1" && ! kill -s 0 -- "-$1"; do sleep 0.01; done
} 2>/dev/null
"""

_REPORT = (
    _LEADS
    + r"""lives() { # process $1 that started at $2; a zombie does not
  read -r s < "/proc/$1/stat" && set -- "$2" ${s##*) } && [ "$2" != Z ] && [ "${21}" = "$1" ]
} 2>/dev/null
digits() { case $1 in '' | *[!0-9]*) return 1 ;; esac && [ ${#1} -le 18 ]; }
answered() { # the words of a status; whatever else somebody has put there is no answer
  case $1 in - | [0-9] | [0-9][0-9] | [0-9][0-9][0-9]) ;; *) return 1 ;; esac
  case $2$4 in [01][01]) digits "$3" && digits "${5%.*}" && digits "${5#*.}" ;; *) return 1 ;; esac
}
report() { # of a claim that was asked for
  g=$(readlink "$D/go") kind=lost exit=- sig=0 dropped=0 late=0 secs=0 at=0 start=0
  read -r up _ < /proc/uptime
  case $g in
    void) kind=void ;;
    run:*)
      p=${g#run:} at=${p##*:} p=${p%:*} start=${p#*:} p=${p%%:*}
      if ! digits "$p" || ! digits "$start" || ! digits "$at" || [ ${#at} -gt 12 ]; then p=0 at=0 start=0; fi
      if [ ! -e "$D/status" ] && lives "$p" "$start"; then kind=running; fi
      if [ -e "$D/status" ]; then
        s1=; read -r s1 s2 s3 s4 s5 _ < "$D/status"
        if answered "$s1" "$s2" "$s3" "$s4" "$s5"; then exit=$s1 sig=$s2 dropped=$s3 late=$s4 secs=$s5 kind=ended; fi
      fi ;;
    *) # where something else lies in the way nothing can begin; where there is nothing, it still may
      if [ ! -L "$D/go" ] && [ ! -e "$D/go" ] && { [ -d "$D" ] || [ ! -e "$D" ]; }; then kind=unusable; fi ;;
  esac 2>/dev/null
  lo=$(wc -c < "$D/out") le=$(wc -c < "$D/err")
  [ "$kind" = ended ] || lo=0 le=0
  [ "${lo:-0}" -le "$most" ] || lo=$most
  [ "${le:-0}" -le "$most" ] || le=$most
  printf '@nexcage claim %s %s %s %s %s %s %s %s %s %s %d %d\n' \
    "$kind" "$exit" "$sig" "$dropped" "$late" "$secs" "$at" "$start" "$b" "$up" "${lo:-0}" "${le:-0}"
  if [ "$kind" = ended ]; then tail -c "${lo:-0}" "$D/out"; tail -c "${le:-0}" "$D/err"; fi
} 2>/dev/null
R=${NEXCAGE_NODE_ROOT-}
read -r b < "$R/proc/sys/kernel/random/boot_id"
m=$(umask)
umask 077
claim() {
  D=$R/run/nexcage-ops/$1
  mkdir -p "${D%/*}" 2>/dev/null
  mkdir "$D" 2>/dev/null
  [ -d "$D" ]
}
"""
)

SETTLE = (
    _REPORT
    + r"""most=$1
shift
for c in "$@"; do
  claim "$c" && ln -s void "$D/go" 2>/dev/null
  report
done
"""
)

# The supervisor: its own session, no descriptors of ours. The tool gets a session of its own too, so that its whole group can be
# ended; what the tool leaves behind may hold its output open, which is waited for a second and no longer. Until then nothing of it
# may be kept back in a buffer of `head`.
_SUPERVISE = (
    _LEADS
    + r"""exec 3<&0 </dev/null
stopped=
trap 'stopped=1' TERM
D=$1 cancel=$2 timeout=$3 cap=$4 m=$5
shift 5
read -r s < /proc/$$/stat
s=${s##*) }
start=$(set -- $s; echo "${20}")
ln -s "run:$$:$start:$(date +%s)" "$D/go" 2>/dev/null || exit 0
read -r began _ < /proc/uptime
mkfifo "$D/o" "$D/e"
u=
if command -v stdbuf > /dev/null; then u='stdbuf -o0'; fi
{ $u head -c "$cap" > "$D/out"; wc -c > "$D/more.o"; } < "$D/o" 3<&- & ro=$!
{ $u head -c "$cap" > "$D/err"; wc -c > "$D/more.e"; } < "$D/e" 3<&- & re=$!
setsid sh -c 'umask "$1"; shift; exec "$@"' nexcage "$m" "$@" <&3 3<&- > "$D/o" 2> "$D/e" & t=$!
exec 3<&-
stop() {
  leads "$t"
  if [ "$cancel" = kill ]; then
    kill -s TERM -- "-$t" || kill -s TERM "$t"
    { i=0; while [ $i -lt 10 ] && kill -s 0 -- "-$t"; do sleep 0.1; i=$((i+1)); done; kill -s KILL -- "-$t"; } &
  else
    kill -s TERM "$t"
  fi 2>/dev/null
}
late=0
trap stop TERM
trap 'late=1; stop' ALRM
[ -z "$stopped" ] || stop
# Without the operation's id, or a look would take it for the command.
(unset NEXCAGE_OP_ID; exec sh -c 't=${1%.*} s=
trap "kill \$s; exit" TERM
while [ $t -gt 20 ]; do # it does not outlive a supervisor that was killed
  sleep 20 & s=$!; wait $s; kill -s 0 "$2" || exit
  t=$((t-20))
done
sleep "$t.${1#*.}" & s=$!; wait $s; kill -s ALRM "$2"' nexcage-deadline "$timeout" $$) & w=$!
while :; do
  wait $t; x=$?
  kill -s 0 $t 2>/dev/null || break
done
wait $t 2>/dev/null; y=$?
[ $y = 127 ] || x=$y
kill $w 2>/dev/null
{ z=; trap 'kill $z; exit' TERM; sleep 1 & z=$!; wait $z; kill $ro $re; } 2>/dev/null & d=$!
for r in $ro $re; do while kill -s 0 $r; do wait $r; done; done 2>/dev/null
kill $d 2>/dev/null
dropped=0
for f in "$D/more.o" "$D/more.e"; do n=; read -r n < "$f"; dropped=$((dropped + ${n:-0})); done 2>/dev/null
rm -f "$D/o" "$D/e" "$D/more.o" "$D/more.e"
[ -s "$D/out" ] || rm -f "$D/out"
[ -s "$D/err" ] || rm -f "$D/err"
sig=0; [ $x -gt 128 ] && [ $x -lt 193 ] && sig=1
[ "$late$cancel" = 1kill ] && x=- # whatever it says then is not its answer
read -r up _ < /proc/uptime
secs=$(( ${up%.*} - ${began%.*} ))
echo "$x $sig $dropped $late $secs $up" > "$D/status.new" && mv "$D/status.new" "$D/status"
"""
)

CLAIM = (
    _REPORT
    + r"""claim "$1" || { echo "@nexcage claim unusable"; echo "nexcage: cannot make $D" >&2; exit 0; }
shift
most=1000000000
boot=$1 cancel=$2 timeout=$3 cap=$4 size=$5 supervise=$6 stopped=
shift 6
if [ ! -L "$D/go" ]; then
  if [ -n "$boot" ] && [ "$boot" != "$b" ]; then echo "@nexcage claim rebooted"; exit 0; fi
  exec 3< /dev/null
  if [ "$size" -gt 0 ]; then # it may be a secret, so its file has no name by the time it is written
    in=$D/in.$$
    : > "$in" && exec 3< "$in" 4< "$in" 5> "$in" && rm -f "$in" && cat >&5
    [ "$(wc -c <&4)" -eq "$size" ] || { echo "@nexcage claim cut"; exit 0; }
    exec 4<&- 5>&-
  fi
  trap 'stopped=1' TERM
  setsid sh -c "$supervise" nexcage-claim "$D" "$cancel" "$timeout" "$cap" "$m" "$@" <&3 3<&- >/dev/null 2>&1 & s=$!
  exec 3<&-
  trap 'leads $s; kill -s TERM $s 2>/dev/null' TERM
  [ -z "$stopped" ] || { leads $s; kill -s TERM $s; }
  while wait $s; [ $? -gt 128 ] && kill -s 0 $s; do :; done 2>/dev/null # a supervisor that was killed ended by a signal too
fi
g=$(readlink "$D/go")
case $g in run:*)
  p=${g#run:} p=${p%:*} start=${p#*:} p=${p%%:*}
  trap 'kill -s TERM $p 2>/dev/null' TERM
  while [ ! -e "$D/status" ] && lives "$p" "$start"; do sleep 0.05; done ;;
esac
report
"""
)

SWEEP = r"""cd "${NEXCAGE_NODE_ROOT-}/run/nexcage-ops/$1" 2>/dev/null || exit 0
read -r up _ < /proc/uptime
for d in *.*; do
  [ -d "$d" ] || continue
  u=
  read -r _ _ _ _ _ u < "$d/status"
  if [ -z "$u" ] && [ "$(readlink "$d/go")" = void ]; then echo "- 0 0 0 0 $up" > "$d/status"; continue; fi
  [ -n "$u" ] && [ $(( ${up%.*} - ${u%.*} )) -gt "$2" ] && mv "$d" ".swept.$d" && echo "$d" && rm -rf ".swept.$d"
done 2>/dev/null
exit 0
"""

_HEAD = re.compile(
    rb"@nexcage claim (ended|running|lost|void|unusable) (-|[0-9]{1,3}) ([01]) ([0-9]{1,18}) ([01]) ([0-9.]{1,18}) ([0-9]{1,12})"
    rb" ([0-9]{1,18}) ([0-9A-Za-z-]{0,64}) ([0-9.]{1,18}) ([0-9]{1,12}) ([0-9]{1,12})\n"
)
_REFUSED = re.compile(rb"@nexcage claim (rebooted|cut|unusable)\n")


def claimed(command: Command[Any]) -> Command[Any]:
    """``command`` with a claim as a command for a node without a runner; `unclaimed` reads what comes of it.

    The wrapper itself is ended by TERM only: it hands that on to the supervisor, which ends the command by its class.
    """
    claim = command.claim
    assert claim is not None
    timeout = 86400.0 if command.timeout is None else command.timeout
    words = (
        claim.path,
        claim.boot_id,
        command.cancel,
        f"{timeout:.1f}",
        str(max(command.cap, 1)),
        str(len(command.stdin)),
    )
    return msgspec.structs.replace(
        command,
        argv=("sh", "-c", CLAIM, "nexcage", *words, _SUPERVISE, *command.argv),
        claim=None,
        cancel="term",
        cap=2 * command.cap + MIB,
        timeout=timeout + 30.0,
    )


def unclaimed(result: Result, node: str) -> Result:
    """The result of a command out of what its `claimed` form gave. Raises a NodeError when it surely did not begin."""
    if result.exit is None:
        return result
    refused = _REFUSED.search(result.stdout)
    if refused is not None:
        match refused[1]:
            case b"rebooted":
                raise NodeUnreachable(node, "it was rebooted since this operation began")
            case b"cut":
                raise NodeUnreachable(node, "the command's input was cut off before it began")
            case _:
                raise NodeNotUsable(
                    node, f"claims cannot be kept there: {result.stderr.decode('utf-8', 'replace').strip()}"
                )
    match = None if result.dropped else _HEAD.search(result.stdout)
    if match is None:
        return Result(None, b"", result.stderr, lost="link", seconds=result.seconds)
    settled = _report(match, result.stdout)
    if settled.kind == "void":
        raise NodeUnreachable(node, "somebody has found this step not begun and called it off")
    if settled.kind == "unusable":
        raise NodeUnreachable(node, "its supervisor ended before the command began")
    if settled.result is None:
        return Result(None, lost="link" if settled.kind == "lost" else "deadline", seconds=result.seconds)
    # A signal that came at the deadline is not the tool's own answer.
    return settled.result


def settle(*claims: Claim) -> Command[tuple[Settled, ...]]:
    """Ask for these steps, in one command that any transport can run, on nodes with and without a runner.

    Of what each one printed the last `SHOWN` bytes come back.
    """
    argv = ("sh", "-c", SETTLE, "nexcage", str(SHOWN), *(claim.path for claim in claims))
    cap = len(claims) * (2 * SHOWN + 256) + 4096
    return Command(argv, _reports, safe=True, weight="read", timeout=60.0, cap=2 * cap)


def sweep(fleet: str) -> Command[None]:
    """Remove the claims of a fleet that ended longer than `KEPT` ago."""
    return Command(
        ("sh", "-c", SWEEP, "nexcage", fleet, f"{KEPT:.0f}"), nothing, safe=True, weight="read", timeout=60.0
    )


def _reports(result: Result) -> tuple[Settled, ...]:
    if result.dropped:
        raise ValueError("the answer about claims was cut")
    found: list[Settled] = []
    at = 0
    while (match := _HEAD.search(result.stdout, at)) is not None:
        found.append(_report(match, result.stdout))
        at = match.end() + (int(match[11]) + int(match[12]) if match[1] == b"ended" else 0)
    return tuple(found)


def _report(match: re.Match[bytes], stdout: bytes) -> Settled:
    kind, exit, signalled, dropped, late, seconds, at, started, boot, uptime, out, err = match.groups()
    body = stdout[match.end() :]
    answer = None
    if kind == b"ended":
        cut = int(out)
        lost = "deadline" if late == b"1" else ""
        number = int(exit) if exit != b"-" else None
        if late == b"1" and signalled == b"1":
            number = None  # what a signal made of it is not its answer
        answer = Result(number, body[:cut], body[cut : cut + int(err)], int(dropped), lost, float(seconds))
    return Settled(
        kind=kind.decode(),  # type: ignore[arg-type]  # one of the five words, by the pattern
        result=answer,
        at=int(at),
        started=int(started),
        boot_id=boot.decode("ascii"),
        uptime=float(uptime),
    )

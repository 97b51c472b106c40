r"""A program inside a container of ``crun`` or ``runc``, with its three streams as they are, and what the container itself has printed.

As `nexcage.tools.attach` does it: variables come in front of the standard input, one line on standard error says that the program
begins now, and behind it every byte is the program's. What the runtime says of a program that it cannot run goes there too; its exit
status is then 127 (not found), 126 (not permitted) or 255.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nexcage._core.command import MIB, Command, Result, nothing, shown
from nexcage._core.seen import Mark
from nexcage.errors import IllegalTransition, InvalidInput, NexcageError, NotFound
from nexcage.tools import attach
from nexcage.tools.pty import PTY
from nexcage.tools.runtime.call import OURS, PLACES, RUN, Runtime
from nexcage.tools.runtime.words import classify

__all__ = ["EXEC", "LOGS", "exact", "exec_", "logs", "refused"]

EXEC = (
    PLACES
    + OURS
    + RUN
    + r"""fail() { echo "nexcage: $2" >&2; exit "$1"; }
user=$2 cwd=$3 size=$4 pty=$5
shift 5
[ -z "$size" ] || perl=$(command -v perl) || fail 6 'there is no perl, which a terminal needs'
state=$(call state "$id" 2>/dev/null </dev/null) || { x=$?; [ $x -ne 127 ] || fail 6 "there is no $runtime"; }
rm -f "$log"
case $state in
  *'"status": "running"'*|*'"status": "created"'*) ;;
  *'"status": "paused"'*) fail 8 "container $id is paused" ;;
  *) fail 8 "container $id has no init process" ;;
esac
case $user in
  ''|[0-9]*) ;;
  *)
    entry=$(call exec "$id" cat /etc/passwd </dev/null 2>/dev/null |
      sed -n "s/^$user:[^:]*:\([0-9]*\):\([0-9]*\):.*/\1:\2/p" | head -n 1)
    rm -f "$log"
    [ -n "$entry" ] || fail 7 "there is no user $user in it"
    user=$entry ;;
esac
n=$#
base=$runtime
while IFS= read -r line && [ -n "$line" ]; do
  if [ "$base" = crun ]; then # it puts what it is given in the place of the variables that the container has
    base= pid=$(printf '%s\n' "$state" | sed -n 's/^ *"pid": \([1-9][0-9]*\),$/\1/p')
    set -- "$@" --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    case $state in *'"status": "running"'*)
      while IFS= read -r one; do
        case $one in HOME=*|'') continue ;; esac
        one=$(printf '%b.' "$one")
        set -- "$@" --env "${one%.}"
      done <<END
$(sed -z 's/\\/\\\\/g; s/\n/\\n/g' "$R/proc/$pid/environ" 2>/dev/null | tr '\0' '\n')
END
    esac
  fi
  value=$(printf '%b.' "${line#*=}")
  set -- "$@" --env "${line%%=*}=${value%.}"
done
[ -z "$size" ] || set -- "$@" --tty
[ -z "$user" ] || set -- "$@" --user "$user"
[ -z "$cwd" ] || set -- "$@" --cwd "$cwd"
set -- "$@" "$id"
while [ "$n" -gt 0 ]; do set -- "$@" "$1"; shift; n=$((n-1)); done # the program behind the options
echo '@nexcage inside' >&2
if [ -n "$size" ]; then
  eval 'exec "$perl" -e "$pty" "${size%x*}" "${size#*x}" '"$program"' --root "$root" exec "$@"'
fi
call exec "$@"
x=$?
if [ $x -ne 0 ] && [ -s "$log" ]; then
  case $(cat "$log") in
    *'executable file'*'not found'*|*'o such file or directory'*) x=127 ;;
    *'ermission denied'*) x=126 ;;
  esac
fi
rm -f "$log"
exit $x
"""
)

LOGS = (
    PLACES
    + OURS
    + r"""[ -f "$kept/log" ] || { echo 'nexcage: it has not been kept' >&2; exit 5; }
echo '@nexcage inside' >&2
[ -n "$3" ] && exec tail -n "$2" -F "$kept/log" 2>/dev/null
exec tail -n "$2" "$kept/log"
"""
)


EXACT = r"""n=$#
while [ "$n" -gt 0 ]; do word=$(printf '%b.' "$1"); set -- "$@" "${word%.}"; shift; n=$((n-1)); done
exec "$@"
"""
"""Inside the container: the words as bytes, where the runtime would only hand on text."""


def exec_(
    runtime: Runtime,
    mark: Mark,
    argv: Sequence[str | bytes],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str = "",
    user: str = "",
    size: tuple[int, int] | None = None,
    safe: bool = False,
    timeout: float | None = None,
    cap: int = MIB,
) -> Command[None]:
    """``argv`` inside the container, with the variables and the user of its own program where none are given. ``size`` (rows,
    columns) gives it a terminal: its input is then frames (`nexcage.tools.pty`). Raises InvalidInput.
    """
    # The same words are refused as by attach, in its order; of what that makes only the input is used.
    like = attach.attach(mark, argv, env=env, cwd=cwd, user=user, size=size, safe=safe, timeout=timeout, cap=cap)
    loaded = _loaded(like.argv)
    inner = exact(runtime.name, attach.words(argv))
    measure, terminal = ("", "") if size is None else (f"{size[0]}x{size[1]}", PTY)
    words = ("exec", user, cwd, measure, terminal, *inner)
    outer = ("sh", "-c", EXEC, "nexcage", str(mark), runtime.program, runtime.name, *words)
    return Command(
        outer,
        nothing,
        safe=safe,
        stdin=loaded + like.stdin,
        timeout=timeout,
        cap=cap,
        classify=lambda _, result, node: refused(mark, result, node),
    )


def exact(runtime: str, words: Sequence[str]) -> tuple[str, ...]:
    """A program's words so that its bytes arrive: runc makes text of what is none, so a shell inside has to put them together."""
    if runtime != "runc" or not any("\udc80" <= letter <= "\udcff" for word in words for letter in word):
        return tuple(words)
    return ("sh", "-c", EXACT, "exec", *map(_escaped, words))


def _loaded(argv: tuple[str, ...]) -> bytes:
    """Variables that attach keeps away from the node's own programs: nothing is exported here, so they go with the others."""
    found = argv[9 : argv.index("--", 9)]
    lines = (word.partition("=") for flag, word in zip(found[::2], found[1::2], strict=True) if flag == "-v")
    return b"".join(f"{name}={_escaped(value)}\n".encode() for name, _, value in lines)


def _escaped(value: str) -> str:
    return "".join(f"\\0{byte:03o}" for byte in value.encode("utf-8", "surrogateescape"))


def logs(runtime: Runtime, mark: Mark, lines: int, *, follow: bool = False) -> Command[None]:
    """The newest ``lines`` lines of what it has printed; with ``follow`` what comes after them. Raises NotFound, NotOurs."""
    if isinstance(lines, bool) or not isinstance(lines, int) or not 0 <= lines <= 1_000_000:
        raise InvalidInput("lines", lines, "a number from 0 to 1000000")
    words = ("logs", str(lines), "follow" if follow else "")
    argv = ("sh", "-c", LOGS, "nexcage", str(mark), runtime.program, runtime.name, *words)
    timeout = None if follow else 60.0
    return Command(argv, nothing, safe=True, weight="read", cap=64 << 20, timeout=timeout, classify=_unshown)


def _unshown(command: Command[None], result: Result, node: str) -> NexcageError:
    if result.exit == 5:
        mark = Mark.find(command.argv[4])
        return NotFound("log of container", mark.id if mark else "?", "cannot be shown: it has not been kept")
    return classify(command, result, node)


def refused(mark: Mark, result: Result, node: str) -> NexcageError:
    """The error of a program that did not begin, or of a log that cannot be shown."""
    if result.exit == 8 and "is paused" in shown(result.stderr):
        return IllegalTransition(mark.id, "exec", "paused")
    if result.exit == 5:
        return NotFound("log of container", mark.id, "cannot be shown: it has not been kept")
    return attach.refused(mark, result, node)

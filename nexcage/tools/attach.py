r"""``lxc-attach``: a program inside a container, with its three streams as they are (pve-commands 1.8).

What ``pct exec`` becomes after a second of Perl, called at once. The script checks the mark in the same breath, so that nothing ever
runs in a container that took the place of ours. Variables come in front of the standard input, one ``NAME=value`` a line and an
empty line behind them, so that no value is in any argv; they reach the program through the environment of ``lxc-attach``
(``--keep-var``). When everything is in order the script says so in one line on standard error and becomes ``lxc-attach``: without
that line the program surely did not begin, and behind it every byte is the program's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nexcage._core.command import MIB, Command, Result, nothing, shown
from nexcage._core.seen import Mark
from nexcage.errors import CommandFailed, IllegalTransition, InvalidInput, NexcageError, NodeNotUsable, NotOurs
from nexcage.tools.inside import IN_DIRECTORY
from nexcage.tools.pty import PTY

__all__ = ["ATTACH", "BEGUN", "attach", "header", "measured", "refused", "words"]

BEGUN = b"@nexcage inside\n"

ATTACH = r"""nexcage_fail() { echo "nexcage: $2" >&2; exit "$1"; }
nexcage_conf=${NEXCAGE_NODE_ROOT-}/etc/pve/lxc/$2.conf
sed '/^\[/q' "$nexcage_conf" 2>/dev/null | grep -qxF -e "#$1" || nexcage_fail 9 'the container does not carry our mark'
nexcage_vmid=$2 nexcage_user=$3 nexcage_size=$4 nexcage_pty=$5
shift 5
nexcage_attach=$(command -v lxc-attach) || nexcage_fail 6 'there is no lxc-attach'
[ -z "$nexcage_size" ] || nexcage_perl=$(command -v perl) || nexcage_fail 6 'there is no perl, which a terminal needs'
case $(lxc-info -n "$nexcage_vmid" -p -H 2>/dev/null) in
  ''|*[!0-9]*) nexcage_fail 8 "container $nexcage_vmid has no init process" ;;
esac
cd /
nexcage_home=/root
case $nexcage_user in
  ''|0) ;;
  *[!0-9:]*)
    nexcage_entry=$("$nexcage_attach" -n "$nexcage_vmid" --clear-env -- cat /etc/passwd </dev/null 2>/dev/null |
      sed -n "s/^$nexcage_user:[^:]*:\([0-9]*\):\([0-9]*\):[^:]*:\([^:]*\):.*/\1 \2 \3/p" | head -n 1)
    [ -n "$nexcage_entry" ] || nexcage_fail 7 "there is no user $nexcage_user in it"
    nexcage_home=${nexcage_entry#* * }
    nexcage_entry=${nexcage_entry% "$nexcage_home"}
    set -- --uid "${nexcage_entry% *}" --gid "${nexcage_entry#* }" "$@" ;;
  *:*) set -- --uid "${nexcage_user%:*}" --gid "${nexcage_user#*:}" "$@"; nexcage_home=/ ;;
  *) set -- --uid "$nexcage_user" "$@"; nexcage_home=/ ;;
esac
HOME=${nexcage_home:-/}
while IFS= read -r nexcage_line && [ -n "$nexcage_line" ]; do
  nexcage_value=$(printf '%b.' "${nexcage_line#*=}")
  export "${nexcage_line%%=*}=${nexcage_value%.}"
  set -- --keep-var "${nexcage_line%%=*}" "$@"
done
export HOME
set -- "$nexcage_attach" -n "$nexcage_vmid" --clear-env --keep-var HOME "$@"
echo '@nexcage inside' >&2
[ -z "$nexcage_size" ] || exec "$nexcage_perl" -e "$nexcage_pty" "${nexcage_size%x*}" "${nexcage_size#*x}" "$@"
exec "$@"
"""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OURS = re.compile(r"nexcage_", re.IGNORECASE)
# What would change the tools on the node themselves goes by argv instead; none of these is where people keep secrets.
_LOADED = re.compile(
    r"(?:LD_|GLIBC_|MALLOC_|LXC_|PERL|BASH|DASH).*|GCONV_PATH|LOCPATH|NLSPATH|HOSTALIASES|ENV|IFS|PS4|OPTIND|OPTARG|"
    r"PPID|E?UID|SHELLOPTS|TMPDIR"
)
_USER = re.compile(r"[0-9]{1,10}(?::[0-9]{1,10})?|[A-Za-z_][A-Za-z0-9_-]{0,31}")
_PLAIN = re.compile(rb"[^A-Za-z0-9_./:=,;@+-]")
_LONGEST = 48 * 1024  # of the variables together: they travel with the command


def words(argv: Sequence[str | bytes]) -> tuple[str, ...]:
    """The words of a command, bytes among them as text that becomes the same bytes again; raises InvalidInput."""
    if isinstance(argv, (str, bytes)) or not isinstance(argv, Sequence) or not argv:
        raise InvalidInput("argv", argv, "a program and its arguments, as a list of words")
    found = tuple(_word(word) for word in argv)
    if not found[0]:
        raise InvalidInput("argv", found, "a program and its arguments")
    return found


def _word(word: object) -> str:
    text = word.decode("utf-8", "surrogateescape") if isinstance(word, bytes) else word
    if not isinstance(text, str) or "\0" in text:
        raise InvalidInput("argv", word, "text or bytes without NUL")
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise InvalidInput("argv", word, "text that can be written as bytes") from None
    return text


def header(env: Mapping[str, str]) -> bytes:
    """What goes in front of the program's own input: its variables; raises InvalidInput."""
    lines: list[bytes] = []
    if not isinstance(env, Mapping):
        raise InvalidInput("env", env, "a mapping of names to values")
    for name, value in env.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or _OURS.match(name):
            raise InvalidInput("env", name, "a name of ASCII letters, digits and _, which does not begin with nexcage_")
        try:
            data = _word(value).encode("utf-8", "surrogateescape")
        except InvalidInput:  # the value may be a secret, so it is not shown
            raise InvalidInput("env", name, "a variable whose value is text without NUL") from None
        if not _LOADED.fullmatch(name):
            coded = _PLAIN.sub(lambda found: b"\\0%03o" % found[0][0], data)
            lines.append(b"%b=%b\n" % (name.encode("ascii"), coded))
    text = b"".join([*lines, b"\n"])
    if len(text) > _LONGEST:
        raise InvalidInput("env", f"{len(text)} bytes", f"at most {_LONGEST} bytes of variables")
    return text


def attach(
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
    """``argv`` inside the container that carries ``mark``. ``size`` (rows, columns) gives it a terminal: its input is then frames
    (`nexcage.tools.pty`). ``cwd`` needs a shell inside. Raises InvalidInput.
    """
    env = {} if env is None else env
    inner = words(argv)
    measured(timeout, cap)
    if cwd != "":
        if not isinstance(cwd, str) or not cwd.startswith("/"):
            raise InvalidInput("cwd", cwd, "an absolute path inside the container")
        inner = ("sh", "-c", IN_DIRECTORY, "sh", _word(cwd), *inner)
    if user != "" and not (isinstance(user, str) and _USER.fullmatch(user)):
        raise InvalidInput("user", user, "a user name, UID or UID:GID")
    if size is not None:
        _sized(size)
    text = header(env)
    loaded = [word for name, value in env.items() if _LOADED.fullmatch(name) for word in ("-v", f"{name}={value}")]
    sized = ("", "") if size is None else (f"{size[0]}x{size[1]}", PTY)
    outer = ("sh", "-c", ATTACH, "attach", str(mark), str(mark.vmid), user, *sized, *loaded, "--", *inner)
    return Command(outer, nothing, safe=safe, stdin=text, timeout=timeout, cap=cap, classify=_refusal(mark))


def measured(timeout: object, cap: object) -> None:
    """Raises InvalidInput for a limit that is none."""
    if timeout is not None and (
        isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 <= timeout <= 1e9
    ):
        raise InvalidInput("timeout", timeout, "seconds, or None for no limit")
    if isinstance(cap, bool) or not isinstance(cap, int) or not 0 <= cap <= 1 << 40:
        raise InvalidInput("cap", cap, "a whole number of bytes that are kept")


def _sized(size: tuple[int, ...]) -> None:
    fits = isinstance(size, (tuple, list)) and len(size) == 2
    if not fits or not all(type(number) is int and 0 < number < 10_000 for number in size):
        raise InvalidInput("size", size, "rows and columns of a terminal")


def _refusal(mark: Mark) -> Callable[[Command[Any], Result, str], NexcageError]:
    def classify(_: Command[Any], result: Result, node: str) -> NexcageError:
        return refused(mark, result, node)

    return classify


def refused(mark: Mark, result: Result, node: str) -> NexcageError:
    """The error of a program that did not begin."""
    said = shown(result.stderr).strip()
    match result.exit:
        case 9 if "does not carry our mark" in said:
            return NotOurs(mark.id, node, mark.vmid, "it does not carry our mark")
        case 8 if "has no init process" in said:
            return IllegalTransition(mark.id, "exec", "stopped", reason="it has no process")
        case 7 if "there is no user" in said:
            return InvalidInput(
                "user", said.rpartition("there is no user ")[2].removesuffix(" in it"), "a user that it knows"
            )
        case 6 if "nexcage: there is no" in said:
            return NodeNotUsable(node, said.removeprefix("nexcage: "))
        case _:
            return CommandFailed(node, ("exec", mark.id), result.exit or 0, said)

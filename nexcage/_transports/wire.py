r"""The command lines that go to a login shell, and finding the command's own output in what comes back.

A login shell may print before it runs our command (banners in start-up files), and nobody tells us the pid of what it runs. So
each command goes through one more ``sh``, which prints a marker on both streams and then becomes the command::

    exec env LC_ALL=C K=V sh -c 'n=$1; shift; printf "\036nexcage %s %d\n" ...; exec "$@"' nexcage 17 pct start 104

Everything before the marker is the shell's; everything after it is the command's; the pid in it is the command's, so that a
signal reaches exactly it. The marker's first byte (octal 036) exists only in what ``printf`` prints, so a shell that echoes the
command line cannot forge it. Words are quoted in this module and nowhere else.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Literal

import msgspec

from nexcage._transports import boot
from nexcage.errors import InvalidInput

__all__ = [
    "Ending",
    "Frame",
    "Starting",
    "Wrapped",
    "checked",
    "ending",
    "markers",
    "named",
    "split",
    "starting",
    "unwrap",
    "wrap",
]

LONGEST = 128 * 1024 - 1
"""The most bytes that Linux takes as one argument, which the whole line is for the login shell."""

_BEGIN = 'n=$1; shift; printf "\\036nexcage %s %d\\n" "$n" "$$"; printf "\\036nexcage %s\\n" "$n" >&2; exec "$@"'

# The group is the tool's own, or that of the sudo above it. Any other one is not ours (a server that does not start sessions of
# their own): then only the tool itself is signalled. What waits for the second to pass goes on by itself, so that nobody has to
# wait for it, and a link that is lost meanwhile changes nothing.
_END_KILL = """\
p=$1; g=$p; s=$(cat "/proc/$p/stat" 2>/dev/null) && {
set -- ${s##*) }; if [ "$3" = "$p" ]; then g=$p; elif [ "$3" = "$2" ]; then g=$3; else g=; fi; }
t=${g:+-}${g:-$p}; kill -s TERM -- "$t" || exit 0
{ i=0; while [ $i -lt 10 ] && kill -s 0 -- "$t"; do sleep 0.1; i=$((i+1)); done
kill -s KILL -- "$t"; } </dev/null >/dev/null 2>&1 &
"""
_END_TERM = 'kill -s TERM -- "$1"'
_QUOTED = re.compile(r"""((?:[\w@%+=:,./-]|'[^']*'|"'")+)(?: |$)""", re.ASCII)
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Wrapped(msgspec.Struct, frozen=True):
    """A command line of `wrap`, read back."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    nonce: str


class Ending(msgspec.Struct, frozen=True):
    """A command line of `ending`, read back: end ``pid`` as that class of cancelling says."""

    pid: int
    cancel: Literal["kill", "term"]


class Starting(msgspec.Struct, frozen=True):
    """A command line of `starting`, read back: the runner, whose program is the first ``length`` bytes of the input."""

    nonce: str
    length: int


def checked(argv: Sequence[str], env: Mapping[str, str]) -> None:
    """Refuse what no command line can carry: NUL, an empty argv, a name that is not one, text that has no bytes."""
    if not argv or not argv[0]:
        raise InvalidInput("argv", tuple(argv), "a program and its arguments")
    for word in argv:
        _carried("argv", word)
    for name, value in env.items():
        if not _is_name(name):
            raise InvalidInput("env", name, "a name of ASCII letters, digits and _")
        _carried("env", value)


def named(env: Iterable[str]) -> bool:
    """Whether all of these are names that `checked` lets pass."""
    return all(map(_is_name, env))


@lru_cache(maxsize=256)
def _is_name(name: str) -> bool:
    return _ENV_NAME.fullmatch(name) is not None


def _carried(field: str, word: str) -> None:
    if "\0" in word:
        raise InvalidInput(field, word, "no NUL: a command line cannot hold one")
    try:
        word.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise InvalidInput(field, word, "text that can be written as bytes") from None


def wrap(argv: Sequence[str], env: Mapping[str, str], nonce: str, *, sudo: bool = False) -> bytes:
    """The line that runs ``argv`` with ``env`` behind a marker; raises InvalidInput for what cannot be sent."""
    checked(argv, env)
    names = [f"{name}={value}" for name, value in env.items()]
    return _line(["env", "LC_ALL=C", *names, "sh", "-c", _BEGIN, "nexcage", nonce, *argv], sudo)


def ending(pid: int, cancel: Literal["kill", "term"], *, sudo: bool = False) -> bytes:
    """The line that ends a running command: its group by TERM and a second later KILL, or only it and only by TERM."""
    script = _END_KILL if cancel == "kill" else _END_TERM
    return _line(["env", "LC_ALL=C", "sh", "-c", script, f"nexcage-{cancel}", str(pid)], sudo)


def starting(nonce: str, *, heartbeat: float = 0.0, sudo: bool = False) -> bytes:
    """The line that starts a runner."""
    return _line(boot.words(nonce, heartbeat=heartbeat), sudo)


def _line(words: Sequence[str], sudo: bool) -> bytes:
    line = shlex.join(["exec", *(("sudo", "-n", "--") if sudo else ()), *words]).encode("utf-8", "surrogateescape")
    if len(line) > LONGEST:
        raise InvalidInput(
            "argv", words[-1], f"at most {LONGEST} bytes for the whole command line; this one has {len(line)}"
        )
    return line


def split(line: str) -> list[str]:
    """The words of a line, as `shlex.split` finds them; raises ValueError as it does. Quick where `shlex.join` made the line."""
    words: list[str] = []
    end = 0
    while end < len(line):
        found = _QUOTED.match(line, end)
        if found is None:
            return shlex.split(line)
        word, end = found[1], found.end()
        words.append(word[1:-1].replace("'\"'\"'", "'") if word[0] == "'" else word)
        if shlex.quote(words[-1]) != word:
            return shlex.split(line)
    return words


def unwrap(line: str) -> Wrapped | Ending | Starting | None:
    """Read a line of `wrap`, `ending` or `starting` back (for servers that pretend to have a shell); None for any other line."""
    try:
        words = split(line)
    except ValueError:
        return None
    words = words[1:] if words[:1] == ["exec"] else words
    words = words[3:] if words[:3] == ["sudo", "-n", "--"] else words
    try:
        shell = words.index("sh")
    except ValueError:
        return None
    match words[shell + 1 :]:
        case ["-c", script, "nexcage", nonce, *argv] if script == _BEGIN and words[0] == "env" and argv:
            pairs = (word.partition("=") for word in words[1:shell])
            return Wrapped(tuple(argv), {name: value for name, _, value in pairs}, nonce)
        case ["-c", _, "nexcage-kill", pid] if pid.isdigit():
            return Ending(int(pid), "kill")
        case ["-c", _, "nexcage-term", pid] if pid.isdigit():
            return Ending(int(pid), "term")
        case ["-c", boot.START, "nexcage", nonce, _, "nexcage", length, *_] if length.isdigit():
            return Starting(nonce, int(length))
        case _:
            return None


def markers(nonce: str, pid: int) -> tuple[bytes, bytes]:
    """What the wrapper prints on stdout and on stderr before the command's own output."""
    return b"\x1enexcage %b %d\n" % (nonce.encode(), pid), b"\x1enexcage %b\n" % nonce.encode()


class Frame:
    """Drops what comes before the marker. ``before`` keeps the end of it, for the error when no marker ever comes."""

    KEPT = 4096

    def __init__(self, nonce: str) -> None:
        self._pattern = re.compile(rb"\x1enexcage " + re.escape(nonce.encode()) + rb"(?: ([0-9]{1,10}))?\n")
        self.before: bytes = b""
        self.begun: bool = False
        self.pid: int = 0

    def feed(self, data: bytes) -> bytes:
        """The part of ``data`` that is the command's own."""
        if self.begun:
            return data
        data = self.before + data
        found = self._pattern.search(data)
        if found is None:
            self.before = data[-self.KEPT :]
            return b""
        self.begun = True
        self.before = data[: found.start()][-self.KEPT :]
        self.pid = int(found.group(1) or 0)
        return data[found.end() :]

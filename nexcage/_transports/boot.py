"""How a runner is started: the words of its command line, and the marker in what comes back."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

__all__ = ["START", "Greeting", "program", "words"]

# Perl reads exactly the program and leaves what follows to it; 125 when the link ends before that.
_BOOT = "$n=$ARGV[1];$t='';while(length$t<$n){sysread(STDIN,$t,$n-length$t,length$t)||exit 125}eval $t;die$@ if$@"
# Through `sh`: a login shell may be any program, and the launcher of `sh` on a simulated node says where the node's files are.
START = 'printf "\\036nexcage-runner %s\\n" "$1"; shift; exec perl -e "$@"'


@cache
def program() -> bytes:
    """The text of the runner: what is to be sent right after the start."""
    return files("nexcage._transports").joinpath("runner.pl").read_bytes()


def words(nonce: str, *, heartbeat: float = 0.0, sudo: bool = False) -> tuple[str, ...]:
    """The argv that starts a runner; ``heartbeat`` in seconds, when it is not the usual one."""
    own = (nonce, _BOOT, "nexcage", str(len(program())), *((f"{heartbeat:g}",) if heartbeat else ()))
    return (*(("sudo", "-n", "--") if sudo else ()), "env", "LC_ALL=C", "sh", "-c", START, "nexcage", *own)


class Greeting:
    """Drops what a login shell prints before the marker; ``before`` keeps the end of it, for the error when none ever comes."""

    KEPT = 4096

    def __init__(self, nonce: str) -> None:
        self._marker = re.compile(rb"\x1enexcage-runner " + re.escape(nonce.encode()) + rb"\n")
        self.before: bytes = b""
        self.over: bool = False

    def feed(self, data: bytes) -> bytes:
        """What belongs to the runner."""
        if self.over:
            return data
        data = self.before + data
        found = self._marker.search(data)
        if found is None:
            self.before = data[-self.KEPT :]
            return b""
        self.over = True
        self.before = data[: found.start()][-self.KEPT :]
        return data[found.end() :]

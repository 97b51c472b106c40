"""Stands in front of an OCI runtime that a node is about to run, and gives it what the caller of ``nexcage`` has given.

Run as a script, by ``python -I -S handed.py NAME RUNTIME [ARGUMENT...]``; it imports nothing of ours, so that it starts at once.
`nexcage._cli.handover` listens as NAME and answers with the argv to run, descriptors and environment. Nobody listening any more (the
caller was killed): the runtime is run as it was to be, with the streams that the backend gave it.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import sys

_HIGH = 256  # above everything that a caller hands over
_MOST = 250


def main(name: str, argv: list[str]) -> None:
    """Becomes the runtime; returns only by an exception."""
    env = dict(os.environ)
    answer = _ask(name, argv)
    if answer is not None:
        argv, given, more = answer
        env |= more
        for number, descriptor in enumerate(given):
            os.dup2(descriptor, number, inheritable=True)
    os.execvpe(argv[0], argv, env)


def _ask(name: str, argv: list[str]) -> tuple[list[str], list[int], dict[str, str]] | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        try:
            asking.connect(f"\0{name}")
            peer = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            if struct.unpack("3i", peer)[1] != os.geteuid():
                return None  # somebody else took the name over
            asking.sendall(json.dumps(argv).encode())
            asking.shutdown(socket.SHUT_WR)
            data, given, _, _ = socket.recv_fds(asking, 1 << 16, _MOST)
            high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _HIGH) for descriptor in given]
            for descriptor in given:
                os.close(descriptor)
            while more := asking.recv(1 << 16):
                data += more
        except OSError:
            return None
    if not data:
        return None
    said = json.loads(data)
    return said["argv"], high, said["env"]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

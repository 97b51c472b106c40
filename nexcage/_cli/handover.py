"""What an OCI engine gives a runtime reaches the runtime: the caller's own descriptors and options, through every process between.

The streams of a container that an engine creates are the engine's (a monitor reads its output from a pipe that it made), and there
may be a socket, a terminal, further descriptors. Commands of nodes have none of these, so the runtime of this machine is started by
`nexcage._cli.handed`, which asks here for them. Only those of our own user are answered.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import struct
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

__all__ = ["Given", "Handover", "verb_of", "with_options"]

_TAKE_VALUE = frozenset(("--root", "--log", "--log-format", "--criu", "--rootless", "--cgroup-manager"))
_PASSED = ("NOTIFY_SOCKET", "XDG_RUNTIME_DIR")


class Given(NamedTuple):
    """Options that a command of a runtime gets besides: ``before`` its name, and behind it."""

    before: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()


class Handover:
    """Answers as long as it is open. ``given`` says by the name of a command what it gets; the ``descriptors`` (those numbers of this
    process become 0, 1, 2, ...) are for these commands only.
    """

    def __init__(self, given: Mapping[str, Given], descriptors: Sequence[int]) -> None:
        self._given: dict[str, Given] = dict(given)
        self._descriptors: tuple[int, ...] = tuple(descriptors)
        self._name: str = f"nexcage-{secrets.token_hex(16)}"
        self._listening: socket.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._thread: threading.Thread = threading.Thread(target=self._serve, name="handover", daemon=True)
        self.taken: bool = False
        """Whether a runtime has got the descriptors."""

    def in_front_of(self, command: Sequence[str]) -> tuple[str, ...]:
        """What to run in place of ``command``, the runtime."""
        script = Path(__file__).with_name("handed.py")
        return (sys.executable, "-I", "-S", str(script), self._name, *command)

    def __enter__(self) -> Self:
        self._listening.bind(f"\0{self._name}")
        self._listening.listen(16)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)  # wakes the accept
        self._thread.join()
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                asking, _ = self._listening.accept()
            except OSError:
                return
            with asking:
                try:
                    self._answer(asking)
                except (OSError, ValueError):
                    continue  # it went away, or talks nonsense: it costs only itself

    def _answer(self, asking: socket.socket) -> None:
        peer = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        if struct.unpack("3i", peer)[1] != os.geteuid():
            return
        asking.settimeout(10)
        data = b""
        while more := asking.recv(1 << 16):
            data += more
        argv: list[str] = json.loads(data)
        verb = verb_of(argv)
        mine = verb in self._given
        env = {name: os.environ[name] for name in _PASSED if name in os.environ} if mine else {}
        answer = json.dumps({"argv": with_options(argv, self._given.get(verb, Given())), "env": env}).encode()
        if mine:
            self.taken = True
        sent = socket.send_fds(asking, [answer], self._descriptors if mine else ())
        asking.sendall(answer[sent:])


def verb_of(argv: Sequence[str]) -> str:
    """Which command of a runtime an argv is; whatever stands in front of the runtime's own options is passed over."""
    at = _place(argv)
    return "" if at is None else argv[at]


def with_options(argv: Sequence[str], given: Given) -> list[str]:
    """``argv`` with more options."""
    at = _place(argv)
    return list(argv) if at is None else [*argv[:at], *given.before, argv[at], *given.behind, *argv[at + 1 :]]


def _place(argv: Sequence[str]) -> int | None:
    """Behind the runtime's first global option: a prefix (``unshare -m sh -c ...``) ends before it."""
    at = next((at for at, word in enumerate(argv) if word.partition("=")[0] == "--root"), None)
    while at is not None and at < len(argv):
        word = argv[at]
        if not word.startswith("-"):
            return at
        at += 2 if word in _TAKE_VALUE else 1
    return None

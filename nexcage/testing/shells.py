"""What sshd starts for a channel: a login shell that runs one line, which may be a command, its end, a runner, or typed by hand."""

from __future__ import annotations

import asyncio
import itertools
import logging
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import asyncssh

from nexcage._transports.wire import Ending, Starting, Wrapped, markers, split, unwrap
from nexcage.testing.calls import Call
from nexcage.testing.runner_twin import RunnerTwin
from nexcage.tools import attach

if TYPE_CHECKING:
    from nexcage.testing.sshd import Server

__all__ = ["Session"]

_FIRST_PID = 1 << 28  # of sessions: far above the model's own processes
_READS_STDIN = frozenset({"exec", "/dev/stdin", "-"})
_OPERATORS = frozenset({";", "&&", "||"})


class Session(asyncssh.SSHServerSession[bytes]):
    """One channel: a command line, run as a login shell would."""

    _pids: Iterator[int] = itertools.count(_FIRST_PID)

    def __init__(self, server: Server) -> None:
        self._server = server
        self._door = server.door
        self._chan: asyncssh.SSHServerChannel[bytes] | None = None
        self._stdin = bytearray()
        self._line = ""
        self._call: Call | None = None
        self._begun = self._eof = self._ended = False
        self._paused = False
        self._waiting: list[Callable[[], None]] = []
        self._program = 0
        self._twin: RunnerTwin | None = None
        server.sessions[self] = None

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._chan = chan

    def shell_requested(self) -> bool:
        return False

    def exec_requested(self, command: str) -> bool:
        self._line = command
        return True

    def session_started(self) -> None:
        try:
            words = split(self._line)
        except ValueError:
            words = []
        order = unwrap(self._line)
        streams = isinstance(order, Wrapped) and order.argv[2:3] == (attach.ATTACH,)
        if self._eof or streams or not _READS_STDIN.intersection(words) or isinstance(order, Starting):
            self._begin()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if self._twin is not None:
            self._twin.feed(data)
            return
        if self._call is not None:
            self._call.ctx.feed(data)
            return
        self._stdin += data
        if self._program and len(self._stdin) >= self._program:
            self._run_twin()

    def eof_received(self) -> bool:
        self._eof = True
        if self._twin is not None or self._program:
            self._end_twin()
        elif self._call is not None:
            self._call.ctx.end_input()
        elif self._line:
            self._begin()
        return True  # its output is still to come

    def connection_lost(self, exc: Exception | None) -> None:
        self._chan = None
        self._server.sessions.pop(self, None)
        if self._twin is not None:
            self._twin.lost()
        if self._call is not None:
            self._call.reader_gone()

    def signal_received(self, signal: str) -> None:
        if self._call is not None:
            self._deliver(self._call, signal)
        elif self._twin is not None:
            self._end_twin()

    @staticmethod
    def _deliver(call: Call, signal: str) -> None:
        if signal in ("TERM", "INT"):
            call.interrupt()
        elif signal in ("KILL", "HUP"):
            call.drop()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False

    @property
    def blocked(self) -> bool:
        """Whether the client reads no more for now."""
        return self._paused or self._server.held

    # Its command.

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        order = unwrap(self._line)
        if isinstance(order, Ending):
            asyncio.get_running_loop().create_task(self._end(order)).add_done_callback(_raised)
        elif isinstance(order, Starting):
            self._start(order)
        elif isinstance(order, Wrapped):
            pid = next(self._pids)
            for write, marker in zip((self._out, self._err), markers(order.nonce, pid), strict=True):
                write(marker)
            self._call = self._called(order.argv, order.env, lambda: self._finish(pid))
            self._door.running[pid] = self._call
            self._call.ctx.eof = self._eof
            self._call.begin()
        else:
            asyncio.get_running_loop().create_task(self._shell()).add_done_callback(_raised)

    def _start(self, order: Starting) -> None:
        self._out(b"\x1enexcage-runner %b\n" % order.nonce.encode())
        if self._door.perl:
            self._program = order.length
            self.data_received(b"", None)
        else:
            self._err(b"nexcage-runner: 1: exec: perl: not found\n")
            self._exit(127)

    def _run_twin(self) -> None:
        """The program has come; what follows it is for the runner."""
        begun = bytes(self._stdin[self._program :])
        self._stdin.clear()
        self._twin = RunnerTwin(self._door.node, self._server, self._out, self._end_twin, lambda: self.blocked)
        if begun:
            self._twin.feed(begun)

    def _end_twin(self) -> None:
        self._program = 0
        if self._twin is not None:
            self._twin.lost()
        self._exit(0)

    def _called(self, argv: tuple[str, ...], env: Mapping[str, str], when_ended: Callable[[], None]) -> Call:
        return Call(
            self._door.node,
            argv,
            env=env,
            stdin=bytes(self._stdin),
            out=self._out,
            err=self._err,
            link=self._server,
            when_ended=when_ended,
            blocked=lambda: self.blocked,
        )

    def _finish(self, pid: int) -> None:
        self._door.running.pop(pid, None)
        assert self._call is not None
        self._exit(self._call.exit or 0, self._call.signal)

    async def _end(self, order: Ending) -> None:
        call = self._door.running.get(order.pid)
        if call is not None:
            call.interrupt()
            if order.cancel == "kill":
                for _ in range(10):
                    if call.exit is not None:
                        break
                    await asyncio.sleep(0.1)
                else:
                    call.drop()
        self._exit(0 if call is not None or order.cancel == "kill" else 1)

    async def _shell(self) -> None:
        """A line that somebody typed."""
        status = 0
        skip = False
        for operator, words in _commands(self._line):
            if operator in ("&&", "||"):
                skip = (status == 0) is (operator == "||")
            elif operator == ";":
                skip = False
            if skip:
                continue
            if not words:
                self._err(b"sh: this shell only runs simple commands joined by ; && ||\n")
                status = 2
                break
            env = dict(word.split("=", 1) for word in itertools.takewhile(_assigns, words))
            argv = tuple(words[len(env) :]) or ("true",)
            over = asyncio.Event()
            self._call = self._called(argv, {"LC_ALL": "C", **env}, over.set)
            self._call.begin()
            await over.wait()
            status = self._call.exit or 0
        self._exit(status)

    def _out(self, data: bytes) -> None:
        self._pass(lambda: self._write(data, None))

    def _err(self, data: bytes) -> None:
        self._pass(lambda: self._write(data, asyncssh.EXTENDED_DATA_STDERR))  # pyright: ignore[reportPrivateImportUsage]

    def _write(self, data: bytes, kind: int | None) -> None:
        if self._chan is not None:
            self._chan.write(data, kind)  # pyright: ignore[reportUnknownMemberType]

    def _exit(self, status: int, signal: str = "") -> None:
        if self._ended:
            return
        self._ended = True

        def leave() -> None:
            if self._chan is None:
                return
            if signal:
                self._chan.exit_with_signal(signal)
            else:
                self._chan.exit(status)

        self._pass(leave)

    def _pass(self, action: Callable[[], None]) -> None:
        """Send, or keep it while the node is cut off from the world."""
        if self._server.held:
            self._waiting.append(action)
            return
        with suppress(OSError):  # the channel was closed from the other side
            action()

    def flush(self) -> None:
        """The node is back in the world."""
        waiting, self._waiting = self._waiting, []
        for action in waiting:
            self._pass(action)


def _raised(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logging.getLogger(__name__).error("a session broke", exc_info=error)


def _assigns(word: str) -> bool:
    name, equals, _ = word.partition("=")
    return bool(equals) and name.isidentifier()


def _commands(line: str) -> list[tuple[str, list[str]]]:
    """A line as (operator before it, words); no words where the line needs a real shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>()")
    lexer.whitespace_split = True
    lexer.commenters = ""
    found: list[tuple[str, list[str]]] = [("", [])]
    try:
        for token in lexer:
            if token in _OPERATORS:
                found.append((token, []))
            elif token and set(token) <= set(";&|<>()"):
                return [("", [])]
            else:
                found[-1][1].append(token)
    except ValueError:
        return [("", [])]
    for _, words in found:
        if words[:1] == ["exec"]:
            del words[0]
        if words[:2] == ["sudo", "-n"]:
            del words[: 3 if words[2:3] == ["--"] else 2]
    return [entry for entry in found if entry[1] or len(found) == 1]

"""The way in through SSH: one asyncssh server per simulated node, on loopback ports, with real keys and real packets.

The servers run the pretend tools in this process. What a login shell would do for the ssh transport is done here by reading its
command lines back; other lines may be simple commands joined by ``;``, ``&&`` and ``||``. A connection or channel that goes away
leaves its commands running, as with sshd. Faults act on connections: dropped, held, refused, answered with another key.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shlex
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh

from nexcage._core.hosts import Host
from nexcage._transports.wire import Ending, Wrapped, markers, split, unwrap
from nexcage.testing.calls import Call

if TYPE_CHECKING:
    from nexcage.testing.cluster import SimCluster, SimNode

__all__ = ["Served", "serve"]

LOOPBACK = "127.0.0.1"
_CONNECT_FAILED = 2  # RFC 4254: what sshd says when a connection has too many sessions
_FIRST_PID = 1 << 28  # of sessions: far above the model's own processes
_READS_STDIN = frozenset({"exec", "/dev/stdin", "-"})
_OPERATORS = frozenset({";", "&&", "||"})


@asynccontextmanager
async def serve(
    cluster: SimCluster,
    *,
    dir: str | os.PathLike[str] | None = None,
    ports: Mapping[str, int] | None = None,
    max_sessions: int = 10,
) -> AsyncIterator[Served]:
    """Open an SSH server for each node; leaving closes them. Keys lie in ``dir`` (default: a temporary directory)."""
    if dir is None:
        with tempfile.TemporaryDirectory(prefix="nexcage-sim-ssh-") as temporary:
            async with serve(cluster, dir=temporary, ports=ports, max_sessions=max_sessions) as served:
                yield served
        return
    served = Served(cluster, Path(dir), ports or {}, max_sessions)
    served.open()
    try:
        yield served
    finally:
        await served.aclose()


class Served:
    """The servers of a cluster while they run."""

    def __init__(self, cluster: SimCluster, dir: Path, ports: Mapping[str, int], max_sessions: int) -> None:
        self.cluster: SimCluster = cluster
        self.dir: Path = dir
        dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.identity_file: Path = dir / "identity"
        self.known_hosts: Path = dir / "known_hosts"
        self._client_key = _key(self.identity_file)
        self._doors = {
            node.name: _Door(node, dir, ports.get(node.name, 0), self._client_key, max_sessions) for node in cluster
        }

    def open(self) -> None:
        """Listen, and write the host keys down that nobody knows yet."""
        for door in self._doors.values():
            door.refresh()
            door.node.watchers.append(door.refresh)
        known = self.known_hosts.read_text("ascii").splitlines() if self.known_hosts.exists() else []
        names = {line.split(" ", 1)[0] for line in known}
        known += [door.known_line for door in self._doors.values() if door.address not in names]
        self.known_hosts.write_text("".join(f"{line}\n" for line in known), "ascii")

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The logins, one per node, as `nexcage.open_fleet` takes them."""
        return tuple(
            Host(
                key=name,
                address=LOOPBACK,
                user="root",
                port=door.port,
                identity_file=str(self.identity_file),
                known_hosts=str(self.known_hosts),
            )
            for name, door in self._doors.items()
        )

    def config(self, path: str | os.PathLike[str], *, state_dir: str = "", run_dir: str = "") -> Path:
        """Write a configuration file that names these servers; ``path`` is the file, or a directory that gets ``config.toml``.

        State and run directories lie beside it unless they are given.
        """
        file = Path(path).absolute()
        if file.suffix != ".toml":
            file /= "config.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        from nexcage.testing.cluster import IMAGES

        lines = [
            f"state_dir = {_toml(state_dir or str(file.parent / 'state'))}",
            f"run_dir = {_toml(run_dir or str(file.parent / 'run'))}",
            f"known_hosts = {_toml(str(self.known_hosts.absolute()))}",
            f"hosts = [{', '.join(_toml(name) for name in self._doors)}]",
        ]
        for host in self.hosts:
            lines += [
                "",
                f"[nodes.{_toml(host.key)}]",
                f"address = {_toml(host.address)}",
                f"port = {host.port}",
                f"user = {_toml(host.user)}",
                f"identity_file = {_toml(str(Path(host.identity_file).absolute()))}",
            ]
        lines += ["", "[images]", *(f"{_toml(alias)} = {_toml(image)}" for alias, image in IMAGES.items())]
        temporary = file.with_name(f"{file.name}.tmp.{os.getpid()}")
        temporary.write_text("\n".join(lines) + "\n", "utf-8")
        temporary.replace(file)
        return file

    async def aclose(self) -> None:
        """Close every listener and connection."""
        for door in self._doors.values():
            door.node.watchers.remove(door.refresh)
            await door.close()


def _toml(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _key(path: Path) -> asyncssh.SSHKey:
    """The private key in a file, made if need be."""
    if not path.exists():
        made = asyncssh.generate_private_key("ssh-ed25519", "nexcage-sim")  # pyright: ignore[reportUnknownMemberType]
        temporary = path.with_name(f"{path.name}.tmp.{os.getpid()}")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(made.export_private_key())
        temporary.replace(path)
    return asyncssh.read_private_key(path)


class _Door:
    """One node's listener: open while the node is up, deaf while it is partitioned, with the host key that it has now."""

    def __init__(self, node: SimNode, dir: Path, port: int, client: asyncssh.SSHKey, max_sessions: int) -> None:
        self.node: SimNode = node
        self.port: int = port
        self.max_sessions: int = max_sessions
        self.running: dict[int, Call] = {}
        """The commands of sessions by the pid that their clients were told."""
        self._dir = dir
        self._client = asyncssh.import_authorized_keys(client.export_public_key().decode("ascii"))
        self._socket: socket.socket | None = None
        self._options: asyncssh.SSHServerConnectionOptions | None = None
        self._key_number = -1
        self._key: asyncssh.SSHKey | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[asyncssh.SSHServerConnection] = set()

    @property
    def address(self) -> str:
        return f"[{LOOPBACK}]:{self.port}"

    @property
    def known_line(self) -> str:
        """The node's line in known_hosts."""
        assert self._key is not None
        kind, key, *_ = self._key.export_public_key().decode("ascii").split()
        return f"{self.address} {kind} {key}"

    def refresh(self) -> None:
        """Be as the node is."""
        if self.node.host_key != self._key_number:
            self._key_number = self.node.host_key
            self._key = _key(self._dir / f"{self.node.name}.host_key{self._key_number or ''}")
            self._options = asyncssh.SSHServerConnectionOptions(
                server_factory=lambda: _Server(self),
                server_host_keys=[self._key],
                authorized_client_keys=self._client,
                encryption_algs=["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes256-ctr"],
                compression_algs=["none"],
                agent_forwarding=False,
                encoding=None,
                line_editor=False,
                login_timeout=120,
            )
        if self.node.down:
            self._shut()
        elif self._socket is None:
            self._listen()

    def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, self.port))
        listener.listen(1024)
        listener.setblocking(False)
        self.port = int(listener.getsockname()[1])
        self._socket = listener
        asyncio.get_running_loop().add_reader(listener, self._accept)

    def _shut(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _accept(self) -> None:
        while self._socket is not None:
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # too many open files, or the peer is gone already: sshd would log it
                logging.getLogger(__name__).warning("cannot accept a connection", exc_info=True)
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = asyncio.get_running_loop().create_task(self._welcome(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _welcome(self, connection: socket.socket) -> None:
        try:
            await self.node.healed()
            assert self._options is not None
            made = await asyncssh.run_server(connection, options=self._options)
        except (OSError, asyncssh.Error):  # it went away while logging in, or may not log in
            connection.close()
            return
        except BaseException:
            connection.close()
            raise
        self._connections.add(made)
        try:
            await made.wait_closed()
        finally:
            self._connections.discard(made)

    async def close(self) -> None:
        self._shut()
        for connection in list(self._connections):
            connection.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Server(asyncssh.SSHServer):
    """One connection, and what the node knows of it."""

    def __init__(self, door: _Door) -> None:
        self.door: _Door = door
        self.sessions: dict[_Session, None] = {}
        self.held: bool = False
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self.door.node.links[self] = None
        if self.door.node.partitioned:
            self.hold()

    def connection_lost(self, exc: Exception | None) -> None:
        self.door.node.links.pop(self, None)
        self._connection = None

    def session_requested(self) -> asyncssh.SSHServerSession[bytes]:
        if len(self.sessions) >= self.door.max_sessions:
            raise asyncssh.ChannelOpenError(_CONNECT_FAILED, "open failed")
        return _Session(self)

    # The node's side of the link.

    def cut(self) -> None:
        self.door.node.links.pop(self, None)
        if self._connection is not None:
            self._connection.abort()

    def hold(self) -> None:
        self.held = True
        if (transport := self._transport()) is not None:
            transport.pause_reading()

    def release(self) -> None:
        self.held = False
        if (transport := self._transport()) is not None:
            transport.resume_reading()
        for session in list(self.sessions):
            session.flush()

    def _transport(self) -> asyncio.Transport | None:
        # asyncssh has no public way to stop reading a whole connection.
        transport: Any = getattr(self._connection, "_transport", None)  # Any: a private attribute
        return transport if isinstance(transport, asyncio.Transport) else None


class _Session(asyncssh.SSHServerSession[bytes]):
    """One channel: a command line, run as a login shell would."""

    _pids: Iterator[int] = itertools.count(_FIRST_PID)

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._door = server.door
        self._chan: asyncssh.SSHServerChannel[bytes] | None = None
        self._stdin = bytearray()
        self._line = ""
        self._call: Call | None = None
        self._begun = self._eof = self._ended = False
        self._paused = False
        self._waiting: list[Callable[[], None]] = []
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
        if self._eof or not _READS_STDIN.intersection(words):
            self._begin()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._stdin += data

    def eof_received(self) -> bool:
        self._eof = True
        if self._line:
            self._begin()
        return True  # its output is still to come

    def connection_lost(self, exc: Exception | None) -> None:
        self._chan = None
        self._server.sessions.pop(self, None)
        if self._call is not None:
            self._call.reader_gone()

    def signal_received(self, signal: str) -> None:
        if self._call is not None:
            self._deliver(self._call, signal)

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
        elif isinstance(order, Wrapped):
            pid = next(self._pids)
            for write, marker in zip((self._out, self._err), markers(order.nonce, pid), strict=True):
                write(marker)
            self._call = self._called(order.argv, order.env, lambda: self._finish(pid))
            self._door.running[pid] = self._call
            self._call.begin()
        else:
            asyncio.get_running_loop().create_task(self._shell()).add_done_callback(_raised)

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
        def leave() -> None:
            self._ended = True
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

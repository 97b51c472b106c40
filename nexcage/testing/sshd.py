"""The way in through SSH: one asyncssh server per simulated node, on loopback ports, with real keys and real packets.

The servers run the pretend tools in this process. What a login shell would do for the ssh transport is done here by reading its
command lines back; other lines may be simple commands joined by ``;``, ``&&`` and ``||``. A connection or channel that goes away
leaves its commands running, as with sshd. Faults act on connections: dropped, held, refused, answered with another key.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh

from nexcage._core.hosts import Host
from nexcage.testing._ports import bound
from nexcage.testing.calls import Call
from nexcage.testing.shells import Session

if TYPE_CHECKING:
    from nexcage.testing.cluster import SimCluster, SimNode

__all__ = ["Served", "serve"]

LOOPBACK = "127.0.0.1"
_CONNECT_FAILED = 2  # RFC 4254: what sshd says when a connection has too many sessions


@asynccontextmanager
async def serve(
    cluster: SimCluster,
    *,
    dir: str | os.PathLike[str] | None = None,
    ports: Mapping[str, int] | None = None,
    max_sessions: int = 10,
    perl: bool = True,
) -> AsyncIterator[Served]:
    """Open an SSH server for each node; leaving closes them. Keys lie in ``dir`` (default: a temporary directory).

    Without ``perl`` no runner starts there.
    """
    if dir is None:
        with tempfile.TemporaryDirectory(prefix="nexcage-sim-ssh-") as temporary:
            async with serve(cluster, dir=temporary, ports=ports, max_sessions=max_sessions, perl=perl) as served:
                yield served
        return
    served = Served(cluster, Path(dir), ports or {}, max_sessions, perl=perl)
    served.open()
    try:
        yield served
    finally:
        await served.aclose()


class Served:
    """The servers of a cluster while they run."""

    def __init__(
        self, cluster: SimCluster, dir: Path, ports: Mapping[str, int], max_sessions: int, *, perl: bool
    ) -> None:
        self.cluster: SimCluster = cluster
        self.dir: Path = dir
        dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.identity_file: Path = dir / "identity"
        self.known_hosts: Path = dir / "known_hosts"
        self._client_key = _key(self.identity_file)
        self._doors = {
            node.name: Door(node, dir, ports.get(node.name, 0), self._client_key, max_sessions, perl=perl)
            for node in cluster
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


def _toml(text: str | Mapping[str, str]) -> str:
    if not isinstance(text, str):
        return f"{{ {', '.join(f'{key} = {_toml(value)}' for key, value in text.items())} }}"
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


class Door:
    """One node's listener: open while the node is up, deaf while it is partitioned, with the host key that it has now."""

    def __init__(
        self, node: SimNode, dir: Path, port: int, client: asyncssh.SSHKey, max_sessions: int, *, perl: bool
    ) -> None:
        self.node: SimNode = node
        self.port: int = port
        self.max_sessions: int = max_sessions
        self.perl: bool = perl
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
                server_factory=lambda: Server(self),
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
        listener = bound(LOOPBACK, self.port)
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


class Server(asyncssh.SSHServer):
    """One connection, and what the node knows of it."""

    def __init__(self, door: Door) -> None:
        self.door: Door = door
        self.sessions: dict[Session, None] = {}
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
        return Session(self)

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

    def mute(self) -> None:
        """What the node sends vanishes from now on."""
        if self._connection is not None and (transport := self._transport()) is not None:
            setattr(self._connection, "_transport", _Mute(transport))  # noqa: B010 - as below

    def _transport(self) -> asyncio.Transport | _Mute | None:
        # asyncssh has no public way to stop reading a whole connection.
        transport: Any = getattr(self._connection, "_transport", None)  # Any: a private attribute
        return transport if isinstance(transport, (asyncio.Transport, _Mute)) else None


class _Mute:
    """A transport that writes into the void."""

    def __init__(self, transport: asyncio.Transport | _Mute) -> None:
        self._transport = transport

    def write(self, data: bytes) -> None: ...

    def __getattr__(self, name: str) -> Any:  # Any: whatever a transport has
        return getattr(self._transport, name)

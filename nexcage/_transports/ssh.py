"""Commands on another machine, over SSH: one connection per node, one channel per command. Needs asyncio (asyncssh does)."""

from __future__ import annotations

import asyncio
import copy
import os
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import anyio
import msgspec

from nexcage._core.command import Command, Result, shown
from nexcage._core.hosts import Host
from nexcage._transports.host_keys import HostKeyCheck
from nexcage._transports.running import PATIENCE, Running, running
from nexcage._transports.session import Session
from nexcage._transports.wire import checked, ending, wrap
from nexcage.errors import (
    AuthRejected,
    HostKeyRejected,
    NexcageError,
    NodeNotUsable,
    NodeTimeout,
    NodeUnreachable,
)

if TYPE_CHECKING:
    import asyncssh

__all__ = ["Logins", "SshSettings", "SshTransport", "translate"]

CIPHERS = "^aes128-gcm@openssh.com"
"""Put first: for small messages it costs half the CPU of asyncssh's default."""
KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")
SSH_CONFIG = ("~/.ssh/config", "/etc/ssh/ssh_config")
KILLING = 10.0
"""Seconds that signalling a remote command may take, with a login of its own if need be."""
REGROWTH = 30.0
"""Seconds after a refused session until one more is tried than was granted then."""
JUMPS = 8
"""The most jump hosts before a node; more is a circle in ssh_config."""


class SshSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to log in and how long to wait, in seconds.

    ``known_hosts``: the file to look host keys up in, empty for the user's and the system's. ``trust_on_first_use`` takes the key
    of a host that has none there and appends it. ``ssh_config``: a file, empty for the user's and the system's, or ``none``.
    ``max_channels`` lies below sshd's usual MaxSessions of 10. ``sudo``: run commands by ``sudo -n`` when the login is not root.
    ``patience``: for the own clean-up of a cancelled command of class ``term``. ``backoff`` and ``backoff_most`` bound the pause
    before the next login after one that failed.
    """

    connect_timeout: float = 10.0
    open_timeout: float = 10.0
    drain_timeout: float = 2.0
    patience: float = PATIENCE
    keepalive: float = 15.0
    known_hosts: str = ""
    trust_on_first_use: bool = False
    ssh_config: str = ""
    max_channels: int = 8
    sudo: bool = True
    backoff: float = 0.2
    backoff_most: float = 5.0


class Logins:
    """How many logins the whole fleet makes at once: each costs CPU, and sshd drops connections that wait too long."""

    def __init__(self, at_once: int = 16) -> None:
        self.slots = anyio.Semaphore(at_once)


class SshTransport:
    """Runs commands on ``host``. Connects when first used; connects again, not too often, when the link was lost.

    Raises NodeUnreachable, NodeTimeout, AuthRejected, HostKeyRejected or NodeNotUsable, and then no command was begun.
    """

    def __init__(
        self,
        host: Host,
        *,
        settings: SshSettings | None = None,
        logins: Logins | None = None,
        random: Random | None = None,
    ) -> None:
        self._host = host
        self._settings = settings or SshSettings()
        self._logins = logins or Logins()
        self._random = random or Random()
        self._link: _Link | None = None
        self._connecting = anyio.Lock()
        self._attempts = 0
        self._failures = 0
        self._failure: NexcageError | None = None
        self._not_before = 0.0
        self._nonce = 0
        self._closed = False

    async def run(self, command: Command[Any]) -> Result:
        """Run it to its end; a lost link is a Result without exit status."""
        async with self._started(command, eof=True) as stream:
            return await stream.wait()

    @asynccontextmanager
    async def stream(self, command: Command[Any]) -> AsyncGenerator[Running]:
        """Run it and hand out what it prints; its standard input stays open until `Stream.send_eof`."""
        async with self._started(command, eof=False) as stream:
            yield stream

    async def aclose(self) -> None:
        """Close the connection; running commands get a Result without exit status."""
        self._closed = True
        link, self._link = self._link, None
        if link is not None:
            with anyio.CancelScope(shield=True):
                await link.close()

    @asynccontextmanager
    async def _started(self, command: Command[Any], *, eof: bool) -> AsyncGenerator[Running]:
        self._needs_asyncio()
        checked(command.argv, command.env)
        link, session = await self._opened(command, eof=eof)
        try:
            async with running(session, command, self._settings.drain_timeout) as stream:
                yield stream
                if session.exit is not None:
                    self._failures = 0
                    link.grow()
        finally:
            if session.left and not session.closed:
                link.leave(session)
            link.slots.release_on_behalf_of(session)

    def _needs_asyncio(self) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            advice = "run with anyio.run(..., backend='asyncio')"
            raise NodeNotUsable(self._host.key, f"SSH needs the asyncio event loop: {advice}") from None

    # Channels.

    async def _opened(self, command: Command[Any], *, eof: bool) -> tuple[_Link, Session]:
        """A session whose command is on its way, and the link it is on, holding one of the link's slots."""
        reused = self._link is not None
        refused = 0
        gives_up = anyio.current_time() + self._settings.open_timeout
        while True:
            link = await self._linked()
            session = self._session(link, command, eof)
            line = wrap(command.argv, command.env, str(self._nonce), sudo=link.sudo)
            await link.slots.acquire_on_behalf_of(session)
            try:
                failure = await self._open(link, session, line, command)
            except BaseException:
                link.slots.release_on_behalf_of(session)
                raise
            if failure is None:
                return link, session
            others = link.refuse(session)
            if link.lost:
                # The link may have been dead for long without anybody noticing: one new connection is worth a try.
                if not reused:
                    raise translate(failure, self._host.key) from failure
                reused = False
            elif others:
                pass  # sshd allows fewer sessions than we thought: wait for one of ours to end
            elif anyio.current_time() >= gives_up:
                advice = "look at MaxSessions in its sshd_config"
                raise NodeNotUsable(self._host.key, f"sshd refuses sessions ({_plain(failure)}); {advice}") from failure
            else:  # it has not yet noticed that our last session is over
                refused += 1
                await anyio.sleep(self._random.uniform(0, min(1.0, 0.02 * 2**refused)))

    def _session(self, link: _Link, command: Command[Any], eof: bool) -> Session:
        async def kill(pid: int, cancel: Literal["kill", "term"]) -> None:
            await self._kill(link, pid, cancel)

        self._nonce += 1
        session = Session(
            str(self._nonce), command.cap, command.stdin, eof=eof, kill=kill, patience=self._settings.patience
        )
        session.refused = self._refused
        return session

    def _refused(self, said: str, ended: bool) -> NexcageError:
        if ended:
            return NodeTimeout(self._host.key, f"its login shell did not come to the command in time: {_plain(said)}")
        error = NodeNotUsable(self._host.key, f"it did not run the command: {_plain(said)}")
        return error.noted("a login that is not root needs `sudo -n` without a password" if "sudo" in said else "")

    async def _open(self, link: _Link, session: Session, line: bytes, command: Command[Any]) -> BaseException | None:
        """Open a channel and send the command; the failure if the server or the link said no before it was sent."""
        link.open(session, line)
        seconds = min(self._settings.open_timeout, float("inf") if command.timeout is None else command.timeout)
        try:
            with anyio.move_on_after(seconds):
                await session.opening_over.wait()
        except BaseException:
            session.unwanted = True
            if session.sent:  # in the very turn of the loop in which we were cancelled: it may have begun
                with anyio.CancelScope(shield=True):
                    await session.end(command.cancel)
                    await session.close()
            raise
        if not session.opening_over.is_set():
            session.unwanted = True
            raise NodeTimeout(self._host.key, f"it opened no channel within {seconds:g} seconds")
        return None if session.sent else session.failure

    async def _kill(self, link: _Link, pid: int, cancel: Literal["kill", "term"]) -> None:
        """Signal a command by its pid: on a second channel, or by another login when the server has none left for us."""
        with anyio.move_on_after(KILLING):
            async with link.orders:
                if link.lost or await self._order(link, ending(pid, cancel, sudo=link.sudo)):
                    return
            try:
                other = await self._login()
            except NexcageError:
                return
            try:
                await self._order(other, ending(pid, cancel, sudo=other.sudo))
            finally:
                await other.close()

    async def _order(self, link: _Link, line: bytes) -> bool:
        """Run a command whose output does not matter; whether the server took it."""
        session = Session("", 0)
        session.output.collect()
        link.open(session, line)
        try:
            await session.opening_over.wait()
            while not session.ended:
                await session.progress()
            return session.failure is None
        finally:
            session.unwanted = True
            await session.close()

    # The connection.

    async def _linked(self) -> _Link:
        """The link, made if need be. Callers that wait for the same attempt share its failure."""
        if self._link is not None and not self._link.lost:
            return self._link
        seen = self._attempts
        async with self._connecting:
            if self._link is not None and not self._link.lost:
                return self._link
            if self._closed:
                raise NodeUnreachable(self._host.key, "its transport is closed")
            if self._attempts != seen and self._failure is not None:
                raise copy.copy(self._failure)
            await anyio.sleep(max(0.0, self._not_before - anyio.current_time()))
            self._failure = None
            try:
                self._link = await self._login()
            except NexcageError as error:
                self._failure = error
                raise
            finally:
                # Also after success: a server that drops each connection at once must not be logged in to in a tight loop.
                self._attempts += 1
                self._failures += 1
                most = min(self._settings.backoff_most, self._settings.backoff * 2.0 ** (self._failures - 1))
                self._not_before = anyio.current_time() + self._random.uniform(0, most)
            if self._closed:
                await self.aclose()
                raise NodeUnreachable(self._host.key, "its transport is closed")
            return self._link

    async def _login(self) -> _Link:
        host, settings = self._host, self._settings
        if "asyncssh" not in sys.modules:  # importing it takes long enough to be felt by everything else on the loop
            await anyio.to_thread.run_sync(import_module, "asyncssh")
        link = _Link(settings.max_channels)
        async with self._logins.slots:
            try:
                with anyio.fail_after(settings.connect_timeout):
                    link.conn = await _Dialer(host, settings, link.note_lost).dial()
            except TimeoutError as error:
                raise NodeUnreachable(host.key, f"no connection within {settings.connect_timeout:g} seconds") from error
            except NexcageError:
                raise
            except Exception as error:
                raise translate(error, host.key) from error
        link.sudo = settings.sudo and link.conn.get_extra_info("username") != "root"
        return link


class _Link:
    """An open connection, its slots for channels, and the attempts to open one."""

    conn: asyncssh.SSHClientConnection

    def __init__(self, channels: int) -> None:
        self.sudo = False
        self.lost = False
        self.slots = anyio.CapacityLimiter(channels)
        self.orders = anyio.Semaphore(2)  # channels to end commands, besides those that carry them
        self._most = channels
        self._left = 0
        self._refused_at = float("-inf")
        self._opening: set[asyncio.Task[object]] = set()

    def note_lost(self) -> None:
        self.lost = True

    def refuse(self, session: Session) -> int:
        """Give back the slot of a refused session, and allow no more than the others that there are; returns their number."""
        others = int(self.slots.borrowed_tokens) - 1
        # Before the slot is free, or whoever waits for one would be refused at once, and so on in a circle.
        self.slots.total_tokens = max(1, others)
        self._refused_at = anyio.current_time()
        self.slots.release_on_behalf_of(session)
        return others

    def grow(self) -> None:
        """Allow one more session now and then: the refusal may have been somebody else's doing."""
        if self.slots.total_tokens < self._most - self._left and anyio.current_time() - self._refused_at > REGROWTH:
            self.slots.total_tokens += 1
            self._refused_at = anyio.current_time()

    def leave(self, session: Session) -> None:
        """Allow one less while a command that was left to itself keeps its session; the last one stays, or looks would wait
        for what may never end.
        """

        def closed() -> None:
            self._left -= 1
            if self.slots.total_tokens < self._most - self._left:
                self.slots.total_tokens += 1

        self._left += 1
        self.slots.total_tokens = max(1, min(self.slots.total_tokens, self._most - self._left))
        session.when_closed = closed

    def open(self, session: Session, line: bytes) -> None:
        """Begin to open a channel. What comes of it is told to the session, also when its caller is gone by then."""
        conn: Any = self.conn  # Any: asyncssh wants its own session base class and text; it only calls the methods
        create: Coroutine[Any, Any, object] = conn.create_session(
            lambda: session,
            line,  # bytes are sent as they are; text would have to be UTF-8
            env={},
            send_env=[],
            request_pty=False,
            x11_forwarding=False,
            encoding=None,
        )
        task: asyncio.Task[object] = asyncio.ensure_future(create)
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        task.add_done_callback(session.opened)

    async def close(self) -> None:
        self.conn.close()
        with anyio.move_on_after(2.0):
            await self.conn.wait_closed()
            return
        self.conn.abort()


class _Dialer:
    """One login, with the jump hosts before it. Each of them is checked as strictly as the node itself."""

    def __init__(self, host: Host, settings: SshSettings, when_lost: Callable[[], None]) -> None:
        self._host = host
        self._settings = settings
        self._when_lost = when_lost
        own = host.known_hosts or settings.known_hosts
        self._files = (own,) if own else KNOWN_HOSTS
        self._config = _config_files(settings.ssh_config)

    async def dial(self) -> asyncssh.SSHClientConnection:
        host = self._host
        options = self._options(host.user, host.port)
        if host.identity_file:
            path = _expanded(host.identity_file)
            if not os.access(path, os.R_OK):
                raise AuthRejected(host.key, f"cannot read the private key {path}")
            options["client_keys"] = [path]
        return await self._connect(host.address or host.key, options, host.jump, 0, self._when_lost)

    def _options(self, user: str, port: int) -> dict[str, Any]:
        # Any: asyncssh's options are of many types. Empty ones are left out, so that ssh_config has the word.
        given = {name: value for name, value in (("username", user), ("port", port)) if value}
        return given | {
            "config": self._config,
            "encryption_algs": CIPHERS,
            "compression_algs": None,
            "agent_forwarding": False,
            "x11_forwarding": False,
            "password_auth": False,
            "kbdint_auth": False,
            "gss_host": None,
            "x509_trusted_certs": None,
            "connect_timeout": None,
            "login_timeout": self._settings.connect_timeout,
            "keepalive_interval": self._settings.keepalive,
            "keepalive_count_max": 3,
        }

    async def _connect(
        self, address: str, options: dict[str, Any], jumps: str, depth: int, when_lost: Callable[[], None]
    ) -> asyncssh.SSHClientConnection:
        """Connect to a machine through its jump hosts: the given ones, or those that ssh_config names for it."""
        if depth > JUMPS:
            reason = f"ssh_config leads through more than {JUMPS} jump hosts; is ProxyJump a circle?"
            raise NodeNotUsable(self._host.key, reason)
        found = await self._resolved(address, options)
        tunnel: asyncssh.SSHClientConnection | None = None
        for jump in (jumps or found.jumps).split(","):
            if jump:
                hop = Host.parse(jump)
                given = self._options(hop.user, hop.port)
                if tunnel is None:
                    tunnel = await self._connect(hop.address or jump, given, "", depth + 1, _nothing)
                else:
                    there = await self._resolved(hop.address or jump, given)
                    tunnel = await self._checked(hop.address or jump, given, there, tunnel, _nothing)
        return await self._checked(address, options, found, tunnel, when_lost)

    async def _resolved(self, address: str, options: dict[str, Any]) -> _Resolved:
        """What ssh_config says about a machine. asyncssh would follow its ProxyJump itself, but with lax host-key checks."""
        import asyncssh

        if not self._config:
            return _Resolved(address, options.get("port", 22), "")
        made: Any = asyncssh.SSHClientConnectionOptions  # Any: its types are not complete
        resolved = await made.construct(host=address, **options)
        return _Resolved(resolved.host_key_alias or resolved.host, resolved.port, resolved.tunnel or "")

    async def _checked(
        self,
        address: str,
        options: dict[str, Any],
        resolved: _Resolved,
        tunnel: asyncssh.SSHClientConnection | None,
        when_lost: Callable[[], None],
    ) -> asyncssh.SSHClientConnection:
        """Connect to one machine whose key is known, or is trusted now because no key of it is. Closes ``tunnel`` if it fails."""
        import asyncssh

        conn: asyncssh.SSHClientConnection | None = None
        try:
            check = HostKeyCheck(self._host.key, self._files, trust=self._settings.trust_on_first_use)
            client = _client_class()

            def known(host: str, addr: str, port: int | None) -> list[list[asyncssh.SSHKey]]:  # noqa: ARG001 - its signature
                return [_keys(keys) for keys in check.known(host, port or 22)]

            ours: dict[str, Any] = {
                "tunnel": tunnel,
                "known_hosts": known,
                "server_host_key_algs": check.algorithms(resolved.name, resolved.port),
                "client_factory": lambda: client(check, when_lost),
            }
            try:
                conn = await asyncssh.connect(address, **options, **ours)
            except asyncssh.HostKeyNotVerifiable as error:
                raise check.rejected(_plain(error)) from error
            check.remember()
        except BaseException:
            for opened in (conn, tunnel):
                if opened is not None:
                    opened.abort()
            raise
        if tunnel is not None:
            conn.set_tunnel(tunnel)  # closed with it
        return conn


class _Resolved(NamedTuple):
    """Under which name known_hosts has a machine, and how to get there."""

    name: str
    port: int
    jumps: str


def _nothing() -> None: ...


def _expanded(path: str) -> str:
    return str(Path(path).expanduser())


def _config_files(given: str) -> list[str]:
    if given == "none":
        return []
    if given:
        return [_expanded(given)]  # one that is missing is an error, unlike the usual ones
    return [path for path in map(_expanded, SSH_CONFIG) if os.access(path, os.R_OK)]


def _keys(lines: Iterable[str]) -> list[asyncssh.SSHKey]:
    import asyncssh

    keys: list[asyncssh.SSHKey] = []
    for line in lines:
        with suppress(asyncssh.KeyImportError):  # a type that asyncssh does not speak
            keys.append(asyncssh.import_public_key(line))
    return keys


@cache
def _client_class() -> Callable[[HostKeyCheck, Callable[[], None]], asyncssh.SSHClient]:
    import asyncssh

    class Client(asyncssh.SSHClient):
        """Asks our check about keys that are not known, and tells when the connection is lost."""

        def __init__(self, check: HostKeyCheck, when_lost: Callable[[], None]) -> None:
            self._check = check
            self._when_lost = when_lost

        def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002 - its signature
            return self._check.trusts(host, port, key.export_public_key("openssh").decode("ascii"))

        def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - its signature
            self._when_lost()

    return Client


def translate(error: BaseException, node: str) -> NexcageError:
    """Our error for one of asyncssh's, of the operating system's or of the configuration's."""
    import asyncssh

    words = _plain(error)
    if isinstance(error, NexcageError):
        return error
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return HostKeyRejected(node, words)
    if isinstance(error, (asyncssh.PermissionDenied, asyncssh.IllegalUserName, asyncssh.PasswordChangeRequired)):
        return AuthRejected(node, words).noted(
            "nexcage logs in by key only: check the user, identity_file and ssh-agent"
        )
    if isinstance(error, (asyncssh.KeyImportError, asyncssh.KeyEncryptionError)):
        return AuthRejected(node, f"cannot use the private key: {words}").noted(
            "a key with a passphrase belongs into ssh-agent"
        )
    if isinstance(error, (asyncssh.KeyExchangeFailed, asyncssh.ProtocolNotSupported, asyncssh.ServiceNotAvailable)):
        return NodeNotUsable(node, words)
    if isinstance(error, asyncssh.DisconnectError):
        return NodeUnreachable(node, words)
    if isinstance(error, asyncssh.ChannelOpenError):
        retry = error.code in (2, 4)  # connect failed, resource shortage (RFC 4254, 5.1)
        return NodeUnreachable(node, words) if retry else NodeNotUsable(node, words)
    if isinstance(error, TimeoutError):
        return NodeUnreachable(node, words or "timed out")
    if isinstance(error, ConnectionRefusedError):
        return NodeUnreachable(node, "connection refused: no sshd listens there")
    if isinstance(error, socket.gaierror):
        return NodeUnreachable(node, f"its name has no address: {error.strerror or words}")
    if isinstance(error, OSError):
        return NodeUnreachable(node, error.strerror or words)
    return NodeNotUsable(node, f"cannot log in: {words}")


def _plain(said: object) -> str:
    """One line of what a server or a library said, for people."""
    text = str(said) or type(said).__name__
    return " ".join(shown(text.encode("utf-8", "backslashreplace"), 400).split())

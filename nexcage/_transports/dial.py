"""Logging in to another machine: its jump hosts, its host keys, our keys, and asyncssh's errors in our words."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import anyio
import msgspec

from nexcage._core.command import shown
from nexcage._core.hosts import Host
from nexcage._transports.host_keys import HostKeyCheck
from nexcage._transports.running import PATIENCE
from nexcage.errors import (
    AuthRejected,
    HostKeyRejected,
    NexcageError,
    NodeNotUsable,
    NodeUnreachable,
)

if TYPE_CHECKING:
    import asyncssh

__all__ = ["Dialer", "Logins", "SshSettings", "plain", "translate"]

CIPHERS = "^aes128-gcm@openssh.com"
"""Put first: for small messages it costs half the CPU of asyncssh's default."""
KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")
SSH_CONFIG = ("~/.ssh/config", "/etc/ssh/ssh_config")
JUMPS = 8
"""The most jump hosts before a node; more is a circle in ssh_config."""


class SshSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to log in and how long to wait, in seconds.

    ``runner``: ``auto`` runs commands through one where it can run and else on a channel each, ``always`` only through one,
    ``off`` never.
    ``known_hosts``: the file to look host keys up in, empty for the user's and the system's. ``trust_on_first_use`` takes the key
    of a host that has none there and appends it. ``ssh_config``: a file, empty for the user's and the system's, or ``none``.
    ``max_channels`` lies below sshd's usual MaxSessions of 10. ``sudo``: run commands by ``sudo -n`` when the login is not root.
    ``patience``: for the own clean-up of a cancelled command of class ``term``. ``backoff`` and ``backoff_most`` bound the pause
    before the next login after one that failed.
    """

    runner: Literal["auto", "always", "off"] = "auto"
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
    """How many logins the whole fleet makes at once. They may all meet the sshd of one jump host, which by default begins to drop
    connections when ten are logging in.
    """

    def __init__(self, at_once: int = 8) -> None:
        self.slots = anyio.Semaphore(at_once)


class Dialer:
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
                raise check.rejected(plain(error)) from error
            check.remember()
        except BaseException:
            for opened in (conn, tunnel):
                if opened is not None:
                    opened.abort()
            raise
        if tunnel is not None:
            conn.set_tunnel(tunnel)  # closed with it
        _spare(conn)
        return conn


# Before each packet asyncssh sends another one that says nothing, which hides the last block of ciphers that chain them (CBC).
# Ciphers with authentication need no such thing, OpenSSH does not do it, and it doubles what sending costs.
IGNORE = 2
AUTHENTICATED = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com")


def _spare(conn: asyncssh.SSHClientConnection) -> None:
    if conn.get_extra_info("send_cipher") not in AUTHENTICATED:
        return
    send: Callable[..., None] = conn.send_packet

    def send_packet(pkttype: int, *args: bytes, **options: Any) -> None:  # Any: asyncssh's own
        if pkttype != IGNORE:
            send(pkttype, *args, **options)

    setattr(conn, "send_packet", send_packet)  # noqa: B010 (assigned, it would be an error to type checkers)


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

    words = plain(error)
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


def plain(said: object) -> str:
    """One line of what a server or a library said, for people."""
    text = str(said) or type(said).__name__
    return " ".join(shown(text.encode("utf-8", "backslashreplace"), 400).split())

"""Checking the host key of one connection: what is known, what was presented, what to remember, what to tell the user."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from nexcage._transports.known_hosts import Known, KnownHosts, fingerprint, name_of
from nexcage.errors import HostKeyRejected

__all__ = ["HostKeyCheck"]

ALGORITHMS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)


class HostKeyCheck:
    """The host keys of one connection: what is known, what was presented, and what is to be remembered.

    ssh_config has no part in it: there, StrictHostKeyChecking or UserKnownHostsFile could switch checks off silently.
    """

    def __init__(self, node: str, files: Sequence[str], *, trust: bool) -> None:
        self._node = node
        self._files = [Path(name).expanduser() for name in files]
        self._trust = trust
        self._name = ""
        self._presented = ""
        self._remember = False
        self._hosts = KnownHosts(*(self._text(path) for path in self._files))
        self.found = Known()

    def _text(self, path: Path) -> str:
        # Read when connecting, on the loop: tiny next to a login.
        try:
            return path.read_text("utf-8", "replace")
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise HostKeyRejected(self._node, f"cannot read {path}: {error.strerror}") from error

    def algorithms(self, host: str, port: int) -> list[str]:
        """What to ask for: keys of the known types first, then any other, so that a key of another type can be shown."""
        known = self._hosts.find(host, port)
        kinds = {key.split()[0] for key in known.keys}
        preferred = [name for name in ALGORITHMS if name in kinds or (name.startswith("rsa-") and "ssh-rsa" in kinds)]
        signed = [f"{name}-cert-v01@openssh.com" for name in ALGORITHMS] if known.authorities else []
        return [*signed, *preferred, *(name for name in ALGORITHMS if name not in preferred)]

    def known(self, host: str, port: int) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        """Known, signing and revoked keys of the machine that was connected to, each as ``TYPE BASE64``."""
        self._name = name_of(host, port)
        self.found = self._hosts.find(host, port)
        return self.found.keys, self.found.authorities, self.found.revoked

    def trusts(self, host: str, port: int, key: str) -> bool:
        """Whether to go on with a key that is not known."""
        self._presented = " ".join(key.split()[:2])
        self._remember = self._trust and self._hosts.first_seen(host, port)
        return self._remember

    def rejected(self, reason: str) -> HostKeyRejected:
        """The error for a key that is not trusted; it shows what was presented, what is known, and what to do."""
        presented = fingerprint(self._presented) if self._presented else reason
        if not self.found:
            error = HostKeyRejected(self._node, f"the key of {self._name} is not known: {presented}")
            error.noted(
                f"looked in {', '.join(map(str, self._files))}",
                "compare it with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the node, then log in once with ssh",
                "or set trust_on_first_use = true to take the first key that each node shows",
            )
            return error
        known = ", ".join(fingerprint(key) for key in self.found.keys) or "one signed by a known authority"
        error = HostKeyRejected(self._node, f"the key of {self._name} has changed: now {presented}, known {known}")
        error.noted(
            f"if the node was installed anew, forget the old key: ssh-keygen -f {self._files[0]} -R '{self._name}'",
            "if not, somebody else may be answering in its place",
        )
        return error

    def remember(self) -> None:
        """Append the key that was trusted on first use, now that the login has proven it."""
        if not self._remember:
            return
        path = self._files[0]
        # One short line, appended under a lock: other transports and ssh itself may write the same file.
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HostKeyRejected(self._node, f"cannot remember its key in {path}: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = os.fstat(file).st_size
            line = f"{self._name} {self._presented}\n".encode()
            os.write(file, line if not size or os.pread(file, 1, size - 1) == b"\n" else b"\n" + line)
        finally:
            os.close(file)

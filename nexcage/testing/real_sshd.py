"""Real OpenSSH servers on loopback, as the current user, with their own keys and their own PATH: nodes with a real link."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from nexcage._core.hosts import Host
from nexcage.testing._ports import free_port

__all__ = ["RealSshd", "missing"]

_PATIENCE = 30.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing() -> str:
    """Why no real sshd can be started here and how to get one; empty when it can."""
    if _sshd() and shutil.which("ssh-keygen"):
        return ""
    return "no sshd or ssh-keygen on this machine: apt-get install openssh-server"


def _sshd() -> str | None:
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:{_PATH}")


class RealSshd:
    """One sshd on 127.0.0.1, for the current user. Everything it needs lies in ``dir``; several may share one.

    ``path`` comes before the usual directories on the PATH of its commands and ``env`` into their environment. Their HOME is
    ``dir/home`` (so nobody's own start-up files are read). ``options``: more lines of sshd_config (``{"MaxSessions": 1}``).
    A context manager: entering starts it, leaving ends it and every process below it.
    """

    def __init__(
        self,
        dir: Path,
        *,
        name: str = "sshd",
        path: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        options: Mapping[str, str | int] | None = None,
    ) -> None:
        self.dir: Path = dir
        self.name: str = name
        self.home: Path = dir / "home"
        self.port: int = 0
        self.identity_file: Path = dir / "identity"
        self.known_hosts: Path = dir / f"{name}.known_hosts"
        self.host_key: Path = dir / f"{name}.host_key"
        self._options = dict(options or {})
        self._env = {"PATH": ":".join([*path, _PATH]), "HOME": str(self.home), **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.home.mkdir(parents=True, exist_ok=True)
        if not self.identity_file.exists():
            _make_key(self.identity_file)
        if not self.host_key.exists():
            _make_key(self.host_key)

    @property
    def host(self) -> Host:
        """How to log in; its key is the name of this server."""
        return Host(
            key=self.name,
            address="127.0.0.1",
            user=getpass.getuser(),
            port=self.port,
            identity_file=str(self.identity_file),
            known_hosts=str(self.known_hosts),
        )

    def start(self) -> None:
        """Start it, on the port that it had before if it had one, and write its host key to `known_hosts`."""
        if os.geteuid() == 0:  # where sshd as root separates its privileges
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        for _ in range(5):
            known = self.port != 0 or self.known_hosts.exists()
            self.port = self.port or free_port("127.0.0.1")
            if self._started():
                return
            self.port = 0  # somebody else took the port meanwhile
            if not known:
                self.known_hosts.unlink()
        raise RuntimeError(
            f"sshd did not start: {(self.dir / f'{self.name}.log').read_text('utf-8', 'replace')[-2000:]}"
        )

    def stop(self) -> None:
        """End it, its sessions and what they run."""
        if self._process is None:
            return
        below = _below(self._process.pid)  # before it ends: then nobody knows any more whose children they were
        self._process.terminate()
        for pid in below:
            _kill(pid)
        self._process.wait()
        self._process = None
        gives_up = time.monotonic() + _PATIENCE
        while (
            self._answers() and time.monotonic() < gives_up
        ):  # a session just forked holds the listening socket a moment
            time.sleep(0.005)

    def drop(self) -> None:
        """Kill its sessions, as a broken link would end them, and wait until they are gone; what they run goes on."""
        assert self._process is not None
        # A session is a monitor and, for a login that is not its own user, one process below it. Both are sshd.
        sessions = [pid for pid in _below(self._process.pid) if _comm(pid).startswith("sshd")]
        for pid in sessions:
            _kill(pid)
        gives_up = time.monotonic() + _PATIENCE
        while any(map(_runs, sessions)) and time.monotonic() < gives_up:
            time.sleep(0.001)

    def change_host_key(self) -> None:
        """A new host key from the next start on; `known_hosts` keeps the old one until `remember_host_key`."""
        for suffix in ("", ".pub"):
            self.host_key.with_name(self.host_key.name + suffix).unlink()
        _make_key(self.host_key)

    def remember_host_key(self) -> None:
        """Write the host key to `known_hosts`."""
        public = self.host_key.with_name(self.host_key.name + ".pub").read_text("ascii").split()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public[0]} {public[1]}\n", "ascii")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _started(self) -> bool:
        sshd = _sshd()
        assert sshd, missing()
        if not self.known_hosts.exists():
            self.remember_host_key()
        config = self.dir / f"{self.name}.config"
        config.write_text("".join(f"{name} {value}\n" for name, value in self._lines().items()), "utf-8")
        log = self.dir / f"{self.name}.log"
        argv = [sshd, "-D", "-f", str(config), "-E", str(log)]
        self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
        gives_up = time.monotonic() + _PATIENCE
        while self._process.poll() is None:
            if self._answers():
                return True
            if time.monotonic() > gives_up:
                self.stop()
                break
            time.sleep(0.005)
        self._process = None
        return False

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _lines(self) -> dict[str, str | int]:
        public = self.identity_file.with_name(self.identity_file.name + ".pub")
        words = " ".join(f'"{name}={value}"' for name, value in self._env.items())
        lines: dict[str, str | int] = {
            "ListenAddress": f"127.0.0.1:{self.port}",
            "HostKey": str(self.host_key),
            "AuthorizedKeysFile": str(public),
            "PidFile": "none",
            "UsePAM": "yes" if _locked() else "no",  # without PAM, sshd refuses a locked account also by key
            "UseDNS": "no",
            "StrictModes": "no",
            "PermitRootLogin": "prohibit-password",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PrintMotd": "no",
            "MaxStartups": 100,
            "SetEnv": words,
        }
        return lines | self._options


def _make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "nexcage", "-f", str(path)], check=True)


def _locked() -> bool:
    try:
        lines = Path("/etc/shadow").read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    return any(line.startswith(f"{getpass.getuser()}:!") for line in lines)


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]
    except OSError:
        return []


def _below(pid: int) -> list[int]:
    """Its children, their children, and so on."""
    found = _children(pid)
    for child in found:
        found += _children(child)
    return found


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _runs(pid: int) -> bool:
    """Whether it has not ended; one that nobody has waited for yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)

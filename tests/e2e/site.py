"""The node that the suite runs on: a real one, or a simulated one behind a real sshd on this machine."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from nexcage.testing import SimCluster
from nexcage.testing.executables import bin_dir, install
from nexcage.testing.real_sshd import RealSshd, missing

__all__ = ["Said", "Site", "real", "simulated"]

_UBUNTU = "ubuntu-20.04-standard_20.04-1_amd64.tar.gz"


class Said(NamedTuple):
    """What a command on the node said."""

    exit: int
    out: str
    err: str


class Site:
    """A node over SSH. ``root`` comes before each path of the suite there: nothing on a real node, its own tree on a simulated one."""

    def __init__(
        self, name: str, argv: list[str], *, root: str = "", sim: SimCluster | None = None, plain: bool = False
    ) -> None:
        self.name: str = name
        self.root: str = root
        self.sim: SimCluster | None = sim
        self.opt: str = f"{root}/opt/nexcage-e2e"
        self.etc: str = f"{root}/etc/nexcage"
        self.state: str = f"{root}/var/lib/nexcage-e2e"
        self.run_dir: str = f"{root}/run/nexcage-e2e"
        self._argv = argv
        self._plain = plain

    def without_pve(self) -> Site:
        """The machine that a simulated node is on, by its own programs; the same as it is for a real node."""
        return Site(self.name, self._argv, root=self.root, sim=self.sim, plain=self.sim is not None)

    def run(self, command: str, *, stdin: bytes = b"", timeout: float = 300.0) -> Said:
        """Run a shell command there, where ``nexcage`` is the one that was copied."""
        env = f"export PATH={shlex.quote(f'{self.opt}/bin')}:$PATH LC_ALL=C.UTF-8"
        if self._plain:
            env = f"unset NEXCAGE_NODE_ROOT; PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin {env}"
            env = env.replace(" export", "; export", 1)
        if self.root:
            env += f" XDG_CONFIG_HOME={shlex.quote(f'{self.root}/etc')}"
        try:
            done = subprocess.run(
                [*self._argv, f"{env}; {command}"], input=stdin, capture_output=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            return Said(124, "", f"no answer within {timeout:g} s")
        return Said(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))

    def write(self, path: str, data: bytes) -> None:
        """Put a file there."""
        where = shlex.quote(path)
        said = self.run(f"mkdir -p -- $(dirname -- {where}) && cat > {where}", stdin=data)
        if said.exit:
            raise OSError(f"cannot write {path} on {self.name}: {said.err.strip()}")


@contextmanager
def real(host: str, options: list[str]) -> Iterator[Site]:
    """A Proxmox VE node. A configuration that is there already is put back at the end; the suite's own directories are removed."""
    argv = ["ssh", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=15", *options, host, "--"]
    site = Site(host, argv)
    etc = site.etc
    said = site.run(f"for f in {etc}/config.toml {etc}/config.json; do [ ! -e $f ] || mv -n -- $f $f.before-e2e; done")
    if said.exit:
        raise OSError(f"cannot use {host}: {said.err.strip() or f'ssh exited with {said.exit}'}")
    try:
        yield site
    finally:
        site.run(
            f"rm -rf -- {site.opt} {site.state} {site.run_dir} {etc}/config.toml {etc}/config.json {etc}/e2e-vmid.toml; "
            f"for f in {etc}/config.toml {etc}/config.json; do [ ! -e $f.before-e2e ] || mv -- $f.before-e2e $f; done"
        )


@contextmanager
def simulated() -> Iterator[Site]:
    """A simulated node on disk whose commands are its pretend tools, behind OpenSSH's own server."""
    if missing() or not shutil.which("ssh"):
        raise OSError(missing() or "no ssh on this machine: apt-get install openssh-client")
    with tempfile.TemporaryDirectory(prefix="nexcage-e2e-") as temporary:
        home = Path(temporary)
        with SimCluster(1, dir=home / "sim") as sim:
            install(home / "sim", sim.hosts)
            name = sim.hosts[0]
            with sim[name].step():  # nothing of Ubuntu's is among what every simulated node has
                sim[name].files.write(f"/var/lib/vz/template/cache/{_UBUNTU}", json.dumps({"ostype": "ubuntu"}))
            with RealSshd(home / "sshd", name=name, path=[str(bin_dir(home / "sim", name))]) as server:
                login = server.host
                argv = ["ssh", "-F", "none", "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={login.known_hosts}"]
                argv += ["-o", "GlobalKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-i", login.identity_file]
                argv += ["-p", str(login.port), f"{login.user}@{login.address}", "--"]
                root = str(home / "sim" / "nodes" / name / "root")
                yield Site(f"{name} (simulated)", argv, root=root, sim=sim)

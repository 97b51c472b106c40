"""Simulated nodes on disk, each behind an OpenSSH server of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

import nexcage
from nexcage.testing import SimCluster
from nexcage.testing.executables import bin_dir, install
from nexcage.testing.real_sshd import RealSshd, missing


class Site:
    """A cluster on disk, and for each node an sshd whose commands find that node's pretend tools first."""

    def __init__(self, dir: Path, nodes: int, options: Mapping[str, str | int]) -> None:
        self.dir = dir
        self.sim = SimCluster(nodes, dir=dir / "sim")
        install(dir / "sim", self.sim.hosts)
        self.servers = {
            name: RealSshd(dir / "sshd", name=name, path=[str(bin_dir(dir / "sim", name))], options=options)
            for name in self.sim.hosts
        }

    def open(self, **options: Any) -> AbstractAsyncContextManager[nexcage.Fleet]:
        config = nexcage.Config(ssh_config="none")
        hosts = [server.host for server in self.servers.values()]
        return nexcage.open_fleet(
            hosts, config=config, state_dir=self.dir / "state", run_dir=self.dir / "run", **options
        )

    def ran(self, *words: str) -> list[dict[str, Any]]:
        """The effects of commands that begin with these words."""
        return [effect for effect in self.sim.effects() if tuple(effect["argv"][: len(words)]) == words]

    def processes(self, *, runners: bool = True) -> list[str]:
        """Command lines of this machine's processes that belong to a node: tools, the shells around them, its ``runners``."""
        found: list[str] = []
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
                root = f"NEXCAGE_NODE_ROOT={self.dir}".encode()
                if not runners and words[:2] == ["perl", "-e"]:
                    continue
                if entry.name.isdigit() and words[0] and root in (entry / "environ").read_bytes():
                    found.append(f"{entry.name}: {' '.join(words)}")
            except OSError:  # it has ended
                continue
        return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Any]:
    """Makes sites, and ends their servers."""
    if missing():
        pytest.skip(missing())
    made: list[Site] = []

    def make(nodes: int = 1, **options: str | int) -> Site:
        made.append(Site(tmp_path / f"site-{len(made)}", nodes, options))
        for server in made[-1].servers.values():
            server.start()
        return made[-1]

    yield make
    for one in made:
        for server in one.servers.values():
            server.stop()


@pytest.fixture(scope="session")
def highest_pid() -> int:
    """No process of this machine has a higher one."""
    return int(Path("/proc/sys/kernel/pid_max").read_text()) if os.path.exists("/proc/sys/kernel/pid_max") else 1 << 22

"""A running container behind each way into a node: in memory, over asyncssh, over OpenSSH, on this machine, and a real one of LXC."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

import nexcage
from nexcage._transports.local import LocalTransport
from nexcage._transports.local_runner import LocalRunner
from nexcage.testing import SimCluster
from nexcage.testing.real_sshd import RealSshd, missing

SPEC = nexcage.Spec(
    "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", storage="local-zfs", nets=(nexcage.Net(ip="10.1.2.3/24"),)
)
WAYS = ("memory", "asyncssh", "asyncssh-exec", "executables", "runner", "sshd", "sshd-exec", "lxc")


class Inside:
    """A fleet, and a container of it that runs."""

    def __init__(self, way: str, sim: SimCluster, fleet: nexcage.Fleet) -> None:
        self.way = way
        self.sim = sim
        self.fleet = fleet

    @property
    def real(self) -> bool:
        """Whether its programs are a real system's."""
        return self.way == "lxc"

    @property
    def served(self) -> bool:
        """Whether the node is in this process."""
        return self.way in ("memory", "asyncssh", "asyncssh-exec")

    @property
    def web(self) -> nexcage.Container:
        return self.fleet["web-1"]

    def attached(self) -> list[str]:
        """What runs of ``lxc-attach`` on the node."""
        if self.served:
            return [" ".join(call.ctx.argv) for call in self.sim["pve-01"].calls if "lxc-attach" in call.ctx.argv[0]]
        found: list[str] = []
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                inside = f"{self.sim.dir}".encode() in (entry / "environ").read_bytes()
            except OSError:  # it has ended
                continue
            if entry.name.isdigit() and inside and any(b"lxc-attach" in word[-40:] for word in words[:10]):
                found.append(b" ".join(words).decode(errors="replace"))
        return found

    def since(self, seq: int) -> list[nexcage.Event]:
        """What the journal has after that number."""
        return list(nexcage.read_journal(self.fleet.state_dir, since=seq))

    def journal(self) -> bytes:
        """Every byte of the state and run directories."""
        data = b""
        for folder in (self.fleet.state_dir, self.fleet.run_dir):
            for top, _, names in os.walk(folder):
                for name in names:
                    with suppress(FileNotFoundError):  # it was replaced meanwhile
                        data += Path(top, name).read_bytes()
        return data


async def until(true: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not true():
            await anyio.sleep(0.02)


@asynccontextmanager
async def opened(way: str, tmp_path: Path) -> AsyncGenerator[Inside]:
    """The container is created and started."""
    async with AsyncExitStack() as stack:
        disk = None if way in ("memory", "asyncssh", "asyncssh-exec") else tmp_path / "sim"
        sim = stack.enter_context(SimCluster(1, dir=disk, kind="real" if way == "lxc" else "model"))
        runner = "off" if way.endswith("-exec") else "auto"
        config = nexcage.Config(ssh_config="none", runner=runner)
        places: dict[str, Any] = {"state_dir": tmp_path / "state", "run_dir": tmp_path / "run", "config": config}
        if way == "memory":
            fleet = await stack.enter_async_context(sim.fleet(**places))
        elif way.startswith("asyncssh"):
            served = await stack.enter_async_context(sim.serve())
            fleet = await stack.enter_async_context(nexcage.open_fleet(served.hosts, **places))
        elif way.startswith("sshd"):
            if missing():
                pytest.skip(missing())
            server = stack.enter_context(RealSshd(tmp_path / "sshd", path=[str(sim.path("pve-01"))]))
            fleet = await stack.enter_async_context(nexcage.open_fleet([server.host], **places))
        else:
            env = {"PATH": f"{sim.path('pve-01')}:{os.environ['PATH']}"}
            make = LocalRunner if way == "runner" else LocalTransport
            fleet = await stack.enter_async_context(nexcage.open_fleet(None, connect=lambda _: make(env=env), **places))
        web = fleet["web-1"]
        await web.create(SPEC)
        await web.start()
        yield Inside(way, sim, fleet)
        if way == "lxc":
            await web.delete(force=True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "inside" in metafunc.fixturenames:
        metafunc.parametrize("inside", getattr(metafunc.module, "WAYS", WAYS), indirect=True, scope="module")


@pytest.fixture(scope="module")
async def inside(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Inside]:
    """One for all tests of a module: they leave it running, and look only at what has happened since they began."""
    async with opened(request.param, tmp_path_factory.mktemp("inside")) as made:
        yield made

"""Real sshd instances, one per module where nothing is changed on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from nexcage._transports.ssh import SshSettings, SshTransport
from nexcage.testing.real_sshd import RealSshd, missing


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSshd]:
    if missing():
        pytest.skip(missing())
    with RealSshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Any]:
    """Starts more of them, with their own options."""
    if missing():
        pytest.skip(missing())
    started: list[RealSshd] = []

    def start(**options: Any) -> RealSshd:
        server = RealSshd(tmp_path / "sshd", name=f"sshd-{len(started)}", **options)
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture(params=["runner", "exec"])
def mode(request: pytest.FixtureRequest) -> str:
    """How commands travel: all of them through one runner, or each on a channel of its own."""
    return str(request.param)


@pytest.fixture
def runner(mode: str) -> Literal["always", "off"]:
    """The setting for that."""
    return "always" if mode == "runner" else "off"


@pytest.fixture
async def ssh(sshd: RealSshd, runner: Literal["always", "off"]) -> AsyncIterator[SshTransport]:
    transport = SshTransport(sshd.host, settings=SshSettings(ssh_config="none", runner=runner))
    yield transport
    await transport.aclose()

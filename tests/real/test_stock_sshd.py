"""What a node with the limits that sshd has out of the box takes without a failure, and what is left on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from nexcage import Command
from nexcage._core.command import Result, nothing
from nexcage._transports.ssh import Logins, SshSettings, SshTransport
from nexcage.testing.real_sshd import RealSshd, missing
from tests.transports.commands import alive as running
from tests.transports.commands import until

STOCK: dict[str, str | int] = {"MaxSessions": 10, "MaxStartups": "10:30:100"}


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSshd]:
    if missing():
        pytest.skip(missing())
    with RealSshd(tmp_path_factory.mktemp("stock"), options=STOCK) as server:
        yield server


@pytest.fixture
async def ssh(stock: RealSshd) -> AsyncIterator[SshTransport]:
    transport = SshTransport(stock.host, settings=SshSettings(ssh_config="none"))
    yield transport
    await transport.aclose()


def shell(script: str, *args: str, timeout: float | None = None) -> Command[None]:
    return Command(("sh", "-c", script, "sh", *args), nothing, timeout=timeout)


async def at_once(ssh: SshTransport, commands: list[Command[None]]) -> list[Result]:
    results: list[Result] = []

    async def one(command: Command[None]) -> None:
        results.append(await ssh.run(command))

    async with anyio.create_task_group() as tasks:
        for command in commands:
            tasks.start_soon(one, command)
    return results


def logins(server: RealSshd) -> int:
    return (server.dir / f"{server.name}.log").read_text().count("Accepted publickey")


def alive(dir: Path) -> list[int]:
    """The processes that wrote their pids there and have not ended."""
    return [pid for path in dir.iterdir() if running(pid := int(path.name))]


async def test_a_hundred_commands_at_once_on_one_node_all_answer(stock: RealSshd, ssh: SshTransport) -> None:
    before = logins(stock)

    results = await at_once(ssh, [shell("sleep 0.2; echo $1", str(n)) for n in range(100)])

    assert sorted(int(result.stdout) for result in results) == list(range(100))
    assert {result.exit for result in results} == {0}
    assert (logins(stock) - before, ssh.mode) == (1, "runner")


async def test_fifty_nodes_behind_one_sshd_all_get_in(stock: RealSshd) -> None:
    logins = Logins()
    nodes = [SshTransport(stock.host, settings=SshSettings(ssh_config="none"), logins=logins) for _ in range(50)]
    results: list[Result] = []

    async def one(node: SshTransport) -> None:
        results.append(await node.run(shell("echo in")))

    async with anyio.create_task_group() as tasks:
        for node in nodes:
            tasks.start_soon(one, node)
    for node in nodes:
        await node.aclose()

    assert [result.stdout for result in results] == [b"in\n"] * 50


STUBBORN = (
    'trap "" TERM; : > "$1/$$"; sh -c \'trap "" TERM; : > "$1/$$"; while :; do sleep 0.1; done\' sh "$1" & wait; wait'
)
PLAIN = ': > "$1/$$"; sleep 600 & : > "$1/$!"; wait'


@pytest.mark.parametrize("script", [PLAIN, STUBBORN], ids=["plain", "stubborn"])
async def test_after_a_deadline_nothing_of_the_command_is_left(ssh: SshTransport, tmp_path: Path, script: str) -> None:
    await ssh.run(shell("true"))
    for timeout in (0.5, 2.0, 8.0, 20.0):  # how soon they are all under way is the machine's affair
        place = tmp_path / f"{timeout:g}"
        place.mkdir()
        results = await at_once(ssh, [shell(script, str(place), timeout=timeout) for _ in range(10)])

        assert {(result.exit, result.lost) for result in results} == {(None, "deadline")}
        begun = len(list(place.iterdir()))
        await until(lambda place=place: alive(place) == [])  # type: ignore[misc]
        if begun == 20:
            break
    assert begun == 20


@pytest.mark.parametrize("script", [PLAIN, STUBBORN], ids=["plain", "stubborn"])
async def test_after_a_cancel_nothing_of_the_command_is_left(ssh: SshTransport, tmp_path: Path, script: str) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(at_once, ssh, [shell(script, str(tmp_path)) for _ in range(10)])
        await until(lambda: len(list(tmp_path.iterdir())) == 20)
        tasks.cancel_scope.cancel()

    await until(lambda: alive(tmp_path) == [])


async def test_a_driver_that_vanishes_leaves_nothing_that_nobody_claimed(stock: RealSshd, tmp_path: Path) -> None:
    ssh = SshTransport(stock.host, settings=SshSettings(ssh_config="none"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(at_once, ssh, [shell(STUBBORN, str(tmp_path)) for _ in range(5)])
        await until(lambda: len(list(tmp_path.iterdir())) == 10)
        link = ssh._link
        assert link is not None
        link.conn.abort()

    await until(lambda: alive(tmp_path) == [])
    await ssh.aclose()

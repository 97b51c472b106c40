"""Whatever words a command has, the program on the node gets exactly those bytes."""

from __future__ import annotations

from pathlib import Path
from random import Random

import anyio
import pytest

import nexcage
from nexcage import Command, Config, Result
from nexcage.testing.real_sshd import RealSshd

ANY = bytes(range(1, 256))
SHELL = b"$`\"'\\;&|<>(){}[]*?~!# \t\n\r-=%\x1e\x1b\xff"
TRICKS = [
    b"", b"-", b"--", b"-n", b"$(id)", b"`id`", b"';id;'", b"\\", b"\\\\'", b"\n", b"\x1enexcage 1 1\n", b"*", b"~", b"a\\", b"%s%n",
    b"\xc3\xa9", b"\xff\xfe", b"\xed\xb2\x80", b"A=B", b"!!", b"\r\n", b"\x04", b"\x03", b"@nexcage end\n", b"'\"'\"'",
]  # fmt: skip
MANY, FEW = 10_000, 1_000


def word(chance: Random) -> bytes:
    match chance.randrange(10):
        case 0 | 1:
            return chance.choice(TRICKS)
        case 2 | 3 | 4:
            return bytes(chance.choices(SHELL, k=chance.randint(1, 12)))
        case 5:
            return bytes(chance.choices(ANY, k=chance.choice([60, 255, 256, 1000])))
        case _:
            return bytes(chance.choices(ANY, k=chance.randint(0, 24)))


def words(chance: Random, n: int) -> list[bytes]:
    if n % 500 == 0:  # long ones: a quote needs up to five bytes on a command line of 128 KiB
        return [bytes(chance.choices(ANY, k=chance.choice([4_096, 20_000])))]
    return [word(chance) for _ in range(chance.randint(1, 5))]


def dump(given: list[bytes]) -> Command[Result]:
    argv = ("printf", r"%s\0", *(one.decode("utf-8", "surrogateescape") for one in given))
    return Command(argv, parse=lambda result: result, safe=True, weight="read", timeout=60.0)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("runner, count", [("auto", MANY), ("off", FEW)])
async def test_random_words_arrive_byte_for_byte(sshd: RealSshd, tmp_path: Path, runner: str, count: int) -> None:
    chance = Random(f"argv {runner}")
    config = Config(ssh_config="none", runner=runner, state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"))  # type: ignore[arg-type]
    wrong: list[tuple[list[bytes], bytes]] = []
    arrived = 0
    async with nexcage.open_fleet([sshd.host], config=config) as fleet, anyio.create_task_group() as tasks:
        node = fleet.nodes[sshd.host.key]
        left = iter(range(count))

        async def work() -> None:
            nonlocal arrived
            for n in left:
                given = words(chance, n)
                result = await node.run(dump(given))
                arrived += 1
                if result.stdout != b"".join(one + b"\0" for one in given):
                    wrong.append((given, result.stdout))

        for _ in range(8):
            tasks.start_soon(work)
    assert wrong == []
    assert arrived == count


@pytest.mark.parametrize("runner", ["auto", "off"])
async def test_random_environment_arrives_byte_for_byte(sshd: RealSshd, tmp_path: Path, runner: str) -> None:
    chance = Random(7)
    config = Config(ssh_config="none", runner=runner, state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"))  # type: ignore[arg-type]
    async with nexcage.open_fleet([sshd.host], config=config) as fleet:
        node = fleet.nodes[sshd.host.key]
        for _ in range(200):
            given = word(chance).decode("utf-8", "surrogateescape")
            show = Command(("sh", "-c", 'printf "%s" "$ODD"'), parse=lambda result: result.stdout, env={"ODD": given})
            assert await node.run(show) == given.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("runner", ["auto", "off"])
@pytest.mark.parametrize("argv", [(), ("",), ("a\0b",), ("true", "\0"), ("true", "\ud800")])
async def test_what_no_command_line_can_carry_is_refused_here(
    sshd: RealSshd, tmp_path: Path, runner: str, argv: tuple[str, ...]
) -> None:
    config = Config(ssh_config="none", runner=runner, state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"))  # type: ignore[arg-type]
    async with nexcage.open_fleet([sshd.host], config=config) as fleet:
        with pytest.raises(nexcage.NexcageError):
            await fleet.nodes[sshd.host.key].run(Command(argv, parse=lambda result: result))
        # One bad command costs only itself.
        assert (await fleet.nodes[sshd.host.key].run(dump([b"next"]))).stdout == b"next\0"

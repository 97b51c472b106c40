"""Commands that tests of every transport run, and waiting for what becomes of them."""

from __future__ import annotations

from pathlib import Path

import anyio

from nexcage import Command
from nexcage._core.command import nothing


def command(*argv, **options):
    return Command(argv, parse=nothing, **options)


def shell(script, *args, **options):
    return command("sh", "-c", script, "sh", *args, **options)


TRUE = command("true")


def alive(pid: int) -> bool:
    """Whether it runs; a zombie that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until(true, seconds=20):
    with anyio.fail_after(seconds):
        while not true():
            await anyio.sleep(0.005)


async def pid_in(file: Path) -> int:
    await until(lambda: file.exists() and file.read_text().endswith("\n"))
    return int(file.read_text())

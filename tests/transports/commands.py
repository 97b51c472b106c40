"""Commands that tests of every transport run, and waiting for what becomes of them."""

from __future__ import annotations

from pathlib import Path

import anyio

from nexcage import Command
from nexcage._core.command import nothing
from nexcage.errors import NodeTimeout


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


def written(file: Path) -> bool:
    return file.exists() and file.read_text().endswith("\n")


async def pid_in(file: Path) -> int:
    await until(lambda: written(file))
    return int(file.read_text())


async def overrun(way, script, folder, timeout=0.3, **options):
    """The answer of a script that was under way when its deadline came, and the file (its ``$1``) that it wrote a pid to by then.

    How soon it begins is the machine's affair: one that had not written yet is sent again with a longer deadline.
    """
    while True:
        file = folder / f"pid-{timeout:g}"
        try:
            result = await way.run(shell(script, str(file), timeout=timeout, **options))
        except NodeTimeout:  # it was not even sent
            result = None
        if result is not None and written(file):
            return result, file
        file.with_name(f"{file.name}.end").touch()  # for scripts that hear no signal
        assert timeout < 20, f"it did not begin within {timeout:g} seconds"
        timeout *= 4

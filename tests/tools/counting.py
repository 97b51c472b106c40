"""Which programs a script of ours starts: nobody has to have strace for it."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio

from nexcage import Command, Result

__all__ = ["Counted"]


class Counted:
    """Every program on PATH, each of which writes down that it was started and by which process."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "started"
        self.bin = directory / "counted"
        self.bin.mkdir()
        wrapper = self.bin / "..wrapper"
        path = shlex.quote(os.environ["PATH"])
        wrapper.write_text(
            f'#!/bin/sh\necho "${{0##*/}} $PPID" >>{shlex.quote(str(self.log))}\nPATH={path}\nexec "${{0##*/}}" "$@"\n'
        )
        wrapper.chmod(0o755)
        for name in {
            name for place in os.environ["PATH"].split(":") if os.path.isdir(place) for name in os.listdir(place)
        }:
            (self.bin / name).symlink_to(wrapper)

    async def run(
        self, shell: str, command: Command[Any], env: Mapping[str, str]
    ) -> tuple[Result, list[str], set[int]]:
        """What it says, the programs that it started, and the processes that did it: the shell, and those that it divided into."""
        self.log.write_text("")
        async with await anyio.open_process(
            [shutil.which(shell) or shell, *command.argv[1:]], env={**env, "PATH": str(self.bin)}, stderr=None
        ) as process:
            assert process.stdout is not None
            said = b"".join([chunk async for chunk in process.stdout])
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return (
            Result(process.returncode, said),
            sorted(name for name, _ in lines),
            {int(by) for _, by in lines} - {process.pid},
        )

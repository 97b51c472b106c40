"""A wheel of this checkout and wheels of what it needs, for the Python of the node; nothing is asked of a network there."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import NamedTuple

from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement

__all__ = ["Python", "build", "here", "needed"]


class Python(NamedTuple):
    """An interpreter, as far as it decides which wheels it can use."""

    version: str
    machine: str
    libc: str


PROBE = "import platform as p, sys; print('%d.%d' % sys.version_info[:2], p.machine(), p.libc_ver()[0] or 'musl')"
"""Prints a `Python`."""


def here() -> Python:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    return Python(*done.stdout.split())


def build(root: Path, directory: Path) -> Path:
    """The wheel of the checkout at ``root``."""
    (built,) = WheelBuilder(str(root)).build(directory=str(directory), versions=["standard"])
    return Path(built)


def needed(python: Python, directory: Path) -> list[Path]:
    """Wheels of everything that nexcage needs at run time: what is installed here where the node has the same Python, else
    fetched from the package index by this machine.
    """
    if python == here():
        return [_packed(one, directory) for one in _closure()]
    return _fetched(python, directory)


def _closure() -> Iterator[Distribution]:
    """What the dependencies are, and theirs, as installed here; optional ones are left out."""
    todo, seen = ["anyio", "asyncssh", "msgspec"], set[str]()
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        found = distribution(name)
        yield found
        for line in found.requires or ():
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                todo.append(wanted.name)


def _packed(found: Distribution, directory: Path) -> Path:
    """An installed distribution as the wheel that it came from; its scripts are left out."""
    tag = re.search(r"^Tag: (.+)$", found.read_text("WHEEL") or "", re.MULTILINE)
    name = re.sub(r"[-.]+", "_", found.metadata["Name"])
    wheel = directory / f"{name}-{found.version}-{tag[1].strip() if tag else 'py3-none-any'}.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as packed:
        for file in found.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                packed.write(str(found.locate_file(file)), str(file))
    return wheel


def _fetched(python: Python, directory: Path) -> list[Path]:
    before = set(directory.glob("*.whl"))
    libc = "musllinux_1_2" if python.libc == "musl" else "manylinux_2_17"
    platforms = [libc, "manylinux2014", "manylinux_2_28", "manylinux_2_34"] if python.libc != "musl" else [libc]
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
    argv += ["--python-version", python.version, "--implementation", "cp", "--dest", str(directory)]
    argv += [f"--platform={platform}_{python.machine}" for platform in platforms]
    subprocess.run([*argv, "anyio>=4.10", "asyncssh>=2.21", "msgspec>=0.20"], check=True)
    return sorted(set(directory.glob("*.whl")) - before)

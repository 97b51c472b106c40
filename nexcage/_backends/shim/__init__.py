"""The init of containers that are made from a bundle: its program (``init.c``, built as package data) and the file that it reads."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from importlib import resources

from nexcage._core.bundle_plan.model import Call, Launch

__all__ = ["BUILD", "DIRECTORY", "HOOK_FAILED", "NO_IDENTITY", "NO_LAUNCH", "launch_file", "program", "source"]

DIRECTORY = "/.nexcage"
"""Where a container finds it: `init`, `launch`, and the FIFOs `gate` and `said`."""
HOOK_FAILED, NO_LAUNCH, NO_IDENTITY = 121, 122, 123
"""Its own exit statuses; 126 and 127 are those of a program that cannot be run or found."""
BUILD = (
    "-static -nostdlib -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -fno-builtin -Os -Wall -Wextra -Werror "
    "-Wl,--build-id=none,-z,noseparate-code,-z,norelro,-s"
).split()
"""What ``cc BUILD -o init.x86_64 init.c`` is told."""


def program(machine: str = "x86_64") -> bytes:
    """The built program; raises FileNotFoundError for a machine that it was not built for."""
    return resources.files(__name__).joinpath(f"init.{machine}").read_bytes()


def source() -> bytes:
    """The text of ``init.c``."""
    return resources.files(__name__).joinpath("init.c").read_bytes()


def launch_file(launch: Launch, state: bytes = b"") -> bytes:
    """``launch`` as the program reads it. ``state`` is the document that its ``startContainer`` hooks get on standard input."""
    return b"NEXCAGE1" + b"".join(_record(tag, value) for tag, value in _records(launch, state))


def _records(launch: Launch, state: bytes) -> Iterator[tuple[bytes, bytes]]:
    yield from ((b"a", word) for word in launch.argv)
    yield from ((b"e", word) for word in launch.env)
    yield b"c", launch.cwd
    yield b"u", _number(launch.uid)
    yield b"g", _number(launch.gid)
    yield from ((b"G", _number(group)) for group in launch.groups)
    if launch.umask is not None:
        yield b"m", _number(launch.umask)
    yield b"n", _number(int(launch.no_new_privs))
    for tag, mask in zip(b"bpfiA", launch.capabilities or (), strict=False):
        yield bytes((tag,)), struct.pack("<Q", mask)
    yield b"s", state
    for call in launch.start_container:
        yield from _hook(call)
    yield b"z", b""


def _hook(call: Call) -> Iterator[tuple[bytes, bytes]]:
    yield b"H", _bytes(call.path)
    yield from ((b"h", word) for word in _all(call.argv))
    yield from ((b"v", word) for word in _all(call.env))
    if call.timeout is not None:
        yield b"t", _number(call.timeout)


def _record(tag: bytes, value: bytes) -> bytes:
    if b"\0" in value and tag in b"aecHhv":
        raise ValueError("a word with a NUL")
    return tag + struct.pack("<I", len(value)) + value + b"\0"


def _number(value: int) -> bytes:
    return struct.pack("<I", value)


def _all(words: Iterable[str]) -> Iterator[bytes]:
    return map(_bytes, words)


def _bytes(word: str) -> bytes:
    return word.encode("utf-8", "surrogateescape")

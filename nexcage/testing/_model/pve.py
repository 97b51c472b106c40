"""``pveversion``, and what the pretend storage tools have in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from typing import Any

from nexcage.testing._model import storage
from nexcage.testing._model.node import Node, Task
from nexcage.testing._model.storage import Die, Storage
from nexcage.testing._model.tool import Ctx, Interrupted, Sleep, Steps, Wait

__all__ = [
    "DPKG",
    "PACKAGES",
    "START_UP",
    "VERSION",
    "contents",
    "packages",
    "pveversion",
    "split",
    "took",
    "unknown",
    "worker",
    "wrong",
]

START_UP = 0.8
DPKG = "/var/lib/dpkg/status"
PACKAGES = {
    "corosync": "3.1.9-pve2",
    "lxc-pve": "6.0.5-3",
    "lxcfs": "6.0.4-pve1",
    "pve-container": "6.1.10",
    "pve-cluster": "9.0.7",
    "pve-qemu-kvm": "10.1.2-4",
    "qemu-server": "9.1.0",
    "zfsutils-linux": "2.3.4-pve1",
}
VERSION = "pve-manager/9.1.1/42db4a6cf33dac83 (running kernel: 6.14.8-2-pve)"


def took(node: Node, seconds: float) -> Generator[Sleep, None, None]:
    """Let the time of real work pass."""
    cost = node.cost(seconds)
    if cost:
        yield Sleep(cost)


def split(words: Sequence[str], with_value: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Options by name, and the words that are none."""
    options: dict[str, str] = {}
    rest: list[str] = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if len(word) > 1 and word.startswith("-"):
            key, equals, value = word.lstrip("-").partition("=")
            options[key] = value if equals else (waiting.pop(0) if key in with_value and waiting else "1")
        else:
            rest.append(word)
    return options, rest


def unknown(ctx: Ctx) -> int:
    """A subcommand that there is not."""
    tool, words = ctx.argv[0], ctx.argv[1:]
    shown = f"unknown command '{tool} {words[0]}'" if words else "no command specified"
    ctx.err(f"ERROR: {shown}\nUSAGE: {tool} <COMMAND> [ARGS] [OPTIONS]\n")
    return 255


def wrong(ctx: Ctx, error: Die) -> int:
    """An error before any worker: its text, and the stale errno as exit status."""
    ctx.err(error.text + ("" if error.text.endswith("\n") else "\n"))
    return ctx.node.random.choice((2, 25, 255))


def worker(
    ctx: Ctx, kind: str, id: str, body: Callable[[Callable[[str], None]], Generator[Wait, Any, None]]
) -> Generator[Wait, Any, Task]:  # Any: what a wait is answered with depends on the wait
    """Run ``body`` as a task; it is given the function that says something. A failed one leaves the exit status at 0."""
    node = ctx.node
    task = node.begin_task(kind, id)

    def say(text: str) -> None:
        ctx.out(text)
        node.files.append(task.log, text)

    try:
        yield from body(say)
    except Die as error:
        text = error.text.rstrip("\n")
    except Interrupted:
        text = "received interrupt"
    else:
        node.end_task(task, "OK")
        return task
    node.end_task(task, text)
    ctx.err(text.replace("\n", " ") + "\n")
    return task


def contents(node: Node, place: Storage) -> list[tuple[str, str, str, int, str]]:
    """What lies on a storage: volume id, format, content type, bytes, VMID."""
    rows: list[tuple[str, str, str, int, str]] = []
    rows += [
        (vol.id, vol.format, "rootdir", storage.size_of(node, vol) or 0, str(vol.owner))
        for vol in storage.of_guest(node, place)
    ]
    for kind, directory in storage.DIRECTORIES.items():
        if place.kind == "zfspool" or kind not in place.content:
            continue
        for name in node.files.names(f"{place.path}/{directory}"):
            try:
                vol = storage.parse_name(place, f"{kind}/{name}")
            except Die:
                continue
            ending = name.rpartition(".")[2]
            form = {"gz": "tgz", "xz": "txz", "zst": "tzst", "bz2": "tbz2"}.get(ending, ending)
            owner = re.match("vzdump-(?:lxc|qemu)-([0-9]+)-", name) if kind == "backup" else None
            if owner is not None:
                form = name[name.index(".") + 1 :]
            size = len(node.files.read(f"{place.path}/{directory}/{name}") or "")
            rows.append((vol.id, form, kind, size, owner[1] if owner else ""))
    return rows


def pveversion(ctx: Ctx) -> Steps:
    """``pveversion [-v]``."""
    yield from took(ctx.node, 0.4)
    if not {"-v", "--verbose", "-verbose"} & set(ctx.argv[1:]):
        ctx.out(VERSION + "\n")
        return 0
    parts = {
        "proxmox-ve": "9.1.0 (running kernel: 6.14.8-2-pve)",
        "pve-manager": "9.1.1 (running version: 9.1.1/42db4a6cf33dac83)",
        **packages(ctx.node),
    }
    ctx.out("".join(f"{name}: {version}\n" for name, version in parts.items()))
    return 0


def packages(node: Node) -> dict[str, str]:
    """The versions of PVE's parts, as ``dpkg`` has them on this node."""
    found = re.findall(r"^Package: (.+)\nVersion: (.+)$", node.files.read(DPKG) or "", re.MULTILINE)
    return {**PACKAGES, **dict(found)}

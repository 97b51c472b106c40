"""What ``zfs`` and ``zpool`` say when they refuse, as errors; OpenZFS, and zfs-fuse where its words differ."""

from __future__ import annotations

import re
from typing import Any

from nexcage._core.command import Command, Result, shown
from nexcage.errors import (
    AlreadyExists,
    Blocked,
    Busy,
    CommandFailed,
    InvalidName,
    NexcageError,
    NodeNotUsable,
    NotFound,
)

__all__ = ["classify", "unusable"]

_NO_ZFS = re.compile(
    r"(?P<module>ZFS modules (?:are not |cannot be auto-)loaded)"
    r"|(?P<daemon>zfs-fuse daemon is running|failed to initialize ZFS library)"
    r"|(?P<root>Permission denied the ZFS utilities must be run as root)"
    r"|(?P<tool>(?:^|\s)'?(?:zfs|zpool)'?: (?:command )?not found|'?(?:zfs|zpool)'?: No such file or directory"
    r"|No such file or directory: '?(?:zfs|zpool)\b)"
)
_WAYS = {
    "module": "the kernel has no ZFS module loaded; try `modprobe zfs` there",
    "daemon": "its ZFS daemon does not run; start it (`systemctl start zfs-fuse`)",
    "root": "zfs needs root; log in as root or allow `sudo -n` there",
    "tool": "there is no `zfs`; install zfsutils-linux there",
}


def unusable(text: str) -> str:
    """Why there is no ZFS at all, and what to do; empty when ``text`` does not say so."""
    match = _NO_ZFS.search(text)
    return _WAYS[match.lastgroup or "tool"] if match else ""


def _below(text: str) -> str:
    """The names that the tool lists below its advice."""
    _, _, listed = text.partition("use '-")
    found = [line.strip() for line in listed.splitlines()[1:] if line.strip() and " " not in line.strip()]
    return ", ".join(found[:8]) + (", ..." if len(found) > 8 else "")


_NAMES = (
    "invalid character|name is too long|leading slash|trailing slash|empty component|multiple '@'|self reference"
    "|parent reference|snapshot delimiter|missing dataset name"
)
_WORDS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), meaning)
    for pattern, meaning in (
        (r"cannot open '([^']+)': no such pool", "no pool"),
        (r"cannot \S+ '[^']+': no such pool '([^']+)'", "no pool"),
        (r"cannot open '([^']+)': dataset does not exist", "missing"),
        (r"cannot \S+ '([^']+)/[^'/]+': parent does not exist", "missing"),
        (r"could not find any snapshots to destroy()", "no snapshots"),
        (r"destination '([^']+)' (?:already )?exists", "taken"),
        (r"'([^']+)': dataset already exists", "taken"),
        (r"it's being held()", "held"),
        (r"has dependent clones()|clones of previous snapshots exist|snapshot is cloned", "clones"),
        (r"(?:filesystem|volume) has children()", "children"),
        (r"more recent snapshots()", "newer"),
        (r"(?:dataset|pool|target) is busy()", "busy"),
        (r"out of space()|No space left on device", "full"),
        (r"cannot open '([^']+)': pool (?:I/O is currently suspended|is unavailable)", "pool"),
        (rf"cannot \S+ '[^']+': ((?:{_NAMES}).*)", "name"),
        (r"cannot \S+ '([^']+)': permission denied", "permission"),
    )
)


def _meaning(meaning: str, found: str, said: str, node: str) -> NexcageError:
    name = _named(said)
    what = f"{'snapshot' if '@' in name else 'dataset'} {name} on {node}"
    match meaning:
        case "no pool":
            return NotFound("pool", found, f"does not exist on {node}")
        case "missing":
            return NotFound("snapshot" if "@" in found else "dataset", found, f"does not exist on {node}")
        case "no snapshots":
            return NotFound("snapshot", name, f"does not exist on {node}")
        case "taken":
            return AlreadyExists("snapshot" if "@" in found else "dataset", found, f"already exists on {node}")
        case "held":
            return Blocked(what, "a hold (`zfs holds -r` shows it)")
        case "clones":
            return Blocked(what, f"its clones {_below(said)}".rstrip())
        case "children":
            return Blocked(what, f"what is below it: {_below(said)}")
        case "newer":
            return Blocked(what, f"newer snapshots: {_below(said)}")
        case "busy":
            return Busy(what, "something uses it")
        case "full":
            return Blocked(what, "a lack of room")
        case "pool":
            return Blocked(f"pool {found} on {node}", f"its own trouble (`zpool status {found}`)")
        case "name":
            return InvalidName("dataset", name, found)
        case _:
            return NodeNotUsable(node, f"{found}: permission denied; zfs needs root, or the right by `zfs allow`")


def _named(text: str) -> str:
    match = re.search(r"cannot [a-z ]+ '?([^'\s:]+)'?", text)
    return match[1] if match else "?"


def classify(command: Command[Any], result: Result, node: str) -> NexcageError:
    """The error for what ``zfs`` or ``zpool`` said; CommandFailed with its own words when they mean nothing more precise."""
    said = shown(result.stderr)
    plain = CommandFailed(node, command.argv, result.exit or 0, said, shown(result.stdout))
    if why := unusable(said) or (_WAYS["tool"] if result.exit == 127 else ""):
        return NodeNotUsable(node, why).noted(str(plain))
    for pattern, meaning in _WORDS:
        match = pattern.search(said)
        if match:
            return _meaning(meaning, match[1] or "", said, node).noted(str(plain), *getattr(plain, "__notes__", ()))
    return plain

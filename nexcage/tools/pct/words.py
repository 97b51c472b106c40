"""What ``pct`` says when it refuses, and the error that it means (pct-observed 5, pve-commands 1.15).

Never the number: errors raised before the worker leave whatever errno was (2, 4, 25, 39 or 255).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from nexcage._core.command import Command, Result, shown
from nexcage.errors import (
    AlreadyExists,
    Blocked,
    Busy,
    Changed,
    CommandFailed,
    IllegalTransition,
    InvalidInput,
    NexcageError,
    NodeNotUsable,
    NoQuorum,
    NotFound,
)

__all__ = ["classify"]


class _Said(NamedTuple):
    """One refusal: what it names, the command's words, and where."""

    name: str
    text: str
    argv: tuple[str, ...]
    node: str

    @property
    def vmid(self) -> str:
        return next((word for word in self.argv[1:] if word.isdigit()), "?")

    @property
    def what(self) -> str:
        return f"container {self.vmid} on {self.node}"

    @property
    def verb(self) -> str:
        words = self.argv[self.argv.index("pct") + 1 :] if "pct" in self.argv else ()
        return words[0] if words else "use"


_Meaning: TypeAlias = Callable[[_Said], NexcageError]


def _bad_option(said: _Said) -> NexcageError:
    found = re.search(
        r"^([a-z0-9-]+)(?:\.[a-z0-9_-]+)?: (?!invalid format - format error)(.*)", said.text, re.MULTILINE
    )
    if found is None:
        return InvalidInput("argument", " ".join(said.argv), said.text.strip().splitlines()[0])
    option = f"--{found[1]}"
    value = said.argv[said.argv.index(option) + 1] if option in said.argv[:-1] else ""
    reason = found[2] if len(found[2]) < 160 else f"{found[2][:159]}..."  # an enumeration may have hundreds of words
    return InvalidInput(found[1], value, reason)


_MEANINGS: Mapping[str, _Meaning] = {
    "taken": lambda said: AlreadyExists("VMID", said.vmid, f"already exists on node '{said.name}'"),
    "flock": lambda said: Busy(said.what, f"another PVE task holds {said.name}"),
    "lock": lambda said: Busy(said.what, f"it is locked ({said.name})"),
    "modified": lambda said: Changed(said.what),
    "quorum": lambda said: NoQuorum(said.node, "its cluster is not quorate; it can be read but not changed"),
    "pmxcfs": lambda said: NodeNotUsable(
        said.node, "pmxcfs does not answer; check `systemctl status pve-cluster` there"
    ),
    "gone": lambda said: NotFound("container", said.vmid, f"is not on node {said.name}"),
    "blocked": lambda said: Blocked(said.what, said.name),
    "storage": lambda said: Blocked(said.what, f"its storage: {said.name}"),
    "newer": lambda said: Blocked(said.what, f"newer snapshots: {said.name}"),
    "linked": lambda said: Blocked(said.what, f"linked clones of {said.name}"),
    "root": lambda said: NodeNotUsable(said.node, "pct needs root; log in as root or allow `sudo -n` there"),
    "missing": lambda said: _no_pct(said.node),
    "snapshot used": lambda said: AlreadyExists("snapshot", said.name, f"exists already on {said.what}"),
    "snapshot gone": lambda said: NotFound("snapshot", said.name, f"does not exist on {said.what}"),
    "same size": lambda said: AlreadyExists("size", said.argv[-1], f"is what the volume of {said.what} has already"),
    "size": lambda said: InvalidInput("size", said.argv[-1], "not smaller than it is: volumes only grow"),
    "option": lambda said: InvalidInput(said.name, said.name, said.text.strip().splitlines()[-1]),
    "reserved": lambda said: InvalidInput("snapname", said.name, "PVE keeps this word for itself"),
    "no options": lambda _: InvalidInput("options", "", "something to change"),
    "no command": lambda _: InvalidInput("command", "", "a program and its arguments"),
    "bad option": _bad_option,
    "no storage": lambda said: NotFound("storage", said.name, f"does not exist on {said.node}"),
    "no volume": lambda said: NotFound("volume", said.name, f"does not exist on {said.node}"),
    "no file": lambda said: NotFound("file", said.name, f"cannot be opened on {said.node}"),
    "no node": lambda said: NotFound("node", said.name, "is not in this cluster"),
    "no bridge": lambda said: NotFound("bridge", said.name, f"does not exist on {said.node}"),
    "no lock": lambda said: NotFound("lock", said.vmid, "is not set"),
    "stopped": lambda said: IllegalTransition(said.vmid, said.verb, "stopped", reason="it is not running"),
    "running": lambda said: IllegalTransition(said.vmid, said.verb, "running", reason="it must be stopped for that"),
    "copied": lambda said: IllegalTransition(
        said.vmid, said.verb, "running", reason="it is running: name one of its snapshots, or stop it"
    ),
    "template": lambda said: IllegalTransition(said.vmid, said.verb, "template", reason="it is a template"),
}

_WORDS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.MULTILINE), meaning)
    for pattern, meaning in (
        (r"(?:CT|VM) \d+ already exists on node '([^']*)'", "taken"),
        (r"can't lock file '([^']*)' - got timeout", "flock"),
        (r"cfs-lock '([^']*)' error: got lock request timeout", "flock"),
        (r"(Failed to obtain guest migration lock)", "flock"),
        (r"(?:CT|VM) is locked \(([a-z-]+)\)", "lock"),
        (r"found lock '([a-z-]+)' trying to remove", "lock"),
        (r"detected modified configuration", "modified"),
        (r"cluster not ready - no quorum|error: no quorum!", "quorum"),
        (r"ipcc_send_rec\[\d+\] failed|pmxcfs. not mounted", "pmxcfs"),
        (r"Configuration file 'nodes/([^/']+)/lxc/\d+\.conf' does not exist", "gone"),
        (r"(protection mode enabled)", "blocked"),
        (r"(used in HA resources and purge parameter not set)", "blocked"),
        (r"There is a (replication job '[^']*')", "blocked"),
        (r"base volume '([^']*)' is still in use by linked clones", "linked"),
        (r"(still in use by linked clones)", "blocked"),
        (r"please run as root", "root"),
        (r"(?m)(?:^|[ '/])pct'?: Permission denied$", "root"),
        (
            r"pct: (?:command )?not found|'?pct'?: No such file or directory|No such file or directory: '?pct\b(?!\.)",
            "missing",
        ),
        # snapshots
        (r"snapshot name '([^']*)' already used", "snapshot used"),
        (r"(can't rollback, '[^']*' is not most recent snapshot on '[^']*')", "newer"),
        (r"snapshot '([^']*)' does not exist", "snapshot gone"),
        (r"(unable to rollback to incomplete snapshot.*)", "blocked"),
        (r"unable to use snapshot name '([^']*)' \(reserved name\)", "reserved"),
        # what a storage or a state does not allow
        (r"((?:snapshot|Linked clone|Template) feature (?:for '[^']*' )?is not available.*)", "storage"),
        (r"(can't resize this image format|unable to clone mountpoint '[^']*' \(type [a-z]+\))", "storage"),
        (
            r"(can't clone CT to node '[^']*' \(.*\)|you can't move a volume with snapshots and delete the source)",
            "blocked",
        ),
        (r"(unable to create template, because CT contains snapshots)", "blocked"),
        (r"(cannot migrate local bind mount point '[^']*'|can't migrate local volume '[^']*': .*)", "blocked"),
        (r"(?:can only (?:push|pull) files (?:to|from) a running|container '\d+' not running)", "stopped"),
        (r"cannot move volumes of a running container|cannot run fsck when container is running", "running"),
        (r"can't convert a CT to template if the CT is running|can't overwrite running container", "running"),
        (r"Full clone of a running container is only possible from a snapshot", "copied"),
        (r"can't migrate running container without", "running"),
        (r"you can't .*\b(?:if (?:it's|vm is) a template|a template to a template)", "template"),
        # what is not there
        (r"no lock found trying to remove", "no lock"),
        (r"storage '([^']*)' does not exist", "no storage"),
        (r"(storage '[^']*' is (?:disabled|not online|not available on node '[^']*'))", "blocked"),
        (r"no such cluster node '([^']*)'", "no node"),
        (r"bridge '([^']*)' does not exist", "no bridge"),
        (r"(?:volume|script) '([^']*)' does not exist", "no volume"),
        (r"can't (?:find file|open) '([^']*)'", "no file"),
        (r"failed to open (\S+) for reading|failed to open ([^:\s]+): ", "no file"),
        # what was asked for
        (r"unable to (?:hotplug|apply pending change) ", "plain"),
        (r"unable to shrink disk size", "size"),
        (r"disk is already at specified size", "same size"),
        (r"unable to (?:modify|delete) (?:read-only|required) option: '([^']*)'", "option"),
        (r"unable to delete required option '([^']*)'", "option"),
        (r"no options specified", "no options"),
        (r"missing command at ", "no command"),
        (r"^400 (?!Result )", "bad option"),
    )
)


def classify(command: Command[Any], result: Result, node: str) -> NexcageError:
    """The error for what ``pct`` said; CommandFailed with its own words when they mean nothing more precise."""
    said = shown(result.stderr)
    plain = CommandFailed(node, command.argv, result.exit or 0, said, shown(result.stdout))
    for pattern, meaning in _WORDS:
        match = pattern.search(said)
        if match and meaning == "plain":
            break
        if match:
            name = next((group for group in match.groups() if group), match[0])
            error = _MEANINGS[meaning](_Said(name, said, command.argv, node))
            return error.noted(str(plain), *getattr(plain, "__notes__", ()))
    if result.exit == 127 and not said.strip().startswith("lxc-attach"):
        return _no_pct(node)
    return plain


def _no_pct(node: str) -> NodeNotUsable:
    return NodeNotUsable(
        node, "there is no `pct`: this is not a Proxmox VE node (try `nexcage sim up` for a simulated one)"
    )

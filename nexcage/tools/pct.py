"""``pct``: its argv and what its words mean (pct-observed 2-9, pve-commands 1).

Two rules stand above all: branch on exit zero or not and on the words, never on the number; and exit 0 is no proof.
"""

from __future__ import annotations

import re
from typing import Any

from nexcage import names
from nexcage._core.command import Command, Result, nothing, shown
from nexcage._core.seen import Mark
from nexcage._core.spec import Net, Spec
from nexcage.errors import (
    AlreadyExists,
    Blocked,
    Busy,
    CommandFailed,
    InvalidInput,
    InvalidSpec,
    NexcageError,
    NodeNotUsable,
    NoQuorum,
    NotFound,
)

__all__ = ["classify", "create", "destroy", "hostname_for", "net", "rootfs", "shutdown", "start", "stop"]

_WORDS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), meaning)
    for pattern, meaning in (
        (r"(?:CT|VM) \d+ already exists on node '([^']*)'", "taken"),
        (r"can't lock file '([^']*)' - got timeout", "flock"),
        (r"cfs-lock '([^']*)' error: got lock request timeout", "flock"),
        (r"(?:CT|VM) is locked \(([a-z-]+)\)", "lock"),
        (r"cluster not ready - no quorum|error: no quorum!", "quorum"),
        (r"ipcc_send_rec\[\d+\] failed|pmxcfs. not mounted", "pmxcfs"),
        (r"Configuration file 'nodes/([^/']+)/lxc/\d+\.conf' does not exist", "gone"),
        (r"(protection mode enabled)", "blocked"),
        (r"(used in HA resources and purge parameter not set)", "blocked"),
        (r"There is a (replication job '[^']*')", "blocked"),
        (r"(?:base volume '([^']*)' is )?still in use by linked clones", "blocked"),
        (r"please run as root", "root"),
        (
            r"pct: (?:command )?not found|'?pct'?: No such file or directory|No such file or directory: '?pct\b(?!\.)",
            "missing",
        ),
    )
)


def classify(command: Command[Any], result: Result, node: str) -> NexcageError:
    """The error for what ``pct`` said; CommandFailed with its own words when they mean nothing more precise."""
    said = shown(result.stderr)
    plain = CommandFailed(node, command.argv, result.exit or 0, said, shown(result.stdout))
    for pattern, meaning in _WORDS:
        match = pattern.search(said)
        if match:
            error = _meaning(meaning, match, command, node)
            return error.noted(str(plain), *getattr(plain, "__notes__", ()))
    if result.exit == 127 and not said.strip().startswith("lxc-attach"):
        return _no_pct(node)
    return plain


def _meaning(meaning: str, match: re.Match[str], command: Command[Any], node: str) -> NexcageError:
    vmid = next((word for word in command.argv if word.isdigit()), "?")
    what = f"container {vmid} on {node}"
    group = next((g for g in match.groups() if g), match[0])
    match meaning:
        case "taken":
            return AlreadyExists("VMID", vmid, f"already exists on node '{group}'")
        case "flock":
            return Busy(what, f"another PVE task holds {group}")
        case "lock":
            return Busy(what, f"it is locked ({group})")
        case "quorum":
            return NoQuorum(node, "its cluster is not quorate; it can be read but not changed")
        case "pmxcfs":
            return NodeNotUsable(node, "pmxcfs does not answer; check `systemctl status pve-cluster` there")
        case "gone":
            return NotFound("container", vmid, f"is not on node {group}")
        case "blocked":
            return Blocked(what, group)
        case "root":
            return NodeNotUsable(node, "pct needs root; log in as root or allow `sudo -n` there")
        case _:
            return _no_pct(node)


def _no_pct(node: str) -> NodeNotUsable:
    return NodeNotUsable(
        node, "there is no `pct`: this is not a Proxmox VE node (try `nexcage sim up` for a simulated one)"
    )


def _command(*argv: str, timeout: float, stdin: bytes = b"", **more: Any) -> Command[None]:  # Any: Command's own fields
    return Command(("pct", *argv), nothing, stdin=stdin, cancel="term", timeout=timeout, classify=classify, **more)


def create(mark: Mark, template: str, spec: Spec, hostname: str) -> Command[None]:
    """``pct create`` without starting it (a failing start would still exit 0). Keys go through standard input, never argv.

    ``--unprivileged`` is always given: its default differs between PVE 8 and 9.
    """
    description = f"{mark}\n{spec.description}" if spec.description else str(mark)
    argv = [
        "create",
        str(mark.vmid),
        template,
        "--hostname",
        hostname,
        "--memory",
        str(spec.memory),
        "--swap",
        str(spec.swap),
    ]
    if spec.cores is not None:
        argv += ["--cores", str(spec.cores)]
    argv += rootfs(spec)
    for index, one in enumerate(spec.nets):
        argv += [f"--net{index}", net(one)]
    argv += ["--unprivileged", "1" if spec.unprivileged else "0"]
    if spec.onboot:
        argv += ["--onboot", "1"]
    argv += ["--tags", ";".join(sorted({"nexcage", *map(names.tag, spec.tags)})), "--description", description]
    keys = "".join(f"{key}\n" for key in spec.ssh_public_keys).encode()
    if keys:
        argv += ["--ssh-public-keys", "/dev/stdin"]
    return _command(*argv, timeout=900.0, stdin=keys, weight="create", tries={"vmid": mark.vmid})


def rootfs(spec: Spec) -> list[str]:
    """The options that place the root file system. ``STORAGE:GiB`` allocates a new volume."""
    if spec.size is not None:
        return ["--rootfs", f"{spec.storage or 'local'}:{spec.size}"]
    return ["--storage", spec.storage] if spec.storage else []


def net(value: Net) -> str:
    """PVE's ``netN`` text: ``name=eth0,bridge=vmbr0,ip=dhcp``; every part was checked when the Net was made."""
    parts = [f"name={value.name}"]
    for key in ("bridge", "firewall", "gw", "gw6", "hwaddr", "ip", "ip6", "mtu", "rate", "tag"):
        given = getattr(value, key)
        if given is not None:
            parts.append(f"{key}={_word(given)}")
    return ",".join(parts)


def _word(value: str | float) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def hostname_for(id: str, spec: Spec) -> str:
    """The host name: the one asked for, else the id where that is a valid one; raises InvalidSpec that says so."""
    if spec.hostname is not None:
        return spec.hostname
    try:
        return names.hostname(id)
    except InvalidInput:
        raise InvalidSpec(
            "hostname", id, "this id is not a valid host name, so give one with --hostname (Spec.hostname)"
        ) from None


def start(vmid: int) -> Command[None]:
    """Start it; returns when init was spawned. Running already is an error of ``pct``: look at the state instead."""
    return _command("start", str(vmid), timeout=180.0)


def shutdown(vmid: int, timeout: float) -> Command[None]:
    """Ask it to halt, wait ``timeout`` seconds (at least one: 0 would wait for ever), then kill it.

    The config's lock is held all that time, which may be twice the timeout and some seconds (pct-observed 9).
    """
    seconds = max(1, round(timeout))
    return _command("shutdown", str(vmid), "--timeout", str(seconds), "--forceStop", "1", timeout=2.0 * seconds + 60.0)


def stop(vmid: int, *, overrule: bool = False) -> Command[None]:
    """Kill it at once; ``overrule`` ends a shutdown of it that is under way and holds the lock."""
    return _command("stop", str(vmid), *(("--overrule-shutdown", "1") if overrule else ()), timeout=120.0)


def destroy(vmid: int, *, force: bool = False, purge: bool = False) -> Command[None]:
    """Remove it with its volumes; ``force`` kills a running one first."""
    options = (("--force", "1") if force else ()) + (("--purge", "1") if purge else ())
    return _command("destroy", str(vmid), *options, timeout=600.0)

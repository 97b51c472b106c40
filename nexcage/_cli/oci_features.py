"""``features``: what of the OCI runtime specification is honoured by the backend that a create would be routed to.

A runtime's own answer where it has one; what it honours and our command line does not is taken out of it. For those that cannot be
asked there are tables: only what is known to be so is in them, since absent means unknown.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from nexcage import OCI_VERSION, InvalidInput, NexcageError
from nexcage._cli.oci_ground import RUNTIMES, ground
from nexcage._cli.parser import Call
from nexcage._cli.render import as_json
from nexcage._cli.streams import Streams

__all__ = ["crun_table", "features", "lxc_table", "without_ours"]

Json = dict[str, Any]  # Any: whatever JSON can say

_HOOKS = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
_NAMESPACES = ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"]
_ACTIONS = ["ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "TRACE", "TRAP"]
_OPERATORS = ["EQ", "GE", "GT", "LE", "LT", "MASKED_EQ", "NE"]
_MOUNTS = (
    "async atime bind defaults dev diratime dirsync exec mand noatime nodev nodiratime noexec nomand norelatime nostrictatime "
    "nosuid private rbind relatime remount ro rprivate rshared rslave runbindable rw shared slave strictatime suid sync unbindable"
).split()
_PATIENCE = 20.0


def features(call: Call, streams: Streams) -> int:
    """Print the document."""
    if call.words:
        raise call.usage(f"does not take the word {call.words[0]!a}")
    at = ground(call)
    if at.backend in RUNTIMES:
        if not at.here:
            raise NexcageError("features of a runtime are those of one machine: ask there, without --hosts")
        kind = at.config.backends.get(at.backend)
        document = _of_runtime(at.backend, tuple(kind.command) if kind and kind.command else (at.backend,))
    elif at.backend == "lxc":
        document = lxc_table()
    else:
        raise InvalidInput("runtime", at.backend, "one that takes OCI bundles: lxc, crun or runc")
    document["annotations"] = {**document.get("annotations", {}), "org.nexcage.backend": at.backend}
    streams.line(as_json(streams, document, indent=4))
    return 0


def _of_runtime(name: str, command: Sequence[str]) -> Json:
    if shutil.which(command[0]) is None:
        raise NexcageError(f"{command[0]}: not found; {name} is not on this machine")
    said = _answer([*command, "features"])
    if said is not None:
        try:
            document: Json = json.loads(said)
            if isinstance(document["ociVersionMin"], str):
                return without_ours(document)
        except (ValueError, LookupError, TypeError, RecursionError):
            pass  # no document: an old one that does not know the command
    version = _answer([*command, "--version"])
    if version is None or name != "crun":
        raise NexcageError(f"{name} does not say what it honours: it is too old for that")
    return crun_table(version)


def _answer(argv: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None


def without_ours(document: Json) -> Json:
    """A runtime's answer, without what cannot be asked for here: there are no checkpoints."""
    notes: Mapping[str, str] = document.get("annotations") or {}
    off = {key: "false" for key in notes if key.endswith(".checkpoint.enabled")}
    return {**document, "annotations": {**notes, **off}}


def crun_table(version: str) -> Json:
    """From what ``crun --version`` says; crun has had ``features`` since 1.14."""
    words = version.split()
    with_ = {word[1:] for word in words if word.startswith("+")}
    linux: Json = {
        "namespaces": _NAMESPACES,
        "cgroup": {"v1": True, "v2": True, "systemd": "SYSTEMD" in with_, "systemdUser": "SYSTEMD" in with_},
        "seccomp": _seccomp(_ACTIONS) if "SECCOMP" in with_ else {"enabled": False},
        "apparmor": {"enabled": "APPARMOR" in with_},
        "selinux": {"enabled": "SELINUX" in with_},
        "netDevices": {"enabled": False},
    }
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.0.2",
        "hooks": _HOOKS,
        "mountOptions": _MOUNTS,
        "linux": linux,
        "annotations": {"org.nexcage.version": words[2] if len(words) > 2 else ""},
    }


def lxc_table() -> Json:
    """Of containers on Proxmox VE: what a plan applies or approximates (docs/bundles.md)."""
    linux: Json = {
        "namespaces": _NAMESPACES,
        "cgroup": {"v1": False, "v2": True, "systemd": False, "systemdUser": False, "rdma": True},
        "seccomp": {"enabled": True},
        "apparmor": {"enabled": True},
        "selinux": {"enabled": False},
        "intelRdt": {"enabled": False},
    }
    return {"ociVersionMin": "1.0.0", "ociVersionMax": OCI_VERSION, "hooks": _HOOKS, "linux": linux}


def _seccomp(actions: Sequence[str]) -> Json:
    return {
        "enabled": True,
        "actions": [f"SCMP_ACT_{name}" for name in actions],
        "operators": [f"SCMP_CMP_{name}" for name in _OPERATORS],
    }

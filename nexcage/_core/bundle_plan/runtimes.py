"""config.json on crun and runc: they do it themselves, except what a version does not know, and drops without a word.

The table says from which version on a property is honoured (read in both programs' histories; what 1.1.5 and 1.8.1 do was tried).
Where the version is not known it is that of Debian 12, the oldest that nexcage works with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

import msgspec
from msgspec import UNSET

from nexcage._core.bundle import Config
from nexcage._core.bundle.flaws import Notice
from nexcage._core.bundle_plan.capabilities import KNOWN
from nexcage._core.bundle_plan.draft import Draft
from nexcage._core.bundle_plan.rootfs import FOREIGN, root_problem, rootfs_of
from nexcage._core.bundle_plan.walk import gathered, leaves

__all__ = ["OLDEST", "SINCE", "Runtime", "map_runtime", "split_flaws"]

OLDEST: Mapping[str, str] = {"crun": "1.8.1", "runc": "1.1.5"}


class Runtime(msgspec.Struct, frozen=True):
    """``name`` is crun or runc. ``honoured`` names properties that the program's own features document says it has."""

    name: str
    version: str = ""
    honoured: frozenset[str] = frozenset()


_NEVER = ""
_NUMBER = re.compile(r"/[0-9]+(?=/|$)")
SINCE: Mapping[str, Mapping[str, str]] = {
    "/domainname": {"runc": "1.2.0", "crun": "1.7"},
    "/process/scheduler": {"runc": "1.2.0", "crun": "1.8.5"},
    "/process/ioPriority": {"runc": "1.2.0", "crun": "1.8.6"},
    "/process/execCPUAffinity": {"runc": "1.3.0", "crun": "1.20"},
    "/process/user/username": {"runc": _NEVER, "crun": _NEVER},
    "/process/commandLine": {"runc": _NEVER, "crun": _NEVER},
    "/mounts/*/uidMappings": {"runc": "1.2.0", "crun": "1.4"},
    "/mounts/*/gidMappings": {"runc": "1.2.0", "crun": "1.4"},
    "/linux/timeOffsets": {"runc": "1.2.0", "crun": "1.8.4"},
    "/linux/personality": {"runc": "1.2.0", "crun": "0.1"},
    "/linux/personality/flags": {"runc": _NEVER, "crun": _NEVER},
    "/linux/intelRdt": {"runc": "1.0.0", "crun": "1.10"},
    "/linux/intelRdt/schemata": {"runc": "1.4.0", "crun": _NEVER},
    "/linux/intelRdt/enableMonitoring": {"runc": "1.4.0", "crun": _NEVER},
    "/linux/netDevices": {"runc": "1.4.0", "crun": _NEVER},
    "/linux/memoryPolicy": {"runc": "1.4.0", "crun": _NEVER},
    "/linux/seccomp/flags": {"runc": "1.2.0", "crun": "0.1"},
    "/linux/resources/cpu/burst": {"runc": "1.2.0", "crun": "1.11"},
    "/linux/resources/cpu/idle": {"runc": "1.2.0", "crun": "1.5"},
    "/linux/resources/memory/kernel": {"runc": _NEVER, "crun": _NEVER},
}
"""Property to the first version that honours it; an empty text: none that we know of."""

_V1_ONLY = frozenset(
    f"/linux/resources/{place}"
    for place in (
        "memory/kernelTCP",
        "memory/swappiness",
        "memory/disableOOMKiller",
        "memory/useHierarchy",
        "cpu/realtimeRuntime",
        "cpu/realtimePeriod",
        "blockIO/leafWeight",
        "blockIO/weightDevice/*/leafWeight",
        "network/classID",
        "network/priorities",
    )
)
_APART = ("", "/process", "/linux", "/linux/resources", "/hooks", "/annotations", "/mounts", "/linux/sysctl")
_V1 = "on nodes with version 1 of cgroups; version 2 has no such thing"


def map_runtime(draft: Draft, config: Config, runtime: Runtime) -> None:
    draft.rootfs = rootfs_of(draft, config)
    draft.readonly = config.root is not UNSET and config.root.readonly is True
    draft.startable = config.process is not UNSET and bool(config.process.args)
    draft.terminal = config.process is not UNSET and config.process.terminal is True
    draft.unprivileged = any(one.type == "user" for one in config.linux.namespaces or ())
    _program(draft, config)
    if draft.terminal:
        draft.warnings.append("/process/terminal: a terminal has to be asked for by --console-socket (docs/oci-cli.md)")
    problem = root_problem(draft, config)
    if config.root is UNSET:
        draft.refuse("/root", problem)
    verdicts = {leaf: _verdict(leaf, config, runtime) for leaf in leaves(config)}
    if problem and config.root is not UNSET:
        verdicts["/root/path"] = ("refused", problem, "")
    for pointer, (kind, text, how) in gathered(verdicts, _APART).items():
        if kind == "refused":
            draft.refuse(pointer, text)
        elif how:
            draft.near(pointer, text, how)
        else:
            draft.apply(pointer, text)
    _unknown_capabilities(draft, config)


def _program(draft: Draft, config: Config) -> None:
    """The specification lets a create do without a process; these programs do not (crun takes one without args, and cannot start it)."""
    if config.process is UNSET:
        draft.refuse("/process", f"{draft.backend} creates no container without a process")
    elif not config.process.args and draft.backend == "runc":
        draft.refuse("/process/args", "runc creates no container without a program")
    elif not config.process.args:
        draft.warnings.append("there is no process to start: the container can be created, not started")


_WHOLE = re.compile(
    r"/process/(?:consoleSize|scheduler)|/(?:mounts|linux/(?:seccomp/syscalls|namespaces|[ug]idMappings))/[0-9]+"
)


def split_flaws(draft: Draft, config: Config, flaws: Iterable[Notice]) -> None:
    """Each of ``flaws`` has an entry where lxc has one too: only what is of use as a whole is refused as a whole."""
    listed = leaves(config)
    for flaw in flaws:
        whole = _WHOLE.match(flaw.pointer)
        draft.split(whole[0] if whole else flaw.pointer, listed)


def _verdict(leaf: str, config: Config, runtime: Runtime) -> tuple[str, str, str]:
    name = runtime.name
    platform = FOREIGN.get(leaf.split("/", 2)[1])
    if platform:
        return "refused", f"it is for {platform}; containers here are Linux's", ""
    place = _property(leaf)
    since = SINCE.get(place, {}).get(name)
    if since is not None and place not in runtime.honoured:
        told = _too_old(place, since, runtime, config)
        if told:
            return "refused", told, ""
    if leaf == "/ociVersion":
        return "applied", f"{name} and state.json", ""
    special = _by_value(leaf, config, runtime)
    if special:
        return special
    if place in _V1_ONLY:
        return "applied", name, _V1
    return "applied", name, ""


def _property(leaf: str) -> str:
    """The property of the table that ``leaf`` is at or below; itself when there is none."""
    return _listed(_NUMBER.sub("/*", leaf)) or leaf


@lru_cache(1024)
def _listed(place: str) -> str:
    while place and place not in SINCE and place not in _V1_ONLY:
        place = place.rpartition("/")[0]
    return place


def _too_old(place: str, since: str, runtime: Runtime, config: Config) -> str:
    version = runtime.version or OLDEST[runtime.name]
    if place == "/linux/resources/memory/kernel" and config.linux.resources.memory.kernel == -1:
        return ""
    if not since:
        return f"{runtime.name} does not honour it, and says nothing"
    if numbers(version) < numbers(since):
        return f"{runtime.name} {version} does not know it, and says nothing; {runtime.name} {since} does"
    return ""


@lru_cache
def numbers(version: str) -> tuple[int, ...]:
    """``1.1.5+ds1`` as (1, 1, 5); what is no number ends it."""
    found: list[int] = []
    for part in version.split("."):
        digits = part[: next((i for i, letter in enumerate(part) if letter not in "0123456789"), len(part))]
        if not digits:
            break
        found.append(int(digits[:9]))
        if digits != part:
            break
    return (*found, *(0,) * (3 - len(found)))


def _by_value(leaf: str, config: Config, runtime: Runtime) -> tuple[str, str, str] | None:
    """Values that the program's version does not take although it has the property."""
    version = numbers(runtime.version or OLDEST[runtime.name])
    if leaf.startswith("/linux/namespaces/"):
        timed = (config.linux.namespaces or ())[int(leaf.split("/")[3])].type == "time"
        if timed and version < numbers(_TIME[runtime.name]):
            return "refused", f"{runtime.name} has time namespaces from {_TIME[runtime.name]} on", ""
    elif leaf.startswith("/mounts/") and "/options/" in leaf:
        _, _, mount, _, option = leaf.split("/")
        name = config.mounts[int(mount)].options[int(option)].partition("=")[0]
        since = _OPTIONS.get(name, {}).get(runtime.name, "0")
        if version < numbers(since):
            return "refused", f"{runtime.name} has the mount option {name} from {since} on", ""
    elif leaf.startswith("/hooks/poststart/"):
        how = _poststart(runtime.name, version)
        return ("applied", runtime.name, how) if how else None
    elif leaf == "/linux/resources/cpu/shares":
        return (
            "applied",
            runtime.name,
            "a weight on nodes with version 2 of cgroups, by the formula of the program's version",
        )
    return None


def _poststart(name: str, version: tuple[int, ...]) -> str:
    if name == "crun":
        return "one that fails changes nothing: crun goes on"
    if version < numbers("1.2.0"):
        return "runc before 1.2.0 runs it during create, before the program; one that fails fails the create"
    return ""


_TIME = {"runc": "1.2.0", "crun": "0.20"}
_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "idmap": {"runc": "1.2.0", "crun": "1.4"},
    "ridmap": {"runc": "1.2.0", "crun": "1.9"},
    "copy-symlink": {"runc": "999", "crun": "1.10"},
}


def _unknown_capabilities(draft: Draft, config: Config) -> None:
    given = config.process.capabilities if config.process is not UNSET else UNSET
    if given is UNSET:
        return
    names = {*given.bounding, *given.permitted, *given.effective, *given.inheritable, *given.ambient}
    draft.warnings += [
        f"capability {name!a} is not known: {draft.backend} may refuse it or leave it out"
        for name in sorted(names)
        if name.removeprefix("CAP_") not in KNOWN
    ]

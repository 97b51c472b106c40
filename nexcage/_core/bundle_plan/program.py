"""``process`` of config.json on LXC: what the init shim does, and what LXC does before it.

The shim becomes the program by execve, so that argv, environment, working directory, ids, umask and no_new_privs are exact; PVE's
own ``entrypoint`` is one string that LXC splits again, which cannot say every argv.
"""

from __future__ import annotations

from msgspec import UNSET

from nexcage._core.bundle import Config, Process, Rlimit, User
from nexcage._core.bundle.kinds import UINT64_MAX
from nexcage._core.bundle_plan.capabilities import map_capabilities
from nexcage._core.bundle_plan.draft import Draft
from nexcage._core.bundle_plan.model import Call, IdMap, Launch
from nexcage._core.bundle_plan.words import clean

__all__ = ["LIMITS", "MACHINE", "map_process"]

MACHINE = "x86_64"
"""What the init shim is built for."""

LIMITS = frozenset(
    "AS CORE CPU DATA FSIZE LOCKS MEMLOCK MSGQUEUE NICE NOFILE NPROC RSS RTPRIO RTTIME SIGPENDING STACK".split()
)
_SHIM = "init shim: "
_NOT_HERE = {
    "commandLine": "it is the Windows way to say process.args",
    "scheduler": "LXC starts its init with the default scheduler",
    "ioPriority": "LXC cannot give its init an I/O priority",
    "execCPUAffinity": "LXC has no CPU affinity for exec",
}


def map_process(draft: Draft, config: Config, start_container: tuple[Call, ...]) -> None:
    process = config.process
    if process is UNSET:
        draft.startable = False
        draft.warnings.append("there is no process: the container can be created, not started")
        for index in range(len(start_container)):
            draft.apply(f"/hooks/startContainer/{index}", "nothing: without a process nothing starts")
        return
    _program(draft, process, start_container)
    _terminal(draft, process)
    _confinement(draft, process)
    for index, limit in enumerate(process.rlimits):
        _limit(draft, f"/process/rlimits/{index}", limit)
    given = {
        "commandLine": process.command_line,
        "scheduler": process.scheduler,
        "ioPriority": process.io_priority,
        "execCPUAffinity": process.exec_cpu_affinity,
    }
    for name, value in given.items():
        if value is not UNSET:
            draft.refuse(f"/process/{name}", _NOT_HERE[name])


def _program(draft: Draft, process: Process, start_container: tuple[Call, ...]) -> None:
    user = process.user
    if process.args:
        draft.apply("/process/args", _SHIM + "execve with exactly these arguments")
        draft.need("/process/args", "machine", MACHINE)
    else:
        draft.startable = False
        draft.warnings.append("process.args is empty: the container can be created, not started")
    if process.env:
        draft.apply("/process/env", _SHIM + "exactly this environment")
    draft.apply("/process/cwd", _SHIM + "chdir")
    if process.no_new_privileges is not UNSET:
        draft.apply(
            "/process/noNewPrivileges",
            _SHIM + "prctl(PR_SET_NO_NEW_PRIVS)" if process.no_new_privileges else "the default",
        )
    for index in range(len(start_container)):
        draft.apply(f"/hooks/startContainer/{index}", _SHIM + "run inside before the program")
    _user(draft, user)
    draft.launch = Launch(
        argv=tuple(_bytes(word) for word in process.args),
        env=tuple(_bytes(word) for word in process.env),
        cwd=_bytes(process.cwd),
        uid=user.uid or 0,
        gid=user.gid or 0,
        groups=user.additional_gids,
        umask=None if user.umask is UNSET else user.umask,
        no_new_privs=process.no_new_privileges is True,
        capabilities=map_capabilities(draft, process),
        start_container=start_container,
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8")


def _user(draft: Draft, user: User) -> None:
    for name, kind, value in (("uid", "u", user.uid), ("gid", "g", user.gid)):
        if value is not UNSET:
            _id(draft, f"/process/user/{name}", kind, value, f"set{name}")
    if user.umask is not UNSET:
        draft.apply("/process/user/umask", f"{_SHIM}umask {user.umask:04o}")
    for index, group in enumerate(user.additional_gids):
        _id(draft, f"/process/user/additionalGids/{index}", "g", group, "setgroups")
    if user.username is not UNSET:
        draft.refuse("/process/user/username", "it is for Windows; Linux takes uid and gid")


def _id(draft: Draft, pointer: str, kind: str, value: int, call: str) -> None:
    if _mapped(draft.idmap, kind, value):
        draft.apply(pointer, f"{_SHIM}{call} {value}")
    else:
        draft.refuse(pointer, f"{value} is not in the id map: the kernel would refuse it")


def _mapped(idmap: tuple[IdMap, ...], kind: str, value: int) -> bool:
    mine = [one for one in idmap if one.kind == kind]
    return not mine or any(one.container <= value < one.container + one.size for one in mine)


def _terminal(draft: Draft, process: Process) -> None:
    if process.terminal is not UNSET:
        draft.terminal = process.terminal
        if process.terminal:
            how = "the container's console; its master is PVE's, no file descriptor is handed over"
            draft.near("/process/terminal", draft.option("cmode", "console"), how)
        else:
            draft.apply("/process/terminal", "the default")
    if process.console_size is not UNSET:
        if process.terminal is True:
            draft.near("/process/consoleSize", "the console", "whoever opens the console sets its size")
        else:
            draft.apply("/process/consoleSize", "nothing: it says something of a terminal only")


def _confinement(draft: Draft, process: Process) -> None:
    profile, score = process.apparmor_profile, process.oom_score_adj
    if profile is not UNSET:
        _profile(draft, profile)
    if process.selinux_label is not UNSET:
        if process.selinux_label:
            draft.refuse("/process/selinuxLabel", "PVE's kernel confines by AppArmor; there is no SELinux policy")
        else:
            draft.apply("/process/selinuxLabel", "nothing: the label is empty")
    if score is not UNSET:
        if -1000 <= score <= 1000:
            draft.set_line("/process/oomScoreAdj", "lxc.proc.oom_score_adj", str(score))
        else:
            draft.refuse("/process/oomScoreAdj", "the kernel takes -1000 to 1000")


def _profile(draft: Draft, profile: str) -> None:
    pointer = "/process/apparmorProfile"
    if not profile:
        draft.apply(pointer, "nothing: the name is empty, PVE's generated profile stays")
    elif not clean(profile):
        draft.refuse(pointer, "the name cannot be written as one word of a line")
    else:
        if profile != "unconfined":
            draft.need(pointer, "apparmor", profile)
        draft.set_line(pointer, "lxc.apparmor.profile", profile)


def _limit(draft: Draft, pointer: str, limit: Rlimit) -> None:
    name = limit.type.removeprefix("RLIMIT_")
    if name not in LIMITS:
        draft.refuse(pointer, f"Linux has no {limit.type}")
        return
    soft, hard = ("unlimited" if one == UINT64_MAX else str(one) for one in (limit.soft, limit.hard))
    draft.set_line(pointer, f"lxc.prlimit.{name.lower()}", f"{soft}:{hard}")

"""``process`` of config.json: the program, who it runs as, what it may do."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import UNSET, Meta, UnsetType, field

from nexcage._core.bundle.kinds import Int32, Section, Strings, Uint32, Uint64

__all__ = ["Affinity", "Capabilities", "ConsoleSize", "IOPriority", "Process", "Rlimit", "Scheduler", "User"]

_Cpus: TypeAlias = Annotated[str, Meta(pattern=r"^[0-9, -]*\Z")]


class ConsoleSize(Section, frozen=True, kw_only=True):
    height: Uint64
    width: Uint64


class User(Section, frozen=True, kw_only=True):
    uid: Uint32 | UnsetType = UNSET
    gid: Uint32 | UnsetType = UNSET
    umask: Uint32 | UnsetType = UNSET
    additional_gids: tuple[Uint32, ...] = ()
    username: str | UnsetType = UNSET


class Capabilities(Section, frozen=True, kw_only=True):
    bounding: Strings = ()
    permitted: Strings = ()
    effective: Strings = ()
    inheritable: Strings = ()
    ambient: Strings = ()


class Rlimit(Section, frozen=True, kw_only=True):
    type: Annotated[str, Meta(pattern=r"^RLIMIT_[A-Z]+\Z")]
    soft: Uint64
    hard: Uint64


class IOPriority(Section, frozen=True, kw_only=True):
    class_: Literal["IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"] = field(name="class")
    priority: Int32 | UnsetType = UNSET


class Scheduler(Section, frozen=True, kw_only=True):
    policy: Literal["SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE"]
    nice: Int32 | UnsetType = UNSET
    priority: Int32 | UnsetType = UNSET
    flags: tuple[
        Literal[
            "SCHED_FLAG_RESET_ON_FORK",
            "SCHED_FLAG_RECLAIM",
            "SCHED_FLAG_DL_OVERRUN",
            "SCHED_FLAG_KEEP_POLICY",
            "SCHED_FLAG_KEEP_PARAMS",
            "SCHED_FLAG_UTIL_CLAMP_MIN",
            "SCHED_FLAG_UTIL_CLAMP_MAX",
        ],
        ...,
    ] = ()
    runtime: Uint64 | UnsetType = UNSET
    deadline: Uint64 | UnsetType = UNSET
    period: Uint64 | UnsetType = UNSET


class Affinity(Section, frozen=True, kw_only=True):
    initial: _Cpus | UnsetType = UNSET
    final: _Cpus | UnsetType = UNSET


class Process(Section, frozen=True, kw_only=True):
    """``capabilities`` left out and empty ones are two things; the other sections say the same either way."""

    cwd: str
    args: Annotated[Strings, Meta(min_length=1)] = ()
    command_line: str | UnsetType = UNSET
    env: Strings = ()
    terminal: bool | UnsetType = UNSET
    console_size: ConsoleSize | UnsetType = UNSET
    user: User = field(default_factory=User)
    capabilities: Capabilities | UnsetType = UNSET
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool | UnsetType = UNSET
    apparmor_profile: str | UnsetType = UNSET
    selinux_label: str | UnsetType = UNSET
    oom_score_adj: int | UnsetType = UNSET
    io_priority: IOPriority | UnsetType = UNSET
    scheduler: Scheduler | UnsetType = UNSET
    exec_cpu_affinity: Affinity | UnsetType = field(default=UNSET, name="execCPUAffinity")

"""Rules for ``process`` of config.json that its schema does not have."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import UNSET

from nexcage._core.bundle.flaws import Flaw, at
from nexcage._core.bundle.process import (
    Affinity,
    Capabilities,
    ConsoleSize,
    IOPriority,
    Process,
    Rlimit,
    Scheduler,
    User,
)
from nexcage._core.bundle.shapes import not_absolute, not_cpus
from nexcage.errors import escaped

__all__ = ["CAPABILITIES", "RLIMITS", "environment_flaws", "process_flaws"]

CAPABILITIES = frozenset(
    f"CAP_{name}"
    for name in (
        "AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER "
        "FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE "
        "NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE "
        "SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM"
    ).split()
)
RLIMITS = frozenset(
    f"RLIMIT_{name}"
    for name in (
        "AS CORE CPU DATA FSIZE LOCKS MEMLOCK MSGQUEUE NICE NOFILE NPROC RSS RTPRIO RTTIME SIGPENDING STACK"
    ).split()
)
_SIZE = 65535  # a terminal's rows and columns are 16 bits wide


def process_flaws(process: Process, *, windows: bool = False) -> Iterator[Flaw]:
    """``process`` of a document, in the order of the specification."""
    if not windows and (reason := not_absolute(process.cwd)):
        yield Flaw("/process/cwd", reason)
    if process.terminal and process.console_size:
        yield from _console(process.console_size)
    yield from environment_flaws(process.env, "/process/env")
    if not windows:
        yield from _user(process.user)
    yield from _rlimits(process.rlimits)
    if process.capabilities:
        yield from _capabilities(process.capabilities)
    if isinstance(process.oom_score_adj, int) and not -1000 <= process.oom_score_adj <= 1000:
        yield Flaw("/process/oomScoreAdj", "is not between -1000 and 1000")
    if process.io_priority:
        yield from _io_priority(process.io_priority)
    if process.scheduler:
        yield from _scheduler(process.scheduler)
    if process.exec_cpu_affinity:
        yield from _affinity(process.exec_cpu_affinity)


def environment_flaws(env: tuple[str, ...], pointer: str) -> Iterator[Flaw]:
    """``NAME=value`` each; of a name that is there twice runtimes take the last."""
    seen: set[str] = set()
    for index, entry in enumerate(env):
        name, separator, _ = entry.partition("=")
        if not separator or not name:
            yield Flaw(at(pointer, index), f"{escaped(entry)} is not of the form NAME=value")
        elif name in seen:
            yield Flaw(at(pointer, index), f"sets {escaped(name)} a second time; the last one counts", fatal=False)
        seen.add(name)


def _user(user: User) -> Iterator[Flaw]:
    """A user that is given has both ids; a process without one is root's, as it is for every runtime."""
    for name, value in (("uid", user.uid), ("gid", user.gid)):
        if value is UNSET and user != User():
            yield Flaw(at("/process/user", name), "is required")
    if user.umask and user.umask > 0o777:
        yield Flaw("/process/user/umask", f"{user.umask} is not at most 511 (octal 777)", legal=True)


def _console(size: ConsoleSize) -> Iterator[Flaw]:
    for name, value in (("height", size.height), ("width", size.width)):
        if value > _SIZE:
            yield Flaw(at("/process/consoleSize", name), f"is more than {_SIZE}", legal=True)


def _rlimits(limits: tuple[Rlimit, ...]) -> Iterator[Flaw]:
    seen: set[str] = set()
    for index, limit in enumerate(limits):
        if limit.type not in RLIMITS:
            yield Flaw(at("/process/rlimits", index, "type"), f"{escaped(limit.type)} is not a resource limit of Linux")
        elif limit.type in seen:
            yield Flaw(at("/process/rlimits", index, "type"), f"{limit.type} is there already")
        elif limit.soft > limit.hard:
            yield Flaw(at("/process/rlimits", index, "soft"), "is more than the hard limit")
        seen.add(limit.type)


def _capabilities(given: Capabilities) -> Iterator[Flaw]:
    sets = {
        "bounding": given.bounding,
        "permitted": given.permitted,
        "effective": given.effective,
        "inheritable": given.inheritable,
        "ambient": given.ambient,
    }
    for name, words in sets.items():
        for index, word in enumerate(words):
            if word not in CAPABILITIES:
                said = f"{escaped(word)} is not a capability known here and cannot be granted"
                yield Flaw(at("/process/capabilities", name, index), said, fatal=False)
    permitted, raisable = set(given.permitted), set(given.permitted) & set(given.inheritable)
    for name, allowed, of in (
        ("effective", permitted, "permitted"),
        ("ambient", raisable, "permitted and inheritable"),
    ):
        lacking = [word for word in sets[name] if word in CAPABILITIES and word not in allowed]
        if lacking:
            said = f"cannot be granted without being {of}: {', '.join(lacking)}"
            yield Flaw(at("/process/capabilities", name), said, fatal=False)


def _io_priority(given: IOPriority) -> Iterator[Flaw]:
    if given.priority is UNSET:
        yield Flaw("/process/ioPriority/priority", "is required")
    elif not 0 <= given.priority <= 7:
        yield Flaw("/process/ioPriority/priority", "is not between 0 and 7")


def _scheduler(given: Scheduler) -> Iterator[Flaw]:
    if isinstance(given.nice, int) and not -20 <= given.nice <= 19:
        yield Flaw("/process/scheduler/nice", "is not between -20 and 19", legal=True)
    if given.priority and given.policy not in ("SCHED_FIFO", "SCHED_RR"):
        yield Flaw("/process/scheduler/priority", f"is for SCHED_FIFO and SCHED_RR, not for {given.policy}", legal=True)
    for name, value in (("runtime", given.runtime), ("deadline", given.deadline), ("period", given.period)):
        if value and given.policy != "SCHED_DEADLINE":
            yield Flaw(at("/process/scheduler", name), f"is for SCHED_DEADLINE, not for {given.policy}", legal=True)


def _affinity(given: Affinity) -> Iterator[Flaw]:
    for name, value in (("initial", given.initial), ("final", given.final)):
        if value and (reason := not_cpus(value)):
            yield Flaw(at("/process/execCPUAffinity", name), reason)

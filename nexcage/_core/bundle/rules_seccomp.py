"""Rules for ``linux.seccomp`` of config.json that its schema does not have."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import UNSET

from nexcage._core.bundle.flaws import Flaw, at
from nexcage._core.bundle.seccomp import Seccomp, SeccompAction, Syscall

__all__ = ["seccomp_flaws"]

_ERRNO = 4095  # the kernel cuts what is more
_ARGUMENTS = 6


def seccomp_flaws(given: Seccomp) -> Iterator[Flaw]:
    """``linux.seccomp`` of a document."""
    pointer = "/linux/seccomp"
    if given.listener_metadata and not given.listener_path:
        yield Flaw(at(pointer, "listenerMetadata"), "needs listenerPath")
    if given.default_action == "SCMP_ACT_NOTIFY":
        yield Flaw(
            at(pointer, "defaultAction"), "SCMP_ACT_NOTIFY cannot be the default: nothing could answer it", legal=True
        )
    if given.default_errno_ret is not UNSET:
        yield from _errno(given.default_action, given.default_errno_ret, at(pointer, "defaultErrnoRet"))
    for index, rule in enumerate(given.syscalls):
        place = at(pointer, "syscalls", index)
        if rule.action == "SCMP_ACT_NOTIFY" and not given.listener_path:
            yield Flaw(at(place, "action"), "SCMP_ACT_NOTIFY needs listenerPath", legal=True)
        yield from _syscall(rule, place)


def _errno(action: SeccompAction, errno: int, pointer: str) -> Iterator[Flaw]:
    if action not in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        yield Flaw(pointer, f"{action} has no errno")
    elif errno > _ERRNO:
        yield Flaw(pointer, f"is not at most {_ERRNO}", legal=True)


def _syscall(rule: Syscall, pointer: str) -> Iterator[Flaw]:
    if "" in rule.names:
        yield Flaw(at(pointer, "names", rule.names.index("")), "must not be empty")
    if rule.errno_ret is not UNSET:
        yield from _errno(rule.action, rule.errno_ret, at(pointer, "errnoRet"))
    for index, arg in enumerate(rule.args):
        if arg.index >= _ARGUMENTS:
            yield Flaw(at(pointer, "args", index, "index"), "a system call has arguments 0 to 5", legal=True)

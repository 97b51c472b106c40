"""``linux.seccomp`` of config.json as an LXC policy file, version 2.

What LXC's reader does (seccomp.c): line 1 is the version, line 2 the kind of list and the default action, then a section of
architectures and rules ``SYSCALL ACTION [INDEX,VALUE,OP,MASK]...``. Each rule is added with exactly the action that it names, so the
kind of list means nothing here. libseccomp refuses a rule with the default action; such rules change nothing and are left out, as runc
does. Several conditions on one argument are alternatives for runc: one rule each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import UNSET

from nexcage._core.bundle import Seccomp, Syscall, SyscallArg
from nexcage._core.bundle_plan.draft import ON_NODE, Draft

__all__ = ["NEEDED", "map_seccomp"]

_BASE = "/linux/seccomp"
_ACTION = {
    "SCMP_ACT_KILL": "kill",
    "SCMP_ACT_KILL_THREAD": "kill",
    "SCMP_ACT_TRAP": "trap",
    "SCMP_ACT_ALLOW": "allow",
    "SCMP_ACT_ERRNO": "errno",
}
_EPERM = 1
_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_TOGETHER = (
    frozenset({"SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"}),
    frozenset({"SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"}),
)
_LISTENER = "LXC hands notifications to a proxy of its own kind only"
NEEDED = frozenset(
    """close execve exit_group openat prctl read recvmsg rt_sigaction rt_sigprocmask sendmsg sendto setgroups setresgid
    setresuid write""".split()
)
"""What LXC itself and the init shim call after LXC has loaded the filter. LXC 5 hangs when it cannot send to its monitor."""


def map_seccomp(draft: Draft, given: Seccomp) -> None:
    """The policy's text, when everything in it can be said; what cannot is refused, and the rest is still a policy."""
    default = _action(given.default_action, given.default_errno_ret)
    rules = [line for index, rule in enumerate(given.syscalls) for line in _rule(draft, index, rule, default)]
    stopped = _stopped(rules, default) if default else []
    if default is None:
        draft.refuse(f"{_BASE}/defaultAction", _unsaid(given.default_action))
    elif stopped:
        draft.refuse(
            f"{_BASE}/defaultAction", f"the filter stops what LXC and the init shim call under it: {', '.join(stopped)}"
        )
    else:
        draft.near(f"{_BASE}/defaultAction", f"lxc.seccomp.profile: {default}", ON_NODE)
    _errno(draft, f"{_BASE}/defaultErrnoRet", given.default_errno_ret, given.default_action)
    _architectures(draft, given)
    _flags(draft, given)
    for name, value in (("listenerPath", given.listener_path), ("listenerMetadata", given.listener_metadata)):
        if value is not UNSET:
            draft.refuse(f"{_BASE}/{name}", _LISTENER)
    if default is not None and not stopped:
        kind = "denylist" if default == "allow" else "allowlist"
        draft.seccomp = "".join(f"{line}\n" for line in ("2", f"{kind} {default}", "[all]", *rules))


def _action(action: str, errno: object) -> str | None:
    word = _ACTION.get(action)
    if word == "errno":
        return f"errno {errno if isinstance(errno, int) else _EPERM}"
    return word


def _unsaid(action: str) -> str:
    return f"LXC's policy files cannot say {action}"


def _errno(draft: Draft, pointer: str, errno: object, action: str) -> None:
    if errno is UNSET:
        return
    if action == "SCMP_ACT_ERRNO":
        draft.near(pointer, f"lxc.seccomp.profile: errno {errno}", ON_NODE)
    else:
        draft.refuse(pointer, f"{action} returns no errno")


def _architectures(draft: Draft, given: Seccomp) -> None:
    pointer, listed = f"{_BASE}/architectures", frozenset(given.architectures)
    if not listed:
        return
    if any(listed == family for family in _TOGETHER):
        draft.near(pointer, "lxc.seccomp.profile: [all]", ON_NODE)
    else:
        how = "LXC filters all that the node's kernel runs with the same rules, in place of killing those that are not listed"
        draft.near(pointer, "lxc.seccomp.profile: [all]", f"{how}; {ON_NODE}")


def _flags(draft: Draft, given: Seccomp) -> None:
    for index, flag in enumerate(given.flags):
        if flag == "SECCOMP_FILTER_FLAG_TSYNC":
            draft.apply(f"{_BASE}/flags/{index}", "nothing: there is one thread when the filter is loaded")
        else:
            draft.refuse(f"{_BASE}/flags/{index}", "LXC loads filters without flags")


def _rule(draft: Draft, index: int, rule: Syscall, default: str | None) -> Iterator[str]:
    pointer = f"{_BASE}/syscalls/{index}"
    action = _action(rule.action, rule.errno_ret)
    bad = [name for name in rule.names if not _NAME.fullmatch(name) or name.startswith("reject_force_umount")]
    if action is None:
        draft.refuse(pointer, _unsaid(rule.action))
    elif rule.errno_ret is not UNSET and rule.action != "SCMP_ACT_ERRNO":
        draft.refuse(pointer, f"{rule.action} returns no errno")
    elif bad:
        draft.refuse(pointer, f"{bad[0]!a} is not the name of a system call")
    elif any(arg.index > 5 for arg in rule.args):
        draft.refuse(pointer, "a system call has the arguments 0 to 5")
    elif action == default:
        draft.near(pointer, "nothing: the default action says the same", ON_NODE)
    else:
        draft.near(pointer, f"lxc.seccomp.profile: {action}", ON_NODE)
        for name in rule.names:
            for conditions in _conditions(rule.args):
                yield f"{name} {action}{conditions}"


def _conditions(args: tuple[SyscallArg, ...]) -> Iterator[str]:
    """`` [..][..]`` for conditions that must all hold; one by one when an argument is named twice."""
    texts = [_condition(arg) for arg in args]
    if not texts:
        yield ""
    elif len({arg.index for arg in args}) == len(args):
        yield " " + "".join(texts)
    else:
        yield from (" " + text for text in texts)


def _condition(arg: SyscallArg) -> str:
    """OCI's ``value`` is the mask and ``valueTwo`` what is compared for SCMP_CMP_MASKED_EQ; LXC wants the compared one first."""
    if arg.op == "SCMP_CMP_MASKED_EQ":
        return f"[{arg.index},{arg.value_two or 0},{arg.op},{arg.value}]"
    return f"[{arg.index},{arg.value},{arg.op}]"


def _stopped(rules: list[str], default: str) -> list[str]:
    """Those of `NEEDED` that the filter would stop: then no container would start at all."""
    ruled: dict[str, set[str]] = {}
    for line in rules:
        name, _, rest = line.partition(" ")
        ruled.setdefault(name, set()).add(rest)
    if default == "allow":
        return sorted(name for name in NEEDED if any("[" not in rest for rest in ruled.get(name, ())))
    return sorted(name for name in NEEDED if "allow" not in ruled.get(name, ()))

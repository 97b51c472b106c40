"""``linux.seccomp`` of config.json."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import UNSET, Meta, UnsetType

from nexcage._core.bundle.kinds import Section, Strings, Uint32, Uint64

__all__ = [
    "Seccomp",
    "SeccompAction",
    "SeccompArch",
    "SeccompFlag",
    "SeccompOperator",
    "Syscall",
    "SyscallArg",
]

SeccompAction: TypeAlias = Literal[
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
]
SeccompArch: TypeAlias = Literal[
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_RISCV64",
]
SeccompFlag: TypeAlias = Literal[
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
]
SeccompOperator: TypeAlias = Literal[
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
]


class SyscallArg(Section, frozen=True, kw_only=True):
    index: Uint32
    value: Uint64
    op: SeccompOperator
    value_two: Uint64 | UnsetType = UNSET


class Syscall(Section, frozen=True, kw_only=True):
    names: Annotated[Strings, Meta(min_length=1)]
    action: SeccompAction
    errno_ret: Uint32 | UnsetType = UNSET
    args: tuple[SyscallArg, ...] = ()


class Seccomp(Section, frozen=True, kw_only=True):
    default_action: SeccompAction
    default_errno_ret: Uint32 | UnsetType = UNSET
    architectures: tuple[SeccompArch, ...] = ()
    flags: tuple[SeccompFlag, ...] = ()
    listener_path: str | UnsetType = UNSET
    listener_metadata: str | UnsetType = UNSET
    syscalls: tuple[Syscall, ...] = ()

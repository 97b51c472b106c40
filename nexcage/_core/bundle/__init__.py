"""Documents of OCI bundles: config.json as values, and what is wrong with one that is not valid.

`decode_config` reads one strictly and checks it; `InvalidBundle` names the place, warnings come beside the document.
`Config` and its sections are the typed form. A property that the document leaves out is `msgspec.UNSET` (falsy), ``()``, ``{}`` or a
section without properties; ``msgspec.structs.fields`` gives the specification's spelling of every name (``encode_name``).
"""

from __future__ import annotations

from nexcage._core.bundle.config import Config, Hook, Hooks, Mount, Root
from nexcage._core.bundle.decode import Decoded, decode_config
from nexcage._core.bundle.flaws import Flaw, Notice
from nexcage._core.bundle.kinds import UINT64_MAX, IDMapping, Section
from nexcage._core.bundle.linux import (
    Device,
    IntelRdt,
    Linux,
    MemoryPolicy,
    Namespace,
    NetDevice,
    Personality,
    TimeOffset,
    TimeOffsets,
)
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
from nexcage._core.bundle.resources import (
    BlockIO,
    Cpu,
    DeviceRule,
    Hugepages,
    InterfacePriority,
    Memory,
    Network,
    Pids,
    Rdma,
    Resources,
    Throttle,
    WeightDevice,
)
from nexcage._core.bundle.seccomp import Seccomp, Syscall, SyscallArg

__all__ = [
    "UINT64_MAX",
    "Affinity",
    "BlockIO",
    "Capabilities",
    "Config",
    "ConsoleSize",
    "Cpu",
    "Decoded",
    "Device",
    "DeviceRule",
    "Flaw",
    "Hook",
    "Hooks",
    "Hugepages",
    "IDMapping",
    "IOPriority",
    "IntelRdt",
    "InterfacePriority",
    "Linux",
    "Memory",
    "MemoryPolicy",
    "Mount",
    "Namespace",
    "NetDevice",
    "Network",
    "Notice",
    "Personality",
    "Pids",
    "Process",
    "Rdma",
    "Resources",
    "Rlimit",
    "Root",
    "Scheduler",
    "Seccomp",
    "Section",
    "Syscall",
    "SyscallArg",
    "Throttle",
    "TimeOffset",
    "TimeOffsets",
    "User",
    "WeightDevice",
    "decode_config",
]

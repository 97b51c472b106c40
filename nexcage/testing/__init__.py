"""The test kit: a simulated Proxmox VE cluster, virtual time, faults, and the contract of a backend as a function.

Everything is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nexcage.testing.checks import check_backend as check_backend
    from nexcage.testing.clock import VirtualLoop as VirtualLoop
    from nexcage.testing.clock import VirtualTimeError as VirtualTimeError
    from nexcage.testing.clock import is_virtual as is_virtual
    from nexcage.testing.clock import virtual_run as virtual_run
    from nexcage.testing.cluster import SimCluster as SimCluster
    from nexcage.testing.cluster import SimNode as SimNode
    from nexcage.testing.crashes import Aftermath as Aftermath
    from nexcage.testing.crashes import Death as Death
    from nexcage.testing.crashes import Sweep as Sweep
    from nexcage.testing.crashes import every_crash as every_crash
    from nexcage.testing.disk import Crash as Crash
    from nexcage.testing.disk import CrashDisk as CrashDisk
    from nexcage.testing.disk import Fate as Fate
    from nexcage.testing.disk import FaultyDisk as FaultyDisk
    from nexcage.testing.explore import History as History
    from nexcage.testing.explore import explore as explore
    from nexcage.testing.faults import FAULTS as FAULTS
    from nexcage.testing.faults import Fault as Fault

_HOME: dict[str, str] = {
    "checks": "check_backend",
    "clock": "VirtualLoop VirtualTimeError is_virtual virtual_run",
    "cluster": "SimCluster SimNode",
    "crashes": "Aftermath Death Sweep every_crash",
    "disk": "Crash CrashDisk Fate FaultyDisk",
    "explore": "History explore",
    "faults": "FAULTS Fault",
}
_WHERE = {name: module for module, names in _HOME.items() for name in names.split()}

__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]  # they come through __getattr__
    "FAULTS",
    "Aftermath",
    "Crash",
    "CrashDisk",
    "Death",
    "Fate",
    "Fault",
    "FaultyDisk",
    "History",
    "SimCluster",
    "SimNode",
    "Sweep",
    "VirtualLoop",
    "VirtualTimeError",
    "check_backend",
    "every_crash",
    "explore",
    "is_virtual",
    "virtual_run",
]


def __getattr__(name: str) -> object:
    if name in _WHERE:
        from importlib import import_module

        value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

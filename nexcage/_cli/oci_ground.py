"""Which backend an OCI engine's containers are made by on this machine, and why.

Said in the configuration, it is that one. Else Proxmox VE where it is, else the runtime that is installed.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from nexcage import load_config, names
from nexcage._cli.parser import Call

if TYPE_CHECKING:
    from nexcage import Config

__all__ = ["RUNTIMES", "Ground", "ground"]

RUNTIMES = ("runc", "crun")
"""The backends that are OCI runtimes themselves, the first one that is installed first."""


class Ground(NamedTuple):
    """``backend`` by its own name; ``here``: on this machine only; ``config`` has it as its default."""

    backend: str
    why: str
    here: bool
    config: Config

    @property
    def runtime(self) -> bool:
        """Whether a runtime of this machine has the caller's streams to give."""
        return self.here and self.backend in RUNTIMES


def ground(call: Call) -> Ground:
    """For this command line; looks at the configuration and at PATH."""
    origins: dict[str, str] = {}
    config = load_config(call.text("config"), origins=origins)
    remote = call.many("hosts") or call.text("discover") or config.hosts or config.nodes or config.discover
    backend, why = _backend(call, config, origins, here=not remote)
    defaults = msgspec.structs.replace(config.defaults, backend=backend)
    return Ground(backend, why, not remote, msgspec.structs.replace(config, defaults=defaults))


def _backend(call: Call, config: Config, origins: dict[str, str], *, here: bool) -> tuple[str, str]:
    named = call.text("runtime")
    if named is not None:
        return names.backend(named), "--runtime says so"
    default = names.backend(config.defaults.backend)
    if (origin := origins.get("defaults.backend")) is not None:
        return default, f"defaults.backend says so ({origin})"
    if not here or shutil.which("pct"):
        return default, "it is the default"
    for runtime in RUNTIMES:
        if shutil.which(runtime):
            return runtime, "Proxmox VE is not on this machine and it is installed"
    return default, "it is the default"

"""How nodes with LXC tell what changes there, as the backend ``lxc`` offers it."""

from __future__ import annotations

from nexcage._core.command import Command
from nexcage.tools import monitor

__all__ = ["Monitored"]


class Monitored:
    """Mixed into a backend whose containers are LXC's (`nexcage.abc.Follows`)."""

    def follow(self) -> Command[None]:
        return monitor.monitor()

    def changed(self, line: bytes) -> tuple[int, ...]:
        said = monitor.change(line)
        return () if said is None else (said.vmid,)

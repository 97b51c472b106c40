"""The way into system containers, as the backend ``lxc`` offers it: optional methods that each make one command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nexcage._core.command import MIB, Command
from nexcage._core.inside import Addresses, Process, Stats
from nexcage._core.seen import Mark
from nexcage.tools import attach, cgroup, console, network

__all__ = ["Inside"]


class Inside:
    """Mixed into a backend whose containers are LXC's."""

    def attach(
        self,
        mark: Mark,
        argv: Sequence[str | bytes],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        size: tuple[int, int] | None = None,
        safe: bool = False,
        timeout: float | None = None,
        cap: int = MIB,
    ) -> Command[None]:
        return attach.attach(mark, argv, env=env, cwd=cwd, user=user, size=size, safe=safe, timeout=timeout, cap=cap)

    def processes(self, mark: Mark) -> Command[tuple[Process, ...]]:
        return cgroup.processes(mark)

    def usage(self) -> Command[dict[int, Stats]]:
        return cgroup.usage()

    def network(self) -> Command[dict[int, Addresses]]:
        return network.network()

    def logs(self, mark: Mark, lines: int, *, follow: bool = False) -> Command[None]:
        return console.logs(mark, lines, follow=follow)

"""A plan in the making: what the mappings write on."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from nexcage._core.bundle_plan.model import (
    Applied,
    Approximated,
    Bundle,
    BundlePlan,
    Hooks,
    IdMap,
    Launch,
    Need,
    Problem,
    Refusal,
)
from nexcage._core.bundle_plan.words import pve_takes

__all__ = ["ON_NODE", "Draft"]

ON_NODE = "by a file on the node: it does not move with the container"


class Draft:
    """Collects entries and the machine's part; each pointer gets one entry only."""

    def __init__(self, backend: str, bundle: Bundle) -> None:
        self.backend: str = backend
        self.bundle: Bundle = bundle
        self.entries: dict[str, Applied | Approximated | Refusal] = {}
        self.warnings: list[str] = []
        self.options: dict[str, str] = {}
        self.raw: list[tuple[str, str]] = []
        self.include: list[tuple[str, str]] = []
        self.needs: list[Need] = []
        self.seccomp: str = ""
        self.launch: Launch | None = None
        self.startable: bool = True
        self.hooks: Hooks = Hooks()
        self.unprivileged: bool = False
        self.idmap: tuple[IdMap, ...] = ()
        self.rootfs: str = ""
        self.readonly: bool = False
        self.terminal: bool = False

    def apply(self, pointer: str, as_: str) -> None:
        self._enter(pointer, Applied(pointer, as_))

    def near(self, pointer: str, as_: str, how: str) -> None:
        self._enter(pointer, Approximated(pointer, as_, how))

    def refuse(self, pointer: str, reason: str) -> None:
        self._enter(pointer, Refusal(pointer, reason))

    def _enter(self, pointer: str, entry: Applied | Approximated | Refusal) -> None:
        if pointer in self.entries:
            raise AssertionError(f"two entries for {pointer}")
        self.entries[pointer] = entry

    def overrule(self, pointer: str, reason: str) -> None:
        """Refuses ``pointer`` whatever a mapping has said of it, of something below it or of what it is a part of."""
        place = pointer
        while place and place not in self.entries:
            place = place.rpartition("/")[0]
        if not place:
            below = [one for one in self.entries if one.startswith(f"{pointer}/")]
            for one in below:
                del self.entries[one]
        said = reason if place in ("", pointer) else f"{pointer.removeprefix(f'{place}/')} {reason}"
        if not isinstance(self.entries.get(place), Refusal):
            self.entries[place or pointer] = Refusal(place or pointer, said)

    def split(self, pointer: str, leaves: Iterable[str]) -> None:
        """Gives ``pointer`` an entry of its own where one holds more than it; what is beside it keeps what was said, in its place."""
        place = pointer.rpartition("/")[0]
        while place and place not in self.entries:
            place = place.rpartition("/")[0]
        held = self.entries.get(place)
        if pointer in self.entries or held is None or isinstance(held, Refusal):
            return
        parts = {_branch(leaf, pointer): None for leaf in leaves if leaf.startswith(f"{place}/")}
        made = {one: msgspec.structs.replace(held, pointer=one) for one in parts}
        found = self.entries.items()
        self.entries = dict(
            pair for name, entry in found for pair in (made.items() if name == place else ((name, entry),))
        )

    def refusals(self) -> tuple[str, ...]:
        return tuple(pointer for pointer, entry in self.entries.items() if isinstance(entry, Refusal))

    def option(self, key: str, value: str) -> str:
        """One of PVE's own options; the answer is how people read it."""
        self.options[key] = value
        return f"{key}: {value}"

    def line(self, key: str, value: str) -> str:
        """One ``lxc.*`` line, in VMID.conf where PVE takes it, else in the included file."""
        (self.raw if pve_takes(key) else self.include).append((key, value))
        return f"{key} = {value}".rstrip()

    def set_line(self, pointer: str, key: str, value: str, how: str = "") -> None:
        """``pointer`` becomes exactly this line; one that PVE does not take is told apart, and so is ``how``."""
        told = "; ".join(one for one in (how, "" if pve_takes(key) else ON_NODE) if one)
        text = self.line(key, value)
        self.near(pointer, text, told) if told else self.apply(pointer, text)

    def parameter(self, pointer: str, path: str, value: str) -> None:
        """A kernel parameter of the container's namespaces, written by LXC's hook on the node when they are there.

        ``lxc.sysctl`` is written from inside, where LXC has made /proc/sys read-only and an unprivileged root may not.
        """
        script = 'printf %s "$1" > "/proc/sys/$0"'
        quoted = "'" + value.replace("'", "'\\''") + "'"
        self.line("lxc.hook.start-host", f"nsenter -t $LXC_PID -i -n -u sh -c '{script}' {path} {quoted}")
        self.near(pointer, f"lxc.hook.start-host: /proc/sys/{path}", ON_NODE)

    def need(self, pointer: str, kind: str, value: str) -> None:
        self.needs.append(Need(pointer, kind, value))

    def done(
        self,
        *,
        oci_version: str,
        annotations: tuple[tuple[str, str], ...],
        allowed: tuple[str, ...],
        error: Problem | None,
    ) -> BundlePlan:
        entries = tuple(self.entries.values())
        return BundlePlan(
            backend=self.backend,
            applied=tuple(one for one in entries if isinstance(one, Applied)),
            approximated=tuple(one for one in entries if isinstance(one, Approximated)),
            refused=tuple(one for one in entries if isinstance(one, Refusal)),
            warnings=tuple(self.warnings),
            error=error,
            allowed=allowed,
            oci_version=oci_version,
            annotations=annotations,
            rootfs=self.rootfs,
            readonly=self.readonly,
            unprivileged=self.unprivileged,
            idmap=self.idmap,
            options=tuple(self.options.items()),
            raw=tuple(self.raw),
            include=tuple(self.include),
            seccomp=self.seccomp,
            launch=self.launch,
            startable=self.startable,
            terminal=self.terminal,
            hooks=self.hooks,
            needs=tuple(self.needs),
        )


def _branch(leaf: str, pointer: str) -> str:
    """``pointer`` when ``leaf`` is at or below it, else as much of ``leaf`` as is the first that lies beside the way to ``pointer``."""
    if leaf == pointer or leaf.startswith(f"{pointer}/"):
        return pointer
    place = leaf
    while not pointer.startswith(f"{place.rpartition('/')[0]}/"):
        place = place.rpartition("/")[0]
    return place

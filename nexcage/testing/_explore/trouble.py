"""What goes wrong in a run: drawn from the seed, made to happen at its moment, and all of it taken back at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random

import msgspec

from nexcage.testing.faults import AT_ONCE, FAULTS

__all__ = ["KINDS", "OF_PROGRAMS", "TO_ONE", "Trouble", "handovers", "troubles"]


class Trouble(msgspec.Struct, frozen=True, kw_only=True, tag="trouble"):
    """Something that goes wrong with a node (``FAULTS``, or a hand of somebody else) or with a program.

    ``seconds``: how long it lasts, where the fault itself has no end. ``on``: the commands that it waits for. ``which`` of the
    containers that are there at that moment, from 0 to 1.
    """

    at: float
    kind: str
    node: int = 0
    program: int = 0
    on: str = ""
    seconds: float = 0.0
    which: float = 0.0
    options: Mapping[str, object] = {}

    def __str__(self) -> str:
        where = f"program {self.program}" if self.kind in OF_PROGRAMS else f"node {self.node}"
        on = f" on '{self.on}'" if self.on else ""
        lasts = f" for {self.seconds:g} s" if self.seconds else ""
        return f"{where}: {self.kind}{on}{lasts}{f' {dict(self.options)}' if self.options else ''}"


OF_PROGRAMS: Mapping[str, int] = {
    "kill-driver": 10,
    "pause-driver": 5,
    "leave-driver": 4,
    "driver-clock": 3,
    "enospc": 3,
    "eio": 3,
    "torn-tail": 2,
    "nul-tail": 2,
    "power-loss": 10,
}
"""What happens to programs, and how often."""
_WIDE = frozenset({"power-loss"})
"""What only happens where operations of all kinds are drawn."""
OF_NODES: Mapping[str, int] = {"cut-links": 4, "by-hand": 4}
"""What happens to nodes besides `FAULTS`."""
TO_ONE = frozenset({"busy", "rival", "swap", "migrate", "ha-delay"})
"""Faults that somebody else does to one container."""
_ENDINGS = frozenset({"heal", "quorum", "storage-free"})
_RARE: Mapping[str, int] = {"endless": 1, "host-key": 1, "crash": 6, "partition": 6, "drop-after": 8}
_LASTING: Mapping[str, tuple[float, float]] = {
    "crash": (1.0, 60.0),
    "partition": (1.0, 90.0),
    "pause-driver": (1.0, 200.0),
    "enospc": (0.5, 20.0),
    "eio": (0.5, 20.0),
    "kill-driver": (0.0, 10.0),
    "leave-driver": (0.0, 10.0),
    "power-loss": (0.0, 20.0),
}
_SECONDS: Mapping[str, tuple[float, float]] = {
    "stall": (1.0, 60.0),
    "slow": (0.5, 10.0),
    "busy": (1.0, 40.0),
    "ha-delay": (1.0, 15.0),
    "no-quorum": (2.0, 30.0),
    "storage-full": (2.0, 30.0),
}
_WORDS = (
    "pct",
    "pct create",
    "pct start",
    "pct shutdown",
    "pct stop",
    "pct destroy",
    "lxc-freeze",
    "lxc-unfreeze",
    "sh",
)
_MORE_WORDS = (
    *("pct snapshot", "pct delsnapshot", "pct rollback", "pct clone", "pct migrate", "pct set", "pct resize"),
    *("pct move-volume", "pct template", "pct restore", "vzdump", "lxc-attach"),
)
"""Of operations that keep the state."""
_QUICK = ("lxc-freeze", "lxc-unfreeze")  # what ends at its deadline; a pct that never stops printing costs hours of CPU
_HANDS = ("start", "stop", "destroy")


def _weights(*, wide: bool = True) -> dict[str, int]:
    faults = {kind: _RARE.get(kind, 3) for kind in FAULTS if kind not in _ENDINGS}
    every = {**faults, **OF_NODES, **OF_PROGRAMS}
    return every if wide else {kind: weight for kind, weight in every.items() if kind not in _WIDE}


KINDS: tuple[str, ...] = tuple(_weights())
"""Everything that may be drawn; what only ends something else is not."""


def troubles(dice: Random, *, span: float, nodes: int, programs: int, wide: bool) -> Iterator[Trouble]:
    """What goes wrong in one run; in some nothing does."""
    weights = _weights(wide=wide)
    for _ in range(dice.choice((0, 2, 3, 4, 5, 6, 8))):
        kind = dice.choices(list(weights), list(weights.values()))[0]
        waits = kind in FAULTS and (kind not in AT_ONCE or dice.random() < 0.4)
        low, high = _LASTING.get(kind, (0.0, 0.0))
        yield Trouble(
            at=round(dice.uniform(0, span), 3),
            kind=kind,
            node=dice.randrange(nodes),
            program=dice.randrange(programs),
            on=_on(dice, kind, wide=wide) if waits else "",
            seconds=round(dice.uniform(low, high), 3),
            which=round(dice.random(), 6),
            options=_options(dice, kind),
        )


def _on(dice: Random, kind: str, *, wide: bool) -> str:
    words = _QUICK if kind == "endless" else _MORE_WORDS if wide and dice.random() < 0.5 else _WORDS
    return dice.choice(words)


def handovers(dice: Random, *, span: float, programs: int) -> Iterator[Trouble]:
    """What makes a host lose the lease to another one: its programs end, or sleep for longer than it lasts."""
    for _ in range(dice.randint(1, 4)):
        kind = dice.choice(("kill-driver", "leave-driver", "pause-driver"))
        yield Trouble(
            at=round(dice.uniform(0, span), 3),
            kind=kind,
            program=dice.randrange(programs),
            seconds=round(dice.uniform(5, 100), 3),
        )


def _options(dice: Random, kind: str) -> dict[str, object]:
    options: dict[str, object] = {}
    if kind in _SECONDS:
        options["seconds"] = round(dice.uniform(*_SECONDS[kind]), 3)
    maybe = dice.random() < 0.5
    match kind:
        case "lock-held" if maybe:
            options["lock"] = "backup"
        case "busy" if maybe:
            options["lock"] = dice.choice(("backup", "snapshot"))
        case "rival" if maybe:
            options["after"] = True
        case "swap" if maybe:
            options |= {"mark": "edited", "running": dice.random() < 0.5}
        case "clock-jump" | "driver-clock":
            options["seconds"] = dice.choice((-3600.0, -5.0, 5.0, 3600.0))
        case "by-hand":
            options["verb"] = dice.choice(_HANDS)
        case "power-loss":
            options["after"] = "torn" if maybe else "lost"
        case _:
            pass
    return options

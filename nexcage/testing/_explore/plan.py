"""What a seed means: a cluster, the programs that drive it, and a list of things that happen at moments of virtual time.

Everything is drawn before anything runs. So a failing seed can be made smaller by leaving steps out: the others stay what they
were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random

import msgspec

from nexcage._core.intents import Create, Delete, Intent, Kill, Pause, Resume, Start, Stop
from nexcage._core.spec import Spec
from nexcage.testing._explore.trouble import Trouble, handovers, troubles

__all__ = ["Act", "Plan", "Step", "drawn"]

SPEC = Spec("local:vztmpl/alpine-3.20-default_20240908_amd64.tar.xz", storage="local-zfs")
_SIGNALS: tuple[int | str, ...] = ("HUP", "TERM", "KILL", 10)


class Act(msgspec.Struct, frozen=True, kw_only=True, tag="act"):
    """Something that a user of one program does: ``kind`` is ``do``, ``run``, ``stream``, ``reconcile``, ``states``, ``look``
    or ``listen``. ``cancel``: after so many seconds.
    """

    at: float
    program: int
    kind: str
    intents: tuple[Intent, ...] = ()
    wait: bool = False
    cancel: float | None = None
    pace: float = 0.0

    def __str__(self) -> str:
        words = [self.kind, *(_brief(intent) for intent in self.intents)]
        if self.wait:
            words.append("(waits)")
        if self.cancel is not None:
            words.append(f"(cancelled after {self.cancel:g} s)")
        if self.pace:
            words.append(f"(pace {self.pace:g})")
        return f"program {self.program}: {' '.join(words)}"


def _brief(intent: Intent) -> str:
    force = "!" if isinstance(intent, (Stop, Delete)) and intent.force else ""
    return f"{intent.op}{force} {intent.id}{f'#{intent.op_id}' if intent.op_id else ''}"


Step = Act | Trouble


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One run. ``span``: seconds after which faults end. ``hosts``: how many state directories the programs have between them,
    with a ``lease`` (``file`` or ``cluster``) when they are several.
    """

    seed: int
    nodes: int
    programs: int
    hosts: int
    lease: str
    ids: tuple[str, ...]
    foreign: int
    span: float
    queue: int
    steps: tuple[Step, ...]

    def only(self, numbers: Sequence[int]) -> Plan:
        """The same with these steps alone."""
        kept = set(numbers)
        return msgspec.structs.replace(self, steps=tuple(s for n, s in enumerate(self.steps) if n in kept))


def drawn(seed: int) -> Plan:
    """The plan of a seed."""
    dice = Random(f"nexcage explore {seed}")
    nodes = dice.choice((1, 2, 2, 3, 4))
    programs = dice.choice((1, 1, 2, 2, 3))
    ids = tuple(f"c{n}" for n in range(dice.randint(2, 6)))
    span = dice.choice((30.0, 60.0, 120.0))
    hosts = 2 if programs > 1 and dice.random() < 0.4 else 1
    lease = dice.choice(("file", "cluster")) if hosts > 1 else ""
    steps: list[Step] = [*_Acts(dice, ids, programs, span, hosts)]
    steps += troubles(dice, span=span, nodes=nodes, programs=programs)
    if hosts > 1:
        steps += handovers(dice, span=span, programs=programs)
    steps.sort(key=lambda step: step.at)
    return Plan(
        seed=seed,
        nodes=nodes,
        programs=programs,
        hosts=hosts,
        lease=lease,
        ids=ids,
        foreign=dice.choice((0, 1, 2)),
        span=span,
        queue=dice.choice((4, 64, 4096)),
        steps=tuple(steps),
    )


class _Acts:
    """Acts that make sense more often than not: a life of each container, cut into batches, with repeats and nonsense between."""

    def __init__(self, dice: Random, ids: Sequence[str], programs: int, span: float, hosts: int) -> None:
        self._hosts = hosts
        self._host = 0
        self._dice = dice
        self._ids = ids
        self._programs = programs
        self._span = span
        self._keys = 0
        self._given: list[list[Intent]] = [[] for _ in range(hosts)]
        """What was asked with a key, by host: to another journal it is another key."""
        self._believed: dict[str, str] = dict.fromkeys(ids, "absent")

    def __iter__(self) -> Iterator[Act]:
        dice = self._dice
        at = dice.uniform(0, 1)
        for host in range(self._hosts):
            yield self._act(float(host), "run", host, first=True)
        while at < self._span:
            kind = dice.choices(
                ("do", "run", "stream", "reconcile", "states", "look", "listen"), (12, 4, 2, 2, 1, 1, 2)
            )[0]
            yield self._act(at, kind, dice.randrange(self._programs))
            at += dice.expovariate(1 / (self._span / 9))

    def _act(self, at: float, kind: str, program: int, *, first: bool = False) -> Act:
        dice = self._dice
        self._host = program % self._hosts
        intents = tuple(self._next(id) for id in self._own()) if first else self._intents(kind)
        return Act(
            at=round(at, 3),
            program=program,
            kind=kind,
            intents=intents,
            wait=dice.random() < 0.4,
            cancel=round(dice.uniform(0.01, 8), 3) if intents and dice.random() < 0.12 else None,
            pace=dice.choice((0.0, 0.5, 5.0, -1.0)) if kind == "listen" else 0.0,
        )

    def _own(self) -> Sequence[str]:
        """The containers of this host's users; now and then somebody means another's."""
        own = [id for n, id in enumerate(self._ids) if n % self._hosts == self._host]
        return own if own and self._dice.random() < 0.9 else self._ids

    def _intents(self, kind: str) -> tuple[Intent, ...]:
        dice = self._dice
        if kind == "do":
            return (self._one(),)
        if kind in ("run", "stream"):
            return tuple(self._one() for _ in range(dice.randint(2, 5)))
        if kind in ("reconcile", "states") and dice.random() < 0.5:
            return (Start(dice.choice(self._own())),)  # only its id counts
        return ()

    def _one(self) -> Intent:
        dice = self._dice
        given = self._given[self._host]
        if given and dice.random() < 0.08:
            return dice.choice(given)  # the same operation id again
        return self._next(dice.choice(self._own()))

    def _next(self, id: str) -> Intent:
        dice = self._dice
        key = None
        if dice.random() < 0.3:
            self._keys += 1
            key = f"key{self._keys}"
        believed = self._believed[id]
        wild = dice.random() < 0.1
        word = dice.choice(_ALL) if wild else dice.choice(_AFTER[believed])
        self._believed[id] = _THEN.get(word, believed)
        intent = _made(dice, word, id, key)
        if key is not None:
            self._given[self._host].append(intent)
        return intent


_ALL = ("create", "start", "stop", "force", "pause", "resume", "kill", "delete", "destroy")
_AFTER: Mapping[str, tuple[str, ...]] = {
    "absent": ("create",),
    "created": ("start", "start", "start", "delete", "kill"),
    "running": ("stop", "stop", "force", "pause", "kill", "destroy", "start"),
    "paused": ("resume", "resume", "stop", "force", "destroy"),
    "stopped": ("start", "start", "delete", "destroy"),
}
_THEN: Mapping[str, str] = {
    "create": "created",
    "start": "running",
    "stop": "stopped",
    "force": "stopped",
    "pause": "paused",
    "resume": "running",
    "delete": "absent",
    "destroy": "absent",
}


def _made(dice: Random, word: str, id: str, key: str | None) -> Intent:
    match word:
        case "create":
            return Create(id, SPEC, op_id=key)
        case "start":
            return Start(id, op_id=key)
        case "stop":
            return Stop(id, timeout=dice.choice((0.0, 2.0, 10.0)), op_id=key)
        case "force":
            return Stop(id, force=True, op_id=key)
        case "pause":
            return Pause(id, op_id=key)
        case "resume":
            return Resume(id, op_id=key)
        case "kill":
            return Kill(id, signal=dice.choice(_SIGNALS), op_id=key)
        case "delete":
            return Delete(id, op_id=key)
        case _:
            return Delete(id, force=True, op_id=key)

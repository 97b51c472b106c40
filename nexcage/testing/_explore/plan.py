"""What a seed means: a cluster, the programs that drive it, and a list of things that happen at moments of virtual time.

Everything is drawn before anything runs. So a failing seed can be made smaller by leaving steps out: the others stay what they
were.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

import msgspec

from nexcage._core.intents import Delete, Intent, Start, Stop
from nexcage.testing._explore.lives import STRAYS, Ground, Life
from nexcage.testing._explore.trouble import Trouble, handovers, troubles
from nexcage.testing.cluster import node_names

__all__ = ["Act", "Plan", "Step", "drawn"]

_WIDE = 0.5
"""Of the seeds, how many have operations of all kinds and a machine of the driver that loses its power; the others have the lifecycle."""


class Act(msgspec.Struct, frozen=True, kw_only=True, tag="act"):
    """Something that a user of one program does: ``kind`` is ``do``, ``run``, ``stream``, ``reconcile``, ``states``, ``look``,
    ``listen``, ``exec`` or ``restore``. ``cancel``: after so many seconds.
    """

    at: float
    program: int
    kind: str
    intents: tuple[Intent, ...] = ()
    wait: bool = False
    cancel: float | None = None
    pace: float = 0.0
    which: float = 0.0

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
    with a ``lease`` (``file`` or ``cluster``) when they are several. ``foreign`` guests of somebody else are there, and ``strays``, which
    may be adopted.
    """

    seed: int
    nodes: int
    programs: int
    hosts: int
    lease: str
    ids: tuple[str, ...]
    foreign: int
    strays: tuple[int, ...]
    span: float
    queue: int
    steps: tuple[Step, ...]

    def only(self, numbers: Sequence[int]) -> Plan:
        """The same with these steps alone."""
        kept = set(numbers)
        return msgspec.structs.replace(self, steps=tuple(s for n, s in enumerate(self.steps) if n in kept))


def drawn(seed: int, *, wide: bool | None = None) -> Plan:
    """The plan of a seed; ``wide`` is what the seed says, unless given."""
    if wide is None:
        wide = Random(f"nexcage explore wide {seed}").random() < _WIDE
    dice = Random(f"nexcage explore {seed}")
    nodes = dice.choice((1, 2, 2, 3, 4))
    programs = dice.choice((1, 1, 2, 2, 3))
    ids = tuple(f"c{n}" for n in range(dice.randint(2, 6)))
    span = dice.choice((30.0, 60.0, 120.0))
    hosts = 2 if programs > 1 and dice.random() < 0.4 else 1
    lease = dice.choice(("file", "cluster")) if hosts > 1 else ""
    strays = STRAYS[: dice.choice((0, 1, 2))] if wide else ()
    life = Life(dice, Ground(ids, node_names(nodes), strays), wide=wide)
    steps: list[Step] = [*_Acts(dice, life, ids, programs, span, hosts, wide=wide)]
    steps += troubles(dice, span=span, nodes=nodes, programs=programs, wide=wide)
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
        strays=strays,
        span=span,
        queue=dice.choice((4, 64, 4096)),
        steps=tuple(steps),
    )


class _Acts:
    """Acts that make sense more often than not: a life of each container, cut into batches, with repeats and nonsense between."""

    def __init__(
        self, dice: Random, life: Life, ids: Sequence[str], programs: int, span: float, hosts: int, *, wide: bool
    ) -> None:
        self._life = life
        self._kinds = {**_KINDS, **_MORE} if wide else _KINDS
        self._hosts = hosts
        self._host = 0
        self._dice = dice
        self._ids = ids
        self._programs = programs
        self._span = span
        self._keys = 0
        self._given: list[list[Intent]] = [[] for _ in range(hosts)]
        """What was asked with a key, by host: to another journal it is another key."""
        self._ran: list[list[Intent]] = [[] for _ in range(hosts)]
        """The programs that were run with a key, by host."""

    def __iter__(self) -> Iterator[Act]:
        dice = self._dice
        at = dice.uniform(0, 1)
        for host in range(self._hosts):
            yield self._act(float(host), "run", host, first=True)
        while at < self._span:
            kind = dice.choices(list(self._kinds), list(self._kinds.values()))[0]
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
            which=round(dice.random(), 6) if kind == "restore" else 0.0,
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
        if kind in _MORE:
            return (self._inside(kind),)
        return ()

    def _one(self) -> Intent:
        dice = self._dice
        given = self._given[self._host]
        if given and dice.random() < 0.08:
            return dice.choice(given)  # the same operation id again
        return self._next(dice.choice(self._own()))

    def _inside(self, kind: str) -> Intent:
        """Of what is no intent only its id and its key count."""
        dice, given = self._dice, self._ran[self._host]
        if kind == "exec" and given and dice.random() < 0.2:
            return dice.choice(given)
        own = self._own()
        ids = self._life.running(own) if kind == "exec" else self._life.restored(own)
        intent = Start(dice.choice(ids), op_id=self._key())
        if kind == "exec" and intent.op_id is not None:
            given.append(intent)
        return intent

    def _next(self, id: str) -> Intent:
        key = self._key()
        intent = self._life.next(id, key)
        if key is not None:
            self._given[self._host].append(intent)
        return intent

    def _key(self) -> str | None:
        if self._dice.random() >= 0.3:
            return None
        self._keys += 1
        return f"key{self._keys}"


_KINDS = {"do": 12, "run": 4, "stream": 2, "reconcile": 2, "states": 1, "look": 1, "listen": 2}
_MORE = {"exec": 3, "restore": 4}

"""Everything that happened in a run, in the order of virtual time, as text that two runs can be compared by."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from nexcage._core.intents import Create, Inside, Intent

if TYPE_CHECKING:
    from nexcage.testing._explore.world import World

__all__ = ["History"]


class History(msgspec.Struct, frozen=True, kw_only=True):
    """One run: what happened (``lines``), what broke (``wrong``, empty when every promise was kept), what it exercised (``counts``).

    Lines are journal records, effects on the nodes, outcomes and troubles. Process ids and directories of this machine are not in
    them, so the same seed gives the same ``digest`` anywhere.
    """

    seed: int
    lines: tuple[str, ...]
    wrong: tuple[str, ...]
    counts: Mapping[str, int]
    seconds: float

    @property
    def digest(self) -> str:
        """A hash over every line."""
        return hashlib.sha256("\n".join(self.lines).encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        return not self.wrong


def told(world: World, wrong: list[str], seconds: float) -> History:
    """The history of a run that is over."""
    own = re.compile(rf"\b{os.getpid()}-(?=[0-9a-f]{{12}}\b)")
    here = re.compile(rf"\bon {re.escape(os.uname().nodename)}\b")
    home = str(world.home)

    def plain(line: str) -> str:
        return here.sub("on here", own.sub("0-", line)).replace(home, "HOME")

    counts = world.counts.copy()
    counts["events"] += len(world.events)
    counts["effects"] += sum(1 for effect in world.sim.effects() if effect["op_id"])
    counts["outcomes"] += len(world.told)
    counts["epochs"] += len({effect["epoch"] for effect in world.sim.effects() if effect["op_id"]})
    counts.update(f"error {told.error}" for told in world.told if told.error)
    counts.update(f"done {_word(told.intent)}" for told in world.told if told.ok and told.changed)
    counts["uncertain"] += sum(told.uncertain for told in world.told)
    return History(
        seed=world.plan.seed,
        lines=tuple(map(plain, _lines(world))),
        wrong=tuple(map(plain, wrong)),
        counts=dict(sorted(counts.items())),
        seconds=seconds,
    )


def _word(intent: Intent | Inside) -> str:
    """What it is called; a create by what it is made from."""
    if isinstance(intent, Create) and intent.spec.source is not None:
        return "clone"
    return "restore" if isinstance(intent, Create) and ":backup/" in intent.spec.image else str(intent.op)


def _lines(world: World) -> Iterator[str]:
    for at, text in world.notes:
        yield f"{at:.6f} {text}"
    for event in world.events:
        yield f"event {msgspec.json.encode(event).decode()}"
    for effect in world.sim.effects():
        yield f"effect {json.dumps(effect)}"
    for told in world.told:
        yield f"{told.told:.6f} {told}"
    for sent in world.sent:
        yield f"{sent.began:.6f} {sent.ended:.6f} {sent.program} → {sent.node}: {sent.word} {sent.op_id}.{sent.step} = {sent.exit}"

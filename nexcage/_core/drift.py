"""What differs between the journal and the nodes, as values: found by `Fleet.reconcile`, shown before anything is done about it."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from nexcage._core.events import Problem
from nexcage._core.intents import Intent, Pause, Resume, Start, Stop
from nexcage._core.machine import Machine
from nexcage._core.states import State

__all__ = ["Difference", "DriftPolicy", "back"]

DriftPolicy: TypeAlias = Literal["report", "adopt", "revert"]


class Difference(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One container that is not as the journal says, or not as it was asked to be.

    ``was`` is the journal's state before, ``state`` what is so; ``why`` in words. ``action`` is what a reconcile does about it:
    ``record`` (write down what was seen), ``adopt`` (and want it from now on), ``start`` / ``stop`` / ``pause`` / ``resume``
    (revert), ``resolve start`` (find out what became of a lost start), or nothing (``""``: only a person can). ``done`` says
    that it was done; ``error`` why it was not.
    """

    id: str
    node: str = ""
    vmid: int = 0
    was: State
    state: State
    why: str
    action: str = ""
    done: bool = False
    error: Problem | None = None

    def __str__(self) -> str:
        then = f"; {self.action}{'' if self.done else ' (not done)'}" if self.action else ""
        return f"{self.id}: {self.was} -> {self.state}: {self.why}{then}"


_BACK: dict[tuple[State, State], type[Start | Stop | Pause | Resume]] = {
    (State.STOPPED, State.RUNNING): Start,
    (State.CREATED, State.RUNNING): Start,
    (State.RUNNING, State.STOPPED): Stop,
    (State.PAUSED, State.STOPPED): Stop,
    (State.RUNNING, State.CREATED): Stop,
    (State.PAUSED, State.CREATED): Stop,
    (State.PAUSED, State.RUNNING): Resume,
    (State.RUNNING, State.PAUSED): Pause,
}


def back(machine: Machine) -> Intent | None:
    """The one intent that leads from what a container is towards what was asked for; None when there is nothing to do, or nothing
    that can be done: one that is gone is not made again, because what was in it is gone too.
    """
    if machine.wanted is None or machine.running is not None:
        return None
    if (machine.state, machine.wanted) == (State.STOPPED, State.PAUSED):
        return Start(machine.id)
    intent = _BACK.get((machine.state, machine.wanted))
    return None if intent is None else intent(machine.id)

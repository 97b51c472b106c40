"""How intents ended: `Done` or `Failure`, and a `Report` of many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, overload

from nexcage._core.intents import Intent
from nexcage._core.states import Op, State
from nexcage.errors import NexcageError, NodeError

__all__ = ["Done", "Failure", "Outcome", "Report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The wanted state was observed. ``changed`` is False when it was so already. ``seconds`` from its
    turn (the bounds in Limits) to the end. ``notes``: what else to know.
    """

    intent: Intent
    op_id: str
    state: State
    changed: bool = True
    node: str = ""
    vmid: int = 0
    pid: int = 0
    seconds: float = 0.0
    retries: int = 0
    resolved_by: str = ""
    notes: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return self.intent.id

    @property
    def op(self) -> Op:
        return self.intent.op


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """It did not end well; ``error`` says how, ``state`` where the container is as far as known."""

    intent: Intent
    error: NexcageError
    op_id: str = ""
    state: State = State.UNKNOWN
    node: str = ""
    vmid: int = 0
    seconds: float = 0.0
    retries: int = 0

    @property
    def id(self) -> str:
        return self.intent.id

    @property
    def op(self) -> Op:
        return self.intent.op


Outcome: TypeAlias = Done | Failure


class Report(Sequence[Outcome]):
    """The outcomes of many intents, in the order of the intents."""

    def __init__(self, outcomes: Iterable[Outcome], lost_nodes: Iterable[str] = ()) -> None:
        self._outcomes: tuple[Outcome, ...] = tuple(outcomes)
        self._lost: frozenset[str] = frozenset(lost_nodes)

    @property
    def done(self) -> tuple[Done, ...]:
        return tuple(o for o in self._outcomes if isinstance(o, Done))

    @property
    def failures(self) -> tuple[Failure, ...]:
        return tuple(o for o in self._outcomes if isinstance(o, Failure))

    @property
    def ok(self) -> bool:
        """Whether every intent was done."""
        return not self.failures

    @property
    def lost_nodes(self) -> set[str]:
        """The nodes that did not answer: those that failures blame, and those that new containers were not given to."""
        return (
            set(self._lost)
            | {failure.error.node for failure in self.failures if isinstance(failure.error, NodeError)}
            | {failure.node for failure in self.failures if failure.error.uncertain and failure.node}
        )

    def raise_for_failures(self) -> None:
        """Raise an ExceptionGroup of every failure's error; its message counts. Nothing when all was done."""
        failures = self.failures
        if failures:
            raise ExceptionGroup(f"{len(failures)} of {len(self)} failed", [failure.error for failure in failures])

    @overload
    def __getitem__(self, index: int) -> Outcome: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Outcome]: ...
    def __getitem__(self, index: int | slice) -> Outcome | Sequence[Outcome]:
        return self._outcomes[index]

    def __len__(self) -> int:
        return len(self._outcomes)

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self._outcomes)

    def __repr__(self) -> str:
        return f"<Report: {len(self.done)} done, {len(self.failures)} failed>"

"""What happened, as values. A journal is a sequence of them; a machine is what folding them gives.

Every event has ``seq`` (its number in the journal, from 1, without gaps), ``at`` (Unix seconds of the driver's
clock, UTC) and the
container's ``id``. A new field gets a default and an old one never changes its type: old journals must keep loading.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias, cast

import msgspec

from nexcage import errors
from nexcage._core.intents import Inside, Intent
from nexcage._core.states import Op, State

__all__ = [
    "Attempted",
    "Began",
    "Ended",
    "Failed",
    "Interrupted",
    "NodeFound",
    "NodeLost",
    "Observed",
    "Problem",
    "Succeeded",
    "TakenOver",
]

Datum: TypeAlias = str | int | float | bool | None


class Problem(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """An error as a value: its class, its one line, its notes and its data; `error` makes the exception again."""

    type: str
    message: str
    notes: tuple[str, ...] = ()
    retryable: bool = False
    uncertain: bool = False
    data: Mapping[str, Datum | tuple[str, ...]] = {}

    def __str__(self) -> str:
        return self.message

    @classmethod
    def of(cls, error: BaseException) -> Problem:
        """What the journal keeps of ``error``: only the attributes that its class declares, no traceback, no other object."""
        kind = type(error)
        data: dict[str, Datum | tuple[str, ...]] = {}
        if isinstance(error, errors.NexcageError):
            for name in type(error).fields:
                value: object = getattr(error, name, None)
                if isinstance(value, tuple):
                    data[name] = tuple(_writable(str(word)) for word in cast("tuple[object, ...]", value))
                else:
                    data[name] = _datum(value)
        notes = tuple(_writable(str(n)) for n in getattr(error, "__notes__", ()))
        message = _writable(str(error)) or kind.__name__
        if not isinstance(error, errors.NexcageError):
            message = f"{kind.__name__}: {message}"
        return cls(
            kind.__name__,
            message,
            notes,
            bool(getattr(error, "retryable", False)),
            bool(getattr(error, "uncertain", False)),
            data,
        )

    def error(self) -> errors.NexcageError:
        """The exception again, as far as it was kept; an unknown class becomes plain NexcageError."""
        kind = getattr(errors, self.type, errors.NexcageError)
        if not (isinstance(kind, type) and issubclass(kind, errors.NexcageError)):
            kind = errors.NexcageError
        made = kind.__new__(kind, self.message)
        made.args = (self.message,)
        for name in kind.fields:
            setattr(made, name, self.data.get(name))
        if made.retryable != self.retryable:
            made.retryable = self.retryable
        if made.uncertain != self.uncertain:
            made.uncertain = self.uncertain
        for note in self.notes:
            made.add_note(note)
        return made


def _writable(text: str) -> str:
    """``text`` as UTF-8 can hold it: lone surrogates (of a file name, say) are shown as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _datum(value: object) -> Datum:
    if isinstance(value, str):
        return _writable(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # JSON has no word for the others
    if value is None or (isinstance(value, int) and -(2**63) <= value < 2**63):
        return value
    return errors.escaped(value)


class _Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event", tag=str.lower, gc=False):
    # gc=False here, and on all values that operations are made of: nothing in them leads back to them, so the collector need not walk
    # through every machine and event that a driver of thousands of containers holds.
    seq: int = 0
    at: float = 0.0
    id: str = ""


class Began(_Event, frozen=True, kw_only=True, omit_defaults=True):
    """An operation begins: durable before the first command that changes anything.

    ``mark`` is the op id of the create that made the container (its identity on the node), ``boot_id`` the node's at that moment,
    ``owner`` the driver: alive while it holds ``STATE_DIR/owners/OWNER``. ``epoch`` of the lease that it held; ``fenced``: the
    node refuses lower ones (it has a runner).
    """

    op: Op
    op_id: str
    before: State
    via: State
    intent: Intent | Inside
    node: str = ""
    backend: str = ""
    vmid: int = 0
    mark: str = ""
    boot_id: str = ""
    owner: str = ""
    epoch: int = 0
    fenced: bool = False


class Attempted(_Event, frozen=True, kw_only=True, omit_defaults=True):
    """One step of an operation, before its command runs; effects are counted per (op id, step). ``tries``: the VMID
    of a create. ``boot_id`` and ``uptime`` (seconds) of the node as it was last seen: they tell what a claim there can still prove.
    """

    op: Op
    op_id: str
    step: int
    tool: str
    tries: Mapping[str, str | int] = {}
    boot_id: str = ""
    uptime: float = 0.0


class TakenOver(_Event, frozen=True, kw_only=True, omit_defaults=True):
    """``owner`` goes on with an operation that nobody drives any more, in order to bring it to an end."""

    op: Op
    op_id: str
    owner: str
    epoch: int = 0


class Succeeded(_Event, frozen=True, kw_only=True, omit_defaults=True):
    """The wanted state was observed. ``resolved_by`` says what told when the answer itself was lost: ``claim`` (the node had
    kept it), ``task`` (PVE's task log), ``probe`` (looking), ``repair`` (recovery finished it). ``exit``: of a command that ran inside.
    ``notes``: what else to know, such as that it was made without ZFS because the node has no such pool.
    """

    op: Op
    op_id: str
    state: State
    changed: bool = True
    node: str = ""
    vmid: int = 0
    backend: str = ""
    mark: str = ""
    pid: int = 0
    seconds: float = 0.0
    resolved_by: str = ""
    exit: int | None = None
    notes: tuple[str, ...] = ()


class Failed(_Event, frozen=True, kw_only=True, omit_defaults=True):
    """It did not happen, and ``state`` is where the container is now."""

    op: Op
    op_id: str
    state: State
    error: Problem
    pid: int = 0
    seconds: float = 0.0
    resolved_by: str = ""


class Interrupted(_Event, frozen=True, kw_only=True, omit_defaults=True):
    """Nobody knows whether it happened; the container is UNKNOWN until someone looks."""

    op: Op
    op_id: str
    error: Problem
    seconds: float = 0.0


class Observed(_Event, frozen=True, kw_only=True, omit_defaults=True):
    """Someone looked, and the container is in ``state``: after UNKNOWN, or because somebody else changed it (``why``).
    ``adopted``: from now on that is what is wanted. ``rebuilt``: this is all that is known of it, read from its node with its
    ``mark`` and ``backend``; whatever the journal had about it before is lost or damaged and does not count.
    """

    state: State
    why: str = ""
    node: str = ""
    vmid: int = 0
    pid: int = 0
    boot_id: str = ""
    adopted: bool = False
    rebuilt: bool = False
    backend: str = ""
    mark: str = ""


class NodeLost(_Event, frozen=True, kw_only=True, omit_defaults=True):
    """A node stopped answering; its circuit is open until `NodeFound`."""

    node: str
    error: Problem


class NodeFound(_Event, frozen=True, kw_only=True, omit_defaults=True):
    """A lost node answers again; another ``boot_id`` than before means that it was rebooted."""

    node: str
    boot_id: str = ""


Ended: TypeAlias = Succeeded | Failed | Interrupted

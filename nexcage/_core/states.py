"""The lifecycle of a container as a table, total over State x Op.

A container is ABSENT until it is created. CREATED means: it exists and has never run; STOPPED: it has run. (`pct` cannot tell
the two apart; the journal can.) Every change passes through a transitional state (CREATING, STARTING, ...), which is where the
container is while commands run. UNKNOWN is where it is when an answer was lost: nobody knows, so nothing is assumed, and the
only rule there is to look first. Looking leads to one of the states that can be observed: ABSENT, CREATED, RUNNING,
PAUSED, STOPPED.

What is odd, and why:

- "Already so" is an answer, not an error, for start, stop, pause and resume of a container that exists; never for create.
- A transitional state takes STOP and DELETE: they wait for the running operation (or end a graceful stop early), then the
  table is asked again. The operation that is under way anyway is taken too: the second `start` of a starting container waits
  and finds it running.
- START from STOPPED is legal because system containers are restarted; strict OCI fleets forbid it (see `rule`).
- DELETE of a container that runs needs `force`.
- RESUME is "already so" for a RUNNING container, but START is not for a PAUSED one: it is neither running nor stopped.
- ADOPT is how a guest that somebody else made becomes a container; it ends in what the guest is: STOPPED, RUNNING or PAUSED.
- KILL is legal in CREATED, as OCI says; a backend whose created containers have no process refuses it. STOP is "already so" there,
  unless there is a process that waits to be started: then that is ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, unique
from types import MappingProxyType
from typing import Literal

import msgspec

__all__ = [
    "BESIDE",
    "DRIVEN",
    "KEEPING",
    "LIFECYCLE",
    "OBSERVABLE",
    "TABLE",
    "TRANSITIONAL",
    "Op",
    "Rule",
    "State",
    "allowed",
    "rule",
]


@unique
class State(str, Enum):
    """Where a machine is. *Status* is only the OCI word in ``state.json``."""

    ABSENT = "absent"
    CREATING = "creating"
    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    RESUMING = "resuming"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DELETING = "deleting"
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return self.value


@unique
class Op(str, Enum):
    """The verb of an intent."""

    CREATE = "create"
    START = "start"
    STOP = "stop"
    PAUSE = "pause"
    RESUME = "resume"
    DELETE = "delete"
    KILL = "kill"
    UPDATE = "update"
    EXEC = "exec"
    PUSH = "push"
    PULL = "pull"
    SNAPSHOT = "snapshot"
    DELSNAPSHOT = "delsnapshot"
    ROLLBACK = "rollback"
    CLONE = "clone"
    RESIZE = "resize"
    MOVE_VOLUME = "move-volume"
    TEMPLATE = "template"
    MIGRATE = "migrate"
    ADOPT = "adopt"
    BACKUP = "backup"

    def __str__(self) -> str:
        return self.value


TRANSITIONAL: frozenset[State] = frozenset(
    {State.CREATING, State.STARTING, State.PAUSING, State.RESUMING, State.STOPPING, State.DELETING}
)
LIFECYCLE: frozenset[Op] = frozenset({Op.CREATE, Op.START, Op.STOP, Op.PAUSE, Op.RESUME, Op.DELETE, Op.KILL})
"""What a hint about what is possible now names."""
KEEPING: frozenset[Op] = frozenset(
    {Op.SNAPSHOT, Op.DELSNAPSHOT, Op.ROLLBACK, Op.UPDATE, Op.RESIZE, Op.MOVE_VOLUME, Op.TEMPLATE, Op.MIGRATE, Op.BACKUP}
)
"""What changes disks, settings or place and keeps the state (a rollback leaves it stopped)."""
DRIVEN: frozenset[Op] = LIFECYCLE | KEEPING | {Op.ADOPT}
"""The operations that intents exist for; the table already has the cells of the others."""
BESIDE: frozenset[Op] = frozenset({Op.EXEC, Op.PUSH})
"""What goes on inside a container beside its life: any number at once, and none of it changes where the machine is."""
OBSERVABLE: frozenset[State] = frozenset({State.ABSENT, State.CREATED, State.RUNNING, State.PAUSED, State.STOPPED})


class Rule(msgspec.Struct, frozen=True):
    """One cell of the table.

    ``go``: legal; the machine is in ``via`` while commands run and in ``to`` when they succeeded. ``keep``: legal,
    the state stays.
    ``already``: an answer, nothing runs. ``queue``: wait for the running operation and ask again. ``look``: observe
    and ask again.
    ``refuse``: IllegalTransition. ``missing``: NotFound. ``exists``: AlreadyExists. ``forced``: only with ``force=True``.
    """

    kind: Literal["go", "keep", "already", "queue", "look", "refuse", "missing", "exists"]
    via: State | None = None
    to: State | None = None
    forced: bool = False


_ALREADY = Rule("already")
_KEEP = Rule("keep")
_QUEUE = Rule("queue")
_LOOK = Rule("look")
_REFUSE = Rule("refuse")
_MISSING = Rule("missing")
_EXISTS = Rule("exists")
_START = Rule("go", State.STARTING, State.RUNNING)
_STOP = Rule("go", State.STOPPING, State.STOPPED)
_PAUSE = Rule("go", State.PAUSING, State.PAUSED)
_RESUME = Rule("go", State.RESUMING, State.RUNNING)
_DELETE = Rule("go", State.DELETING, State.ABSENT)
_DELETE_FORCED = Rule("go", State.DELETING, State.ABSENT, forced=True)
_CREATE = Rule("go", State.CREATING, State.CREATED)
_ADOPT = Rule("go", State.CREATING, State.STOPPED)

_ANY_TIME = {Op.UPDATE, Op.SNAPSHOT, Op.DELSNAPSHOT, Op.ROLLBACK, Op.CLONE, Op.RESIZE, Op.MIGRATE, Op.BACKUP}
_AT_REST = _ANY_TIME | {Op.MOVE_VOLUME, Op.TEMPLATE}
_ALIVE = _ANY_TIME | {Op.KILL, Op.EXEC, Op.PUSH, Op.PULL}
_QUEUED = {Op.STOP: _QUEUE, Op.DELETE: _QUEUE}

# What is not named here is refused; CREATE and ADOPT of what exists is `exists`; that makes the table total.
_ROWS: dict[State, dict[Op, Rule]] = {
    State.ABSENT: dict.fromkeys(Op, _MISSING) | {Op.CREATE: _CREATE, Op.ADOPT: _ADOPT},
    State.CREATING: _QUEUED,
    State.CREATED: {
        **dict.fromkeys(_AT_REST | {Op.KILL}, _KEEP),
        Op.START: _START,
        Op.STOP: _ALREADY,
        Op.DELETE: _DELETE,
    },
    State.STARTING: _QUEUED | {Op.START: _QUEUE},
    State.RUNNING: {
        **dict.fromkeys(_ALIVE, _KEEP),
        Op.START: _ALREADY,
        Op.RESUME: _ALREADY,
        Op.STOP: _STOP,
        Op.PAUSE: _PAUSE,
        Op.DELETE: _DELETE_FORCED,
    },
    State.PAUSING: _QUEUED | {Op.PAUSE: _QUEUE},
    State.PAUSED: {
        **dict.fromkeys({Op.KILL, Op.UPDATE, Op.RESIZE}, _KEEP),
        Op.PAUSE: _ALREADY,
        Op.RESUME: _RESUME,
        Op.STOP: _STOP,
        Op.DELETE: _DELETE_FORCED,
    },
    State.RESUMING: _QUEUED | {Op.RESUME: _QUEUE},
    State.STOPPING: _QUEUED,
    State.STOPPED: {
        **dict.fromkeys(_AT_REST, _KEEP),
        Op.START: _START,
        Op.STOP: _ALREADY,
        Op.DELETE: _DELETE,
    },
    State.DELETING: _QUEUED,
    State.UNKNOWN: dict.fromkeys(Op, _LOOK),
}


def _total() -> dict[tuple[State, Op], Rule]:
    def cell(state: State, op: Op) -> Rule:
        return _ROWS[state].get(op, _EXISTS if op in (Op.CREATE, Op.ADOPT) else _REFUSE)

    return {(state, op): cell(state, op) for state in State for op in Op}


TABLE: Mapping[tuple[State, Op], Rule] = MappingProxyType(_total())


def rule(state: State, op: Op, *, force: bool = False, strict_oci: bool = False, process: bool = False) -> Rule:
    """The cell for ``op`` in ``state``, with what a fleet's settings and ``force`` make of it. ``process``: a created container has one.

    ``strict_oci``: OCI's ``start`` takes only ``created`` (runtime-spec, Operations) and nothing is "already so".
    """
    cell = _STOP if process and (state, op) == (State.CREATED, Op.STOP) else TABLE[state, op]
    if cell.forced and not force:
        return _REFUSE
    if strict_oci and (cell.kind == "already" or (op is Op.START and state is State.STOPPED)):
        return _REFUSE
    return cell


def allowed(state: State, *, strict_oci: bool = False) -> tuple[str, ...]:
    """What a caller may do now, as words: ``("kill", "stop", "delete --force")``. Feeds error notes and help."""
    if state is State.UNKNOWN:
        return ("reconcile",)
    words: list[str] = []
    for op in (op for op in Op if op in LIFECYCLE):
        cell = TABLE[state, op]
        if cell.kind in ("go", "keep", "queue") and rule(state, op, force=True, strict_oci=strict_oci).kind != "refuse":
            words.append(f"{op} --force" if cell.forced else str(op))
    return tuple(words)

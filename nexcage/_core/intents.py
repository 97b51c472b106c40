"""What is wanted, as values: they can be kept, compared, sent again, and they travel in the journal."""

from __future__ import annotations

from typing import ClassVar, TypeAlias

import msgspec

from nexcage import names
from nexcage._core.keeping import Keeping
from nexcage._core.spec import Spec
from nexcage._core.states import Op
from nexcage.errors import InvalidInput

__all__ = [
    "Adopt",
    "Create",
    "Delete",
    "Exec",
    "Inside",
    "Intent",
    "Kill",
    "Pause",
    "Push",
    "Resume",
    "Start",
    "Stop",
    "force_of",
]


class _Intent(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    id: str


class Create(_Intent, frozen=True, omit_defaults=True, tag="create"):
    """Make the container ``id`` from ``spec``. Never "already so": an id that is known raises AlreadyExists.

    ``op_id`` (on every intent) is the idempotency key: the same key again gives the same outcome and no second effect.
    """

    op: ClassVar[Op] = Op.CREATE
    spec: Spec
    op_id: str | None = None

    def __post_init__(self) -> None:
        _check(self.id, self.op_id)


class Adopt(_Intent, frozen=True, omit_defaults=True, tag="adopt"):
    """Take the guest ``vmid``, which somebody else made, into the fleet as ``id``: our mark is set, nothing else changes, and it goes on
    running. ``node`` says where it is; without, it is looked for on all nodes.
    """

    op: ClassVar[Op] = Op.ADOPT
    vmid: int
    node: str = ""
    op_id: str | None = None

    def __post_init__(self) -> None:
        _check(self.id, self.op_id)
        msgspec.structs.force_setattr(self, "vmid", names.vmid(self.vmid))


class _Plain(_Intent, frozen=True, omit_defaults=True, kw_only=True):
    op_id: str | None = None

    def __post_init__(self) -> None:
        _check(self.id, self.op_id)


class Start(_Plain, frozen=True, omit_defaults=True, tag="start"):
    """Run it. From STOPPED too, unless the fleet is strict OCI."""

    op: ClassVar[Op] = Op.START


class Stop(_Plain, frozen=True, omit_defaults=True, kw_only=True, tag="stop"):
    """Ask it to shut down, wait ``timeout`` seconds, then force it. ``force`` does not ask, and ends a graceful stop
    under way.
    """

    op: ClassVar[Op] = Op.STOP
    timeout: float = 60.0
    force: bool = False

    def __post_init__(self) -> None:
        _check(self.id, self.op_id)
        _seconds(self.timeout)


class Kill(_Plain, frozen=True, omit_defaults=True, tag="kill"):
    """Deliver ``signal`` to its init from the host; a name with or without SIG in any case, or a number.

    Done means delivered, no more: that the container stopped is a later observation. Never repeated by itself.
    """

    op: ClassVar[Op] = Op.KILL
    signal: int | str = msgspec.field(default="TERM")

    def __post_init__(self) -> None:
        _check(self.id, self.op_id)
        names.signal(self.signal)


class Pause(_Plain, frozen=True, omit_defaults=True, tag="pause"):
    """Freeze every process of it (the cgroup freezer; not ``pct suspend``, which writes a CRIU dump and stops)."""

    op: ClassVar[Op] = Op.PAUSE


class Resume(_Plain, frozen=True, omit_defaults=True, tag="resume"):
    """Thaw it."""

    op: ClassVar[Op] = Op.RESUME


class Delete(_Plain, frozen=True, omit_defaults=True, kw_only=True, tag="delete"):
    """Destroy it with its volumes, after checking that it is still the one we made.

    ``force`` stops a running one first and answers ``Done(changed=False)`` for one that nobody knows. ``purge`` also
    drops it from
    backup jobs, replication and HA.
    """

    op: ClassVar[Op] = Op.DELETE
    force: bool = False
    purge: bool = False


class Exec(_Plain, frozen=True, omit_defaults=True, tag="exec"):
    """That a command ran inside: made by `nexcage.Container.exec`, kept by the journal. ``argv`` as people read it (escaped, cut
    when long), ``env`` the names only: what is said to the command and what it says is nobody's but the caller's.
    """

    op: ClassVar[Op] = Op.EXEC
    argv: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    tty: bool = False


class Push(_Plain, frozen=True, omit_defaults=True, tag="push"):
    """That a file was written inside: made by `nexcage.Container.push`, kept by the journal."""

    op: ClassVar[Op] = Op.PUSH
    path: str = ""
    sha256: str = ""
    size: int = 0


Inside: TypeAlias = Exec | Push
"""What goes on beside a container's life."""
Intent: TypeAlias = Create | Adopt | Start | Stop | Kill | Pause | Resume | Delete | Keeping


def force_of(intent: Intent | Inside) -> bool:
    """Whether the caller asked for force, where the intent knows the word."""
    return isinstance(intent, (Stop, Delete)) and intent.force


def _check(id: str, op_id: str | None) -> None:
    names.container_id(id)
    if op_id is not None:
        names.op_id(op_id)


def _seconds(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 86400:
        raise InvalidInput("timeout", value, "seconds from 0 to 86400")

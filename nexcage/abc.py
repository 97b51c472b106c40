"""Contracts for the parts that can be replaced: transports, backends, journals, sinks, placements."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

import msgspec

from nexcage._core.command import Command, Result
from nexcage._core.machine import Event, Machine
from nexcage._core.seen import Look, Mark, Settled
from nexcage._core.spec import Spec
from nexcage.names import ImageRef

if TYPE_CHECKING:
    from nexcage import Fleet
    from nexcage.tools.health import Check

__all__ = [
    "Asked",
    "Backend",
    "Candidate",
    "Draft",
    "Follows",
    "Health",
    "Hooks",
    "Journal",
    "Keeper",
    "Lease",
    "Node",
    "Placement",
    "Ref",
    "Sink",
    "Stream",
    "Transport",
    "Verb",
]

T = TypeVar("T")


class Ref(msgspec.Struct, gc=False, frozen=True):
    """Which container, where: its id, its VMID (0 before it is made, or where the backend has none) and its node's key."""

    id: str
    vmid: int
    node: str


class Stream(Protocol):
    """A running command: what it prints, as it comes. Leaving its context cancels the command by its class and reaps it."""

    def __aiter__(self) -> AsyncIterator[tuple[Literal["stdout", "stderr"], bytes]]: ...

    async def send(self, data: bytes) -> None:
        """Write to its standard input; waits while it does not read."""
        ...

    async def send_eof(self) -> None:
        """Close its standard input."""
        ...

    async def wait(self) -> Result:
        """Its end; the output is what iterating has not taken, within the command's cap."""
        ...


class Transport(Protocol):
    """How an argv reaches a node.

    Raises a NodeError only when the command surely did not begin. Once it may have begun, a lost link or a deadline is a Result
    without an exit status. A cancelled call ends the command by its class first (shielded, with a deadline).
    """

    async def run(self, command: Command[Any]) -> Result:
        """Run it to its end. Neither ``parse`` nor ``classify`` is looked at."""
        ...

    def stream(self, command: Command[Any]) -> AbstractAsyncContextManager[Stream]:
        """Run it and hand out what it prints as it comes."""
        ...

    async def aclose(self) -> None:
        """Close the link; running commands lose their answer."""
        ...


class Node(Protocol):
    """A machine that runs commands, as a backend sees it during one operation.

    `run` journals each command that is not ``safe`` as a step before it runs, adds claim and deadline, and raises
    what the command's
    ``classify`` makes of a failure. A lost answer raises and must not be caught by a backend.
    """

    @property
    def name(self) -> str:
        """The key of the node in its fleet: the host string as given."""
        ...

    @property
    def seen(self) -> Look:
        """What the look before this operation showed."""
        ...

    @property
    def vmids(self) -> range:
        """The VMIDs that the fleet may use."""
        ...

    def mark(self, id: str, vmid: int) -> Mark:
        """The mark that a container made by this operation carries."""
        ...

    async def run(self, command: Command[T]) -> T:
        """Run it; the parsed answer."""
        ...

    async def run_unless_hurried(self, command: Command[Any]) -> bool:
        """The same, but ends the command and gives False when a forced stop no longer wants to wait for it."""
        ...


@runtime_checkable
class Backend(Protocol):
    """How an operation becomes commands: each verb is the list of commands an operator would type.

    Verbs neither journal nor retry nor wait for a state: the engine does, and asks `observe` for the truth afterwards.

    Optional: ``family``: the backends that say the same word share one look, which shows the containers of all of them (``pve`` for
    ``lxc`` and ``vm``); without it a backend looks for itself. ``holds_created`` (True): a created container has a process.
    ``restarts`` (True): one that has stopped can be started again. ``only_commands`` (False): whatever its verbs change, they change by
    ``node.run``, the first of it by one alone; then the record that an operation began is written together with its first step.

    Optional: ``async def mend(self, node, ref, lock, proof)``: remove what a killed create (``lock`` "create") or delete ("destroyed")
    left half done, by a command that proves in the same breath that it is ours (``proof`` is the `nexcage.Settled` of the step that
    worked on it), or raises NotOurs. Without it such debris is reported and stays.

    Optional ways into running containers, each a method that makes one command: ``attach(mark, argv, *, env, cwd, user, size, safe,
    timeout, cap)`` (runs ``argv`` inside; says the line ``@nexcage inside`` on standard error just before), ``processes(mark)``,
    ``usage()`` and ``network()`` (of all containers of the node, by VMID), ``logs(mark, lines, follow=)``. Without one its operation is
    refused.

    Optional: ``async def tidy(self, node, ref, *, deleted)``: put away what was made beside the container, when there is none any more:
    after a delete (``deleted``), or after a create that did not happen. It is called before the outcome is written, and again by
    whoever recovers the operation; what it raises after a delete is what the delete raises.
    """

    @property
    def name(self) -> str: ...

    def accepts(self, image: ImageRef) -> bool:
        """Whether it can make a container from that kind of image."""
        ...

    def check(self, id: str, spec: Spec) -> None:
        """Refuse, before anything runs, what this backend cannot make: raises InvalidInput."""
        ...

    async def create(self, node: Node, ref: Ref, spec: Spec) -> Ref:
        """Make it with the mark of this operation; the ref with its VMID. Raises AlreadyExists only when no VMID is free."""
        ...

    async def start(self, node: Node, ref: Ref) -> int:
        """Start it; init's pid on the host, 0 when the commands did not tell."""
        ...

    async def stop(self, node: Node, ref: Ref, *, timeout: float, force: bool) -> None: ...

    async def kill(self, node: Node, ref: Ref, signal: int) -> None: ...

    async def pause(self, node: Node, ref: Ref) -> None: ...

    async def resume(self, node: Node, ref: Ref) -> None: ...

    async def delete(self, node: Node, ref: Ref, *, force: bool, purge: bool) -> None: ...

    def observe(self, node: str, ops: tuple[str, ...] = ()) -> Command[Look]:
        """The one command whose answer is the truth about all containers of the node.

        ``ops``: operation ids that the answer's ``Look.ops`` must list while a process of theirs is alive. ``Look.boot_id`` is the
        kernel's (``/proc/sys/kernel/random/boot_id``), or empty: the node refuses claims of another boot.
        """
        ...


class Keeper(Protocol):
    """What a backend may do besides (its `Look.details` must show settings and snapshots then): any of these verbs. An operation whose
    verb it lacks raises Unsupported before it begins.
    """

    async def snapshot(self, node: Node, ref: Ref, name: str, *, description: str) -> None:
        """Keep disks and settings under ``name``, with exactly that description: it says whose it is."""
        ...

    async def delsnapshot(self, node: Node, ref: Ref, name: str) -> None: ...

    async def backup(self, node: Node, ref: Ref, storage: str, *, mode: str, compress: str) -> None:
        """Save it as an archive on ``storage``, and see that it is there."""
        ...

    async def mend_snapshot(self, node: Node, ref: Ref, name: str, *, lock: str, op: str) -> None:
        """Remove what a killed snapshot (``lock`` "snapshot", made by ``op``) or its removal ("snapshot-delete") left, by a command that
        proves in the same breath that it may go, or raises NotOurs.
        """
        ...

    async def rollback(self, node: Node, ref: Ref, name: str, *, start: bool) -> None: ...

    async def update(
        self, node: Node, ref: Ref, values: Mapping[str, str], *, unset: Sequence[str], digest: str
    ) -> None:
        """Set ``values`` (PVE's keys and spelling) and unset others, if the config still has this digest; raises Changed."""
        ...

    async def adopt(self, node: Node, ref: Ref) -> None:
        """Set the mark of this operation on a guest that somebody else made, if its config is still as ``node.seen`` shows it; raises
        Changed.
        """
        ...

    async def resize(self, node: Node, ref: Ref, disk: str, size: int) -> None:
        """Let it grow to so many bytes."""
        ...

    async def move_volume(self, node: Node, ref: Ref, disk: str, storage: str, *, delete: bool) -> None: ...

    async def template(self, node: Node, ref: Ref) -> None: ...

    async def clone(self, node: Node, ref: Ref, spec: Spec) -> Ref:
        """Make it as a copy of ``spec.source`` (of the same node), as `Backend.create` makes others; with the mark of this operation."""
        ...

    async def mend_clone(self, node: Node, ref: Ref, source: Mark, proof: Settled) -> None:
        """As `Backend.mend`, for a killed clone, and what it left on its source."""
        ...

    async def migrate(
        self, node: Node, ref: Ref, target: str, *, restart: bool, timeout: int, storage: str | None
    ) -> None:
        """Move it to the PVE node ``target`` of the same cluster.

        Optional: ``async def mend_lock(self, node, ref, proof)``: take away the lock that a failed one left, as `mend_snapshot` does.
        """
        ...


@runtime_checkable
class Follows(Protocol):
    """What a backend may do besides: say how a node tells what changes there. Nodes of others are looked at now and then."""

    def follow(self) -> Command[Any]:
        """Prints a line whenever a container may have changed, until it is ended."""
        ...

    def changed(self, line: bytes) -> tuple[int, ...]:
        """The VMIDs that a line is about: none when it says nothing, 0 for all of the node's."""
        ...


Draft: TypeAlias = Event | Callable[[Mapping[str, Machine]], Event]
"""An event to append, or a function that makes it from the machines as they are under the journal's lock (raising refuses it)."""


class Journal(Protocol):
    """Where events become facts."""

    @property
    def machines(self) -> Mapping[str, Machine]:
        """Every machine as the last durable record left it."""
        ...

    @property
    def seq(self) -> int:
        """The number of the last durable record that was read or written."""
        ...

    async def append(self, *drafts: Draft) -> tuple[Event, ...]:
        """Number the events and make them durable, all or none; they are published before it returns.

        Raises what a draft raises (nothing of this call is written then) and JournalError when the disk refuses.
        """
        ...

    async def refresh(self) -> None:
        """Read what other processes have appended."""
        ...

    async def aclose(self) -> None: ...


class Lease(Protocol):
    """Who may drive the fleet: at most one state directory at a time."""

    async def hold(self) -> int:
        """The epoch under which this driver may change things now; takes or renews the lease when that is due, else no I/O.

        Raises Busy while another state directory holds it, and Fenced once after it was lost to one (what was begun under the
        old epoch must not go on).
        """
        ...

    async def aclose(self) -> None: ...


@runtime_checkable
class Sink(Protocol):
    """Takes events after they are durable. Best effort: one that raises is reported once and unplugged."""

    async def put(self, event: Event) -> None: ...

    async def aclose(self) -> None: ...


class Candidate(msgspec.Struct, frozen=True):
    """A node that could take a new container: its newest look, how many creates of ours are on their way to it, and what they make.

    Nodes that are cordoned or in the maintenance mode of Proxmox VE are no candidates.
    """

    node: str
    look: Look
    coming: int = 0
    specs: tuple[Spec, ...] = ()


class Placement(Protocol):
    """Which node takes a new container: a function of a snapshot of the fleet."""

    def place(self, id: str, spec: Spec, nodes: Sequence[Candidate]) -> str:
        """The key of one of ``nodes`` (never empty); raises NoRoute when none will do."""
        ...


class Hooks:
    """What is called around operations: any of the methods below, each with ``def`` or ``async def``. Need not be a base class.

    ``pre_OP(self, intent, machine)`` before an operation begins, ``post_OP(self, done)`` after it was done, where OP is ``create``,
    ``start``, ``stop``, ``kill``, ``pause``, ``resume``, ``delete``, ``snapshot``, ``update``, ``migrate``, ``move_volume`` and so on; and
    ``failed(self, failure)`` after any of them that was not. What finds everything so already, or is not allowed in that state, calls
    nothing; for all others exactly one of ``post_OP`` and ``failed`` follows ``pre_OP``, as long as this process lives.

    Each call has ``timeout`` seconds; plain functions run in a thread. ``policy``, when one raises or takes longer: ``skip`` names
    the plugin in the log, unplugs it and goes on; ``retry`` does so after two more tries; ``abort`` (before an operation) raises
    `nexcage.Refused` in place of the operation, and the plugin stays.
    """

    timeout: float = 5.0
    policy: Literal["skip", "retry", "abort"] = "skip"


class Asked(Protocol):
    """A node of a fleet, to be asked something."""

    @property
    def key(self) -> str: ...

    async def run(self, command: Command[T]) -> T:
        """Run it; the parsed answer. Raises CommandFailed and NodeError."""
        ...


@runtime_checkable
class Health(Protocol):
    """A check of ``nexcage health``: what it finds on one node, with 30 seconds for it. Raising is a finding too."""

    async def check(self, node: Asked) -> Sequence[Check]: ...


class Verb(Protocol):
    """A command of the program ``nexcage``, called by the name of its entry point.

    ``options`` is flags to help: ``{"-n, --count N": "how many"}``; a value is expected where a word in capitals follows.
    """

    @property
    def summary(self) -> str: ...

    @property
    def usage(self) -> str: ...

    @property
    def options(self) -> Mapping[str, str]: ...

    async def run(
        self, fleet: Fleet, words: Sequence[str], options: Mapping[str, str | bool], say: Callable[[str], None]
    ) -> int | Sequence[Mapping[str, Any]]:  # Any: whatever JSON can say
        """Do it. Rows are printed as ``--output`` says, an int is the exit status; ``say`` prints a line."""
        ...

"""The exception tree. It answers what a caller does next: fix the input, wait, read what the tool said, or try another node.

One line says what was tried, on what, and what is so; details are notes (``error.__notes__``) and attributes.
``retryable`` says that the same call may succeed later by itself, ``uncertain`` that it may already have had its effect.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

__all__ = [
    "AlreadyExists",
    "AuthRejected",
    "Blocked",
    "BundleRefused",
    "Busy",
    "Changed",
    "CommandFailed",
    "Fenced",
    "HostKeyRejected",
    "IllegalTransition",
    "InvalidBundle",
    "InvalidImage",
    "InvalidInput",
    "InvalidName",
    "InvalidPath",
    "InvalidSpec",
    "JournalError",
    "Lagged",
    "NexcageError",
    "NoQuorum",
    "NoRoute",
    "NodeError",
    "NodeNotUsable",
    "NodeTimeout",
    "NodeUnreachable",
    "NotFound",
    "NotOurs",
    "Refused",
    "SinkError",
    "Uncertain",
    "Unsupported",
    "UnsupportedImage",
    "brief",
    "escaped",
]

_PLAIN = re.compile(r"[A-Za-z0-9_./:=,;@%+-]+")
_SHOWN = 120  # characters of a refused value that an error repeats


def escaped(value: object) -> str:
    """``value`` as one harmless line of ASCII: control, non-ASCII and look-alike characters are shown as escapes,
    long ones cut.
    """
    # By type(value) and the base types' own slots: a lying __class__, a hostile __getitem__ or __repr__ must not replace
    # the error that is being made, and a __repr__ may well have line breaks.
    length = "long"
    try:
        if issubclass(type(value), (str, bytes)):
            base: Any = str if issubclass(type(value), str) else bytes  # Any: one of two types with the same slots
            length = base.__len__(value)
            text = ascii(base.__getitem__(value, slice(_SHOWN * 2)))
        else:
            text = ascii(value)
    except Exception:  # noqa: BLE001 (whatever it was)
        text = ascii(type.__repr__(type(value)))[1:-1]
    text = "".join(c if " " <= c <= "~" else f"\\x{ord(c):02x}" for c in text[: _SHOWN * 2])
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}... ({length})"


def _shown(pointer: str) -> str:
    return pointer if pointer.isascii() and pointer.isprintable() and len(pointer) <= _SHOWN else escaped(pointer)


def brief(argv: tuple[str, ...]) -> str:
    """An argv on one line for people: words that need it are escaped, and the text of a script is left out."""
    shell = argv[:2] == ("sh", "-c")
    words = [word if _PLAIN.fullmatch(word) else escaped(word) for word in argv]
    return " ".join([*words[:2], "...", *words[3:]] if shell else words)


class NexcageError(Exception):
    """Every error that nexcage raises on purpose."""

    retryable: bool = False
    """True when repeating the same call later may succeed without anybody changing anything."""
    uncertain: bool = False
    """True when the call may have had its effect although it raised; look before repeating."""
    fields: ClassVar[tuple[str, ...]] = ()
    """Names of the attributes that carry data, in the order of the constructor; the journal keeps exactly these."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else type(self).__name__

    def noted(self, *notes: str) -> NexcageError:
        """The same error with ``notes`` added (empty ones are left out)."""
        for note in notes:
            if note:
                self.add_note(note)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        state = self.__dict__.copy()
        if "__notes__" in state:  # a copy has notes of its own
            state["__notes__"] = list(state["__notes__"])
        return (_restore, (type(self), self.args, state))


def _restore(kind: type[NexcageError], args: tuple[object, ...], state: dict[str, object]) -> NexcageError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class InvalidInput(NexcageError, ValueError):
    """A value was refused before anything ran. ``reason`` says what is allowed."""

    fields: ClassVar[tuple[str, ...]] = ("field", "value", "reason")

    def __init__(self, field: str, value: object, reason: str) -> None:
        # A key of a document may be the field, and be anything.
        named = field if field.isascii() and field.isprintable() else escaped(field)[1:-1]
        super().__init__(f"invalid {named} {escaped(value)}: {reason}")
        self.field: str = field
        self.value: object = value
        self.reason: str = reason


class InvalidName(InvalidInput):
    """An id, host name, VMID, tag, storage or other name."""


class InvalidPath(InvalidInput):
    """A path, or a path that should exist and does not."""


class InvalidSpec(InvalidInput):
    """A container description or a configuration document; ``field`` is the place inside it (JSON pointer or dotted key)."""


class InvalidBundle(InvalidInput):
    """A document of a bundle or an image is not valid: ``pointer`` (RFC 6901) is the place in it, ``reason`` what is wrong there.

    ``document`` names it (``config.json``); a value that the document does not have is pointed at where it should be, and ``""`` is the
    whole document.
    """

    fields: ClassVar[tuple[str, ...]] = ("document", "pointer", "reason")

    def __init__(self, document: str, pointer: str, reason: str) -> None:
        super().__init__(document, pointer, reason)
        NexcageError.__init__(self, f"invalid {document}{f' at {_shown(pointer)}' if pointer else ''}: {reason}")
        self.document: str = document
        self.pointer: str = pointer


class InvalidImage(InvalidInput):
    """An image of this machine is damaged, made to do harm, or larger than allowed: ``where`` is the part of it (``layer 2 of 5``)."""

    fields: ClassVar[tuple[str, ...]] = ("where", "reason")

    def __init__(self, where: str, reason: str) -> None:
        super().__init__("image", where, reason)
        NexcageError.__init__(self, f"invalid image: {where}: {reason}")
        self.where: str = where


class BundleRefused(NexcageError):
    """A bundle asks for what cannot be had with that backend or on that node, and nobody allowed to drop it; nothing was made.

    ``refused`` are JSON pointers into its config.json, ``reasons`` say why, one for each.
    """

    fields: ClassVar[tuple[str, ...]] = ("bundle", "where", "refused", "reasons")

    def __init__(self, bundle: str, where: str, refused: tuple[str, ...], reasons: tuple[str, ...]) -> None:
        told = [f"{_shown(pointer)}: {reason}" for pointer, reason in zip(refused, reasons, strict=False)] or [""]
        more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
        super().__init__(f"cannot make bundle {escaped(bundle)} into a container of {escaped(where)}: {told[0]}{more}")
        self.bundle: str = bundle
        self.where: str = where
        self.refused: tuple[str, ...] = refused
        self.reasons: tuple[str, ...] = reasons
        field = next((pointer for pointer in refused if not pointer.startswith("/root")), None)
        ways = (
            []
            if field is None
            else [f"to do without: --allow {_shown(field)}; nexcage plan shows what becomes of all of it"]
        )
        self.noted(*told[1:20], *ways)


class UnsupportedImage(InvalidInput):
    """An image that no backend takes; the reason names the ways that exist."""


class IllegalTransition(NexcageError):
    """The operation is not possible in this state and changed nothing; ``allowed`` says what is possible now."""

    fields: ClassVar[tuple[str, ...]] = ("id", "op", "state", "allowed")

    def __init__(self, id: str, op: str, state: str, allowed: tuple[str, ...] = (), reason: str = "") -> None:
        super().__init__(f"cannot {op} container {escaped(id)}: {reason or f'it is {state}'}")
        self.id: str = id
        self.op: str = op
        self.state: str = state
        self.allowed: tuple[str, ...] = tuple(allowed)
        if allowed:
            self.add_note(f"allowed now: {', '.join(allowed)}")


class NotFound(NexcageError, LookupError):
    """Nobody knows this container (node, snapshot, ...)."""

    fields: ClassVar[tuple[str, ...]] = ("what", "name")

    def __init__(self, what: str, name: object, reason: str = "does not exist") -> None:
        super().__init__(f"{what} {escaped(name)} {reason}")
        self.what: str = what
        self.name: str = str(name)


class AlreadyExists(NexcageError):
    """The id is taken."""

    fields: ClassVar[tuple[str, ...]] = ("what", "name")

    def __init__(self, what: str, name: object, reason: str = "already exists") -> None:
        super().__init__(f"{what} {escaped(name)} {reason}")
        self.what: str = what
        self.name: str = str(name)


class NoRoute(NexcageError):
    """No backend or no node is left for this intent."""


class NotOurs(NexcageError):
    """The container on the node does not carry our mark, or another one has taken its place; nothing was changed."""

    fields: ClassVar[tuple[str, ...]] = ("id", "node", "vmid")

    def __init__(self, id: str, node: str, vmid: int, reason: str) -> None:
        super().__init__(f"will not touch {vmid} on {escaped(node)} for container {escaped(id)}: {reason}")
        self.id: str = id
        self.node: str = node
        self.vmid: int = vmid


class Refused(NexcageError):
    """A hook of ``plugin`` with the policy ``abort`` said no, or failed; the operation did not begin."""

    fields: ClassVar[tuple[str, ...]] = ("plugin", "reason")

    def __init__(self, plugin: str, what: str, reason: str) -> None:
        super().__init__(f"cannot {what}: plugin {escaped(plugin)} refuses it: {reason}")
        self.plugin: str = plugin
        self.reason: str = reason


class Busy(NexcageError):
    """Someone else's operation or lock holds the container: wait, or ask ``owner``."""

    retryable = True
    fields: ClassVar[tuple[str, ...]] = ("what", "owner")

    def __init__(self, what: str, owner: str) -> None:
        super().__init__(f"{what} is busy: {owner}")
        self.what: str = what
        self.owner: str = owner


class Changed(NexcageError):
    """The config is another one than the change was meant for (``digest``, and the one ``found``): read it again, then decide."""

    fields: ClassVar[tuple[str, ...]] = ("what", "digest", "found")

    def __init__(self, what: str, digest: str = "", found: str = "") -> None:
        super().__init__(f"{what} was changed meanwhile: its config is not the one that this change is meant for")
        self.what: str = what
        self.digest: str = digest
        self.found: str = found


class Unsupported(NexcageError):
    """The container's backend cannot do this operation; nothing was begun."""

    fields: ClassVar[tuple[str, ...]] = ("id", "op", "backend")

    def __init__(self, id: str, op: str, backend: str, reason: str = "has no such verb") -> None:
        super().__init__(f"cannot {op} container {escaped(id)}: backend {escaped(backend)} {reason}")
        self.id: str = id
        self.op: str = op
        self.backend: str = backend


class Blocked(NexcageError):
    """Cannot go on without a person; ``holder`` says what is in the way."""

    fields: ClassVar[tuple[str, ...]] = ("what", "holder")

    def __init__(self, what: str, holder: str) -> None:
        super().__init__(f"{what} is blocked by {holder}")
        self.what: str = what
        self.holder: str = holder


class Uncertain(NexcageError):
    """Nobody knows whether the operation happened; the container is ``UNKNOWN`` until someone looks (``reconcile``)."""

    uncertain = True
    fields: ClassVar[tuple[str, ...]] = ("op_id", "reason")

    def __init__(self, op_id: str, reason: str) -> None:
        super().__init__(f"it is not known whether operation {op_id} happened: {reason}")
        self.op_id: str = op_id
        self.reason: str = reason


class CommandFailed(NexcageError):
    """A tool ran and said no. ``stderr`` is what it said (bytes decoded with escapes shown)."""

    fields: ClassVar[tuple[str, ...]] = ("node", "argv", "exit", "stderr")

    def __init__(self, node: str, argv: tuple[str, ...], exit: int, stderr: str, stdout: str = "") -> None:
        said = stderr.strip().splitlines()
        super().__init__(
            f"{' '.join(argv[:2])} on {node} failed: {said[-1] if said else f'exit status {exit}, no message'}"
        )
        self.node: str = node
        self.argv: tuple[str, ...] = tuple(argv)
        self.exit: int = exit
        self.stderr: str = stderr
        self.stdout: str = stdout
        self.noted(f"ran: {brief(argv)} (exit {exit})")
        if len(said) > 1:
            self.add_note("\n".join(said[-6:]))


class Fenced(NexcageError):
    """Another state directory has taken the fleet's lease: what this driver wanted surely did not begin. ``epoch`` is the newer one."""

    fields: ClassVar[tuple[str, ...]] = ("fleet", "epoch")

    def __init__(self, fleet: str, epoch: int = 0) -> None:
        super().__init__(
            f"fleet {escaped(fleet)} is driven from another state directory now (epoch {epoch or 'unknown'})"
        )
        self.fleet: str = fleet
        self.epoch: int = epoch


class NodeError(NexcageError):
    """Something is wrong with a node, not with a container; try later or another node."""

    fields: ClassVar[tuple[str, ...]] = ("node", "reason")
    says: ClassVar[str] = "cannot use node"

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(f"{self.says} {node}: {reason}")
        self.node: str = node
        self.reason: str = reason


class NodeUnreachable(NodeError):
    """No connection; nothing was started."""

    retryable = True
    says = "cannot reach node"


class NodeTimeout(NodeError, TimeoutError):
    """The node did not answer in time. When a command may have begun, ``uncertain`` is set on the instance."""

    retryable = True
    says = "no answer in time from node"


class HostKeyRejected(NodeError):
    """The host key is unknown or has changed; never retried."""

    says = "host key rejected for node"


class AuthRejected(NodeError):
    """The login was refused; never retried."""

    says = "login rejected by node"


class NodeNotUsable(NodeError):
    """The node answers but lacks what is needed (no ``pct``, no rights); the message says what to do."""

    says = "cannot use node"


class NoQuorum(NodeError):
    """The node's cluster has no quorum: it can be read, not changed."""

    retryable = True
    says = "no quorum on node"


class JournalError(NexcageError):
    """The journal could not be written or read; no operation was begun."""


class SinkError(NexcageError):
    """An event sink failed and was unplugged; operations go on."""


class Lagged(NexcageError):
    """A subscriber fell behind and lost events; ``since`` is the number to resume from."""

    fields: ClassVar[tuple[str, ...]] = ("since", "missed")

    def __init__(self, since: int, missed: int) -> None:
        super().__init__(f"lagged behind by {missed} events; subscribe(since={since}) resumes")
        self.since: int = since
        self.missed: int = missed

"""What an operation leaves beside its container: put away before its outcome is written, so that whoever recovers it does it again."""

from __future__ import annotations

from contextlib import suppress

from nexcage._core.events import Began
from nexcage._core.intents import Create
from nexcage._core.machine import Machine
from nexcage._core.seen import Look, undone
from nexcage._core.states import Op, State
from nexcage.abc import Backend, Node, Ref
from nexcage.errors import JournalError, NexcageError, NodeError

__all__ = ["completed", "handed", "leaves", "rehearsed", "tidied", "tidies", "unpacked"]

_LEAVE = {(Op.CREATE, "not"), (Op.DELETE, "done")}


def leaves(began: Began, verdict: str, machine: Machine, look: Look | None) -> bool:
    """Whether there is no container any more, and what was made for it may still be there."""
    gone = verdict == "not" and look is not None and undone(began, machine, look)
    return gone or (began.op, verdict) in _LEAVE


def tidies(backend: Backend | None, began: Began, machine: Machine) -> bool:
    """Whether the backend has anything to put away for it."""
    return machine.steps > 0 and (
        hasattr(backend, "tidy") or (hasattr(backend, "tidy_bundle") and _is_bundle(began, machine))
    )


def _is_bundle(began: Began, machine: Machine) -> bool:
    spec = began.intent.spec if isinstance(began.intent, Create) else machine.spec
    return spec is not None and (spec.bundle is not None or handed(began))


def handed(began: Began) -> bool:
    """Whether it is a create from an archive that is sent for it alone: Proxmox VE makes the container of the image."""
    return isinstance(began.intent, Create) and began.intent.spec.content is not None and began.backend == "lxc"


async def unpacked(backend: Backend | None, node: Node, began: Began, machine: Machine) -> None:
    """After a create that nobody drove to its end: its archive goes. What cannot be removed is swept by a later create there."""
    if handed(began) and (tidy := getattr(backend, "tidy_bundle", None)) is not None:
        with suppress(NexcageError):
            await tidy(node, Ref(began.id, machine.vmid, began.node))


async def completed(
    backend: Backend | None, node: Node, began: Began, machine: Machine, look: Look
) -> NexcageError | None:
    """After a start that nobody drove to its end: what the backend does once the program runs; the error when that failed. Raises
    JournalError, NodeError to be asked again later, and Lost when nobody knows.
    """
    complete, guest = getattr(backend, "started", None), look.guests.get(machine.vmid)
    if began.op is not Op.START or complete is None or not _is_bundle(began, machine):
        return None
    if guest is None or guest.waiting:
        return None
    first = began.before is State.CREATED and machine.pid > 0
    try:
        await complete(node, Ref(began.id, machine.vmid, began.node), guest.pid, first=first)
    except JournalError:
        raise
    except NexcageError as error:
        if isinstance(error, NodeError) and error.retryable:
            raise
        return error
    return None


async def tidied(backend: Backend | None, node: Node, began: Began, machine: Machine) -> NexcageError | None:
    """Have the backend put it away; the error when it could not. Raises JournalError, and Lost when nobody knows."""
    if not tidies(backend, began, machine):
        return None
    try:
        await _tidy(backend, node, began, machine)
    except JournalError:
        raise
    except NexcageError as error:
        return error
    return None


async def _tidy(backend: Backend | None, node: Node, began: Began, machine: Machine) -> None:
    ref = Ref(began.id, machine.vmid, began.node)
    if (tidy := getattr(backend, "tidy", None)) is not None:
        await tidy(node, ref, deleted=began.op is Op.DELETE)
    if _is_bundle(began, machine) and (tidy := getattr(backend, "tidy_bundle", None)) is not None:
        await tidy(node, ref)


async def rehearsed(backend: Backend, stage: Node, began: Began, machine: Machine) -> None:
    """What would be put away after a delete, for a dry run."""
    if began.op is Op.DELETE:
        await _tidy(backend, stage, began, machine)

"""What an operation leaves beside its container: put away before its outcome is written, so that whoever recovers it does it again."""

from __future__ import annotations

from nexcage._core.events import Began
from nexcage._core.machine import Machine
from nexcage._core.states import Op
from nexcage.abc import Backend, Node, Ref
from nexcage.errors import JournalError, NexcageError

__all__ = ["leaves", "rehearsed", "tidied"]

_LEAVE = {(Op.CREATE, "not"), (Op.DELETE, "done")}


def leaves(began: Began, verdict: str) -> bool:
    """Whether there is no container any more, and what was made for it may still be there."""
    return (began.op, verdict) in _LEAVE


async def tidied(backend: Backend | None, node: Node, began: Began, machine: Machine) -> NexcageError | None:
    """Have the backend put it away; the error when it could not. Raises JournalError, and Lost when nobody knows."""
    tidy = getattr(backend, "tidy", None)
    if tidy is None or machine.steps == 0:
        return None
    try:
        await tidy(node, Ref(began.id, machine.vmid, began.node), deleted=began.op is Op.DELETE)
    except JournalError:
        raise
    except NexcageError as error:
        return error
    return None


async def rehearsed(backend: Backend, stage: Node, began: Began, machine: Machine) -> None:
    """What would be put away after a delete, for a dry run."""
    tidy = getattr(backend, "tidy", None)
    if tidy is not None and began.op is Op.DELETE:
        await tidy(stage, Ref(began.id, machine.vmid, began.node), deleted=True)

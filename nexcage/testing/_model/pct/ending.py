"""How a call of ``pct`` or ``qm`` is carried out, and how it ends when PVE refuses it: its words, and a status that means nothing."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from nexcage.testing._model.pct.job import BadParameter, Job
from nexcage.testing._model.schema import Refused
from nexcage.testing._model.storage import Die
from nexcage.testing._model.tool import Ctx, Steps

__all__ = ["carry_out", "complain"]


def carry_out(job: Job, package: str, handler: str) -> Steps:
    """Let ``handler`` (``module:function`` below ``package``) do it."""
    module, _, name = handler.partition(":")
    do: Callable[[Job], Steps] = getattr(import_module(f"{package}.{module}"), name)
    try:
        return (yield from do(job))
    except BadParameter as error:
        job.warn(job.refused(error.errors))
        return 2
    except (Die, Refused) as error:
        complain(job.ctx, error)
        return job.node.random.choice((2, 4, 25, 255))


def complain(ctx: Ctx, error: Die | Refused) -> None:
    """Its text on standard error, with one newline at its end."""
    ctx.err(error.text + ("" if error.text.endswith("\n") else "\n"))

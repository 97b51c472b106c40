"""One seed from beginning to end."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Sequence

from nexcage.testing._explore.history import History, told
from nexcage.testing._explore.plan import drawn
from nexcage.testing._explore.promises import judged
from nexcage.testing._explore.world import World
from nexcage.testing.clock import virtual_run

__all__ = ["explored"]


def explored(seed: int, *, only: Sequence[int] | None = None) -> History:
    """Draw the plan of a seed, run it, judge it."""
    plan = drawn(seed)
    if only is not None:
        plan = plan.only(only)
    log = logging.getLogger("nexcage")
    quiet, log.disabled = log.disabled, True  # warnings about broken sinks and full disks are what it is made of
    began = time.process_time()
    world = World(plan)
    try:
        wrong = _judged(world)
        return told(world, wrong, time.process_time() - began)
    finally:
        world.close()
        log.disabled = quiet


def _judged(world: World) -> list[str]:
    try:
        virtual_run(world.run)
    except Exception:  # noqa: BLE001 (whatever it is, it belongs into the report of this seed)
        return [*world.wrong, f"the run broke:\n{traceback.format_exc()}"]
    return judged(world)

"""Deterministic simulation: one seed is one run in virtual time of several drivers, a cluster, and everything that can go wrong.

`explore` runs one seed and gives its `History`: everything that happened, and which promises broke. The same seed gives the same
history, event for event. ``python -m nexcage.testing.explore`` runs many.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType

from nexcage.testing._explore.history import History

__all__ = ["History", "explore"]


def explore(seed: int, *, only: Sequence[int] | None = None) -> History:
    """Run one seed. ``only``: with these of its steps alone (their numbers stand in a failing run's report)."""
    from nexcage.testing._explore.run import explored

    return explored(seed, only=only)


class _Callable(ModuleType):
    """Importing this module makes it the attribute ``explore`` of its package, in the place of the function: be that, too."""

    def __call__(self, seed: int, *, only: Sequence[int] | None = None) -> History:
        return explore(seed, only=only)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    from nexcage.testing._explore.command import main

    sys.exit(main(sys.argv[1:]))

"""Numbers of cgroup version 1 in those of version 2."""

from __future__ import annotations

import math

__all__ = ["io_weight", "weight"]


def weight(shares: int) -> int:
    """``cpu.shares`` (2..262144) as a weight of 1..10000, so that 1024 is the default 100: the formula of runc from 1.3.2 on
    and crun from 1.23 on. Older ones use ``1 + (shares - 2) * 9999 / 262142``, where 1024 becomes 39.
    """
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def io_weight(given: int) -> int:
    """``blockIO.weight`` (10..1000) as ``io.weight`` (1..10000), as runc and crun convert it."""
    return min(10000, max(1, 1 + (given - 10) * 9999 // 990))

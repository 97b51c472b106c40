"""Long work says how far it has come, and short work says nothing."""

from __future__ import annotations

import logging

import anyio
import pytest

from nexcage._engine.telling import Telling
from nexcage.testing import SimCluster

MIB = 1 << 20


@pytest.mark.sim(nodes=1)
async def test_it_is_told_ever_more_rarely(sim: SimCluster, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nexcage.progress")
    telling = Telling("packing /srv/web", 20 * MIB)
    for _ in range(20):
        await anyio.sleep(1)
        telling.more(MIB)

    assert [record.getMessage() for record in caplog.records if record.name == "nexcage.progress"] == [
        f"packing /srv/web: {done} of 20 MiB" for done in (2, 4, 8, 16)
    ]


@pytest.mark.sim(nodes=1)
async def test_what_is_over_at_once_is_not_told(sim: SimCluster, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nexcage.progress")
    Telling("packing /srv/web").more(500 * MIB)

    assert not [record for record in caplog.records if record.name == "nexcage.progress"]

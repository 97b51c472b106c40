"""The table of docs/bundles.md is what the code does, property by property."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from nexcage._core.bundle import Config, Decoded
from nexcage._core.bundle_plan.decide import BACKENDS, plan
from nexcage._core.bundle_plan.model import Bundle
from nexcage._core.bundle_plan.walk import leaves
from tests.core.bundle_plan.documents import drawn

PAGE = Path(__file__).parents[2] / "docs" / "bundles.md"
DOCUMENTS = 160  # enough that every verdict of the table is seen, and the same ones each time


def table() -> dict[str, dict[str, set[str]]]:
    rows = re.findall(r"^\| `(/[^`]*)` \| ([a-z, ]+) \| ([a-z, ]+) \| ([a-z, ]+) \|", PAGE.read_text(), re.MULTILINE)
    return {row: {"lxc": words(lxc), "crun": words(crun), "runc": words(runc)} for row, lxc, crun, runc in rows}


def words(cell: str) -> set[str]:
    return set(cell.split(", "))


def row_of(shape: str, rows: dict[str, re.Pattern[str]]) -> str:
    """The most exact row that a property is at or below."""
    found = [row for row, pattern in rows.items() if pattern.match(shape)]
    assert found, f"{shape} has no row"
    return max(found, key=len)


def verdicts(config: Config, backend: str) -> dict[str, str]:
    made = plan(Decoded(config), Bundle("/srv/bundle"), backend=backend)
    groups = {"applied": made.applied, "approximated": made.approximated, "refused": made.refused}
    entries = {entry.pointer: name for name, group in groups.items() for entry in group}
    found: dict[str, str] = {}
    for leaf in leaves(config):
        place = leaf
        while place not in entries:
            place = place.rpartition("/")[0]
        found[leaf] = entries[place]
    return found


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_table_says_what_becomes_of_every_property(backend: str) -> None:
    rows = table()
    patterns = {row: re.compile(row.replace("*", "[^/]+") + "(?=/|$)") for row in rows}
    chance, places, seen = random.Random(7), dict[str, str](), dict[str, set[str]]()

    for _ in range(DOCUMENTS):
        for leaf, verdict in verdicts(drawn(chance), backend).items():
            shape = re.sub("/[0-9]+(?=/|$)", "/0", leaf)
            row = places.setdefault(shape, "") or row_of(shape, patterns)
            places[shape] = row
            seen.setdefault(row, set()).add(verdict)

    assert seen == {row: cells[backend] for row, cells in rows.items()}

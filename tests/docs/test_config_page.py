"""The page of settings names every setting."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import nexcage

PAGE = (Path(__file__).parents[2] / "docs" / "config.md").read_text(encoding="utf-8")
WORDS = set(re.findall(r"`([a-z_]+)`", PAGE)) | set(re.findall(r"\[\[?([a-z_]+)", PAGE))


@pytest.mark.parametrize(
    "kind",
    [
        nexcage.Config,
        nexcage.Limits,
        nexcage.NodeConfig,
        nexcage.Defaults,
        nexcage.Route,
        nexcage.LeaseConfig,
        nexcage.ZfsConfig,
        nexcage.ContentsConfig,
    ],
)
def test_every_setting_is_on_the_page(kind: type) -> None:
    assert set(kind.__struct_fields__) - WORDS == set()  # type: ignore[attr-defined]


@pytest.mark.parametrize("field", nexcage.Limits.__struct_fields__)
def test_the_defaults_of_limits_are_those_on_the_page(field: str) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith("|") and f"`{field}`" in line]
    names, values = (cell.strip() for cell in row.split("|")[1:3])
    shown = values.split(", ")[re.findall(r"`([a-z_]+)`", names).index(field)]

    assert float(shown) == getattr(nexcage.Limits(), field)

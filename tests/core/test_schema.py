"""The published schema is the one of the types, and it says yes and no as they do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import nexcage

PUBLISHED = Path(__file__).parents[2] / "docs" / "config.schema.json"


def test_the_published_schema_is_that_of_the_types() -> None:
    shown = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    assert shown == nexcage.config_schema(), "nexcage config schema > docs/config.schema.json"


def test_every_setting_is_in_it_and_no_other_is_allowed() -> None:
    schema = nexcage.config_schema()
    assert set(schema["properties"]) == set(nexcage.Config.__struct_fields__)
    assert schema["additionalProperties"] is False
    for kind in (nexcage.Limits, nexcage.Defaults, nexcage.NodeConfig, nexcage.Route, nexcage.LeaseConfig):
        table = schema["$defs"][kind.__name__]
        assert (set(table["properties"]), table["additionalProperties"]) == (set(kind.__struct_fields__), False)


@pytest.mark.parametrize("word", ["auto", "always", "off"])
def test_the_words_that_a_setting_takes_are_in_it(word: str) -> None:
    assert word in nexcage.config_schema()["properties"]["runner"]["enum"]


def test_it_refers_only_to_what_it_has() -> None:
    schema = nexcage.config_schema()
    text = json.dumps(schema)
    for part in text.split('"$ref": "#/$defs/')[1:]:
        assert part.split('"')[0] in schema["$defs"]

"""The configuration as a JSON schema, made from the types that read it."""

from __future__ import annotations

import re
from typing import Any, cast

import msgspec

from nexcage._core.config import Config

__all__ = ["config_schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def config_schema() -> dict[str, Any]:  # Any: JSON
    """JSON schema (2020-12) of ``config.toml``: every key, its type, its default, the words it takes; unknown keys are errors."""
    schema = msgspec.json.decode(msgspec.json.encode(msgspec.json.schema(Config)))  # as JSON has it: no tuples
    tables = cast("dict[str, Any]", schema["$defs"])  # Any: JSON
    for table in tables.values():
        if "description" in table:
            table["description"] = re.sub(r"\s+", " ", table["description"]).replace("``", "`")
    whole = {**tables.pop("Config"), "title": "nexcage configuration"}
    return {"$schema": DIALECT, **whole, "$defs": dict(sorted(tables.items()))}

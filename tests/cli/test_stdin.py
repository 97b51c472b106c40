"""Standard input of what runs inside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest

from nexcage._cli import verbs_exec


class Heard:
    """Streams of the command line of which only the complaints count."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.anyio
async def test_standard_input_that_cannot_be_read_has_an_end_and_is_told(tmp_path: Path) -> None:
    heard = Heard()
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        assert await verbs_exec._read(descriptor, cast("Any", heard)) == b""
    finally:
        os.close(descriptor)

    assert heard.said == ["nexcage: exec: standard input cannot be read: Is a directory"]

"""Limits in the words of crun and runc: checked before anything runs, and handed on as they are."""

from __future__ import annotations

import pytest

from nexcage import InvalidInput, Update
from nexcage._core.changes import settings
from nexcage._core.seen import Mark
from nexcage.tools import runtime
from nexcage.tools.runtime import Runtime

MARK = Mark("f1", "web-1", 100, "op1")


def test_limits_are_options_and_a_document_is_the_input() -> None:
    values = settings(Update("web-1", memory=64, limits={"pids-limit": "50", "resources": "{}"}), mark="")
    given = {key[2:]: value for key, value in values.items() if key.startswith("--")}

    command = runtime.update(Runtime("runc"), MARK, given, memory=64 << 20)

    assert command.argv[-5:] == ("--pids-limit=50", "--resources=-", "--memory", str(64 << 20), "web-1")
    assert command.stdin == b"{}"


@pytest.mark.parametrize(
    "limits",
    [
        {"help": ""},
        {"root": "/"},
        {"--pids-limit": "1"},
        {"pids-limit": 1},
        {"memory": "\0"},
        {"resources": "x" * 99_999},
    ],
)
def test_what_is_no_limit_is_refused(limits: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="limits"):
        Update("web-1", limits=limits)

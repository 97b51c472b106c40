"""The pretend pct answers as the real one did."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nexcage.testing import replay

CASES = Path(__file__).parent.parent / "cases" / "pct"


def cases() -> Iterator[Any]:
    for case in replay.load([CASES]):
        yield pytest.param(case, id=case["name"])


@pytest.mark.parametrize("case", list(cases()))
def test_the_pretend_pct_answers_as_the_real_one_did(case: replay.Case) -> None:
    differences = replay.replay(case)

    if differences and case.get("needs"):
        pytest.skip(f"the pretend node cannot make what this run needs: {', '.join(case['needs'])}")
    assert differences == []


def test_a_wrong_answer_is_found_and_named(tmp_path: Path) -> None:
    case = next(iter(replay.load([CASES / "status.jsonl"])))
    wrong = {**case, "stdout": "status: melted\n", "after": {**case["after"], "running": [100]}}
    file = tmp_path / "wrong.jsonl"
    file.write_text(json.dumps(wrong) + "\n")

    done = subprocess.run(
        [sys.executable, "-m", "nexcage.testing.replay", str(file), "--output", "json"],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip

    result = json.loads(done.stdout)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "0 passed, 1 failed, 0 left out"
    assert [d["field"] for d in result["cases"][0]["differences"]] == ["stdout", "after.running"]


def test_lines_of_refused_options_are_compared_as_a_set() -> None:
    one = "400 Parameter verification failed.\na: x\nb: y\npct x\n"
    other = "400 Parameter verification failed.\nb: y\na: x\npct x\n"

    assert replay.normalise(one) == replay.normalise(other)
    assert replay.normalise("a\nb\n") != replay.normalise("b\na\n")

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


def replayed(tmp_path: Path, *cases: dict[str, Any]) -> tuple[int, dict[str, Any], list[str]]:
    file = tmp_path / "cases.jsonl"
    file.write_text("".join(json.dumps(case) + "\n" for case in cases))
    done = subprocess.run(
        [sys.executable, "-m", "nexcage.testing.replay", str(file), "--output", "json"],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr.splitlines()


def test_only_a_case_that_needs_something_is_left_out_and_it_is_named(tmp_path: Path) -> None:
    case = dict(next(iter(replay.load([CASES / "status.jsonl"]))))
    wrong = {**case, "stdout": "status: melted\n", "name": "needy", "needs": ["guest"]}

    code, result, said = replayed(tmp_path, wrong, case)

    assert code == 0
    assert said[-2:] == ["left out: needy", "1 passed, 0 failed, 1 left out"]
    assert (result["passed"], result["failed"], result["left_out"]) == (1, 0, 1)
    assert [one["result"] for one in result["cases"]] == ["left_out", "passed"]


def test_a_tool_that_is_not_simulated_costs_its_own_case_only(tmp_path: Path) -> None:
    case = dict(next(iter(replay.load([CASES / "status.jsonl"]))))

    code, result, said = replayed(tmp_path, {**case, "argv": ["frobnicate"]}, case)

    assert code == 1
    assert said[-1] == "1 passed, 1 failed, 0 left out"
    assert result["cases"][0]["differences"] == [{"field": "argv", "expected": "frobnicate", "got": "not simulated"}]


def test_a_file_of_something_else_is_a_wrong_call(tmp_path: Path) -> None:
    code, result, said = replayed(tmp_path, {"hello": 1})

    assert (code, result) == (2, {})
    assert "no recorded cases" in said[-1]


def test_lines_of_refused_options_are_compared_as_a_set() -> None:
    one = "400 Parameter verification failed.\na: x\nb: y\npct x\n"
    other = "400 Parameter verification failed.\nb: y\na: x\npct x\n"

    assert replay.normalise(one) == replay.normalise(other)
    assert replay.normalise("a\nb\n") != replay.normalise("b\na\n")

"""The suite itself: its table, its reports, and a short run on a simulated node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from nexcage.testing.real_sshd import missing
from tests.e2e.report import Result, as_markdown, exit_status, write
from tests.e2e.rows import ROWS
from tests.e2e.run import Run
from tests.e2e.site import Site

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"date": "2026-01-01", "node": "pve-01 (simulated)", "nexcage": "1.0"}


def result(status: str, number: int = 1, message: str = "fine") -> Result:
    return Result(number, f"Test {number}", "nexcage list", status, 12, message)  # type: ignore[arg-type]


def test_there_are_57_tests_in_the_predecessors_order() -> None:
    assert [row.number for row in ROWS] == list(range(1, 58))
    assert len({row.name for row in ROWS}) == 57
    assert all(row.name.startswith("LXC Container ") for row in ROWS[29:37])
    assert [row.name for row in ROWS[37:53:8]] == ["OCI Container Creation", "Runc Container Creation"]


def test_the_reports_have_a_row_for_each_test_and_say_how_many_failed(tmp_path: Path) -> None:
    results = [result("PASS"), result("FAIL", 2, "exit status 1: a | b\nand more")]

    write(tmp_path, results, ENVIRONMENT)
    told = json.loads((tmp_path / "report.json").read_text())

    assert {key: told[key] for key in ("passed", "failed", "skipped")} == {"passed": 1, "failed": 1, "skipped": 0}
    assert told["environment"] == ENVIRONMENT
    assert told["tests"][0] == {"number": 1, "name": "Test 1", "status": "PASS", "ms": 12, "message": "fine"}
    page = (tmp_path / "report.md").read_text()
    assert "| 2 | Test 2 | `nexcage list` | FAIL | 12 | exit status 1: a \\| b and more |" in page
    assert "1 passed, 1 failed, 0 skipped of 2" in page
    assert page == as_markdown(results, ENVIRONMENT)


@pytest.mark.parametrize(("statuses", "expected"), [("PASS", 0), ("PASS FAIL", 1), ("PASS SKIP", 1), ("", 1)])
def test_only_a_run_in_which_all_passed_exits_0(statuses: str, expected: int) -> None:
    assert exit_status([result(status) for status in statuses.split()]) == expected


def test_on_a_node_that_does_nothing_every_test_fails_and_none_is_skipped(tmp_path: Path) -> None:
    results = list(Run(Site("nowhere", ["false"]), ROOT, tmp_path).rows(range(1, 58)))

    assert [one.number for one in results] == list(range(1, 58))
    assert {one.status for one in results} == {"FAIL"}


def test_a_node_that_says_yes_to_everything_passes_no_test(tmp_path: Path) -> None:
    results = list(Run(Site("yes", ["true"]), ROOT, tmp_path).rows(range(1, 58)))

    assert {one.status for one in results} == {"FAIL"}


@pytest.mark.skipif(
    bool(missing()) or not shutil.which("ssh"), reason=missing() or "no ssh: apt-get install openssh-client"
)
def test_a_short_run_on_a_simulated_node_writes_both_reports(tmp_path: Path) -> None:
    import sys

    argv = [sys.executable, "-m", "tests.e2e", "--only", "4-7", "--report", str(tmp_path / "out")]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=230)
    told = json.loads((tmp_path / "out" / "report.json").read_text())

    assert done.returncode == 0, done.stdout + done.stderr
    assert [(one["number"], one["status"]) for one in told["tests"]] == [(number, "PASS") for number in range(1, 8)]
    assert told["environment"]["node"] == "pve-01 (simulated)"
    assert (tmp_path / "out" / "report.md").read_text().startswith("# nexcage end-to-end report\n")

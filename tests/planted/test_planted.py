"""Known mistakes, planted one at a time: at least one suite must go red, and without them all must be green."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.planted.bugs import BUGS

ROOT = Path(__file__).parents[2]
NONE = ""
SMALL = "tests/planted/test_small.py"
SUITES: dict[str, tuple[str, ...]] = {
    "laws": (
        "tests/names/test_names_laws.py",
        "tests/core/test_seen.py",
        "tests/core/test_evidence.py",
        "tests/core/test_machine.py",
        "tests/core/test_command.py",
        "tests/backends",
    ),
    "journal": (
        "tests/sinks/test_journal.py",
        "tests/sinks/test_lease.py",
        "tests/planted/test_small.py",
        "-k",
        "not seeds and not survives",
    ),
    "trouble": ("tests/engine/test_trouble.py",),
    "model": ("tests/engine/test_model_based.py",),
    "deaths": (SMALL, "-k", "survives"),
    "seeds": (SMALL, "-k", "seeds"),
    "hostile": ("tests/security/test_hostile_nodes.py",),
}


def verdict(bug: str, suite: str) -> str:
    """`red`, `green`, or what went wrong with the run itself."""
    argv = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "tests.planted.plugin"]
    argv += [f"--planted={bug}", "--timeout=100", "--hypothesis-profile=quick", *SUITES[suite]]
    env = os.environ | {"MODEL_EXAMPLES": "15", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=500)
    return {0: "green", 1: "red"}.get(ran.returncode, f"exit {ran.returncode}: {ran.stdout[-500:]}{ran.stderr[-500:]}")


def table(found: dict[tuple[str, str], str]) -> str:
    wide = max(map(len, BUGS))
    rows = [f"{bug:<{wide}}  {', '.join(s for s in SUITES if found[bug, s] == 'red') or 'NOBODY'}" for bug in BUGS]
    return "\n".join([f"{'mistake':<{wide}}  noticed by", *rows])


@pytest.mark.timeout(900)
def test_every_known_mistake_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    cases = [(bug, suite) for bug in (NONE, *BUGS) for suite in SUITES]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = dict(zip(cases, pool.map(lambda case: verdict(*case), cases), strict=True))
    with capsys.disabled():
        print(f"\n{table(found)}")

    assert {found[NONE, suite] for suite in SUITES} == {"green"}, {suite: found[NONE, suite] for suite in SUITES}
    assert {said for said in found.values() if said not in ("red", "green")} == set()
    assert [bug for bug in BUGS if "red" not in {found[bug, suite] for suite in SUITES}] == []

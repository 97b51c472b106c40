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
    "inside": ("tests/engine/test_inside.py",),
    "model": ("tests/engine/test_model_based.py",),
    "deaths": (SMALL, "-k", "survives"),
    "seeds": (SMALL, "-k", "seeds"),
    "hostile": ("tests/security/test_hostile_nodes.py",),
}


def verdict(bug: str, suite: str) -> str:
    """`red`, `green`, or what went wrong with the run itself."""
    argv = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "tests.planted.plugin"]
    argv += [f"--planted={bug}", "--timeout=240", "--hypothesis-profile=quick", *SUITES[suite]]
    env = os.environ | {"MODEL_EXAMPLES": "15", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=1500)
    return {0: "green", 1: "red"}.get(ran.returncode, f"exit {ran.returncode}: {ran.stdout[-500:]}{ran.stderr[-500:]}")


def table(found: dict[tuple[str, str], str]) -> str:
    wide = max(map(len, BUGS))
    rows = [
        f"{bug:<{wide}}  {', '.join(s for s in SUITES if found.get((bug, s)) == 'red') or 'NOBODY'}" for bug in BUGS
    ]
    return "\n".join([f"{'mistake':<{wide}}  noticed by", *rows])


# Who noticed each mistake when all were planted against all suites; that takes half an hour, so it is PLANTED=all.
NOTICED = {
    "missing-exit-is-0": ("trouble",),
    "sync-is-skipped": ("journal",),
    "published-before-it-is-durable": ("journal",),
    "identity-is-not-checked": ("laws",),
    "vmids-match-as-substrings": ("laws",),
    "a-signal-is-sent-again": ("trouble",),
    "a-program-is-run-again": ("inside",),
    "unlocked-without-proof": ("laws",),
    "names-end-at-a-dollar": ("laws",),
    "output-is-text": ("laws",),
    "a-lease-without-epoch": ("journal",),
}


def cases() -> list[tuple[str, str]]:
    if os.environ.get("PLANTED") == "all":
        return [(bug, suite) for bug in (NONE, *BUGS) for suite in SUITES]
    known = [(bug, suite) for bug, suites in NOTICED.items() for suite in suites]
    return [(NONE, suite) for suite in dict.fromkeys(suite for _, suite in known)] + known


@pytest.mark.timeout(2400)
def test_every_known_mistake_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    todo = cases()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = dict(zip(todo, pool.map(lambda case: verdict(*case), todo), strict=True))
    with capsys.disabled():
        print(f"\n{table(found)}")

    controls = {suite: said for (bug, suite), said in found.items() if bug == NONE}
    assert set(controls.values()) == {"green"}, controls
    assert {said for said in found.values() if said not in ("red", "green")} == set()
    assert [bug for bug in BUGS if "red" not in {said for (b, _), said in found.items() if b == bug}] == []


def test_a_suite_is_named_for_each_mistake() -> None:
    assert set(NOTICED) == set(BUGS)

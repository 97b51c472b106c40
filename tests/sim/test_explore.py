"""Everything that can go wrong, drawn from seeds: no promise breaks, and the same seed is the same history."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import pytest

from nexcage._core.states import DRIVEN, Op
from nexcage.testing._explore.command import many, smaller
from nexcage.testing._explore.plan import drawn
from nexcage.testing._explore.trouble import KINDS
from nexcage.testing.explore import History, explore

pytestmark = pytest.mark.timeout(1800)  # whichever test comes first waits for all the seeds

SEEDS = range(2000)
SAMPLE = range(0, 2000, 100)


def jobs() -> int:
    return len(os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def histories() -> Sequence[History]:
    return list(many(SEEDS, jobs()))


def test_no_seed_breaks_a_promise(histories: Sequence[History]) -> None:
    broken = [f"seed {history.seed}: {wrong}" for history in histories for wrong in history.wrong]

    assert not broken, "\n".join(
        [*broken[:20], "repeat one with: python -m nexcage.testing.explore --seed N --verbose"]
    )


def test_every_kind_of_trouble_was_drawn_often(histories: Sequence[History]) -> None:
    counts = sum((Counter(history.counts) for history in histories), Counter[str]())

    assert {kind: counts[kind] for kind in KINDS if counts[kind] < 20} == {}
    assert counts["effects"] > 10 * len(SEEDS)
    assert counts["kills"] > 0.1 * len(SEEDS)


def test_every_operation_was_done_often(histories: Sequence[History]) -> None:
    counts = sum((Counter(history.counts) for history in histories), Counter[str]())

    words = [*map(str, (*DRIVEN, Op.EXEC)), "clone", "restore"]
    assert {word: counts[f"done {word}"] for word in words if counts[f"done {word}"] < 10} == {}


def test_the_same_seed_gives_the_same_history_in_another_process(histories: Sequence[History]) -> None:
    first = {history.seed: history.lines for history in histories}
    again = {history.seed: history.lines for history in many(SAMPLE, jobs())}

    assert {seed: first[seed] for seed in SAMPLE} == again


@pytest.mark.parametrize("hashes", ["0", "1", "random"])
def test_neither_hashes_nor_what_ran_before_matter(hashes: str) -> None:
    script = "import sys; from nexcage.testing.explore import explore; print(*[explore(s).digest for s in (7, 51, 7)])"
    run = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": hashes},
        capture_output=True,
        check=True,
        text=True,
    )
    first, other, again = run.stdout.split()

    assert first == again == explore(7).digest
    assert other == explore(51).digest


def test_a_seed_with_fewer_steps_is_the_same_run_without_the_others() -> None:
    plan = drawn(7)
    kept = plan.only(range(3))

    assert kept.steps == plan.steps[:3]
    assert explore(7, only=range(3)).ok


def test_a_failing_seed_is_made_smaller_until_every_step_matters() -> None:
    broken = History(seed=7, lines=(), wrong=("promise 0: made up",), counts={}, seconds=0.0)

    assert smaller(7, broken) == list(
        range(len(drawn(7).steps))
    )  # no run breaks that promise, so nothing may be left out

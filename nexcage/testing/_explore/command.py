"""``python -m nexcage.testing.explore``: many seeds, on all processors, and what to type to see a failing one again."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TextIO

import msgspec

from nexcage.testing._explore.history import History
from nexcage.testing._explore.plan import drawn
from nexcage.testing._explore.run import explored

__all__ = ["main", "many", "smaller"]

_WHAT = """\
Draw a cluster, programs that drive it, and faults from each seed; then check that every promise was kept: nothing
lost, nothing done twice, and once the faults are over everything comes to rest. A seed repeats its history exactly."""
_MORE = """\
examples:
  python -m nexcage.testing.explore --seeds 200 --from 1000
  python -m nexcage.testing.explore --seed 1042 --shrink
  python -m nexcage.testing.explore --seed 1042 --only 3,8 --verbose

A seed that fails is shown with the command that repeats it. exit status: 0 every promise was kept, 1 one was not."""
_CHUNK = 5
_LONG = 60
"""Seconds of CPU after which a seed is given up: something goes round in circles."""


def main(argv: Sequence[str] | None = None) -> int:
    """The program; 0 when every promise was kept."""
    options = _options(argv)
    if options.seed is not None:
        return _one(options.seed, options.only, verbose=options.verbose, shrink=options.shrink)
    return _many(options.start, options.seeds, options.jobs, verbose=options.verbose, shrink=options.shrink)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m nexcage.testing.explore",
        description=_WHAT,
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    processors = len(os.sched_getaffinity(0))
    parser.add_argument("--seeds", type=int, default=100, metavar="N", help="how many seeds to run (100)")
    parser.add_argument("--from", type=int, default=0, metavar="M", dest="start", help="the first of them (0)")
    parser.add_argument("--seed", type=int, metavar="S", help="run this seed alone, and show its steps")
    parser.add_argument("--only", type=_numbers, metavar="1,4,7", help="with --seed: leave out every other step")
    parser.add_argument("--shrink", action="store_true", help="find fewer steps of a failing seed that still fail")
    parser.add_argument(
        "--jobs", type=int, default=processors, metavar="J", help=f"processes at once (one per processor: {processors})"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="show every seed; with --seed, every line of its history"
    )
    options = parser.parse_args(argv)
    if options.only is not None and options.seed is None:
        parser.error("--only goes with --seed")
    return options


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",") if word]
    except ValueError:
        raise argparse.ArgumentTypeError(f"numbers of steps with commas between them, not {text!r}") from None


# ---- one seed ------------------------------------------------------------------------------------------------------------------


def _one(seed: int, only: Sequence[int] | None, *, verbose: bool, shrink: bool) -> int:
    history = explored(seed, only=only)
    if shrink and not history.ok:
        only = smaller(seed, history, only)
        history = explored(seed, only=only)
    for number, step in enumerate(drawn(seed).steps):
        if only is None or number in only:
            _say(f"{number:3} at {step.at:7.3f}: {step}")
    if verbose:
        for line in history.lines:
            _say(line)
    _report(history, only)
    return 0 if history.ok else 1


def smaller(seed: int, history: History, only: Sequence[int] | None = None) -> list[int]:
    """Fewer steps of a failing seed that still break the same promise: one after the other is left out."""
    kept = list(range(len(drawn(seed).steps))) if only is None else list(only)
    broken = _kind(history)
    for number in reversed(list(kept)):
        fewer = [n for n in kept if n != number]
        if _kind(explored(seed, only=fewer)) & broken:
            kept = fewer
    return kept


def _kind(history: History) -> set[str]:
    return {wrong.split(":")[0] for wrong in history.wrong}


def _report(history: History, only: Sequence[int] | None) -> None:
    for wrong in history.wrong:
        _say(f"seed {history.seed}: {wrong}")
    if not history.ok:
        kept = "" if only is None else f" --only {','.join(map(str, only))}"
        _say(f"repeat it with: python -m nexcage.testing.explore --seed {history.seed}{kept} --verbose")
    _say(f"seed {history.seed}: {'ok' if history.ok else 'FAILED'}, {history.digest[:16]}, {_counted(history.counts)}")


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{word} {count}" for word, count in sorted(counts.items()))


# ---- many seeds ----------------------------------------------------------------------------------------------------------------


def many(seeds: Sequence[int], jobs: int) -> Iterator[History]:
    """The histories of these seeds, in order, from ``jobs`` processes; without their lines."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_brief, seeds, chunksize=_CHUNK)


def _brief(seed: int) -> History:
    signal.signal(signal.SIGPROF, _stuck)
    signal.setitimer(signal.ITIMER_PROF, _LONG)
    try:
        history = explored(seed)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return msgspec.structs.replace(history, lines=(history.digest,))


def _stuck(*_: object) -> None:
    raise TimeoutError(f"this seed takes more than {_LONG} s of CPU")


def _many(start: int, seeds: int, jobs: int, *, verbose: bool, shrink: bool) -> int:
    counts: Counter[str] = Counter()
    failed, began, spent, done = 0, time.monotonic(), 0.0, 0
    for done, history in enumerate(many(range(start, start + seeds), jobs), start=1):
        counts.update(history.counts)
        spent += history.seconds
        if verbose or not history.ok:
            only = smaller(history.seed, history) if shrink and not history.ok else None
            _report(history, only)
        failed += not history.ok
        if not done % 100:
            _say(f"{done} seeds, {failed} failed, {time.monotonic() - began:.0f} s", file=sys.stderr)
    wall = time.monotonic() - began
    _say(f"{done} seeds, {failed} failed, {wall:.1f} s, {spent / max(1, done) * 1000:.0f} ms of CPU each")
    _say(_counted(counts))
    return 1 if failed else 0


def _say(text: str, *, file: TextIO | None = None) -> None:
    print(text, file=file or sys.stdout, flush=True)

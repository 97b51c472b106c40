"""The main job, shown: containers on a simulated cluster behind real SSH servers, through their whole life, while a node dies.

    scripts/demo [--nodes 8] [--containers 200] [--seed 1] [--dir DIR] [--plain]

Every node is an SSH server on loopback with pretend PVE tools behind it. In the middle of the starts one node is killed: only its
containers fail. It comes back, and they are taken on again. Ends with 1 when that is not what happened.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import anyio

import nexcage
from nexcage.testing import SimCluster

PACE = 0.15  # how slow the pretend tools are, as a part of what the real ones take
IMAGE = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
OPS = (nexcage.Op.CREATE, nexcage.Op.START, nexcage.Op.KILL, nexcage.Op.STOP, nexcage.Op.DELETE)
LIMITS = nexcage.Limits(
    connect_timeout=3.0,
    probe_timeout=3.0,
    retries=2,
    retry_base=0.2,
    retry_most=1.0,
    breaker_failures=3,
    breaker_seconds=1.0,
)


class Show(Protocol):
    """How a wave of outcomes is shown while it goes on."""

    def say(self, line: str) -> None: ...

    def begin(self, title: str, total: int) -> None: ...

    def outcome(self, outcome: nexcage.Outcome) -> None: ...


class Plain:
    """A line for the start, a few on the way and the end of each wave."""

    def __init__(self) -> None:
        self._title, self._total, self._done, self._failed = "", 0, 0, 0
        self._shown = 0

    def say(self, line: str) -> None:
        print(line, flush=True)

    def begin(self, title: str, total: int) -> None:
        self._title, self._total, self._done, self._failed, self._shown = title, total, 0, 0, 0

    def outcome(self, outcome: nexcage.Outcome) -> None:
        if isinstance(outcome, nexcage.Done):
            self._done += 1
        else:
            self._failed += 1
        quarter = 4 * (self._done + self._failed) // self._total
        if quarter > self._shown:
            self._shown = quarter
            failed = f", {self._failed} failed" if self._failed else ""
            self.say(f"{self._title:>14}  {self._done:4} of {self._total} done{failed}")


class Bars:
    """A live bar per wave, for a terminal with rich."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self.progress: Progress = Progress(
            TextColumn("{task.description:>14}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]}", style="red"),
            TimeElapsedColumn(),
            console=Console(highlight=False),
        )
        self._wave = self.progress.add_task("", visible=False, failed="")
        self._failed = 0

    def say(self, line: str) -> None:
        self.progress.console.print(line, markup=False, soft_wrap=True)

    def begin(self, title: str, total: int) -> None:
        self._wave, self._failed = self.progress.add_task(title, total=total, failed=""), 0

    def outcome(self, outcome: nexcage.Outcome) -> None:
        self._failed += isinstance(outcome, nexcage.Failure)
        self.progress.update(self._wave, advance=1, failed=f"{self._failed} failed" if self._failed else "")


@contextmanager
def shown(*, plain: bool) -> Iterator[Show]:
    """Bars at a terminal where rich is installed, else lines."""
    try:
        if plain or not sys.stdout.isatty():
            raise ImportError
        bars = Bars()
    except ImportError:
        yield Plain()
    else:
        with bars.progress:
            yield bars


class Story:
    """One run: its fleet, what came out of every wave, and what was taken on again."""

    def __init__(self, fleet: nexcage.Fleet, show: Show) -> None:
        self.fleet: nexcage.Fleet = fleet
        self.show: Show = show
        self.outcomes: list[nexcage.Outcome] = []
        self.again: Counter[str] = Counter()

    async def wave(
        self, title: str, intents: Sequence[nexcage.Intent], each: Callable[[nexcage.Outcome], None] | None = None
    ) -> list[nexcage.Failure]:
        """Drive ``intents`` and show the outcomes as they come, to ``each`` too; what failed."""
        self.show.begin(title, len(intents))
        failures: list[nexcage.Failure] = []
        async with self.fleet.stream(intents) as outcomes:
            async for outcome in outcomes:
                self.outcomes.append(outcome)
                self.show.outcome(outcome)
                if isinstance(outcome, nexcage.Failure):
                    failures.append(outcome)
                if each is not None:
                    each(outcome)
        return failures


async def life(story: Story, sim: SimCluster, count: int) -> list[str]:
    """Create, start with a node dying on the way, take its containers on again, kill, stop, delete. What was not as it should."""
    fleet, show, wrong = story.fleet, story.show, list[str]()
    spec = nexcage.Spec(image=IMAGE, memory=256, cores=1)
    ids = [f"web-{n:04}" for n in range(1, count + 1)]
    wrong += unexpected(await story.wave("create", [nexcage.Create(id, spec) for id in ids]))
    if wrong:
        return wrong

    victim = sorted(fleet.nodes)[len(fleet.nodes) // 2]
    theirs = {id for id in ids if fleet.machines[id].node == victim}

    started: set[str] = set()

    def kill_it_on_the_way(outcome: nexcage.Outcome) -> None:
        started.add(outcome.id)
        if len(started & theirs) == max(1, len(theirs) // 3) and not sim[victim].down:
            show.say(f"{'':>14}  ... {victim} is killed, with {len(theirs)} containers on it")
            sim[victim].crash()

    failures = await story.wave("start", [nexcage.Start(id) for id in ids], each=kill_it_on_the_way)
    elsewhere = [failure for failure in failures if failure.id not in theirs]
    wrong += unexpected(elsewhere)
    show.say(
        f"{'':>14}  {len(failures)} failed, {'all of them' if not elsewhere else f'{len(elsewhere)} of them not'} on {victim}"
    )
    if not failures:
        wrong.append(f"killing {victim} cost nothing: it came too late")
    for error, times in Counter(str(failure.error).split(": ", 1)[-1] for failure in failures).most_common(2):
        show.say(f"{'':>14}  {times:4} × {error}")

    sim[victim].restart()
    show.say(f"{'':>14}  ... {victim} is back; its containers are looked at and taken on again")
    with anyio.fail_after(20):
        while isinstance((await fleet.look(victim))[victim], nexcage.NexcageError):
            await anyio.sleep(0.2)
    await fleet.reconcile(*sorted(theirs))
    again: list[nexcage.Intent] = [nexcage.Start(id) for id in sorted(theirs)]
    story.again[victim] += len(again)
    wrong += unexpected(await story.wave("start again", again))

    sample = fleet.run_dir / ids[0] / "state.json"
    show.say(f"{'':>14}  state.json of {ids[0]}: {' '.join(sample.read_text(encoding='utf-8').split())[:100]} ...")
    wrong += unexpected(await story.wave("kill -s HUP", [nexcage.Kill(id, signal="HUP") for id in ids]))
    wrong += unexpected(await story.wave("stop", [nexcage.Stop(id, timeout=20) for id in ids]))
    wrong += unexpected(await story.wave("delete", [nexcage.Delete(id) for id in ids]))
    left = [container.id for container in fleet]
    return [*wrong, *(f"{id} is left" for id in left)]


def unexpected(failures: Iterable[nexcage.Failure]) -> list[str]:
    return [f"{failure.op} {failure.id}: {failure.error}" for failure in failures]


def table(story: Story) -> list[list[str]]:
    """Per node: done, failed, retried, and the median and 99th percentile of each operation in milliseconds."""
    rows = [["node", "done", "failed", "retried", *(f"{op} p50/p99 ms" for op in OPS)]]
    by_node: dict[str, list[nexcage.Outcome]] = defaultdict(list)
    for outcome in story.outcomes:
        by_node[outcome.node].append(outcome)
    for node, outcomes in sorted(by_node.items()):
        done = [outcome for outcome in outcomes if isinstance(outcome, nexcage.Done)]
        retried = sum(outcome.retries for outcome in outcomes) + story.again[node]
        took = [[outcome.seconds for outcome in done if outcome.op is op] for op in OPS]
        rows.append([node, str(len(done)), str(len(outcomes) - len(done)), str(retried), *map(percentiles, took)])
    return rows


def percentiles(seconds: list[float]) -> str:
    if not seconds:
        return "-"
    ordered = sorted(seconds)
    p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.50, 0.99))
    return f"{p50 * 1000:.0f}/{p99 * 1000:.0f}"


def aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


async def main(options: argparse.Namespace) -> int:
    home = Path(options.dir or tempfile.mkdtemp(prefix="nexcage-demo-")).absolute()
    home.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    sim = SimCluster(nodes=options.nodes, seed=options.seed, pace=PACE)
    async with sim.serve() as served:
        config = served.config(home)
        async with nexcage.open_fleet(config=config, limits=LIMITS) as fleet:
            with shown(plain=options.plain) as show:
                show.say(f"{options.nodes} simulated nodes behind SSH on loopback, {options.containers} containers")
                story = Story(fleet, show)
                wrong = await life(story, sim, options.containers)
            state, run, seq = fleet.state_dir, fleet.run_dir, fleet.seq
    print("", *aligned(table(story)), "", sep="\n")
    print(f"{len(story.outcomes)} operations, {seq} events in {time.monotonic() - began:.1f} s")
    command = Path(sys.executable).with_name("nexcage")
    print(f"journal:    {state}/journal")
    print(f"            {command if command.exists() else 'nexcage'} --config {config} events")
    print(f"state.json: {run}/ID/state.json (gone with their containers)")
    for line in wrong:
        print(f"not as it should be: {line}", file=sys.stderr)
    return 1 if wrong else 0


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--nodes", type=int, default=8, metavar="N")
    parser.add_argument("--containers", type=int, default=200, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--dir", help="where journal and state files go (default: a new directory in TMPDIR)")
    parser.add_argument("--plain", action="store_true", help="plain lines, at a terminal too")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(anyio.run(main, options()))
    except KeyboardInterrupt:
        sys.exit(130)

"""``nexcage start stop kill pause resume delete``: one container, several, or all that a selector matches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nexcage import (
    Delete,
    Done,
    IllegalTransition,
    Intent,
    InvalidInput,
    Kill,
    Outcome,
    Pause,
    Resume,
    Start,
    Stop,
    names,
)
from nexcage._cli.dialects import Targets, kill_targets, targets
from nexcage._cli.finding import ids_of
from nexcage._cli.main import line_of
from nexcage._cli.outcomes import print_outcomes, status_of
from nexcage._cli.parser import Call
from nexcage._cli.progress import Progress
from nexcage._cli.rehearse import rehearse
from nexcage._cli.streams import Streams, one_line
from nexcage._cli.verbs_fleet import Verb

if TYPE_CHECKING:
    from nexcage import Fleet

__all__ = ["do_many", "driven", "prepare"]

_TOLD = 20  # failures that are told one by one; the rest is in --output jsonl


def prepare(call: Call, streams: Streams) -> Verb:
    """Which containers and which intent; raises before anything is opened."""
    if call.oci and call.name == "kill" and kill_targets(call)[1] == "0":
        return _probe(call)
    return driven(call, streams, *_intent_maker(call))


def _probe(call: Call) -> Verb:
    """An engine's ``kill ID 0``: nothing is sent, the answer is whether something could be."""
    (id,) = kill_targets(call)[0].words

    async def verb(fleet: Fleet) -> int:
        state = await fleet[id].state()
        if state.status not in ("created", "running", "paused"):
            raise IllegalTransition(id, "kill", state.status)
        return 0

    return verb


def driven(call: Call, streams: Streams, wanted: Targets, make: Callable[[str, str | None], Intent]) -> Verb:
    """What drives the intent of each container that is wanted, or shows what it would do."""
    if wanted.selector is None:
        for word in wanted.words:
            names.container_id(word)
    else:
        from nexcage import Selector

        Selector.parse(wanted.selector)
    op_id = call.text("op_id")
    if op_id is not None and (wanted.selector is not None or len(wanted.words) != 1):
        raise call.usage("--op-id names one operation, so it goes with one container")
    make("any", op_id)  # its own checks now, before anything is opened

    async def verb(fleet: Fleet) -> int:
        ids = await ids_of(fleet, wanted, call.text("runtime"))
        intents = [make(id, op_id) for id in ids]
        if call.flag("dry_run"):
            return await rehearse(call, streams, fleet, intents)
        if wanted.selector is None and len(intents) == 1:
            return await _one(call, streams, fleet, intents[0])
        return await do_many(call, streams, fleet, intents, summary=wanted.selector is not None)

    return verb


def _intent_maker(call: Call) -> tuple[Targets, Callable[[str, str | None], Intent]]:
    match call.name:
        case "start":
            return targets(call), lambda id, key: Start(id, op_id=key)
        case "stop":
            seconds, force = _seconds(call), call.flag("force")
            return targets(call), lambda id, key: Stop(id, timeout=seconds, force=force, op_id=key)
        case "kill":
            wanted, signal = kill_targets(call)
            number = names.signal(signal)
            return wanted, lambda id, key: Kill(id, number, op_id=key)
        case "pause":
            return targets(call), lambda id, key: Pause(id, op_id=key)
        case "resume":
            return targets(call), lambda id, key: Resume(id, op_id=key)
        case _:
            force, purge = call.flag("force"), call.flag("purge")
            return targets(call), lambda id, key: Delete(id, force=force, purge=purge, op_id=key)


def _seconds(call: Call) -> float:
    given = call.text("timeout")
    if given is None:
        return 60.0
    if not (given.isascii() and given.replace(".", "", 1).isdigit()):
        raise InvalidInput("timeout", given, "seconds from 0 to 86400")
    return float(given)


async def _one(call: Call, streams: Streams, fleet: Fleet, intent: Intent) -> int:
    output = call.text("output")
    if output in (None, "name", "table"):
        try:
            done = await fleet.do(intent, wait=not call.flag("no_wait"))
        except IllegalTransition:
            if call.oci and call.name == "kill" and call.flag("all"):
                return 0  # with --all, runc takes a stopped container for signalled
            raise
        for note in done.notes:
            streams.say(f"nexcage: {call.name} '{intent.id}': {note}")
        if output:
            print_outcomes(streams, [done], output, single=True)
        return 0
    # Whoever reads JSON gets the failure as an object too; the raised error says the same on standard error.
    (outcome,) = await fleet.run([intent], wait=not call.flag("no_wait"))
    print_outcomes(streams, [outcome], output, single=True)
    if not isinstance(outcome, Done):
        raise outcome.error
    return 0


async def do_many(call: Call, streams: Streams, fleet: Fleet, intents: Sequence[Intent], *, summary: bool) -> int:
    """Drive them all, with a bar; the failures are told, and ``summary`` prints a table without being asked for one."""
    output = call.text("output") or ("table" if summary else "")
    outcomes: list[Outcome] = []
    failures = 0
    with Progress(streams, call.name, len(intents)) as progress:
        async with fleet.stream(intents, wait=not call.flag("no_wait")) as ended:
            async for outcome in ended:
                failed = not isinstance(outcome, Done)
                progress.advance(failed)
                if failed:
                    failures += 1
                if output == "jsonl":
                    print_outcomes(streams, [outcome], output)
                    streams.flush()
                outcomes.append(outcome)
    _tell_failures(call, streams, outcomes, failures)
    if output and output != "jsonl" and (outcomes or output == "json"):
        print_outcomes(streams, outcomes, output, summary=summary)
    return status_of(outcomes)


def _tell_failures(call: Call, streams: Streams, outcomes: list[Outcome], failures: int) -> None:
    told = 0
    for outcome in outcomes:
        if isinstance(outcome, Done):
            continue
        if told == _TOLD:
            streams.say(f"nexcage: {call.name}: and {failures - told} more; --output jsonl shows all")
            break
        told += 1
        line = line_of(call, outcome.error)
        streams.say(
            f"nexcage: {line}"
            if outcome.id in line
            else f"nexcage: {call.name} '{outcome.id}': {one_line(str(outcome.error))}"
        )
    if failures:
        streams.say(f"nexcage: {call.name}: {len(outcomes) - failures} of {len(outcomes)} done, {failures} failed")

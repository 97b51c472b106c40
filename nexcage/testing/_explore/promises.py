"""What must be so of every run, whatever went wrong: one function per promise (design 1)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from nexcage._core.events import Attempted, Began, Failed, Interrupted, Succeeded
from nexcage._core.machine import Checkpointed, fold
from nexcage._core.states import BESIDE, KEEPING, Op
from nexcage.errors import JournalError
from nexcage.testing._explore.program import Told

if TYPE_CHECKING:
    from nexcage.testing._explore.world import World

__all__ = ["PROMISES", "judged"]


def at_most_once(world: World) -> Iterator[str]:
    """1. At most one effect per (operation, step), and none without a journaled step."""
    steps = {(e.op_id, e.step) for e in world.events if isinstance(e, Attempted)}
    steps |= {(e.op_id, 1) for e in world.events if isinstance(e, Began) and e.op in BESIDE}
    calls = Counter((e["op_id"], e["step"]) for e in world.sim.effects() if e["op_id"])
    for (op_id, step), times in calls.items():
        if times > 1:
            yield f"promise 1: step {step} of {op_id} had {times} effects"
        if (op_id, step) not in steps:
            yield f"promise 1: step {step} of {op_id} had an effect and is not in the journal"


_ONCE: Mapping[Op, Callable[[Mapping[str, str]], bool]] = {
    Op.ROLLBACK: lambda change: change["change"] == "rolled back",
    Op.BACKUP: lambda change: change["kind"] == "backup",
    Op.EXEC: lambda change: change["kind"] == "exec",
    Op.KILL: lambda change: change["kind"] == "signal",
}
"""What shows that an operation had its effect which is never repeated, not even as another step."""


def never_repeated(world: World) -> Iterator[str]:
    """1. A rollback, a backup, a program and a signal happen at most once, whatever became of their answers."""
    began = {e.op_id: e for e in world.events if isinstance(e, Began) and e.op in _ONCE}
    times: Counter[str] = Counter()
    for effect in world.sim.effects():
        op = began.get(effect["op_id"] or "")
        if op is not None and any(_ONCE[op.op](change) for change in effect["changed"]):
            times[op.op_id] += 1
    for op_id, count in times.items():
        if count > 1 and op_id not in _forgotten(world):
            yield f"promise 1: {began[op_id].op} {op_id} happened {count} times"


def something_changed(world: World) -> Iterator[str]:
    """6. What is said to have changed something about a container did."""
    did = {effect["op_id"] for effect in world.sim.effects()}
    for told in world.told:
        if told.ok and told.changed and told.intent.op in _CHANGES and told.op_id not in did:
            yield f"promise 6: {told}, and nothing was changed"


_CHANGES = KEEPING | {Op.ADOPT, Op.EXEC}


def in_order(world: World) -> Iterator[str]:
    """1. The effects on one container come in the order in which its operations began (the order of fences: epoch, then number)."""
    began = {e.op_id: e for e in world.events if isinstance(e, Began) and e.op not in BESIDE}
    last: dict[str, Began] = {}
    forgotten = _forgotten(world)
    for effect in world.sim.effects():
        op = began.get(effect["op_id"] or "")
        if op is None or op.op_id in forgotten:
            continue
        before = last.setdefault(op.id, op)
        if (before.epoch, before.seq) > (op.epoch, op.seq):
            yield f"promise 1: {op.op} {op.op_id} of {op.id} had an effect after {before.op} {before.op_id} had"
        last[op.id] = op


def _forgotten(world: World) -> set[str]:
    """Keys that were given again when their container no longer remembered them (`machine.REMEMBERED`)."""
    times = Counter(e.op_id for e in world.events if isinstance(e, Began))
    return {op_id for op_id, count in times.items() if count > 1}


def fenced(world: World) -> Iterator[str]:
    """5. No effect below the highest epoch that its container had seen."""
    ids = {e.op_id: e.id for e in world.events if isinstance(e, Began)}
    highest: dict[str, int] = {}
    for effect in world.sim.effects():
        id, epoch = ids.get(effect["op_id"] or ""), effect["epoch"]
        if id is None or not isinstance(epoch, int):
            continue
        if epoch < highest.get(id, 0):
            yield f"promise 5: an effect of epoch {epoch} on {id} after one of epoch {highest[id]}"
        highest[id] = max(epoch, highest.get(id, 0))


def not_ours(world: World) -> Iterator[str]:
    """5. What somebody else put in the place of a container of ours is left alone."""
    began = {(s.op_id, s.step): s.began for s in world.sent if s.op_id}
    for vmid, at, since in world.taken:
        for line in world.timeline.after(vmid, since):
            op_id, step = str(line.get("op_id") or ""), int(line.get("step") or 0)
            if any(
                change == {"kind": "config", "target": str(vmid), "change": "created"} for change in line["changed"]
            ):
                break
            if op_id and began.get((op_id, step), 0.0) > at:
                yield f"promise 5: step {step} of {op_id} changed {vmid}, which somebody else had taken: {line['changed']}"


def one_outcome(world: World) -> Iterator[str]:
    """1, 2. Who asks again with the same key is told the same, unless nobody knew then."""
    by_key: dict[str, list[Told]] = defaultdict(list)
    forgotten = _forgotten(world)
    began = {e.op_id for e in world.events if isinstance(e, Began)}
    for told in world.told:
        if told.op_id in began and not told.uncertain and not _refused(world, told):
            by_key[told.op_id].append(told)
    for key in [key for key in by_key if key not in forgotten]:
        ends = by_key[key]
        same = {(t.ok, t.error, t.intent.op) for t in ends}
        if len(same) > 1:
            yield f"promise 1: {key} was told to have ended in two ways: {'; '.join(map(str, ends))}"


_BEFORE = frozenset("AlreadyExists Busy Fenced IllegalTransition JournalError NoQuorum NotFound".split())
"""Refusals that may come at any time, so that the same key may end otherwise later."""


def _refused(world: World, told: Told) -> bool:
    """Whether nothing of the operation had run when its caller was told (sent away, or "already so"): that is not its outcome."""
    if told.changed:
        return False
    if not told.ok and told.error in _BEFORE:
        return True
    if any(
        e.error.message == told.text
        for e in world.events
        if isinstance(e, (Failed, Interrupted)) and e.op_id == told.op_id
    ):
        return False
    others = [t for t in world.told if t.op_id == told.op_id and t is not told]  # who was told for whom it ran?
    ran = [s for s in world.sent if s.op_id == told.op_id and s.began <= told.told]
    return not ran or any(t.asked <= ran[0].began <= t.told for t in others)


def known_by_looking(world: World) -> Iterator[str]:
    """2. After a lost answer nobody says how it ended without having looked or asked since."""
    ends: dict[str, float] = {}
    for told in world.told:
        if told.op_id and not told.uncertain and (told.ok or told.error == "NodeTimeout"):
            ends.setdefault(told.op_id, told.told)
    for sent in world.sent:
        if sent.safe or sent.exit is not None or sent.refused or sent.op_id not in ends or sent.ended < 0:
            continue
        until = ends[sent.op_id]
        if sent.ended <= until and not any(
            other.began >= sent.ended
            and other.exit is not None
            and 0 <= other.ended <= until
            and other.node == sent.node
            for other in world.sent
        ):
            yield f"promise 2: {sent.op_id} lost its answer ({sent.word}) and was told to have ended without a look"


def as_told(world: World) -> Iterator[str]:
    """2. What callers were told is what the journal says."""
    ends: dict[str, list[object]] = defaultdict(list)
    began = {e.op_id for e in world.events if isinstance(e, Began)}
    for event in world.events:
        if isinstance(event, (Succeeded, Failed, Interrupted)):
            ends[event.op_id].append(event)
    for told in world.told:
        if told.op_id not in began or _refused(world, told):
            continue
        kinds = {type(event) for event in ends[told.op_id]}
        if told.ok and Succeeded not in kinds:
            yield f"promise 2: {told} and the journal says {kinds}"
        if not told.ok and not told.uncertain and kinds == {Succeeded}:
            yield f"promise 2: {told} and the journal says that it succeeded"


_WANTED = {
    Op.CREATE: "made",
    Op.START: "running",
    Op.STOP: "stopped",
    Op.PAUSE: "frozen",
    Op.RESUME: "thawed",
    Op.DELETE: "gone",
}


def seen_to_be_so(world: World) -> Iterator[str]:
    """6. Done is said only when the wanted state was so at some moment between asking and telling."""
    begun = {e.op_id for e in world.events if isinstance(e, Began)}
    moved = {e.vmid for e in world.events if isinstance(e, Began) and e.op is Op.MIGRATE}
    for told in world.told:
        wanted = _WANTED.get(told.intent.op)
        if not told.ok or wanted is None or told.vmid in (0, *world.by_hand, *moved):
            continue
        if told.op_id in begun and not _carried_out(world, told):
            continue  # an answer from memory
        if not world.timeline.ever(told.vmid, wanted, told.since, told.until):
            yield f"promise 6: {told} on {told.vmid}, and it never was {wanted}"


def _carried_out(world: World, told: Told) -> bool:
    """Whether the operation was carried out while this caller waited, not before."""
    return any(s.op_id == told.op_id and told.asked <= s.began <= told.told for s in world.sent)


def folds(world: World) -> Iterator[str]:
    """3. The journal can be read and folded."""
    for journal in world.journals:
        try:
            fold(journal)
        except JournalError as error:
            yield f"promise 3: {error}"


def heard_in_order(world: World) -> Iterator[str]:
    """7. A subscriber is given the journal, in order and without gaps."""
    journals = [[e for e in journal if not isinstance(e, Checkpointed)] for journal in world.journals]
    for heard in world.heard:
        journal = journals[heard.host]
        if not heard.events:
            continue
        first, last = heard.events[0].seq, heard.events[-1].seq
        since = first - 1 if heard.since < 0 else heard.since
        wanted = [e for e in journal if since < e.seq <= last]
        if heard.events != wanted:
            yield (
                f"promise 7: {heard.program}'s {heard.what} heard {[e.seq for e in heard.events]} "
                f"and not {[e.seq for e in wanted]}"
            )


def numbered(world: World) -> Iterator[str]:
    """3. Numbers without gaps."""
    for journal in world.journals:
        seqs = [e.seq for e in journal]
        if seqs != list(range(1, len(seqs) + 1)):
            yield f"promise 3: the journal's numbers are {seqs}"


PROMISES: tuple[Callable[[World], Iterator[str]], ...] = (
    at_most_once,
    never_repeated,
    something_changed,
    in_order,
    fenced,
    not_ours,
    one_outcome,
    known_by_looking,
    as_told,
    seen_to_be_so,
    folds,
    heard_in_order,
    numbered,
)
"""Every check that looks at a run when it is over; others are made while it runs."""


def judged(world: World) -> list[str]:
    """What broke, in words."""
    return [*world.wrong, *(wrong for promise in PROMISES for wrong in promise(world))]

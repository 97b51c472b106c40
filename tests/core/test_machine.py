"""Laws of the machine: whatever is asked in whatever order, it is somewhere legal, and the journal tells the same story."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import (
    AlreadyExists,
    Busy,
    Checkpointed,
    Create,
    Delete,
    Event,
    IllegalTransition,
    JournalError,
    Kill,
    Machine,
    NexcageError,
    NotFound,
    Observed,
    Op,
    Pause,
    Resume,
    Spec,
    Start,
    State,
    Stop,
    Succeeded,
    fold,
)
from nexcage._core.events import Attempted, Failed, Interrupted, Problem
from nexcage._core.intents import force_of
from nexcage._core.oci import oci_state
from nexcage._core.states import OBSERVABLE, TRANSITIONAL, rule

SPEC = Spec(image="local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", tags=("web",), annotations={"a": "b"})
LOST = Problem("Uncertain", "the link was lost", ("ran: pct start 104",), uncertain=True, data={"op_id": "x"})

ASKED = [
    intent
    for id in ("web-1", "web-2")
    for intent in (
        Create(id, SPEC),
        Start(id),
        Stop(id),
        Stop(id, force=True),
        Kill(id, signal="TERM"),
        Kill(id, signal=9),
        Pause(id),
        Resume(id),
        Delete(id),
        Delete(id, force=True),
    )
]
MOVES = ("begin", "begin", "step", "succeed", "succeed", "fail", "interrupt", "observe")
intents = st.sampled_from(ASKED)
# One draw for a move: the laws are about many of them.
moves = st.sampled_from([(move, intent, state) for move in MOVES for intent in ASKED for state in sorted(OBSERVABLE)])


def event_of(move: str, intent: object, state: State, machine: Machine, n: int) -> Event:
    """What a driver would append next; raises what `begin` raises."""
    running = machine.running or machine.unresolved
    key = running.op_id if running else "nothing"
    op = running.op if running else Op.START
    common = {"seq": n, "at": float(n), "id": machine.id}
    match move:
        case "begin":
            began = machine.begin(intent, op_id=f"op-{n}", node="pve-01", backend="lxc", owner="me")  # type: ignore[arg-type]
            return msgspec.structs.replace(began, seq=n, at=float(n))
        case "step":
            return Attempted(op=op, op_id=key, step=1, tool="pct", tries={"vmid": 100 + n}, **common)
        case "succeed":
            end = rule(running.before, op, force=True).to if running else state
            return Succeeded(op=op, op_id=key, state=end or state, pid=5, vmid=104, **common)
        case "fail":
            return Failed(op=op, op_id=key, state=running.before if running else state, error=LOST, **common)
        case "interrupt":
            return Interrupted(op=op, op_id=key, error=LOST, **common)
        case _:
            return Observed(state=state, why="looked", pid=7, boot_id="b", **common)


def lived(steps: list[tuple[str, object, State]]) -> tuple[list[Event], dict[str, Machine]]:
    """The events that were taken, and the machines after them."""
    events: list[Event] = []
    machines: dict[str, Machine] = {}
    for move, intent, state in steps:
        machine = machines.get(intent.id) or Machine(intent.id)  # type: ignore[attr-defined]
        try:
            event = event_of(move, intent, state, machine, len(events) + 1)
            machines[machine.id] = machine.apply(event)
        except NexcageError:
            continue
        events.append(event)
    return events, machines


@given(steps=st.lists(moves, max_size=30))
def test_whatever_is_asked_a_machine_is_somewhere_legal(steps):
    _, machines = lived(steps)
    for machine in machines.values():
        assert (machine.state in TRANSITIONAL) <= (machine.running is not None)
        assert machine.was in OBSERVABLE
        assert not (machine.running and machine.unresolved)
        assert (machine.state is State.UNKNOWN) == (machine.unresolved is not None)
        if machine.state is State.ABSENT:
            assert (machine.vmid, machine.pid, machine.mark) == (0, 0, "")
        if machine.state in (State.RUNNING, State.PAUSED):
            assert machine.ran
        assert len(machine.done) <= 8


@given(steps=st.lists(moves, max_size=30), intent=intents)
def test_begin_takes_what_the_table_takes_and_refuses_without_a_trace(steps, intent):
    _, machines = lived(steps)
    machine = machines.get(intent.id) or Machine(intent.id)
    before = msgspec.json.encode(machine)
    cell = rule(machine.state, intent.op, force=force_of(intent), process=machine.pid > 0)
    try:
        began = machine.begin(intent, op_id="new")
    except (Busy, NotFound, AlreadyExists, IllegalTransition):
        assert machine.running is not None or cell.kind not in ("go", "keep")
    else:
        assert machine.running is None
        assert cell.kind in ("go", "keep")
        assert began.via is (cell.via or machine.state)
        assert began.before is machine.state
        after = machine.apply(began)
        assert after.running == began
        with pytest.raises(Busy):
            after.begin(intent, op_id="second")
    assert msgspec.json.encode(machine) == before


@given(steps=st.lists(moves, max_size=40))
def test_written_read_and_folded_the_events_give_the_living_machines(steps):
    events, machines = lived(steps)
    decoder = msgspec.json.Decoder(Event)
    read = [decoder.decode(msgspec.json.encode(event)) for event in events]
    assert read == events
    assert fold(read) == machines


@given(steps=st.lists(moves, max_size=40), cut=st.integers(0, 40))
def test_a_checkpoint_anywhere_changes_nothing(steps, cut):
    events, machines = lived(steps)
    cut = min(cut, len(events))
    early = fold(events[:cut])
    stored = [Checkpointed(seq=m.seq, at=m.at, id=m.id, machine=m) for m in early.values()]
    stored = [msgspec.json.decode(msgspec.json.encode(event), type=Event) for event in stored]
    assert fold([*stored, *events[cut:]]) == machines
    assert fold(events[cut:], early.values()) == machines


@given(steps=st.lists(moves, max_size=30))
def test_every_machine_has_an_oci_view(steps):
    for machine in lived(steps)[1].values():
        document = oci_state(machine, run_dir="/run/nexcage")
        assert document.status in {"creating", "created", "running", "paused", "stopped"}
        assert document.bundle == f"/run/nexcage/{machine.id}"
        assert document.annotations["org.nexcage.state"] == str(machine.state)
        assert msgspec.json.decode(msgspec.json.encode(document), type=type(document)) == document


@given(steps=st.lists(moves, max_size=20), stray=moves)
def test_an_event_either_follows_or_is_our_error(steps, stray):
    _, machines = lived(steps)
    move, intent, state = stray
    machine = machines.get(intent.id) or Machine(intent.id)
    other = Machine(intent.id).apply(Machine(intent.id).begin(Create(intent.id, SPEC), op_id="stranger"))
    try:
        machine.apply(event_of("succeed" if move == "begin" else move, intent, state, other, 99))
    except JournalError as error:
        assert machine.id in str(error)


def test_a_repeated_key_is_answered_from_what_is_remembered():
    machine = Machine("web-1")
    machine = machine.apply(machine.begin(Create("web-1", SPEC), op_id="c"))
    end = Succeeded(id="web-1", op=Op.CREATE, op_id="c", state=State.CREATED, vmid=104)
    machine = machine.apply(end)
    assert machine.outcome("c") == end
    assert machine.outcome("d") is None


def test_a_lost_answer_leaves_it_unknown_until_someone_looked():
    machine = Machine("web-1", state=State.STOPPED, was=State.STOPPED)
    machine = machine.apply(machine.begin(Start("web-1"), op_id="s"))
    machine = machine.apply(Interrupted(id="web-1", op=Op.START, op_id="s", error=LOST))
    assert machine.state is State.UNKNOWN
    with pytest.raises(IllegalTransition, match="unknown"):
        machine.begin(Start("web-1"), op_id="t")
    machine = machine.apply(Observed(id="web-1", state=State.RUNNING, pid=9))
    assert machine.state is State.RUNNING
    assert machine.unresolved is None


def test_what_a_probe_found_out_later_ends_the_lost_operation():
    machine = Machine("web-1", state=State.STOPPED, was=State.STOPPED)
    machine = machine.apply(machine.begin(Start("web-1"), op_id="s"))
    machine = machine.apply(Interrupted(id="web-1", op=Op.START, op_id="s", error=LOST))
    machine = machine.apply(
        Succeeded(id="web-1", op=Op.START, op_id="s", state=State.RUNNING, pid=9, resolved_by="probe")
    )
    assert machine.state is State.RUNNING
    assert machine.outcome("s").resolved_by == "probe"


def test_a_key_that_the_caller_gave_is_remembered_through_many_operations_that_have_none():
    machine = Machine("web-1")
    machine = machine.apply(machine.begin(Create("web-1", SPEC, op_id="mine"), op_id="mine"))
    made = Succeeded(id="web-1", op=Op.CREATE, op_id="mine", state=State.CREATED, vmid=104)
    machine = machine.apply(made)
    for n in range(50):
        state = State.STOPPED if n % 2 else State.RUNNING
        intent = Stop("web-1") if n % 2 else Start("web-1")
        machine = machine.apply(machine.begin(intent, op_id=f"made-up-{n}"))
        machine = machine.apply(Succeeded(id="web-1", op=intent.op, op_id=f"made-up-{n}", state=state, vmid=104))
    assert machine.outcome("mine") == made
    assert machine.outcome("made-up-0") is None
    assert len(machine.done) < 10

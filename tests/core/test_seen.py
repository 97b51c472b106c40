"""What a look shows: marks, states, and whether an operation whose answer was lost has happened (design 8)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import (
    Create,
    Delete,
    Guest,
    Intent,
    Kill,
    Look,
    Machine,
    Mark,
    Pause,
    Resume,
    Spec,
    Start,
    State,
    Stop,
    Task,
)
from nexcage._core.events import Began
from nexcage._core.seen import observed, probe, task_of

MARK = Mark("f1", "web-1", 104, "op-1")
SPEC = Spec("debian-12.tar.zst")
words = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_+.-]{0,20}", fullmatch=True)
marks = st.builds(Mark, words, words, st.integers(0, 999_999_999), words)


@given(marks, st.text(max_size=40), st.text(max_size=40))
def test_a_mark_is_found_between_whatever_people_write(mark: Mark, before: str, after: str) -> None:
    found = Mark.find(f"{before}\n{mark}\n{after}")
    others = any(line.startswith("nexcage fleet=") for line in (before + "\n" + after).split("\n"))
    assert found == (None if others else mark)


@given(st.text(alphabet="nexcag flt=id vmop01\n٣", max_size=60).map("nexcage fleet={}".format) | st.text(max_size=60))
def test_only_a_line_that_the_guard_would_find_is_a_mark(text: str) -> None:
    found = Mark.find(text)
    if found is not None:
        assert str(found) in text.split("\n")


@pytest.mark.parametrize(
    "text",
    [
        "", "nexcage", "nexcage fleet=f id=a vmid=x op=o", "nexcage fleet=f id=a vmid=0104 op=o", "nexcage fleet=f id=a vmid=104",
        "nexcage fleet=f id=a vmid=104 op=o more=x", "nexcage fleet=f id=a id=b vmid=104 op=o", " nexcage fleet=f id=a vmid=104 op=o",
        "nexcage fleet=f id=a vmid=104 op=o ", "nexcage  fleet=f id=a vmid=104 op=o", "nexcage fleet=f id=a vmid=٣ op=o",
        "nexcage id=a fleet=f vmid=104 op=o", f"{MARK}\n{MARK}", "nexcage fleet=f id=a vmid=9999999999 op=o",
    ],
)  # fmt: skip
def test_what_is_no_mark_is_none(text: str) -> None:
    assert Mark.find(text) is None


def look(
    *guests: Guest, elsewhere: dict[int, str] | None = None, tasks: tuple[Task, ...] = (), ops: tuple[str, ...] = ()
) -> Look:
    vmids = {guest.vmid: "pve1" for guest in guests} | (elsewhere or {})
    return Look("pve-01", "pve1", "boot", {guest.vmid: guest for guest in guests}, vmids, tasks, ops)


def test_a_copy_of_our_container_is_not_ours() -> None:
    copy = Guest(105, mark=MARK)
    assert copy.copy
    assert look(copy).find("f1", "web-1") is None
    ours = Guest(104, mark=MARK)
    assert look(copy, ours).find("f1", "web-1") == ours
    assert look(ours).find("f1", "web-1", "op-1") == ours
    assert look(ours).find("f1", "web-1", "op-2") is None
    assert look(ours).find("f2", "web-1") is None
    assert look(ours).find("f1", "web-2") is None
    assert look(Guest(104)).find("f1", "web-1") is None


@pytest.mark.parametrize(
    ("guest", "ran", "state"),
    [
        (None, True, State.ABSENT),
        (Guest(104), False, State.CREATED),
        (Guest(104), True, State.STOPPED),
        (Guest(104, running=True), False, State.RUNNING),
        (Guest(104, running=True, frozen=True), True, State.PAUSED),
        (Guest(104, running=True, frozen=True, lock="snapshot"), True, State.RUNNING),
        (Guest(104, running=True, frozen=True, lock="backup"), True, State.RUNNING),
        (Guest(104, running=True, frozen=True, lock="migrate"), True, State.PAUSED),
        (Guest(104, frozen=True), True, State.STOPPED),
    ],
)
def test_the_state_that_looking_shows(guest: Guest | None, ran: bool, state: State) -> None:
    assert observed(guest, Machine("web-1", ran=ran)) is state


@pytest.mark.parametrize(
    ("guest", "state"),
    [
        (Guest(104, running=True, gated=True, waiting=True, pid=7), State.CREATED),
        (Guest(104, running=True, gated=True), State.CREATED),  # its monitor is there a moment longer than its init
        (Guest(104, running=True, gated=True, pid=7), State.RUNNING),
        (Guest(104, gated=True), State.STOPPED),
    ],
)
def test_nobody_is_said_to_have_started_a_created_one_whose_init_is_gone(guest: Guest, state: State) -> None:
    assert observed(guest, Machine("web-1", state=State.CREATED, was=State.CREATED, pid=7)) is state


INTENTS: dict[str, Intent] = {
    "create": Create("web-1", SPEC), "start": Start("web-1"), "stop": Stop("web-1"), "pause": Pause("web-1"),
    "resume": Resume("web-1"), "delete": Delete("web-1"), "kill": Kill("web-1"),
}  # fmt: skip
STOPPED, RUNNING = Guest(104, mark=MARK), Guest(104, mark=MARK, running=True, pid=8)
PAUSED, FOREIGN = Guest(104, mark=MARK, running=True, frozen=True, pid=8), Guest(104, running=True, pid=8)
MADE = Guest(104, mark=Mark("f1", "web-1", 104, "op-9"))
CASES: list[tuple[str, str, dict[str, Any] | Guest | None]] = [
    ("create", "not", None),
    ("create", "done", MADE),
    ("create", "not", Guest(104, mark=MADE.mark, lock="create")),
    ("create", "not", Guest(104, lock="create")),  # what a killed worker left is no proof of ours
    ("create", "not", STOPPED),  # of an earlier create
    ("create", "not", Guest(105, mark=MADE.mark)),  # a clone
    ("start", "done", RUNNING),
    ("start", "not", STOPPED),
    ("start", "not", Guest(104, mark=MARK, running=True)),  # nobody has seen an init yet
    ("start", "not", PAUSED),
    ("start", "unknown", FOREIGN),
    ("start", "unknown", None),
    ("stop", "done", STOPPED),
    ("stop", "not", RUNNING),
    ("stop", "not", PAUSED),
    ("stop", "unknown", FOREIGN),
    ("stop", "unknown", None),
    ("pause", "done", PAUSED),
    ("pause", "not", RUNNING),
    ("pause", "not", STOPPED),
    ("pause", "not", Guest(104, mark=MARK, running=True, frozen=True, pid=8, lock="backup")),
    ("resume", "done", RUNNING),
    ("resume", "not", PAUSED),
    ("resume", "not", STOPPED),
    ("delete", "done", None),
    ("delete", "not", STOPPED),
    ("delete", "not", RUNNING),
    ("delete", "unknown", FOREIGN),
    ("delete", "unknown", Guest(104, mark=MARK, lock="destroyed")),
    ("kill", "unknown", RUNNING),
    ("kill", "unknown", STOPPED),
    ("kill", "unknown", None),
]


def lost(op: str) -> tuple[Began, Machine]:
    """An operation whose answer was lost, and the machine while it is under way."""
    creating = op == "create"
    machine = Machine("web-1", node="pve-01", vmid=104, mark="op-9" if creating else "op-1", ran=True)
    before, via = (State.ABSENT, State.CREATING) if creating else (State.STOPPED, State.STARTING)
    return Began(id="web-1", op=INTENTS[op].op, op_id="op-9", before=before, via=via, intent=INTENTS[op]), machine


@pytest.mark.parametrize(("op", "verdict", "guest"), CASES)
def test_the_verdict_by_the_table_of_the_design(op: str, verdict: str, guest: Guest | None) -> None:
    began, machine = lost(op)
    assert probe(began, machine, look(*filter(None, [guest])), "f1") == verdict


@pytest.mark.parametrize("op", list(INTENTS))
@pytest.mark.parametrize("guest", [None, STOPPED, RUNNING, FOREIGN, MADE])
def test_while_something_still_works_on_it_the_answer_is_to_wait(op: str, guest: Guest | None) -> None:
    began, machine = lost(op)
    task = Task("UPID:pve1:1:1:1:vzstart:104:root@pam:", "vzstart", 104, 1)
    here = tuple(filter(None, [guest]))
    assert probe(began, machine, look(*here, tasks=(task,)), "f1") == "wait"
    assert probe(began, machine, look(*here, ops=("op-9",)), "f1") == "wait"
    other = Task("UPID:pve1:1:1:1:vzstart:105:root@pam:", "vzstart", 105, 1)
    assert probe(began, machine, look(*here, tasks=(other,), ops=("op-8",)), "f1") != "wait"


def test_a_container_that_moved_was_not_deleted() -> None:
    began, machine = lost("delete")
    assert probe(began, machine, look(elsewhere={104: "pve2"}), "f1") == "not"


@pytest.mark.parametrize(
    ("op", "running", "verdict"),
    [("delete", False, "not"), ("start", True, "done"), ("start", False, "not"), ("stop", False, "done")],
)
def test_without_vmids_the_mark_says_which_container_it_is(op: str, running: bool, verdict: str) -> None:
    mark = msgspec.structs.replace(MARK, vmid=0)
    guest = Guest(0, mark=mark, running=running, pid=8 if running else 0)
    began, machine = lost(op)
    seen = Look("n", "n", "b", {1: Guest(0), 2: guest}, {})

    assert probe(began, msgspec.structs.replace(machine, vmid=0), seen, "f1") == verdict
    if op == "delete":
        assert probe(began, msgspec.structs.replace(machine, vmid=0), Look("n", "n", "b", {}, {}), "f1") == "done"


def test_the_task_of_a_container_is_found_by_its_number() -> None:
    tasks = (Task("a", "vzstart", 105, 1), Task("b", "vzstop", 104, 2))
    assert task_of(look(tasks=tasks), 104) == tasks[1]
    assert task_of(look(tasks=tasks), 106) is None


@given(st.integers(100, 99_999), st.integers(100, 99_999), st.sampled_from(["", "1", "0", "99"]), st.booleans())
def test_a_task_works_on_the_vmid_that_it_names_and_on_no_longer_or_shorter_one(
    vmid: int, other: int, more: str, front: bool
) -> None:
    near = int(f"{more}{vmid}" if front else f"{vmid}{more}") or other
    for works_on in (near, other, vmid):
        task = Task(f"UPID:pve:{works_on}", "vzstart", works_on, 7)
        look = Look("pve", "pve", "b", {}, {}, tasks=(task,))
        assert task_of(look, vmid) == (task if works_on == vmid else None)

"""What became of an abandoned operation: what the node kept is trusted before what is to be seen, and debris only with proof."""

from __future__ import annotations

import msgspec
import pytest

from nexcage._core.command import Result
from nexcage._core.events import Attempted, Began
from nexcage._core.evidence import judge
from nexcage._core.intents import Create, Delete, Kill, Start, Stop
from nexcage._core.keeping import Migrate
from nexcage._core.machine import Machine
from nexcage._core.seen import Guest, Look, Mark, Settled, Task
from nexcage._core.spec import Spec
from nexcage._core.states import Op, State

SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst")
MARK = Mark("f", "web", 104, "made")
KEPT = 3600.0


def machine(intent, *, steps=1, before=State.CREATED, via=State.STARTING, tool="pct", boot="b1"):
    began = Began(
        seq=7, id="web", op=intent.op, op_id="op", before=before, via=via, intent=intent, node="n", owner="gone"
    )
    began = msgspec.structs.replace(began, mark="op" if isinstance(intent, Create) else "made")
    last = (
        Attempted(id="web", op=intent.op, op_id="op", step=steps, tool=tool, boot_id=boot, uptime=100.0)
        if steps
        else None
    )
    return Machine(
        "web",
        state=via,
        was=before,
        node="n",
        vmid=104,
        mark=began.mark,
        running=began,
        steps=steps,
        last=last,
        ran=True,
    )


def look(*guests, tasks=(), ops=(), elsewhere=()):
    seen = {guest.vmid: guest for guest in guests}
    vmids = dict.fromkeys(seen, "n") | dict(elsewhere)
    return Look("n", "n", "b1", seen, vmids, tasks=tasks, ops=ops)


def settled(kind, exit=None, *, stderr=b"", boot="b1", uptime=200.0):
    result = Result(exit, b"", stderr) if kind == "ended" else None
    return Settled(kind=kind, result=result, at=1000, started=5, boot_id=boot, uptime=uptime)


def verdict(intent, seen, last, **more):
    m = machine(intent, **more)
    finding = judge(m.running, m, seen, last, "f", kept=KEPT)
    return finding.verdict, finding.by


OURS = Guest(104, mark=MARK)
UP = Guest(104, mark=MARK, running=True, pid=9)


def test_without_a_step_nothing_happened():
    assert verdict(Start("web"), look(OURS), None, steps=0) == ("not", "journal")


def test_a_command_that_still_runs_is_waited_for_whatever_is_seen():
    assert verdict(Start("web"), look(UP), settled("running")) == ("wait", "claim")


def test_a_task_of_it_is_waited_for():
    seen = look(OURS, tasks=(Task("UPID", "vzstart", 104, 77),))
    assert verdict(Start("web"), seen, settled("lost")) == ("wait", "task")


def test_a_step_that_never_began_did_nothing():
    assert verdict(Start("web"), look(UP), settled("void")) == ("not", "claim")


def test_a_container_with_the_mark_of_its_create_was_made_whatever_the_claims_say():
    mark = msgspec.structs.replace(MARK, op="op")

    assert verdict(Create("web", SPEC), look(Guest(104, mark=mark)), settled("void")) == ("done", "probe")
    assert verdict(Create("web", SPEC), look(OURS), settled("void")) == ("not", "claim")


@pytest.mark.parametrize(
    "last", [settled("void", uptime=100.0 + KEPT), settled("void", uptime=50.0), settled("void", boot="b2")]
)
def test_a_missing_claim_proves_nothing_when_it_may_have_been_swept_or_lost_in_a_reboot(last):
    assert verdict(Start("web"), look(UP), last) == ("done", "probe")


def test_the_wanted_state_decides_also_when_the_command_said_no():
    assert verdict(Start("web"), look(UP), settled("ended", 255)) == ("done", "claim")
    assert verdict(Start("web"), look(OURS), settled("ended", 0)) == ("not", "claim")
    assert verdict(Stop("web"), look(OURS), settled("ended", 0)) == ("done", "claim")


def test_a_signal_is_known_only_by_what_the_node_kept():
    assert verdict(Kill("web"), look(UP), settled("ended", 0)) == ("done", "claim")
    assert verdict(Kill("web"), look(UP), settled("ended", 1)) == ("not", "claim")
    assert verdict(Kill("web"), look(UP), settled("lost")) == ("unknown", "")
    assert verdict(Kill("web"), look(UP), settled("ended", 0, boot="b2")) == ("unknown", "")


def test_where_a_look_does_not_tell_the_boot_a_claim_that_is_there_still_counts():
    running, kept, void = settled("running"), settled("ended", 0), settled("void")
    assert verdict(Start("web"), look(OURS), running, boot="") == ("wait", "claim")
    assert verdict(Kill("web"), look(UP), kept, boot="") == ("done", "claim")
    assert verdict(Kill("web"), look(UP), void, boot="") == ("unknown", "")


@pytest.mark.parametrize("last", [settled("lost"), settled("ended", 137), settled("ended", 255)])
def test_half_made_is_ours_when_our_step_worked_on_it(last):
    assert verdict(Create("web", SPEC), look(Guest(104, lock="create")), last, via=State.CREATING) == ("half", "repair")


@pytest.mark.parametrize(
    "last",
    [
        None,
        settled("void"),
        settled("lost", boot="b2"),
        settled("ended", 255, stderr=b"unable to create CT 104 - CT 104 already exists on node 'n'"),
    ],
)
def test_half_made_without_proof_is_somebody_elses(last):
    assert verdict(Create("web", SPEC), look(Guest(104, lock="create")), last, via=State.CREATING)[0] == "not"


def test_half_deleted_is_finished_only_with_proof():
    seen = look(Guest(104, lock="destroyed"))
    assert verdict(Delete("web"), seen, settled("lost"), via=State.DELETING) == ("half", "repair")
    assert verdict(Delete("web"), seen, None, via=State.DELETING)[0] == "unknown"


def test_what_was_unlocked_by_an_interrupted_repair_is_still_half():
    seen = look(Guest(104))
    assert verdict(Create("web", SPEC), seen, settled("lost"), via=State.CREATING, tool="mend", steps=2) == (
        "half",
        "repair",
    )
    assert verdict(Create("web", SPEC), seen, settled("lost"), via=State.CREATING, steps=2)[0] == "not"


def test_another_container_in_its_place_is_never_confused():
    other = Guest(104, running=True, pid=5, mark=Mark("f", "web", 104, "somebody"))
    assert verdict(Start("web"), look(other), settled("ended", 0))[0] == "unknown"
    assert verdict(Delete("web"), look(other), settled("lost"), via=State.DELETING)[0] == "unknown"
    assert machine(Start("web")).running.op is Op.START


LOCKED = Guest(104, mark=MARK, lock="migrate")
ABORTED = b"ERROR: unable to write the config: no quorum\nmigration aborted\n"


@pytest.mark.parametrize(
    ("last", "wanted"),
    [
        (settled("ended", 255, stderr=ABORTED), "half"),
        (settled("ended", 255, stderr=b"ERROR: CT is locked (migrate)\n" + ABORTED), "not"),
        (settled("ended", 255, stderr=b"can't lock file '/run/lock' - got timeout\n" + ABORTED), "not"),
        (settled("ended", 137), "not"),
        (settled("ended", 0, stderr=ABORTED), "not"),
        (settled("lost"), "not"),
        (settled("ended", 255, stderr=ABORTED, boot="b2"), "not"),
        (settled("void", boot="b2"), "not"),
        (None, "not"),
    ],
)
def test_the_lock_of_a_migration_is_ours_when_its_own_command_says_that_it_came_so_far(last, wanted):
    assert verdict(Migrate("web", "n2"), look(LOCKED), last)[0] == wanted


@pytest.mark.parametrize(
    "guest",
    [Guest(104, mark=MARK, lock="backup"), Guest(104, lock="migrate"), OURS, Guest(105, mark=MARK, lock="migrate")],
)
def test_no_other_lock_is_that_of_our_migration(guest):
    assert verdict(Migrate("web", "n2"), look(guest), settled("ended", 255, stderr=ABORTED))[0] != "half"


def test_who_has_to_take_that_lock_away_is_told_how():
    m = machine(Migrate("web", "n2"))
    told = judge(m.running, m, look(LOCKED), settled("ended", 137), "f", kept=KEPT).why
    assert "`pct unlock 104` on n takes it away" in told

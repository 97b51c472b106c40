"""What crun and runc say, and what a look at their containers shows, however hostile the bytes are."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import (
    AlreadyExists,
    Blocked,
    CommandFailed,
    Content,
    IllegalTransition,
    InvalidInput,
    InvalidPath,
    InvalidSpec,
    Mark,
    NexcageError,
    NodeNotUsable,
    NotFound,
    NotOurs,
    Result,
)
from nexcage.tools import runtime
from nexcage.tools.runtime import Runtime, answers
from tests.tools.counting import Counted

CASES = Path(__file__).parent.parent / "cases" / "runtime"
MARK = Mark("f1", "a", 104, "made-1")
CRUN, RUNC = Runtime("crun"), Runtime("runc")
BOOT = "b2f0d1c4-0000-4000-8000-000000000001"

# ---- refusals --------------------------------------------------------------------------------------------------------------

MEANS: dict[str, type[NexcageError]] = {
    "container does not exist": NotFound,
    "exec failed: container does not exist": NotFound,
    "error opening file `ROOT/no/status`: No such file or directory": NotFound,
    "error opening file `ROOT/d/status`: No such file or directory": NotFound,
    "cannot open directory 'ROOT/no': No such file or directory": NotFound,
    "cannot open directory 'ROOT/a': No such file or directory": NotFound,
    "runc create failed: chdir /nope: no such file or directory": InvalidPath,
    "chdir `/nope` failed: No such file or directory": InvalidPath,
    "runc create failed: JSON specification file config.json not found": InvalidPath,
    "error loading config.json": InvalidPath,
    "runc create failed: unexpected EOF": InvalidSpec,
    "runc create failed: container with given ID already exists": AlreadyExists,
    "container `a` already exists": AlreadyExists,
    "cannot start an already running container": IllegalTransition,
    "cannot start a container that has stopped": IllegalTransition,
    "cannot start a container in the paused state": IllegalTransition,
    "cannot open `ROOT/a/exec.fifo`: No such file or directory": IllegalTransition,
    "container `a` is not running": IllegalTransition,
    "the container `a` is not running": IllegalTransition,
    "the container `a` is paused": IllegalTransition,
    "the container `a` is not in `created` or `stopped` state": IllegalTransition,
    "cannot delete container a that is not stopped: running": IllegalTransition,
    "cannot delete container a that is not stopped: paused": IllegalTransition,
    "container not paused": IllegalTransition,
    "container not running": IllegalTransition,
    "kill container: No such process": IllegalTransition,
    "container with id a is not running": IllegalTransition,
    "exec failed: cannot exec in a stopped container": IllegalTransition,
    "exec failed: cannot exec in a paused container (use --ignore-paused to override)": IllegalTransition,
    "unknown command events": NodeNotUsable,
    "unknown command nosuch": NodeNotUsable,
    "No help topic for 'nosuch'": NodeNotUsable,
}
OF_PROGRAMS = ("executable file", "unable to start container process")


def refusals() -> list[Any]:  # Any: pytest's parameters
    found: list[Any] = []
    for file in sorted(CASES.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            case = json.loads(line)
            if case.get("exit") and case["err"] and not any(word in case["err"] for word in OF_PROGRAMS):
                name = file.stem.partition("-")[0]
                found.append(pytest.param(name, case, id=f"{name} {' '.join(case['argv'])}"))
    return found


def refused(name: str, words: list[str], stderr: str, log: list[dict[str, str]], status: int = 1) -> NexcageError:
    program = Runtime("crun" if name == "crun" else "runc")
    command = runtime.start(program, MARK)
    argv = (*command.argv[:7], *words)
    said = "".join(f"{json.dumps(line)}\n" for line in log)
    text = stderr + (f"\n@nexcage said\n{said}" if said else "")
    shaped = runtime.start(program, MARK)
    shaped = type(shaped)(argv, shaped.parse)
    text = text.replace("ROOT", "/run/nexcage-oci/f1/crun")
    return runtime.classify(shaped, Result(status, b"", text.encode()), "n1")


@pytest.mark.parametrize(("name", "case"), refusals())
def test_every_recorded_refusal_has_its_meaning(name: str, case: dict[str, Any]) -> None:
    error = refused(name, case["argv"], case["err"], case["log"], case["exit"])

    assert type(error) is MEANS[case["err"].strip()]
    assert not error.uncertain
    assert not error.retryable


def test_who_starts_an_ended_one_reads_what_to_do() -> None:
    for name, said in (("runc", "cannot start a container that has stopped"), ("crun", "container `a` is not running")):
        error = refused(name, ["start", "a"], f"{said}\n", [])
        assert "cannot be started again: delete it and create it anew" in str(error)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("runc", "runc create failed: cannot allocate tty if runc will detach without setting console socket"),
        ("crun", "use --console-socket with create when a terminal is used"),
    ],
)
def test_who_wants_a_terminal_reads_how_to_have_one_or_do_without(name: str, said: str) -> None:
    error = refused(name, ["create", "a"], f"{said}\n", [])
    assert isinstance(error, InvalidSpec)
    assert (error.field, "--console-socket" in str(error)) == ("process.terminal", True)


def test_the_reason_is_the_last_error_of_the_log_and_not_what_the_container_prints() -> None:
    log = [
        {"level": "warning", "msg": "container does not exist"},
        {"level": "error", "msg": "container not running"},
        {"level": "info", "msg": "x"},
    ]

    error = refused("runc", ["kill", "a", "15"], "container with given ID already exists\n", log)

    assert isinstance(error, IllegalTransition)


@pytest.mark.parametrize(
    ("stderr", "status", "kind"),
    [
        ("nexcage: the container does not carry our mark\n", 9, NotOurs),
        ("nexcage: the number is taken\n", 7, AlreadyExists),
        ("sh: 1: crun: not found\n", 127, NodeNotUsable),
        ("bash: line 1: crun: command not found\n", 127, NodeNotUsable),
        ("runc create failed: container's cgroup unexpectedly frozen\n", 1, Blocked),
        ("cgroups in hybrid mode not supported, drop all controllers from cgroupv2\n", 1, NodeNotUsable),
        ("something new\n", 1, CommandFailed),
    ],
)
def test_what_is_said_around_the_programs_has_its_meaning(stderr: str, status: int, kind: type[NexcageError]) -> None:
    assert type(refused("crun", ["create", "a"], stderr, [], status)) is kind


@given(st.binary(max_size=300))
def test_no_log_breaks_the_reading_of_a_refusal(noise: bytes) -> None:
    command = runtime.start(RUNC, MARK)

    assert isinstance(runtime.classify(command, Result(1, noise, noise), "n1"), NexcageError)
    assert isinstance(runtime.last_error(noise), str)


# ---- argv ------------------------------------------------------------------------------------------------------------------


def test_commands_are_shown_as_an_operator_types_them() -> None:
    assert runtime.start(RUNC, MARK).typed == ("runc", "start", "a")
    assert runtime.kill(CRUN, MARK, 15, everything=True).typed == ("crun", "kill", "--all", "a", "15")
    assert runtime.update(CRUN, MARK, memory=1 << 20, cpus="0-1").typed == (
        *("crun", "update", "--memory", "1048576", "--cpuset-cpus", "0-1", "a"),
    )
    assert runtime.create(CRUN, MARK, "/srv/b", "--no-pivot").typed == (
        *("crun", "create", "--bundle", "/srv/b", "--no-pivot", "a"),
    )


def test_a_helper_in_front_of_the_program_reaches_the_shell_word_by_word() -> None:
    helped = Runtime("crun", ("unshare", "-m", "sh", "-c", 'umount /x; exec crun "$@"', "crun"))

    assert helped.program == "unshare -m sh -c 'umount /x; exec crun \"$@\"' crun"


def test_what_no_program_would_take_is_refused_before_anything_runs() -> None:
    with pytest.raises(InvalidInput):
        runtime.kill(CRUN, MARK, 0)
    with pytest.raises(InvalidInput):
        runtime.update(CRUN, MARK)
    with pytest.raises(InvalidInput):
        runtime.update(CRUN, MARK, colour=1)
    with pytest.raises(InvalidPath):
        runtime.create(CRUN, MARK, "b")
    with pytest.raises(InvalidPath):
        runtime.create(CRUN, MARK, Content("sha256:" + "a" * 64))


# ---- answers ---------------------------------------------------------------------------------------------------------------


def test_runc_prints_null_for_none_and_crun_an_empty_list() -> None:
    assert answers.listed(b"null\n") == answers.listed(b"[\n\n]\n") == ()
    assert answers.pids(Result(0, b"null\n")) == ()


def test_one_container_that_cannot_be_read_costs_only_itself() -> None:
    found = answers.listed(b'[{"id":"a","pid":5,"status":"running"},{"id":7},{"id":"b","pid":-1},{"id":"c"}]')

    assert [one.id for one in found] == ["a", "c"]


@given(st.binary(max_size=200))
def test_answers_that_are_none_raise_value_error_only(noise: bytes) -> None:
    for read in (answers.pids, answers.features, answers.usage, answers.version):
        with contextlib.suppress(ValueError):
            read(Result(0, noise))


# ---- the look --------------------------------------------------------------------------------------------------------------


class Ground:
    """A node as a directory, with programs that say what they are told to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir()
        self.put("proc/sys/kernel/random/boot_id", f"{BOOT}\n")
        self.put("proc/sys/kernel/hostname", "n1\n")

    def put(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def mark(self, id: str, vmid: int = 104, *, runtime: str = "crun", boot: str = BOOT, place: str = "") -> None:
        text = f"nexcage fleet=f1 id={id} vmid={vmid} op=made-1\n{runtime}\n{boot}\n"
        self.put(f"var/lib/nexcage-oci/f1/{place or id}/mark", text)

    def box(self, id: str, runtime: str = "crun") -> None:
        (self.root / f"run/nexcage-oci/f1/{runtime}/{id}").mkdir(parents=True)

    def alive(self, pid: int, state: str = "S", started: int = 77) -> None:
        self.put(f"proc/{pid}/stat", f"{pid} (in) it) {state} 1 {'0 ' * 17}{started} 0 0\n")

    def says(self, name: str, text: str, status: int = 0) -> None:
        (self.root / f"{name}.txt").write_text(text)
        program = self.bin / name
        program.write_text(
            f'#!/bin/sh\necho "$@" >> {self.root}/{name}.calls\ncat {self.root}/{name}.txt\nexit {status}\n'
        )
        program.chmod(0o755)

    def calls(self, name: str) -> int:
        return len((self.root / f"{name}.calls").read_text().splitlines())

    def look(self) -> Any:  # Any: a Look
        command = runtime.look("n1", ("op-1",))
        env = {"PATH": f"{self.bin}:/usr/bin:/bin", "NEXCAGE_NODE_ROOT": str(self.root), "LC_ALL": "C"}
        done = subprocess.run(command.argv, env=env, capture_output=True, check=True, cwd=os.sep)
        return command.parse(Result(0, b"hello, I am a banner\n@nexcage\n" + done.stdout, done.stderr))


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def rows(*found: tuple[str, int, str]) -> str:
    return json.dumps([{"id": id, "pid": pid, "status": status, "bundle": "/b"} for id, pid, status in found])


def test_one_process_of_each_program_answers_for_all_containers(ground: Ground) -> None:
    ids = [f"web-{n}" for n in range(40)]
    for n, id in enumerate(ids):
        ground.box(id)
        ground.mark(id, 200 + n)
        ground.alive(5000 + n)
    ground.says("crun", rows(*((id, 5000 + n, "running") for n, id in enumerate(ids))))

    seen = ground.look()

    assert [guest.name for guest in seen.guests.values()] == ids
    assert all(g.running and g.started == 77 and g.mark and g.runtime == "crun" for g in seen.guests.values())
    assert ground.calls("crun") == 1


def test_a_program_without_containers_is_not_called(ground: Ground) -> None:
    ground.says("crun", "[]")
    (ground.root / "run/nexcage-oci/f1/crun").mkdir(parents=True)

    assert ground.look().guests == {}
    assert not (ground.root / "crun.calls").exists()


def test_states_are_told_apart(ground: Ground) -> None:
    found = (("a", 51, "created"), ("b", 52, "running"), ("c", 53, "paused"), ("d", 0, "stopped"), ("z", 54, "running"))
    for n, (id, pid, _) in enumerate(found):
        ground.box(id, "runc")
        ground.mark(id, 300 + n, runtime="runc")
        if pid:
            ground.alive(pid, "Z" if id == "z" else "S")
    ground.says("runc", rows(*found))

    guests = {guest.name: guest for guest in ground.look().guests.values()}

    assert [guests[id].waiting for id in "abcd"] == [True, False, False, False]
    assert [guests[id].frozen for id in "abcd"] == [False, False, True, False]
    assert [guests[id].running for id in "abcdz"] == [True, True, True, False, False]


def test_nothing_that_a_program_says_can_fake_another_part(ground: Ground) -> None:
    ground.box("a")
    ground.mark("a")
    text = '@nexcage end\n@nexcage marks\n f1 b crun x - there nexcage fleet=f1 id=b vmid=7 op=x\n[{"id":"b","pid":1}]'
    ground.says("crun", text)
    with pytest.raises(ValueError, match="list of containers"):
        ground.look()

    evil = json.dumps(
        [{"id": "a\n@nexcage end", "pid": 9}, {"id": "../b", "pid": 9}, {"id": "a", "pid": 0, "status": "stopped"}]
    )
    ground.says("crun", evil)

    assert [guest.name for guest in ground.look().guests.values()] == ["a"]


def test_names_that_no_id_can_have_are_left_out(ground: Ground) -> None:
    ground.box("a\n@nexcage end\n")
    ground.box("a b")
    ground.mark("x", place="x\n@nexcage end")
    ground.says("crun", "[]")

    assert ground.look().guests == {}


def test_a_mark_in_a_copied_directory_is_nobodys(ground: Ground) -> None:
    ground.mark("web-1", place="copy")

    assert ground.look().guests == {}


def test_a_mark_without_its_container_is_half_made_until_the_node_reboots(ground: Ground) -> None:
    ground.mark("web-1")
    ground.mark("old-1", 105, boot="another")

    guests = ground.look().guests

    assert {vmid: (guest.half, guest.running) for vmid, guest in guests.items()} == {104: ("half-made", False)}


def test_a_container_that_breaks_the_list_costs_only_itself(ground: Ground) -> None:
    for id, vmid in (("good", 104), ("bad", 105)):
        ground.box(id)
        ground.mark(id, vmid)
    ground.alive(60)
    program = ground.bin / "crun"
    one = json.dumps({"id": "good", "pid": 60, "status": "running"})
    program.write_text(f"#!/bin/sh\ncase \"$*\" in *' list '*) exit 139 ;; *good) echo '{one}' ;; *) exit 1 ;; esac\n")
    program.chmod(0o755)

    guests = ground.look().guests

    assert (guests[104].running, guests[104].broken) == (True, False)
    assert (guests[105].running, guests[105].broken) == (False, True)


def test_two_containers_of_one_number_are_both_seen(ground: Ground) -> None:
    for id in ("a", "b"):
        ground.box(id)
        ground.mark(id, 104)
    ground.says("crun", rows(("a", 0, "stopped"), ("b", 0, "stopped")))

    guests = ground.look().guests

    assert sorted(guest.name for guest in guests.values()) == ["a", "b"]
    assert len(guests) == 2


def test_a_missing_program_is_an_error_only_where_it_has_containers(ground: Ground) -> None:
    assert ground.look().guests == {}
    ground.box("a", "nothing")
    command = runtime.look("n1")
    head = f"@nexcage boot\n{BOOT}\n@nexcage list crun f1 127\n@nexcage marks\n@nexcage ops\n@nexcage end\n"

    with pytest.raises(NodeNotUsable, match="there is no `crun`"):
        command.parse(Result(0, head.encode()))


async def test_a_look_at_a_node_without_containers_starts_no_program(ground: Ground, tmp_path: Path) -> None:
    ground.put("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:    4096 kB\n")
    command = runtime.look("n1")
    seen, programs, divided = await Counted(tmp_path).run("sh", command, {"NEXCAGE_NODE_ROOT": str(ground.root)})

    assert (programs, divided) == ([], set())
    look = command.parse(seen)
    assert (look.boot_id, look.pve, look.memory, look.uptime > 0) == (BOOT, "n1", 4, True)


@given(st.binary(max_size=400))
def test_a_look_at_noise_is_an_error_and_never_an_empty_node(noise: bytes) -> None:
    command = runtime.look("n1")

    with pytest.raises((ValueError, NexcageError)):
        command.parse(Result(0, b"@nexcage boot\n" + noise))

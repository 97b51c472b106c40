"""Looking: what a node prints is never believed further than it goes, and the scripts do in a real shell what their twins do."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nexcage
from nexcage import Command, Guest, IllegalTransition, Look, Mark, NexcageError, NodeNotUsable, NotOurs, Result
from nexcage.testing import SimCluster, SimNode
from nexcage.testing._model.files import SIM
from nexcage.tools import lxc, pct
from tests.tools.counting import Counted

ROOT = Path(__file__).parents[2]
DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]
LOOKING = [*SHELLS, *(["busybox sh"] if shutil.which("busybox") else [])]
MARK = Mark("f1", "web+1.x", 104, "op.1")
VM = Mark("f1", "db", 200, "op.2")
WHOLE = f"""@nexcage boot
0b9e-boot
@nexcage name
nodes/pve1
@nexcage memory
2048 kB
@nexcage members
{{"nodename": "pve1", "version": 2}}
@nexcage vmlist
{{"version": 3, "ids": {{"104": {{"node": "pve1", "type": "lxc", "version": 1}}, "300": {{"node": "pve2", "type": "qemu", "version": 1}}}}}}
@nexcage running
104 8123 S 1 8123 8123 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 99887 0 0
@nexcage frozen
104/cgroup.freeze
@nexcage tasks
UPID:pve1:0000ABCD:00001234:66666666:vzstart:104:root@pam:
@nexcage ops
op.1
@nexcage configs
104.conf
105.conf
@nexcage texts
104.conf:#{MARK}
104.conf:arch: amd64
104.conf:hostname: web
104.conf:lock: backup
104.conf:memory: 512
104.conf:tags: nexcage;prod
@nexcage vms
200 9001 S 1 9001 9001 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 7788 0 0
201 9002 S 1 9002 9002 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 7789 0 0
@nexcage vmconfigs
200.conf
201.conf
202.conf
@nexcage vmtexts
200.conf:#{VM}
200.conf:memory: 1024
200.conf:name: db
201.conf:memory: current=2048
201.conf:[snap]
201.conf:name: before
202.conf:template: 1
@nexcage vmstates
200 paused
@nexcage end
""".encode()


def read(stdout: bytes, exit: int = 0, dropped: int = 0) -> Look:
    return lxc.look("pve-01").parse(Result(exit, stdout, dropped=dropped))


def test_a_look_says_everything_about_a_node() -> None:
    look = read(WHOLE)
    assert (look.node, look.pve, look.boot_id, look.memory, look.quorate) == ("pve-01", "pve1", "0b9e-boot", 2, True)
    assert dict(look.guests) == {
        104: Guest(
            104, running=True, frozen=True, pid=8123, started=99887, name="web", lock="backup", tags=("nexcage", "prod"),
            mark=MARK, memory=512,
        ),
        105: Guest(105, name="CT105"),
        200: Guest(
            200, running=True, frozen=True, pid=9001, started=7788, name="db", mark=VM, memory=1024, kind="vm",
        ),
        201: Guest(201, running=True, pid=9002, started=7789, name="VM 201", memory=2048, kind="vm"),
        202: Guest(202, name="VM 202", template=True, kind="vm"),
    }  # fmt: skip
    assert dict(look.vmids) == {104: "pve1", 300: "pve2"}
    assert [(task.type, task.vmid, task.pid) for task in look.tasks] == [("vzstart", 104, 0xABCD)]
    assert look.ops == ("op.1",)
    assert look.find("f1", "web+1.x") == look.guests[104]


@pytest.mark.parametrize("banner", [b"Welcome!\n", b"\xff\x00@nexcage\n", b"Last login: today", b"@nexcage\nboot\n\n"])
def test_a_banner_in_front_changes_nothing(banner: bytes) -> None:
    assert read(banner.rstrip(b"\n") + b"\n" + WHOLE) == read(WHOLE)


@pytest.mark.parametrize("cut", range(0, len(WHOLE) - 1, 7))
def test_a_look_that_was_cut_off_is_no_answer(cut: int) -> None:
    with pytest.raises((ValueError, NodeNotUsable)):
        read(WHOLE[:cut])


@pytest.mark.parametrize(
    "section",
    "boot memory members vmlist running frozen tasks ops configs texts vms vmconfigs vmtexts".split(),
)
def test_a_look_that_lacks_a_part_is_no_answer(section: str) -> None:
    head, _, rest = WHOLE.partition(f"@nexcage {section}\n".encode())
    with pytest.raises(ValueError, match=section):
        read(head + rest[rest.index(b"@nexcage ") :])


def test_a_list_of_guests_that_cannot_be_read_is_not_an_empty_one() -> None:
    start, end = WHOLE.index(b'{"version": 3'), WHOLE.index(b"@nexcage running")
    for text in (b"", b"\n", b'{"version": 3, "ids": {"104"\n', b"cat: error\n"):
        with pytest.raises(ValueError, match="guests"):
            read(WHOLE[:start] + text + WHOLE[end:])


def test_output_that_was_cut_in_the_middle_is_no_answer() -> None:
    with pytest.raises(ValueError, match="longer"):
        read(WHOLE, dropped=1)


def test_without_a_local_directory_it_is_no_pve_node() -> None:
    with pytest.raises(NodeNotUsable, match="not a Proxmox VE node"):
        read(WHOLE.replace(b"nodes/pve1\n@nexcage memory", b"@nexcage memory"))


@pytest.mark.parametrize(
    "line",
    [
        b"@nexcage end",
        b"@nexcage running\n104.conf:105 99 S",
        b"105.conf:lock: backup",
        b"\n\n@nexcage texts",
        b"\r@nexcage frozen\r105/x",
    ],
)
def test_a_config_cannot_fake_another_part_or_another_container(line: bytes) -> None:
    """grep puts the file's name in front of every line of a config, so none of them begins like a marker."""
    inside = b"".join(b"104.conf:" + part + b"\n" for part in (b"#x " + line).split(b"\n"))
    look = read(WHOLE.replace(b"104.conf:arch: amd64\n", inside + b"104.conf:arch: amd64\n"))
    assert look.guests[105] == read(WHOLE).guests[105]
    assert look.guests[104].pid == 8123
    assert look.guests[104].lock == "backup"


def test_the_first_of_two_equal_parts_counts() -> None:
    assert read(WHOLE + WHOLE.replace(b"8123", b"1").replace(b"0b9e", b"ffff")) == read(WHOLE)


@pytest.mark.parametrize("empty", [(), (104,), (105,), (106,), (104, 105, 106)])
@pytest.mark.parametrize("stray", [None, "10-old", "104-old", "105-old", "999-old"])
def test_each_config_has_its_own_lines_whatever_else_lies_there(empty: tuple[int, ...], stray: str | None) -> None:
    names = sorted([*(f"{vmid}.conf" for vmid in (104, 105, 106)), *([] if stray is None else [f"{stray}.conf"])])
    lines = [
        f"{name}:{line}\n"
        for name in names
        if not any(name == f"{vmid}.conf" for vmid in empty)
        for line in (f"hostname: of-{name}", "memory: 64", "[s1]", "hostname: before")
    ]
    start, end = WHOLE.index(b"104.conf\n105.conf\n"), WHOLE.index(b"@nexcage vms\n")
    part = "".join(f"{name}\n" for name in names) + "@nexcage texts\n" + "".join(lines)

    look = read(WHOLE[:start] + part.encode() + WHOLE[end:])

    guests = [look.guests[vmid] for vmid in (104, 105, 106)]
    assert [vmid for vmid, guest in look.guests.items() if guest.kind == "lxc"] == [104, 105, 106]
    assert [g.name for g in guests] == [f"CT{v}" if v in empty else f"of-{v}.conf" for v in (104, 105, 106)]
    assert not any(guest.broken for guest in guests)
    assert [vmid for vmid in (104, 105, 106) if vmid in look.details] == [v for v in (104, 105, 106) if v not in empty]
    assert {**look.details}.keys() == {200, 201, 202, 104, 105, 106} - set(empty)


def test_a_container_of_which_nothing_has_changed_is_the_same_object() -> None:
    first = read(WHOLE)
    again = read(WHOLE.replace(b"-1 4194560 0 0 0", b"-1 4194560 7 8 9").replace(b"2048 kB", b"1024 kB"))
    assert again.guests[104] is first.guests[104]
    assert read(WHOLE.replace(b"104 8123", b"104 8124")).guests[104].pid == 8124
    assert read(WHOLE.replace(b"104/cgroup.freeze\n", b"")).guests[104] == msgspec.structs.replace(
        first.guests[104], frozen=False
    )


def test_a_virtual_machine_that_does_not_answer_is_silent_and_one_that_never_ran_does_not_run() -> None:
    silent = read(WHOLE.replace(b"200 paused\n", b"")).guests[200]
    backed_up = read(WHOLE.replace(b"200 paused", b"200 prelaunch")).guests[200]
    assert (silent.running, silent.frozen, silent.silent) == (True, False, True)
    assert (backed_up.running, backed_up.pid) == (False, 0)


def test_a_virtual_machine_cannot_be_faked_by_a_container_nor_the_other_way_round() -> None:
    look = read(WHOLE.replace(b"104 8123", b"200 8123").replace(b"200 9001", b"104 9001"))
    assert not look.guests[200].running
    assert not look.guests[104].running


def test_no_quorum_is_seen() -> None:
    members = b'{"nodename": "pve1", "version": 2, "cluster": {"name": "c", "quorate": 0}}'
    assert not read(WHOLE.replace(b'{"nodename": "pve1", "version": 2}', members)).quorate
    assert read(WHOLE.replace(b'{"nodename": "pve1", "version": 2}', members.replace(b": 0", b": 1"))).quorate


@given(st.binary(max_size=300))
def test_rubbish_is_refused(data: bytes) -> None:
    with pytest.raises((ValueError, NexcageError)):
        read(data)


@given(st.data())
def test_a_look_with_rubbish_in_it_is_read_or_refused(data: st.DataObject) -> None:
    """And what is lazy in it does not break later."""
    start = data.draw(st.integers(0, len(WHOLE)))
    end = data.draw(st.integers(start, min(len(WHOLE), start + 40)))
    rubbish = data.draw(
        st.binary(max_size=30) | st.sampled_from([b"\n@nexcage end\n", b"104.conf:", b"9" * 30, b"[[[[", b"{" * 30])
    )
    try:
        look = read(WHOLE[:start] + rubbish + WHOLE[end:])
    except (ValueError, NexcageError):
        return
    assert all(vmid == guest.vmid for vmid, guest in look.guests.items())
    assert all(isinstance(node, str) for node in look.vmids.values())
    found = look.find("f1", "web+1.x")
    assert found is None or (found.mark is not None and (found.mark.fleet, found.mark.id) == ("f1", "web+1.x"))
    repr(look)


# ---- the scripts in real shells ------------------------------------------------------------------------------------------------


class OnDisk:
    """A simulated node on disk, its twin in this process and real shells that work on the same files."""

    def __init__(self, sim: SimCluster, directory: Path) -> None:
        self.sim = sim
        self.node: SimNode = sim["pve-01"]
        self.root = directory / "nodes" / "pve-01" / "root"
        self.bin = directory / "bin"
        self.bin.mkdir()
        for tool in ("pct", "lxc-info", "kill"):
            words = f'{sys.executable} -m nexcage.testing._model {directory} pve-01 {tool} "$@"'
            (self.bin / tool).write_text(f"#!/bin/sh\nexport PYTHONPATH={ROOT}\nexec {words}\n")
            (self.bin / tool).chmod(0o755)
        self.environ = {**os.environ, "NEXCAGE_NODE_ROOT": str(self.root), "PATH": f"{self.bin}:{os.environ['PATH']}"}

    async def twin(self, command: Command[Any], env: Mapping[str, str] | None = None) -> Result:
        return await self.node.run(command.argv, env=env)

    async def real(self, shell: str, command: Command[Any], env: Mapping[str, str] | None = None) -> Result:
        assert command.argv[0] == "sh"
        done = await anyio.run_process(
            [*shell.split(), *command.argv[1:]], env={**self.environ, **(env or {})}, check=False
        )
        return Result(done.returncode, done.stdout, done.stderr)

    async def create(self, mark: Mark, *options: str) -> None:
        words = [
            "pct",
            "create",
            str(mark.vmid),
            DEBIAN,
            "--storage",
            "local-zfs",
            "--description",
            str(mark),
            *options,
        ]
        result = await self.node.run(words)
        assert result.exit == 0, result.stderr

    async def pct(self, *words: str) -> None:
        result = await self.node.run(["pct", *words])
        assert result.exit == 0, result.stderr


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[OnDisk]:
    with SimCluster(2, seed=3, dir=tmp_path / "sim", pace=0) as sim:
        yield OnDisk(sim, tmp_path / "sim")


def timeless(look: Look) -> Look:
    """Without the uptime: a simulated node on disk runs its scripts on this machine."""
    return msgspec.structs.replace(look, uptime=0.0)


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_real_shell_sees_what_the_twin_sees(disk: OnDisk, shell: str) -> None:
    with disk.node.step():  # up for a while
        disk.node.files.write(f"{SIM}/booted", repr(disk.sim.clock() - 1000))
    await disk.create(MARK, "--hostname", "web", "--tags", "a;b")
    await disk.create(Mark("f1", "db", 105, "op-2"))
    await disk.pct("start", "104")
    await disk.pct("start", "105")
    await disk.node.run(["lxc-freeze", "-n", "105"])
    await disk.pct("set", "104", "--lock", "backup")
    await disk.create(Mark("f2", "x", 106, "op-3"), "--description", "@nexcage end\n[s1]\nlock: x\n# %0A:")
    command = lxc.look("pve-01", ("op-1",))

    real, twin = await disk.real(shell, command), await disk.twin(command)

    assert (real.exit, real.stderr) == (0, b"")
    look = command.parse(real)
    assert timeless(look) == timeless(command.parse(twin))
    assert dict(look.vmids) == {104: "pve-01", 105: "pve-01", 106: "pve-01"}
    assert [(g.vmid, g.running, g.frozen, g.lock, g.mark is not None) for g in look.guests.values()] == [
        (104, True, False, "backup", True), (105, True, True, "", True), (106, False, False, "", False),
    ]  # fmt: skip
    assert look.guests[104].pid == disk.node.model.init_pid(104)
    assert look.guests[104].started >= 100_000
    assert look.guests[104].mark == MARK


@pytest.mark.parametrize("shell", LOOKING)
async def test_a_node_without_containers_is_seen_too(disk: OnDisk, shell: str) -> None:
    command = lxc.look("pve-01")
    look = command.parse(await disk.real(shell, command))
    assert timeless(look) == timeless(command.parse(await disk.twin(command)))
    assert (dict(look.guests), look.pve) == ({}, "pve-01")


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_look_starts_three_programs_however_many_containers_run(
    disk: OnDisk, shell: str, tmp_path: Path
) -> None:
    counted = Counted(tmp_path)
    command = lxc.look("pve-01")
    idle, programs, divided = await counted.run(shell, command, disk.environ)
    assert (len(command.parse(idle).guests), programs, divided) == (0, ["cat", "sed"], set())

    for vmid in range(100, 150):
        await disk.create(Mark("f1", f"web-{vmid}", vmid, f"op-{vmid}"))
        await disk.pct("start", str(vmid))
    await disk.node.run(["lxc-freeze", "-n", "105"])
    busy, programs, divided = await counted.run(shell, command, disk.environ)

    assert (programs, divided) == (["cat", "grep", "sed"], set())
    guests = command.parse(busy).guests.values()
    assert [(g.running, g.frozen) for g in guests] == [(True, vmid == 105) for vmid in range(100, 150)]


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_look_for_operations_starts_one_program_for_each(disk: OnDisk, shell: str, tmp_path: Path) -> None:
    counted = Counted(tmp_path)
    _, programs, divided = await counted.run(shell, lxc.look("pve-01", ("op-1", "op.2")), disk.environ)
    assert (programs, divided) == (["cat", "grep", "grep", "sed"], set())


@pytest.mark.parametrize("shell", LOOKING)
async def test_whoever_talks_to_a_container_does_not_make_it_two(disk: OnDisk, shell: str) -> None:
    for vmid in (104, 105):
        await disk.create(Mark("f1", f"web-{vmid}", vmid, "op-1"))
        await disk.pct("start", str(vmid))
    sockets = disk.root / "proc/net/unix"
    sockets.write_text(sockets.read_text() * 3)

    result = await disk.real(shell, lxc.look("pve-01"))

    running = result.stdout.partition(b"@nexcage running\n")[2].partition(b"@nexcage")[0]
    assert [line.split()[0] for line in running.splitlines()] == [b"104", b"105"]


@pytest.mark.parametrize("shell", LOOKING)
async def test_only_a_socket_makes_a_container_run_and_only_its_own(disk: OnDisk, shell: str) -> None:
    for vmid in (104, 105):
        await disk.create(Mark("f1", f"web-{vmid}", vmid, "op-1"))
    await disk.pct("start", "104")
    sockets = disk.root / "proc/net/unix"
    sockets.write_text(
        "".join(line + line.replace("/104/", "/0104/") for line in sockets.read_text().splitlines(keepends=True))
    )
    active = disk.root / "var/log/pve/tasks/active"
    active.parent.mkdir(parents=True, exist_ok=True)
    active.write_text(
        "UPID:pve-01:00000001:00001234:66666666:vzstart:105:root@pam: 1 66666670 no @/var/lib/lxc/105/command\n"
    )
    command = lxc.look("pve-01")
    guests = command.parse(await disk.real(shell, command)).guests
    assert {vmid: (guest.running, guest.pid) for vmid, guest in guests.items()} == {
        104: (True, disk.node.model.init_pid(104)), 105: (False, 0),
    }  # fmt: skip


@pytest.mark.parametrize("shell", LOOKING)
async def test_files_without_a_last_newline_and_files_that_are_missing_do_not_hide_others(
    disk: OnDisk, shell: str
) -> None:
    await disk.create(MARK)
    await disk.pct("start", "104")
    command = lxc.look("pve-01")
    whole = command.parse(await disk.real(shell, command))
    for name in (
        "proc/sys/kernel/random/boot_id proc/meminfo proc/net/unix etc/pve/.members etc/pve/.vmlist etc/pve/lxc/104.conf "
        "sys/fs/cgroup/lxc/104/cgroup.freeze"
    ).split():
        path = disk.root / name
        path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert timeless(command.parse(await disk.real(shell, command))) == timeless(whole)

    (disk.root / "etc/pve/.members").unlink()
    (disk.root / "proc/meminfo").unlink()
    (disk.root / "sys/fs/cgroup/lxc/104/cgroup.freeze").unlink()
    less = command.parse(await disk.real(shell, command))
    assert (less.memory, less.pve, dict(less.guests)) == (0, "pve-01", dict(whole.guests))


@pytest.mark.parametrize("shell", LOOKING)
async def test_the_name_of_a_node_whose_own_directory_is_gone_is_seen(disk: OnDisk, shell: str) -> None:
    local = disk.root / "etc/pve/local"
    local.unlink()
    local.symlink_to("nodes/pve-07")
    look = lxc.look("pve-01")
    assert look.parse(await disk.real(shell, look)).pve == "pve-07"

    local.unlink()
    local.mkdir()
    with pytest.raises(NodeNotUsable):  # a plain directory is not pmxcfs
        look.parse(await disk.real(shell, look))


@pytest.mark.parametrize("shell", LOOKING)
async def test_tasks_that_have_ended_or_died_are_not_seen(disk: OnDisk, shell: str) -> None:
    begins = f"UPID:pve-01:{os.getpid():08X}:00001234:66666666"
    (disk.root / f"proc/{os.getpid()}").mkdir(parents=True)
    active = disk.root / "var/log/pve/tasks/active"
    active.parent.mkdir(parents=True, exist_ok=True)
    active.write_text(
        f"{begins}:vzstop:104:root@pam: 1 66666670 OK\n{begins}:vzstart:*:root@pam: 0\n{begins}:vzdump:105:root@pam:\n"
        f"{begins.replace(f'{os.getpid():08X}', '0FFFFFFF')}:vzstart:106:root@pam: 0\nrubbish\n:\n{begins}:vzcreate:107:a@pam: 0"
    )
    result = await disk.real(shell, lxc.look("pve-01"))

    tasks = result.stdout.partition(b"@nexcage tasks\n")[2].partition(b"@nexcage")[0].decode()
    assert [line.split(":")[5:7] for line in tasks.splitlines()] == [
        ["vzstart", "*"],
        ["vzdump", "105"],
        ["vzcreate", "107"],
    ]


@pytest.mark.parametrize("shell", LOOKING)
async def test_a_directory_of_configs_that_cannot_be_read_is_not_an_empty_one(disk: OnDisk, shell: str) -> None:
    (disk.root / "etc/pve/lxc").unlink()
    command = lxc.look("pve-01")
    with pytest.raises(ValueError, match="texts"):
        command.parse(await disk.real(shell, command))


@pytest.mark.parametrize("shell", LOOKING)
async def test_an_operation_is_found_by_its_whole_id(disk: OnDisk, shell: str) -> None:
    asked = ("order-1", "order-17", "order.17", "rder-17", "order-17.x")
    command = lxc.look("pve-01", asked)
    async with await anyio.open_process(
        ["sleep", "60"], env={**os.environ, "NEXCAGE_OP_ID": "order-17", "Z": "1"}
    ) as process:
        look = command.parse(await disk.real(shell, command))
        process.kill()
    assert look.ops == ("order-17",)
    assert command.parse(await disk.real(shell, command)).ops == ()


GUARDED = [
    ("our own", MARK, 104, True),
    ("a dot is a dot", Mark("f1", "web+1Xx", 104, "op.1"), 104, False),
    ("a plus is a plus", Mark("f1", "webb1.x", 104, "op.1"), 104, False),
    ("the whole line", Mark("f1", "web+1.x", 104, "op"), 104, False),
    ("another create", Mark("f1", "web+1.x", 104, "op.2"), 104, False),
    ("no container", Mark("f1", "web+1.x", 999, "op.1"), 999, True),
]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("mark", "vmid", "passes"), [case[1:] for case in GUARDED], ids=[case[0] for case in GUARDED])
async def test_the_guard_lets_pass_only_the_container_that_it_names(
    disk: OnDisk, shell: str, mark: Mark, vmid: int, passes: bool
) -> None:
    await disk.create(MARK)
    command = lxc.guarded(mark, pct.start(vmid))

    for result in (await disk.real(shell, command), await disk.twin(command)):
        if passes:
            assert b"mark" not in result.stderr
            assert (b"already running" in result.stderr or b"does not exist" in result.stderr) == (result.exit != 0)
        else:
            assert result.exit == 9
            error = command.classify(command, result, "pve-01")
            assert isinstance(error, NotOurs)
            assert (error.vmid, error.id) == (vmid, mark.id)
    assert disk.node.model.is_running(104) == (passes and vmid == 104)


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_guarded_command_keeps_its_words_and_its_errors(disk: OnDisk, shell: str) -> None:
    await disk.create(MARK)
    echo = Command(("printf", "%s|", "a b", "$HOME", "'", '"', "*", "\\n", ""), pct.start(1).parse)
    result = await disk.real(shell, lxc.guarded(MARK, echo))
    assert (result.exit, result.stdout) == (0, b"a b|$HOME|'|\"|*|\\n||")

    missing = lxc.guarded(MARK, Command(("no-such-tool",), pct.start(1).parse))
    assert (await disk.real(shell, missing)).exit == 127

    await disk.pct("set", "104", "--lock", "backup")
    command = lxc.guarded(MARK, pct.start(104))
    for result in (await disk.real(shell, command), await disk.twin(command)):
        assert isinstance(command.classify(command, result, "pve-01"), nexcage.Busy)


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_signal_reaches_init_and_only_that_of_our_own(disk: OnDisk, shell: str) -> None:
    await disk.create(MARK)
    stopped = lxc.signal(MARK, 1)
    for result in (await disk.real(shell, stopped), await disk.twin(stopped)):
        assert result.exit == 8
        assert isinstance(stopped.classify(stopped, result, "pve-01"), IllegalTransition)
    await disk.pct("start", "104")

    foreign = lxc.signal(Mark("f1", "web+1Xx", 104, "op.1"), 9)
    for result in (await disk.real(shell, foreign), await disk.twin(foreign)):
        assert isinstance(foreign.classify(foreign, result, "pve-01"), NotOurs)
    assert disk.node.model.is_running(104)
    gone = lxc.signal(Mark("f1", "web+1.x", 999, "op.1"), 9)
    for result in (await disk.real(shell, gone), await disk.twin(gone)):
        assert isinstance(gone.classify(gone, result, "pve-01"), NotOurs)

    delivered = lxc.signal(MARK, 1)
    for result in (await disk.real(shell, delivered), await disk.twin(delivered)):
        assert delivered.parse(result) == disk.node.model.init_pid(104)


@pytest.mark.parametrize("stdout", [b"", b"x", b"12x", "٣".encode()])
def test_a_signal_without_a_pid_in_its_answer_is_not_believed(stdout: bytes) -> None:
    with pytest.raises(ValueError, match="no pid"):
        lxc.signal(MARK, 9).parse(Result(0, stdout))


def test_looking_is_safe_and_nothing_else_is() -> None:
    assert lxc.look("n").safe
    assert not any(
        command.safe
        for command in (lxc.freeze(1), lxc.unfreeze(1), lxc.signal(MARK, 1), lxc.guarded(MARK, pct.start(1)))
    )
    guarded = lxc.guarded(MARK, pct.start(104))
    assert (guarded.cancel, guarded.timeout) == (pct.start(104).cancel, pct.start(104).timeout)

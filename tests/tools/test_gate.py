"""The gate as a node sees it: the scripts in real shells, with the init that is packaged, below a directory that stands for the node."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nexcage._backends import shim
from nexcage._core.bundle_plan.model import Call, Launch
from nexcage._core.command import Command, Result
from nexcage._core.seen import Mark
from nexcage.errors import CommandFailed, IllegalTransition, NotOurs
from nexcage.tools import gate, lxc

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the packaged program is for x86_64")
SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]
MARK = Mark("f1", "web-1", 104, "made-1")
PLACE = "/var/lib/nexcage-lxc/f1/web-1"
CONF = f"#{MARK}\nhostname: web-1\nlxc.mount.entry: {PLACE}/inside .nexcage none bind,ro,create=dir 0 0\n"
MAKING = f"#making {MARK}\nlock: create\nhostname: web-1\nlxc.cap.drop: \n\n[snap]\n#{MARK}\n"
PATH = b"PATH=/usr/bin:/bin"
_BOOT = {
    "proc/sys/kernel/random/boot_id": "b-1\n",
    "proc/meminfo": "MemAvailable:    1024 kB\n",
    "etc/pve/.members": "{}\n",
    "etc/pve/.vmlist": '{"version": 1, "ids": {"104": {"node": "pve-01", "type": "lxc", "version": 1}}}\n',
    "var/log/pve/tasks/active": "",
}


class Site:
    """A directory that stands for a node with one container, whose init is a process of this test."""

    def __init__(self, root: Path, shell: str) -> None:
        self.root, self.shell = root, shell
        self.inside = root / PLACE[1:] / "inside"
        self.process: subprocess.Popen[bytes] | None = None
        for name, text in {**_BOOT, "etc/pve/lxc/104.conf": CONF, f"{PLACE[1:]}/mark": f"{MARK}\n"}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        (root / "etc/pve/local").symlink_to("nodes/pve-01")
        (root / "proc/net").mkdir()
        (root / "etc/pve/qemu-server").mkdir()
        (root / "run/lock/lxc").mkdir(parents=True)
        self.tool("lxc-info", f'[ -e "/proc/$(cat {root}/pid)/ns/pid" ] && cat {root}/pid')
        self.tool("pct", f'echo "$@" >>{root}/calls')

    def tool(self, name: str, text: str) -> None:
        path = self.root / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def conf(self, text: str) -> None:
        (self.root / "etc/pve/lxc/104.conf").write_text(text)

    def begin(self, launch: Launch) -> int:
        self.inside.mkdir()
        (self.inside / "init").write_bytes(shim.program())
        (self.inside / "init").chmod(0o755)
        (self.inside / "launch").write_bytes(shim.launch_file(launch, b"{}"))
        os.mkfifo(self.inside / "gate")
        os.mkfifo(self.inside / "said")
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([self.inside / "init", self.inside], stdout=pipe, stderr=pipe)
        pid = self.process.pid
        (self.root / "pid").write_text(f"{pid}\n")
        (self.root / f"proc/{pid}").symlink_to(f"/proc/{pid}")
        (self.root / "proc/net/unix").write_text("x: 2 0 10000 1 1 1 @/var/lib/lxc/104/command\n")
        monitor = self.root / "sys/fs/cgroup/lxc.monitor/104"
        monitor.mkdir(parents=True)
        (monitor / "cgroup.procs").write_text("1\n")
        (self.root / "proc/1/task/1").mkdir(parents=True)
        (self.root / "proc/1/task/1/children").write_text(f"{pid} ")
        return pid

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()

    def run(self, command: Command[Any]) -> Result:
        env = {
            "PATH": f"{self.root}/bin:/usr/bin:/bin",
            "NEXCAGE_NODE_ROOT": str(self.root),
            "NEXCAGE_OP_ID": "started-1",
        }
        argv = [self.shell, *command.argv[1:]]
        done = subprocess.run(argv, input=command.stdin, capture_output=True, env=env, timeout=40)
        return Result(done.returncode, done.stdout, done.stderr)

    def answer(self, command: Command[Any]) -> Any:  # Any: whatever answer
        result = self.run(command)
        if result.exit:
            raise command.classify(command, result, "pve-01")
        return command.parse(result)


@pytest.fixture(params=SHELLS)
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    one = Site(tmp_path, request.param)
    try:
        yield one
    finally:
        one.end()


def runs(pid: int) -> str:
    return os.path.basename(os.readlink(f"/proc/{pid}/exe"))


def test_what_waits_is_seen_waiting_and_what_passed_is_not(site: Site) -> None:
    pid = site.begin(Launch((b"sleep", b"300"), (PATH,)))
    assert site.answer(gate.reached(MARK)) == pid
    seen = site.answer(lxc.look("pve-01")).guests[104]
    assert (seen.running, seen.waiting, seen.gated, seen.pid) == (True, True, True, pid)

    assert site.answer(gate.open_(MARK, 5)) == pid

    assert runs(pid) != "init"
    seen = site.answer(lxc.look("pve-01")).guests[104]
    assert (seen.running, seen.waiting, seen.gated, seen.pid) == (True, False, True, pid)
    assert (site.inside / "open").read_text() == "started-1\n"


def test_it_passes_although_a_copy_of_its_config_waits_at_the_same_gate(site: Site) -> None:
    pid = site.begin(Launch((b"sleep", b"300"), (PATH,)))
    assert site.answer(gate.reached(MARK)) == pid
    copies = [subprocess.Popen([site.inside / "init", site.inside], stderr=subprocess.DEVNULL) for _ in range(4)]
    try:
        for copy in copies:
            while Path(f"/proc/{copy.pid}/comm").read_text() != "nexcage-gate\n":
                assert copy.poll() is None

        assert site.answer(gate.open_(MARK, 5)) == pid

        assert runs(pid) != "init"
    finally:
        for copy in copies:
            copy.kill()
            copy.wait()


def test_a_start_container_hook_that_fails_is_told_from_a_program_that_cannot_run(site: Site) -> None:
    site.begin(Launch((b"true",), (PATH,), start_container=(Call("/bin/false"),)))
    site.answer(gate.reached(MARK))

    with pytest.raises(CommandFailed, match='startContainer hook "/bin/false" failed: exit status 1') as failed:
        site.answer(gate.open_(MARK, 5))

    assert failed.value.exit == gate.HOOK_FAILED


def test_a_program_that_calls_itself_so_is_not_believed(site: Site) -> None:
    pid = site.begin(Launch((b"perl", b"-e", b'$0 = "nexcage-gate"; sleep 300'), (PATH,)))
    site.answer(gate.reached(MARK))
    site.answer(gate.open_(MARK, 5))
    gives_up = time.monotonic() + 30
    while Path(f"/proc/{pid}/comm").read_text() != "nexcage-gate\n":
        assert time.monotonic() < gives_up
        time.sleep(0.005)

    seen = site.answer(lxc.look("pve-01")).guests[104]
    assert (seen.running, seen.waiting) == (True, False)
    with pytest.raises(CommandFailed, match="did not come to the gate"):
        site.answer(impatient(gate.reached(MARK)))


def impatient(command: Command[int]) -> Command[int]:
    return msgspec.structs.replace(command, argv=(*command.argv[:-1], "0"))


def test_opening_twice_is_opening_once(site: Site) -> None:
    pid = site.begin(Launch((b"sleep", b"300"), (PATH,)))
    site.answer(gate.reached(MARK))
    assert [site.answer(gate.open_(MARK, 5)) for _ in range(3)] == [pid, pid, pid]


def test_opening_waits_for_the_hooks_inside(site: Site) -> None:
    hook = Call("/bin/sh", ("sh", "-c", f"/bin/sleep 0.5; echo done >{site.root}/hook"), (), 10)
    pid = site.begin(Launch((b"sleep", b"300"), (PATH,), start_container=(hook,)))
    site.answer(gate.reached(MARK))
    site.answer(gate.open_(MARK, 10))
    assert (site.root / "hook").read_text() == "done\n"
    assert runs(pid) != "init"


@pytest.mark.parametrize(
    ("launch", "why"),
    [
        (Launch((b"nosuch",), (PATH,)), 'exec: "nosuch": executable file not found in $PATH'),
        (Launch((b"/etc/passwd",), (PATH,)), 'exec: "/etc/passwd": permission denied'),
        (
            Launch((b"true",), (PATH,), start_container=(Call("/bin/false"),)),
            'startContainer hook "/bin/false" failed: exit status 1',
        ),
    ],
)
def test_why_a_program_does_not_run_is_told(site: Site, launch: Launch, why: str) -> None:
    site.begin(launch)
    site.answer(gate.reached(MARK))
    with pytest.raises(CommandFailed) as failed:
        site.answer(gate.open_(MARK, 5))
    assert failed.value.stderr == why
    assert not failed.value.retryable


def test_a_program_that_ends_at_once_was_started(site: Site) -> None:
    pid = site.begin(Launch((b"true",), (PATH,)))
    site.answer(gate.reached(MARK))
    assert site.answer(gate.open_(MARK, 5)) == pid


def test_one_without_a_process_cannot_be_opened(site: Site) -> None:
    site.begin(Launch((b"true",), (PATH,)))
    site.end()
    with pytest.raises(IllegalTransition, match="no process"):
        site.answer(gate.open_(MARK, 5))
    with pytest.raises(CommandFailed, match="ended before it came to the gate"):
        site.answer(gate.reached(MARK))


def test_what_does_not_carry_our_mark_is_neither_started_nor_opened(site: Site) -> None:
    pid = site.begin(Launch((b"true",), (PATH,)))
    site.conf(CONF.replace("op=made-1", "op=other"))
    for command in (gate.open_(MARK, 5), gate.start(MARK), gate.seal(MARK, "")):
        with pytest.raises(NotOurs):
            site.answer(command)
    assert runs(pid) == "init"
    assert not (site.root / "calls").exists()


def test_it_is_started_in_spite_of_the_lock_of_its_own_create_only(site: Site) -> None:
    site.inside.mkdir()
    (site.inside / "open").touch()
    site.conf(MAKING)
    site.answer(gate.start(MARK))
    site.conf(CONF)
    site.answer(gate.start(MARK))
    assert (site.root / "calls").read_text() == "start 104 --skiplock 1\nstart 104\n"
    assert not (site.inside / "open").exists()  # it waits again


def test_sealing_takes_the_lock_and_gives_the_mark_once(site: Site) -> None:
    site.conf(MAKING)
    for _ in range(2):
        site.answer(gate.seal(MARK, ""))
        text = (site.root / "etc/pve/lxc/104.conf").read_text()
        assert text == f"#{MARK}\nhostname: web-1\nlxc.cap.drop: \n\n[snap]\n#{MARK}\n"

    site.conf(MAKING.replace("lock: create\n", ""))
    with pytest.raises(NotOurs, match="changed it since"):
        site.answer(gate.seal(MARK, ""))


def test_what_is_kept_is_read_while_it_is_of_this_container(site: Site) -> None:
    path = site.root / PLACE[1:] / "hooks.json"
    assert site.answer(gate.read(MARK, "hooks.json")) is None
    path.write_bytes(b'{"a": "\xff@nexcage none\n"}')
    assert site.answer(gate.read(MARK, "hooks.json")) == b'{"a": "\xff@nexcage none\n"}'
    assert site.answer(gate.read(Mark("f1", "web-1", 104, "other"), "hooks.json")) is None

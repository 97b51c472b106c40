"""What the words of nodes about the inside of containers mean, and that nothing escapes its place on the way there."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import Mark, Result
from nexcage._core.inside import Addresses
from nexcage.errors import CommandFailed, IllegalTransition, InvalidInput, InvalidPath, NodeNotUsable, NotFound, NotOurs
from nexcage.tools import attach, cgroup, console, copying, network, pty

MARK = Mark("fleet", "web-1", 104, "op-1")
HEAD = b"@nexcage uptime\n1000.50 3000.00\n@nexcage files\n"
END = b"@nexcage end\n"


def usage(text: bytes) -> Any:
    return cgroup.usage().parse(Result(0, HEAD + text + END))


def test_figures_of_cgroup_version_2() -> None:
    (found,) = usage(
        b"104/memory.current:50331648\n104/memory.max:536870912\n104/memory.swap.current:4096\n104/memory.stat:inactive_file 8388608\n"
        b"104/cpu.stat:usage_usec 1500000\n104/io.stat:230:0 rbytes=100 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n"
        b"104/io.stat:8:0 rbytes=1 wbytes=2 rios=1 wios=1 dbytes=0 dios=0\n104/pids.current:7\n"
    ).values()

    assert (found.memory, found.memory_limit, found.swap) == (41943040, 536870912, 4096)
    assert (found.cpu, found.read, found.written, found.pids, found.at) == (1.5, 101, 22, 7, 1000.5)


def test_figures_of_cgroup_version_1() -> None:
    (found,) = usage(
        b"104/memory.usage_in_bytes:50331648\n104/memory.limit_in_bytes:9223372036854771712\n104/memory.memsw.usage_in_bytes:50335744\n"
        b"104/memory.stat:total_inactive_file 331648\n104/cpuacct.usage:2500000000\n"
        b"104/blkio.throttle.io_service_bytes:8:0 Read 100\n104/blkio.throttle.io_service_bytes:8:0 Write 20\n104/pids.current:3\n"
    ).values()

    assert (found.memory, found.memory_limit, found.swap) == (50000000, 0, 4096)
    assert (found.cpu, found.read, found.written, found.pids) == (2.5, 100, 20, 3)


def test_no_limit_is_none() -> None:
    assert usage(b"104/memory.max:max\n104/memory.current:1\n")[104].memory_limit == 0


def test_processes_with_odd_names_and_arguments() -> None:
    status = b"Name:\ta b\nState:\tS (sleeping)\nPPid:\t1\nUid:\t100033\t1\t1\t1\nVmRSS:\t  8 kB\nNSpid:\t4711\t12\n"
    lines = b"".join(b"4711/status:%b\n" % line for line in status.splitlines())
    stat = b"4711/stat:4711 (a) \n4711/stat:@nexcage end) S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 1 0 12345 0 0\n"
    tail = b"4711/cmdline:sh\x004711/cmdline:-c\x004711/cmdline:a\nb\xff\x00"

    (found,) = cgroup.processes(MARK).parse(
        Result(0, b"@nexcage status\n" + lines + b"@nexcage stat\n" + stat + END + tail)
    )

    assert (found.pid, found.inner, found.parent, found.uid, found.memory) == (4711, 12, 1, 100033, 8192)
    assert (found.seconds, found.started, found.state) == (2.0, 123.45, "S")
    assert found.argv == ("sh", "-c", "a\nb\udcff")


def test_the_name_of_a_process_hides_no_other() -> None:
    status = b"4711/status:Name:\tx\n4712/status:Name:\ty\n"
    stat = b"4711/stat:4711 (x\n4711/stat:@nexcage end\n4711/stat:) S 1 1 1 0 -1 0 0 0 0 0 100 0 0 0 20 0 1 0 1 0 0\n"
    other = b"4712/stat:4712 (y) S 1 1 1 0 -1 0 0 0 0 0 200 0 0 0 20 0 1 0 1 0 0\n"

    found = cgroup.processes(MARK).parse(
        Result(0, b"@nexcage status\n" + status + b"@nexcage stat\n" + stat + other + END)
    )

    assert [one.seconds for one in found] == [1.0, 2.0]


def test_addresses_and_ports() -> None:
    text = (
        b"banner\n@nexcage running\n104 4711\n105 4712\n@nexcage four\n4711/net/fib_trie:10.0.0.5\n4711/net/fib_trie:127.0.0.1\n"
        b"4712/net/fib_trie:169.254.1.1\n@nexcage six\n4711/net/if_inet6:fd000000000000000000000000000005 02 40 00 80     eth0\n"
        b"4711/net/if_inet6:fd000000000000000000000000000006 02 40 00 c0     eth0\n"
        b"4711/net/if_inet6:fe80000000000000000000000000000a 02 40 20 80     eth0\n@nexcage ports\n"
        b"4711/net/tcp:   0: 00000000:0050 00000000:0000 0A 00000000:00000000\n4711/net/tcp6:   1: 000000:1F90 0000:0000 0A 0\n"
    )

    found = network.network().parse(Result(0, text + END))

    assert found == {104: Addresses(("10.0.0.5", "fd00::5"), (80, 8080)), 105: Addresses()}


@pytest.mark.parametrize("command", [cgroup.usage(), cgroup.processes(MARK), network.network()])
@given(data=st.binary(max_size=400), whole=st.booleans())
def test_no_answer_breaks_a_parser(command: Any, data: bytes, whole: bool) -> None:
    try:
        command.parse(Result(0, HEAD + data + (b"\n" + END if whole else b"")))
    except ValueError:
        assert not whole or b"@nexcage" in data or command.argv[3] == "usage"


NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True).filter(lambda name: not name.startswith("NEXCAGE_"))
VALUES = st.binary(max_size=60).map(lambda data: data.replace(b"\0", b"").decode("utf-8", "surrogateescape"))


@given(values=st.lists(VALUES, min_size=1, max_size=20))
def test_every_value_of_a_variable_survives_the_shell(values: list[str]) -> None:
    lines = attach.header({f"V{n}": value for n, value in enumerate(values)})
    script = (
        'while IFS= read -r line && [ -n "$line" ]; do value=$(printf "%b." "${line#*=}"); '
        'export "${line%%=*}=${value%.}"; done; exec env -0'
    )

    said = subprocess.run(
        ["sh", "-c", script], input=lines, capture_output=True, env={"PATH": "/usr/bin:/bin"}, check=True
    )

    found = dict(one.split(b"=", 1) for one in said.stdout.split(b"\0") if b"=" in one)
    for n, value in enumerate(values):
        assert found[b"V%d" % n] == value.encode("utf-8", "surrogateescape")


@given(env=st.dictionaries(NAMES, VALUES, max_size=5))
def test_no_variable_leaves_its_line(env: dict[str, str]) -> None:
    lines = attach.header(env).split(b"\n")

    assert lines[-2:] == [b"", b""] if len(lines) > 1 else lines == [b""]
    assert all(line.isascii() and b"=" in line for line in lines[:-2])


def test_values_are_in_no_argv_except_those_that_would_change_the_tools_of_the_node() -> None:
    command = attach.attach(MARK, ["true"], env={"SECRET": "hidden", "LD_PRELOAD": "/x.so"})

    assert not any("hidden" in word for word in command.argv)
    assert command.argv[command.argv.index("-v") + 1] == "LD_PRELOAD=/x.so"
    assert b"SECRET=hidden\n" in command.stdin
    assert b"LD_PRELOAD" not in command.stdin


@pytest.mark.parametrize(
    ("exit", "stderr", "kind"),
    [
        (9, b"nexcage: the container does not carry our mark\n", NotOurs),
        (8, b"nexcage: container 104 has no init process\n", IllegalTransition),
        (7, b"nexcage: there is no user bob in it\n", InvalidInput),
        (6, b"nexcage: there is no lxc-attach\n", NodeNotUsable),
        (9, b"something else", CommandFailed),
    ],
)
def test_why_a_program_did_not_begin(exit: int, stderr: bytes, kind: type[Exception]) -> None:
    assert type(attach.refused(MARK, Result(exit, b"", stderr), "pve-01")) is kind


@pytest.mark.parametrize("mode", [-1, 0o10000])
def test_modes_are_file_permissions(mode: int) -> None:
    with pytest.raises(InvalidInput):
        copying.push("/x", mode=mode, owner="", sha256="", nonce="1")


@pytest.mark.parametrize("owner", ["a b", "root:", ":root", "-x", "a;b"])
def test_owners_are_names_or_numbers(owner: str) -> None:
    with pytest.raises(InvalidInput):
        copying.push("/x", mode=0o644, owner=owner, sha256="", nonce="1")


def test_what_is_said_behind_a_pulled_file() -> None:
    digest = "ab" * 32
    assert copying.said(f"cat: warning\n@nexcage file {digest} 4755 0 33\n".encode()) == copying.Pulled(
        digest, 0o4755, 0, 33
    )
    with pytest.raises(ValueError, match="checksum"):
        copying.said(b"@nexcage file short 644 0 0\n")


def test_a_shell_that_is_missing_inside_is_said_so() -> None:
    lost = Result(127, b"", b'lxc-attach: 104: ../src/lxc/attach.c: No such file or directory - Failed to exec "sh"\n')

    assert isinstance(copying.refusal(MARK, "push", "/x", lost, "pve-01"), NodeNotUsable)
    assert isinstance(
        copying.refusal(MARK, "pull", "/x", Result(76, b"", b"nexcage: it does not exist\n"), "n"), InvalidPath
    )


def test_no_log_says_how_to_get_one() -> None:
    error = console.unshown(MARK, Result(5, b"", b"nexcage: its config has no lxc.console.logfile\n"), "pve-01")

    assert isinstance(error, NotFound)
    assert "lxc.console.logfile" in str(error)


@given(typed=st.lists(st.binary(max_size=50), max_size=5), cut=st.integers(0, 300))
def test_frames_of_a_terminal_come_out_as_they_went_in(typed: list[bytes], cut: int) -> None:
    stream = b"".join(pty.data(one) for one in typed) + pty.window(24, 80)

    first, rest = pty.unframed(stream[:cut])
    second, left = pty.unframed(rest + stream[cut:])

    assert [*first, *second] == [*((b"d", one) for one in typed), (b"w", b"24 80")]
    assert left == b""


def test_a_terminal_runs_a_program_and_gives_its_status() -> None:
    argv = ["perl", "-e", pty.PTY, "31", "97", "sh", "-c", "stty size; read line; echo got $line; exit 7"]

    ended = subprocess.run(argv, input=pty.data(b"word\n"), capture_output=True, timeout=30, check=False)

    assert b"31 97\r\n" in ended.stdout
    assert b"got word\r\n" in ended.stdout
    assert ended.returncode == 7

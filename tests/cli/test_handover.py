"""What an engine gives reaches the runtime, through whatever stands between."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence

import pytest

from nexcage._cli.handover import Given, Handover, verb_of, with_options


def ran(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """As a node runs a command: no input, output to pipes, its own session, hardly an environment."""
    return subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
        env={"PATH": os.environ["PATH"]},
        check=False,
    )


SHOW = ("sh", "-c", 'echo "$@"; cat; cat <&3', "show")


def test_the_runtime_gets_the_callers_descriptors_and_options() -> None:
    reads, writes = os.pipe()
    with open(os.open("/proc/version", os.O_RDONLY), "rb") as given, open("/dev/null", "rb") as nothing:
        third = given.fileno()
        with Handover(
            {"create": Given(("--debug",), ("--no-pivot",))}, (nothing.fileno(), writes, writes, third)
        ) as handed:
            answer = ran([*handed.in_front_of(SHOW), "--root", "/r", "create", "--bundle", "/b", "x"])
    os.close(writes)
    with open(reads, encoding="utf-8") as said:
        lines = said.read().splitlines()

    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    assert lines[0] == "--root /r --debug create --no-pivot --bundle /b x"
    assert lines[1].startswith("Linux version")
    assert handed.taken


def test_a_socket_is_handed_over_too() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with Handover({"create": Given()}, (theirs.fileno(), theirs.fileno(), theirs.fileno())) as handed:
            ran([*handed.in_front_of(("echo",)), "--root=/r", "create", "x"])
        assert ours.recv(100) == b"--root=/r create x\n"


def test_every_other_command_is_run_as_it_was_to_be() -> None:
    with Handover({"create": Given(("--debug",), ("--no-pivot",))}, (0, 1, 2)) as handed:
        answer = ran([*handed.in_front_of(("echo",)), "--root", "create", "state", "create"])

    assert answer.stdout == "--root create state create\n"
    assert not handed.taken


def test_a_caller_that_is_gone_changes_nothing_about_the_command() -> None:
    with Handover({"create": Given(("--debug",), ("--no-pivot",))}, (0, 1, 2)) as handed:
        pass

    assert ran([*handed.in_front_of(("echo",)), "--root", "/r", "create", "x"]).stdout == "--root /r create x\n"


def test_nonsense_from_one_who_asks_costs_only_itself() -> None:
    with Handover({"create": Given(behind=("-x",))}, (0, 1, 2)) as handed:
        name = handed.in_front_of(())[-1]
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(f"\0{name}")
            asking.sendall(b"{")
            asking.shutdown(socket.SHUT_WR)
            assert asking.recv(10) == b""
        answer = ran([*handed.in_front_of(("echo",)), "--root", "/r", "state", "x"])

    assert answer.stdout == "--root /r state x\n"


@pytest.mark.parametrize(
    "argv, verb",
    [
        (["runc", "--root", "create", "--log-format", "json", "start", "create"], "start"),
        (["runc", "--root=/r", "--systemd-cgroup", "exec", "x"], "exec"),
        (["unshare", "-m", "sh", "-c", 'exec crun "$@"', "crun", "--root", "/r", "create", "x"], "create"),
        (["runc", "--version"], ""),
        (["runc", "--root"], ""),
    ],
)
def test_the_command_is_found_behind_the_runtimes_own_options(argv: list[str], verb: str) -> None:
    assert verb_of(argv) == verb
    if verb:
        at = argv.index(verb, 3)
        assert with_options(argv, Given(("-x",), ("-y",)))[at : at + 3] == ["-x", verb, "-y"]
    else:
        assert with_options(argv, Given(("-x",), ("-y",))) == argv

"""What an OCI engine may say to each command, and what becomes of it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nexcage import (
    CommandFailed,
    IllegalTransition,
    InvalidInput,
    InvalidPath,
    InvalidSpec,
    NotFound,
    Stats,
    Update,
)
from nexcage._cli.dialects import runc_message
from nexcage._cli.oci_events import as_event, duration
from nexcage._cli.oci_pass import Held, command_line
from nexcage._cli.oci_process import process_of
from nexcage._cli.parser import Usage, parse
from nexcage._cli.streams import Streams
from nexcage._cli.updates import change
from nexcage._cli.verbs_exec import prepare

from .conftest import Ran

HELD = Held("x", "runc", ("runc",), "/run/nexcage-oci/f/runc")


def streams(stdin: str = "") -> Streams:
    return Streams(io.StringIO(stdin), io.StringIO(), io.StringIO())


@pytest.mark.parametrize(
    "argv, tail",
    [
        (
            "exec -d --pid-file p -e A=1 -e B -u 1:2 x sh -c -d",
            "exec --env=A=1 --env=B --user=1:2 --detach --pid-file=p x sh -c -d",
        ),
        ("exec --process=- x", "exec --process=- x"),
        ("exec -t -g 1 -g 2 x -- ls", "exec --tty --additional-gids=1 --additional-gids=2 x ls"),
        ("ps -f json x", "ps --format=json x"),
        ("ps x -o pid,comm", "ps x -o pid,comm"),
        ("events --stats x", "events --stats x"),
        ("update -r - x", "update --resources=- x"),
        ("update x --memory 20M --pids-limit=9", "update --memory=20M --pids-limit=9 x"),
    ],
)
def test_a_runtime_of_this_machine_is_told_what_the_caller_said(argv: str, tail: str) -> None:
    said = command_line(parse(["--root", "/r", "--log", "f", "--log-format=json", *argv.split()]), HELD)

    head = ["runc", "--root", "/run/nexcage-oci/f/runc", "--log", "f", "--log-format", "json"]
    assert said[: len(head)] == head
    assert sorted(said[len(head) :]) == sorted(tail.split())
    at = said.index("x")
    assert said[at:] == tail.split()[tail.split().index("x") :]


def test_an_option_that_no_runtime_has_is_refused() -> None:
    with pytest.raises(Usage, match="--no-stdin"):
        command_line(parse(["--root", "/r", "exec", "--no-stdin", "x", "ls"]), HELD)


@pytest.mark.parametrize(
    "option", [["--detach"], ["--console-socket", "s"], ["--cap", "CAP_CHOWN"], ["--preserve-fds=1"]]
)
def test_what_only_a_runtime_of_this_machine_does_is_refused_elsewhere(option: list[str]) -> None:
    with pytest.raises(InvalidInput, match="only with crun or runc"):
        prepare(parse(["--root", "/r", "exec", *option, "x", "ls"]), streams())
    with pytest.raises(Usage):
        prepare(parse(["exec", *option, "x", "ls"]), streams())


def test_a_process_document_says_what_is_run(tmp_path: Path) -> None:
    path = tmp_path / "process.json"
    path.write_text(json.dumps({"args": ["ls", ""], "cwd": "/srv", "env": ["A=b=c"], "user": {"uid": 5, "gid": 6}}))

    process = process_of(str(path))

    assert process.args == ("ls", "")
    assert process.asked() == {"env": {"A": "b=c"}, "cwd": "/srv", "user": "5:6"}


@pytest.mark.parametrize(
    "document",
    [
        "{}",
        "[]",
        '{"args": []}',
        '{"args": ["ls"], "terminal": true}',
        '{"args": ["ls"], "noNewPrivileges": true}',
        '{"args": ["ls"], "user": {"additionalGids": [1]}}',
        "[" * 100_000,
        "\x00",
    ],
)
def test_a_process_document_that_cannot_be_honoured_is_refused(tmp_path: Path, document: str) -> None:
    tmp_path.joinpath("process.json").write_text(document)

    with pytest.raises(InvalidInput):
        process_of(str(tmp_path / "process.json"))
    with pytest.raises(InvalidPath):
        process_of(str(tmp_path / "none"))


def updated(*argv: str, stdin: str = "") -> Update:
    intent = change(parse(["--root", "/r", "update", *argv, "x"]), streams(stdin))("x", None)
    assert isinstance(intent, Update)
    return intent


def test_resources_are_settings_of_a_container_elsewhere() -> None:
    limits = {"memory": {"limit": 64 << 20, "swap": 96 << 20}, "cpu": {"quota": 150000, "period": 100000, "shares": 0}}

    intent = updated("--resources", "-", stdin=json.dumps(limits | {"blockIO": {"weight": 0}}))

    assert (intent.memory, intent.swap, intent.cpulimit, intent.cpuunits) == (64, 32, 1.5, None)


@pytest.mark.parametrize(
    "document",
    [
        {"pids": {"limit": 5}},
        {"cpu": {"cpus": "0-1"}},
        {"blockIO": {"weight": 10}},
        {"memory": {"limit": -1}},
        {"memory": {"swap": 1 << 30}},
        {"memory": {"limit": True}},
        {"memory": {"limit": 1.5}},
        {"unified": {"pids.max": "5"}},
        {"other": 1},
    ],
)
def test_resources_that_cannot_be_set_there_are_refused_and_never_dropped(document: object) -> None:
    with pytest.raises(InvalidInput):
        updated("--resources", "-", stdin=json.dumps(document))


@pytest.mark.parametrize("option", ["--pids-limit=5", "--cpuset-cpus=0", "--memory-reservation=1", "--blkio-weight=10"])
def test_limits_that_only_a_runtime_knows_are_refused_elsewhere(option: str) -> None:
    with pytest.raises(InvalidInput, match="only with crun or runc"):
        updated("--memory=1048576", option)


def test_statistics_are_the_line_that_engines_read() -> None:
    used = Stats(id="x", cpu=1.5, memory=4096, memory_limit=8192, swap=1, pids=3)

    assert as_event(used) == {
        "type": "stats",
        "id": "x",
        "data": {
            "cpu": {"usage": {"total": 1_500_000_000}, "throttling": {}},
            "memory": {"usage": {"limit": 8192, "usage": 4096}, "swap": {"usage": 1}},
            "pids": {"current": 3},
        },
    }


@pytest.mark.parametrize("text, seconds", [("5s", 5), ("1m30s", 90), ("500ms", 0.5), ("1.5s", 1.5), ("1h", 3600)])
def test_an_interval_is_spelled_as_the_runtimes_do(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "0s", "s", "5s ", "-1s", "\u0665s", "5x"])
def test_what_is_no_interval_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        duration(text)


@pytest.mark.parametrize(
    "verb, error, said",
    [
        ("exec x ls", NotFound("container", "x"), "exec failed: container does not exist"),
        ("exec x ls", IllegalTransition("x", "exec", "stopped"), "exec failed: cannot exec in a stopped container"),
        ("pause x", IllegalTransition("x", "pause", "paused"), "container not running"),
        ("events --stats x", IllegalTransition("x", "measure", "stopped"), "container with id x is not running"),
        ("run x", InvalidPath("bundle", "/no/where", "a directory"), "runc run failed: chdir /no/where: no such file"),
    ],
)
def test_an_engine_reads_runcs_words(verb: str, error: Exception, said: str) -> None:
    assert runc_message(parse(["--root", "/r", *verb.split()]), error).startswith(said)


def test_a_command_that_no_runtime_has_ends_as_with_runc(run: Callable[..., Ran], tmp_path: Path) -> None:
    assert run("--root", str(tmp_path), "frobnicate", "x").status == 3
    assert run("--root", str(tmp_path), "delete", "--frob", "x").status == 1
    assert run("frobnicate", "x").status == 2


# ---- the words of the runtime ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv, wanted",
    [
        ("kill", 'runc: "kill" requires a minimum of 1 argument(s)'),
        ("kill a b c", 'runc: "kill" requires a maximum of 2 argument(s)'),
        ("delete", 'runc: "delete" requires exactly 1 argument(s)'),
        ("delete a b", 'runc: "delete" requires exactly 1 argument(s)'),
        ("create", 'runc: "create" requires exactly 1 argument(s)'),
        ("exec", 'runc: "exec" requires a minimum of 1 argument(s)'),
        ("ps", 'runc: "ps" requires a minimum of 1 argument(s)'),
        ("list --format xml", "invalid format option"),
    ],
)
def test_a_command_line_that_is_none_is_answered_as_runc_does(
    argv: str, wanted: str, run: Callable[..., Ran], tmp_path: Path
) -> None:
    log = tmp_path / "log"

    ran = run("--root", "/r", "--log", str(log), "--log-format", "json", *argv.split())

    assert (ran.status, ran.err) == (1, f"{wanted}\n")
    assert json.loads(log.read_text())["msg"] == wanted


def test_the_words_of_a_runtime_come_bare() -> None:
    no_program = 'unable to start container process: exec: "/no": stat /no: no such file or directory'
    create, run = (parse(["--root", "/r", verb, "x"]) for verb in ("create", "run"))
    failed = CommandFailed("local", ("runc", "create", "x"), 1, f"runc create failed: {no_program}")
    no_root = InvalidPath("root.path", "/b/rootfs", "a directory that exists").noted(
        "runc create on local failed: runc create failed: invalid rootfs: stat /b/rootfs: no such file or directory"
    )

    assert runc_message(create, failed) == f"runc create failed: {no_program}"
    assert runc_message(run, failed) == f"runc run failed: {no_program}"
    assert runc_message(create, no_root).endswith("failed: invalid rootfs: stat /b/rootfs: no such file or directory")
    assert (
        runc_message(parse(["--root", "/r", "update", "x"]), CommandFailed("n", ("runc", "update"), 1, "EOF")) == "EOF"
    )


def test_a_terminal_without_a_socket_and_a_pid_file_without_a_directory_are_named_as_runc_names_them() -> None:
    create = parse(["--root", "/r", "create", "x"])
    terminal = InvalidSpec("process.terminal", "true", "false in config.json, or --console-socket")
    pid_file = InvalidPath("pid-file", "/nonexist/p", "a file in a directory that exists")

    assert runc_message(create, terminal) == (
        "runc create failed: cannot allocate tty if runc will detach without setting console socket"
    )
    assert runc_message(create, pid_file) == "runc create failed: open /nonexist/p: no such file or directory"

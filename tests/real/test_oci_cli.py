"""The OCI command line with real runtimes underneath; real ``runc`` says what is right."""

from __future__ import annotations

import json
import os
import pty
import re
import secrets
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .oci_bundle import Cli, Runc, bundle, missing, until

pytestmark = pytest.mark.skipif(bool(missing("runc")), reason=missing("runc"))
Json = Any  # whatever JSON can say
NAME = f"cli-{os.getpid()}"
MONITOR = Path(__file__).with_name("monitor.py")


@pytest.fixture(params=["runc", "crun"])
def cli(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cli]:
    if why := missing(request.param):
        pytest.skip(why)
    cli = Cli(tmp_path, request.param)
    yield cli
    cli.close()


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[Runc, Cli]]:
    theirs, ours = Runc(tmp_path), Cli(tmp_path)
    yield theirs, ours
    theirs.close()
    ours.close()


def status_of(runtime: Runc, id: str) -> str:
    said = runtime("state", id)
    return str(json.loads(said.stdout)["status"]) if said.returncode == 0 else ""


# ---- the same command lines through both ----------------------------------------------------------------------------------


LIFE = """
state x | kill x | kill x 15 | delete x | delete -f x | delete --force x | start x | pause x | resume x | exec x true | ps x |
events --stats x | update --memory 20000000 x | list | list -q | list -f json | list -f xml | create --bundle /no/where x |
create --bundle EMPTY x | create --bundle BUNDLE --pid-file PIDFILE x | state x | list -q | ps -f json x | exec x true |
resume x | start x | start x | state x | list -f json | exec x true | exec x sh -c exit\t3 | exec x /no/such |
exec --user 5:6 --cwd /bin --env A=1 x sh -c test\t"$(id\t-u):$(id\t-g):$PWD:$A"\t=\t5:6:/bin:1 | exec -p PROCESS x |
delete x | pause x | pause x | start x | exec x true | state x | resume x | resume x | ps -f json x | ps x -o pid,comm |
kill x FOO | kill x 0 | update --memory 20000000 --pids-limit 50 x | create --bundle BUNDLE x | create --bundle BUNDLE . |
kill x TERM | WAIT | kill x | pause x | resume x | start x | exec x true | state x | list | update --memory 20000000 x |
events --stats x | delete x | state x
"""


def said(text: str) -> str:
    """What both must say: without when, which process, and where; the message alone where it is a log line."""
    lines: list[str] = []
    for line in text.splitlines():
        message = re.search(r'msg=("(?:[^"\\]|\\.)*")', line)
        shown = json.loads(message[1]) if message else line
        shown = re.sub(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z", "WHEN", shown)
        lines.append(re.sub(r" {2,}", "  ", re.sub(r"\b[0-9]{2,}\b *", "N ", shown)).strip())
    return "\n".join(lines)


def shape(text: str) -> Json:
    """Of JSON the fields, and the values that are not this run's; of anything else what is said."""
    try:
        document = json.loads(text)
    except ValueError:
        return said(text)
    entries = document if isinstance(document, list) else [document]
    return [_shape(entry) for entry in entries]


def _shape(entry: Json) -> Json:
    if not isinstance(entry, dict):
        return type(entry).__name__
    kept = {key: entry.get(key) for key in ("id", "status", "type")}
    notes = {key: value for key, value in (entry.get("annotations") or {}).items() if "nexcage" not in key}
    return {**kept, "pid": bool(entry.get("pid")), "keys": sorted(entry), "annotations": notes}


def life(runtime: Runc, where: Path) -> dict[str, tuple[int, Json, str]]:
    """Every step of LIFE: its exit status, what it printed and what it said. ``x`` is an id of this life: cgroups go by ids."""
    where.mkdir()
    id = f"x{secrets.token_hex(3)}y"
    (where / "empty").mkdir()
    (where / "process.json").write_text(
        json.dumps(
            {"args": ["sh", "-c", "exit $N"], "env": ["PATH=/bin", "N=9"], "cwd": "/", "user": {"uid": 0, "gid": 0}}
        )
    )
    pid_file = where / "pid"
    words = {
        "x": id,
        "EMPTY": where / "empty",
        "BUNDLE": bundle(where / "bundle"),
        "PIDFILE": pid_file,
        "PROCESS": where / "process.json",
    }
    found: dict[str, tuple[int, Json, str]] = {}
    for at, line in enumerate(LIFE.replace("\n", " ").split(" | ")):
        if line.strip() == "WAIT":
            until(lambda: status_of(runtime, id) == "stopped")
            continue
        argv = [str(words.get(word, word)).replace("\t", " ") for word in line.split(" ") if word]
        done = runtime(*argv)
        out, err = (text.replace(str(where), "WHERE").replace(id, "NAME") for text in (done.stdout, done.stderr))
        found[f"{at:02} {line.strip()}"] = (done.returncode, shape(out), said(err))
        if "PIDFILE" in line:
            pid = json.loads(runtime("state", id).stdout)["pid"]
            assert pid_file.read_bytes() == str(pid).encode()
    return found


def test_what_a_runtime_says_of_a_create_is_said_once_and_logged_bare(both: tuple[Runc, Cli], tmp_path: Path) -> None:
    made, said = bundle(tmp_path / "bundle", args=["/no/such"]), []
    for runtime in both:
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        failed = runtime("--log", str(log), "--log-format", "json", "create", "--bundle", str(made), f"{NAME}-once")
        said.append((failed.returncode, failed.stderr, json.loads(log.read_text())["msg"]))

    assert said[1] == said[0]
    assert "unable to start container process" in said[0][2]


@pytest.mark.timeout(900)
def test_a_life_says_and_does_what_it_does_with_runc_itself(both: tuple[Runc, Cli], tmp_path: Path) -> None:
    theirs, ours = life(both[0], tmp_path / "one"), life(both[1], tmp_path / "two")

    differences: list[str] = []
    for step, (status, out, err) in theirs.items():
        got = ours[step]
        if got[0] != status:
            differences.append(f"{step}: exit {got[0]}, not {status} ({got[2]!r})")
        elif got[1] != out:
            differences.append(f"{step}: printed {got[1]}, not {out}")
        elif err and err not in got[2]:
            differences.append(f"{step}: said {got[2]!r}, not {err!r}")
    assert not differences, "\n".join(differences)


# ---- an engine's monitor --------------------------------------------------------------------------------------------------


def monitored(cli: Cli, tmp_path: Path, where: Path, id: str = NAME, **more: Any) -> Json:
    argv = [sys.executable, str(MONITOR), str(tmp_path / "pid"), id, *cli.head, "--", "--bundle", str(where)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=200, env=cli.env(), check=False, **more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_monitor_is_the_parent_of_init_reads_its_output_and_learns_how_it_ends(cli: Cli, tmp_path: Path) -> None:
    found = monitored(cli, tmp_path, bundle(tmp_path / "bundle", "echo up; echo trouble >&2; exit 7"))

    assert found.pop("pid_file").isdigit()
    assert found == {"create": 0, "parent": True, "start": 0, "status": 7, "output": "up\ntrouble\n"}
    assert status_of(cli, NAME) == "stopped"
    assert cli("delete", NAME).returncode == 0


def test_a_monitor_hears_why_there_is_no_container(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    found = monitored(cli, tmp_path, tmp_path / "empty")

    assert found["create"] == 1
    assert "config.json not found" in found["output"]
    assert not (tmp_path / "pid").exists()


# ---- run ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script, status", [("exit 0", 0), ("exit 9", 9)])
def test_a_run_ends_as_its_program_does_and_leaves_nothing(cli: Cli, tmp_path: Path, script: str, status: int) -> None:
    done = cli("run", "--bundle", str(bundle(tmp_path / "b", f"echo up; {script}")), NAME)

    assert (done.returncode, done.stdout, done.stderr) == (status, "up\n", "")
    assert cli("list", "-q").stdout == ""


def test_a_run_reads_its_callers_input_and_forwards_its_signals(cli: Cli, tmp_path: Path) -> None:
    script = "trap 'echo told' TERM; trap 'exit 7' 37; cat; while :; do sleep 0.05; done"
    argv = [
        *cli.head,
        "run",
        "--keep",
        "--pid-file",
        str(tmp_path / "pid"),
        "--bundle",
        str(bundle(tmp_path / "b", script)),
        NAME,
    ]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=cli.env()) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        run.stdin.write(b"hello\n")
        run.stdin.close()
        assert run.stdout.readline() == b"hello\n"
        until((tmp_path / "pid").exists)
        run.send_signal(signal.SIGTERM)
        assert run.stdout.readline() == b"told\n"
        run.send_signal(signal.SIGRTMIN + 3)
        assert run.wait(30) == 7

    assert status_of(cli, NAME) == "stopped"
    assert cli("delete", NAME).returncode == 0


def test_a_detached_run_comes_back_at_once(cli: Cli, tmp_path: Path) -> None:
    done = cli("run", "-d", "--pid-file", str(tmp_path / "pid"), "--bundle", str(bundle(tmp_path / "b")), NAME)

    assert done.returncode == 0
    assert status_of(cli, NAME) == "running"
    assert json.loads(cli("state", NAME).stdout)["pid"] == int((tmp_path / "pid").read_text())
    assert cli("delete", NAME).returncode == 1
    assert cli("delete", "--force", NAME).returncode == 0


# ---- sockets, descriptors, terminals ---------------------------------------------------------------------------------------


def line_of(terminal: Any) -> bytes:  # Any: a file without a buffer
    """Its next line, in however many pieces it comes."""
    said = b""
    while not said.endswith(b"\n"):
        said += terminal.read(1)
    return said


def test_a_terminal_is_sent_over_the_console_socket(cli: Cli, tmp_path: Path) -> None:
    where = bundle(tmp_path / "b", "tty; stty size; exit 3", terminal=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "console"))
        listening.listen(1)
        listening.settimeout(30)
        made = cli("create", "--console-socket", "console", "--bundle", str(where), NAME, cwd=tmp_path)
        assert (made.returncode, made.stderr) == (0, "")
        sending, _ = listening.accept()
        with sending:
            _, (master, *_), _, _ = socket.recv_fds(sending, 4096, 1)
        with open(master, "rb", buffering=0) as terminal:
            assert cli("start", NAME).returncode == 0
            assert line_of(terminal).startswith((b"/dev/pts/", b"/dev/console"))


def test_a_run_on_a_terminal_has_it_whole(cli: Cli, tmp_path: Path) -> None:
    where = bundle(tmp_path / "b", "stty size; read line; echo got $line; exit 5", terminal=True)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (33, 101))
    argv = [*cli.head, "run", "--bundle", str(where), NAME]
    with subprocess.Popen(
        argv, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=cli.env()
    ) as run:
        os.close(theirs)
        with open(ours, "r+b", buffering=0) as terminal:
            assert line_of(terminal) == b"33 101\r\n"
            terminal.write(b"hello\n")
            said = b""
            while b"got hello" not in said:
                said += terminal.read(100)
            assert run.wait(30) == 5


def test_further_descriptors_are_the_containers(cli: Cli, tmp_path: Path) -> None:
    where = bundle(tmp_path / "b", "cat <&3; echo done >&4")
    given, reads = tmp_path / "given", tmp_path / "out"
    given.write_text("from outside\n")
    shell = 'exec "$@" 3<"$GIVEN" 4>"$OUT"'
    argv = ["sh", "-c", shell, "sh", *cli.head, "run", "--preserve-fds", "2", "--bundle", str(where), NAME]

    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        env={**cli.env(), "GIVEN": str(given), "OUT": str(reads)},
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "from outside\n", "")
    assert reads.read_text() == "done\n"


def test_descriptors_that_are_not_open_are_refused(cli: Cli, tmp_path: Path) -> None:
    done = cli("create", "--preserve-fds", "90", "--bundle", str(bundle(tmp_path / "b")), NAME)

    assert done.returncode == 1
    assert "preserve-fds" in done.stderr


# ---- exec -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def running(both: tuple[Runc, Cli], tmp_path: Path) -> Cli:
    cli = both[1]
    assert cli("run", "-d", "--bundle", str(bundle(tmp_path / "b")), NAME).returncode == 0
    return cli


def test_an_exec_has_its_callers_streams_and_its_own_status(running: Cli) -> None:
    reads, writes = os.pipe()
    os.write(writes, b"in\n")
    os.close(writes)

    done = running("exec", NAME, "sh", "-c", "cat; echo trouble >&2; exit 5", stdin=reads)
    os.close(reads)

    assert (done.returncode, done.stdout, done.stderr) == (5, "in\n", "trouble\n")


def test_a_detached_exec_leaves_its_pid(running: Cli, tmp_path: Path) -> None:
    done = running("exec", "--detach", "--pid-file", "exec.pid", NAME, "sleep", "60", cwd=tmp_path)

    assert done.returncode == 0
    pid = tmp_path.joinpath("exec.pid").read_text()
    assert pid in json.dumps(json.loads(running("ps", "--format", "json", NAME).stdout))


def test_errors_are_in_the_log_that_the_engine_named(running: Cli, tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = running("--log", str(log), "--log-format", "json", "start", "nope")

    (entry,) = [json.loads(line) for line in log.read_text().splitlines()]
    assert (done.returncode, entry["level"], entry["msg"]) == (1, "error", "container does not exist")
    assert done.stderr == "container does not exist\n"


def test_statistics_come_as_lines(running: Cli) -> None:
    line = json.loads(running("events", "--stats", NAME).stdout)

    assert (line["type"], line["id"]) == ("stats", NAME)
    assert line["data"]["cpu"]["usage"]["total"] > 0
    assert line["data"]["memory"]["usage"]["usage"] > 0


def test_limits_are_changed_in_the_kernel(cli: Cli, tmp_path: Path) -> None:
    assert cli("run", "-d", "--bundle", str(bundle(tmp_path / "b")), NAME).returncode == 0
    resources = tmp_path / "resources.json"
    resources.write_text(json.dumps({"pids": {"limit": 77}, "memory": {"limit": 33554432}}))

    with resources.open() as given:
        done = cli("update", "--resources", "-", NAME, stdin=given.fileno())

    assert (done.returncode, done.stderr) == (0, "")
    pid = json.loads(cli("state", NAME).stdout)["pid"]
    lines = [line.split(":") for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    (below,) = [path for _, controllers, path in lines if controllers in ("pids", "")][:1]
    kept = {Path(f"/sys/fs/cgroup{kind}{below}/pids.max") for kind in ("/pids", "", "/unified")}
    assert {path.read_text() for path in kept if path.exists()} == {"77\n"}

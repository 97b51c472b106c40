"""Exit statuses and summaries of many outcomes; tables and progress on a terminal."""

from __future__ import annotations

import io
import json
import logging

import pytest

from nexcage import Done, Failure, InvalidInput, NexcageError, NodeUnreachable, NotFound, Outcome, Start, State
from nexcage._cli.log import Logs
from nexcage._cli.outcomes import print_outcomes, row, status_of
from nexcage._cli.parser import parse
from nexcage._cli.progress import Progress
from nexcage._cli.render import print_rows
from nexcage._cli.streams import Streams


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def done(id: str = "a", node: str = "pve-1", seconds: float = 0.5, changed: bool = True) -> Done:
    return Done(
        intent=Start(id), op_id="k", state=State.RUNNING, node=node, vmid=104, pid=7, seconds=seconds, changed=changed
    )


def failure(error: NexcageError, id: str = "b", node: str = "pve-2") -> Failure:
    return Failure(intent=Start(id), error=error, node=node, state=State.CREATED)


AWAY = NodeUnreachable("pve-2", "no route to host")
GONE = NotFound("container", "b")
BAD = InvalidInput("signal", "x", "a signal")


@pytest.mark.parametrize(
    "outcomes, status",
    [
        ([], 0),
        ([done()], 0),
        ([done(), failure(AWAY), failure(AWAY)], 3),
        ([failure(GONE)], 1),
        ([failure(BAD)], 2),
        ([failure(AWAY), failure(GONE)], 1),
    ],
)
def test_the_exit_status_is_what_every_failure_agrees_on(outcomes: list[Outcome], status: int) -> None:
    assert status_of(outcomes) == status


def test_a_failure_is_a_json_object_with_its_error() -> None:
    made = row(failure(AWAY.__class__("pve-2", "no route to host")))

    assert (made["result"], made["state"], made["node"]) == ("failed", "created", "pve-2")
    assert made["error"]["type"] == "NodeUnreachable"
    assert made["error"]["retryable"] is True
    assert json.loads(json.dumps(made)) == made


def test_the_summary_has_a_line_per_node_and_one_for_all() -> None:
    out = io.StringIO()
    outcomes = [done(), done("c", changed=False, seconds=2.0), failure(GONE)]

    print_outcomes(Streams(None, out, None), outcomes, "table", summary=True)

    assert [line.split() for line in out.getvalue().splitlines()] == [
        ["NODE", "DONE", "UNCHANGED", "FAILED", "P50", "P99"],
        ["pve-1", "1", "1", "0", "2.0", "s", "2.0", "s"],
        ["pve-2", "0", "0", "1", "0", "ms", "0", "ms"],
        ["all", "1", "1", "1", "500", "ms", "2.0", "s"],
    ]


def test_what_a_node_says_cannot_move_the_cursor_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": "a\x1b[31m", "why": "two\nlines\u202e"}]
    monkeypatch.setenv("TERM", "xterm")
    for stream in (io.StringIO(), Terminal()):
        for output in ("table", "json", "jsonl", "name"):
            print_rows(Streams(None, stream, None), rows, output, ("id", "why"))

        assert "\x1b[31m" not in stream.getvalue()
        assert "\u202e" not in stream.getvalue().replace('"two\\nlines\u202e"', "")


def test_a_terminal_gets_colours_unless_nobody_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    rows = [{"id": "a", "state": "running"}]

    colourful, plain = Terminal(), Terminal()
    print_rows(Streams(None, colourful, None), rows, "table", ("id", "state"))
    monkeypatch.setenv("NO_COLOR", "1")
    print_rows(Streams(None, plain, None), rows, "table", ("id", "state"))

    assert "\x1b[" in colourful.getvalue()
    assert plain.getvalue() == "ID  STATE\na   running\n"


def test_progress_without_a_terminal_is_a_few_plain_lines() -> None:
    err = io.StringIO()
    with Progress(Streams(None, None, err), "start", 1000) as progress:
        for number in range(1000):
            progress.advance(failed=number % 500 == 0)

    lines = err.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[-1] == "nexcage: start: 1000 of 1000, 2 failed"


def test_progress_of_a_few_is_silent() -> None:
    err = io.StringIO()
    with Progress(Streams(None, None, err), "start", 3) as progress:
        for _ in range(3):
            progress.advance(failed=False)

    assert err.getvalue() == ""


def test_progress_on_a_terminal_is_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    err = Terminal()
    with Progress(Streams(None, None, err), "start", 50) as progress:
        for _ in range(50):
            progress.advance(failed=False)

    assert "start" in err.getvalue()


class Broken(Terminal):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_progress_on_a_broken_standard_error_changes_nothing(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", term)
    with Progress(Streams(None, None, Broken()), "start", 50) as progress:
        for _ in range(50):
            progress.advance(failed=False)


def test_a_container_without_a_number_shows_none() -> None:
    out = io.StringIO()
    print_rows(Streams(None, out, None), [{"id": "web-1", "vmid": 0, "pid": 0}], "table", ("id", "vmid", "pid"))
    assert out.getvalue().splitlines()[1].split() == ["web-1", "-", "0"]


@pytest.mark.parametrize(
    ("stderr", "words", "told"),
    [
        (Terminal, ["list"], "nexcage: packing /srv: 9 MiB\n"),
        (io.StringIO, ["list"], ""),
        (Terminal, ["--root", "/r", "list"], ""),
    ],
)
def test_long_work_is_told_to_people_at_a_terminal(
    stderr: type[io.StringIO], words: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NEXCAGE_LOG_LEVEL", "NEXCAGE_LOG_FILE", "NEXCAGE_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    err = stderr()
    with Logs(parse(words), Streams(None, None, err)):
        logging.getLogger("nexcage.progress").info("packing /srv: 9 MiB")
        logging.getLogger("nexcage.command").info("not for people")

    assert err.getvalue() == told

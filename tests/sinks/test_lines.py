"""Lines and log records: what breaks is unplugged, and nothing from a node moves a cursor."""

from __future__ import annotations

import io
import json
import logging
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nexcage
from nexcage import Checkpointed, Machine, NodeFound, NodeLost, Observed, Op, State, Succeeded, text_line
from nexcage._core.events import Attempted, Failed, Interrupted, Problem
from nexcage._sinks.lines import LineSink, LogSink, json_line, words
from nexcage.abc import Sink

NASTY = "gone\x1b[2J\r\nrm -rf \u202e\x00\x85\x9b\u2028\ufeff\U0001f600 é"
PROBLEM = Problem.of(nexcage.CommandFailed("pve-01", ("pct", "start"), 1, NASTY))
EVENTS = [
    Attempted(seq=1, at=1.0, id="web-1", op=Op.CREATE, op_id="a", step=1, tool="pct create", tries={"vmid": 104}),
    Succeeded(
        seq=2,
        at=2.0,
        id="web-1",
        op=Op.START,
        op_id="b",
        state=State.RUNNING,
        pid=9,
        vmid=104,
        node="pve-01",
        backend="lxc",
    ),
    Failed(seq=3, at=3.0, id="web-1", op=Op.START, op_id="c", state=State.STOPPED, error=PROBLEM),
    Interrupted(seq=4, at=4.0, id="web-1", op=Op.KILL, op_id="d", error=PROBLEM),
    Observed(seq=5, at=5.0, id="web-1", state=State.STOPPED, why=NASTY, node="pve-01", vmid=104),
    NodeLost(seq=6, at=6.0, node=NASTY, error=PROBLEM),
    NodeFound(seq=7, at=7.0, node="pve-01"),
    Checkpointed(seq=8, at=8.0, id="web-1", machine=Machine("web-1", State.RUNNING)),
]


class Stream(io.TextIOWrapper):
    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True)

    @property
    def text(self) -> str:
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined]


def test_a_line_tells_what_happened_in_the_events_words():
    assert text_line(EVENTS[1]) == (
        "2 1970-01-01T00:00:02.000Z web-1 succeeded start: running, pid 9, lxc 104 on pve-01, 0.0 s"
    )
    assert words(EVENTS[0]) == "web-1 attempted create, step 1: pct create (vmid 104)"
    assert words(EVENTS[6]) == "pve-01 nodefound"


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_event_is_one_printable_line(event):
    assert text_line(event).isprintable()
    assert json_line(event).isprintable()
    assert json_line(event, ascii=True).isascii()
    assert json.loads(json_line(event)) == json.loads(json_line(event, ascii=True))
    assert json.loads(json_line(event))["seq"] == event.seq


@given(text=st.text(), at=st.floats(allow_nan=True))
def test_no_text_and_no_time_breaks_a_line(text, at):
    event = Observed(seq=1, at=at, id="web-1", state=State.STOPPED, why=text)
    assert text_line(event).isprintable()


@pytest.mark.both_loops
@pytest.mark.parametrize("output", ["jsonl", "text"])
async def test_a_file_gets_a_line_per_event(tmp_path, output):
    sink = LineSink(tmp_path / "log", output=output)
    for event in EVENTS:
        await sink.put(event)
    await sink.aclose()
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == len(EVENTS)
    assert isinstance(sink, Sink)
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
async def test_a_locale_without_the_letters_gets_escapes(encoding):
    stream = Stream(encoding)
    for output in ("jsonl", "text"):
        sink = LineSink(stream, output=output, inline=True)
        for event in EVENTS:
            await sink.put(event)
        assert sink.broken == ""
    lines = stream.text.splitlines()
    assert len(lines) == 2 * len(EVENTS)
    assert [json.loads(line)["seq"] for line in lines[: len(EVENTS)]] == [event.seq for event in EVENTS]


async def test_a_reader_that_went_away_unplugs_the_sink_once(caplog):
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(os.dup(writing), "w")
    sink = LineSink(stream)
    for event in EVENTS:
        await sink.put(event)
    await sink.aclose()
    assert "Broken pipe" in sink.broken
    assert caplog.text.count("unplugged") == 1
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    stream.close()
    os.close(writing)


async def test_a_full_disk_unplugs_the_sink():
    if not os.path.exists("/dev/full"):
        pytest.skip("this kernel has no /dev/full")
    sink = LineSink("/dev/full")
    for event in EVENTS:
        await sink.put(event)
    await sink.aclose()
    assert "No space left" in sink.broken


async def test_a_closed_stream_and_an_impossible_file_change_nothing(tmp_path):
    closed = Stream()
    closed.close()
    for sink in (LineSink(closed), LineSink(tmp_path / "no" / "such"), LineSink(tmp_path), LineSink("a\0b")):
        for event in EVENTS:
            await sink.put(event)
        await sink.aclose()
        assert sink.broken


async def test_log_records_carry_the_event_and_its_weight(caplog):
    sink = LogSink()
    with caplog.at_level(logging.DEBUG, "nexcage"):
        for event in EVENTS:
            await sink.put(event)
    assert [record.event for record in caplog.records] == EVENTS
    assert [record.levelname for record in caplog.records] == [
        "DEBUG", "INFO", "WARNING", "WARNING", "INFO", "WARNING", "INFO", "DEBUG",
    ]  # fmt: skip
    assert all(record.getMessage().isprintable() for record in caplog.records)

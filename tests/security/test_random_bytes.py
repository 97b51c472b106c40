"""Whatever reads what comes from outside raises our errors or nothing: random bytes, documents and words."""

from __future__ import annotations

import contextlib
import io
import string
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nexcage
from nexcage import Claim, Command, Mark, NexcageError, OciState, Result, names
from nexcage._cli.main import main
from nexcage._core import config as config_core
from nexcage._core.hosts import hosts
from nexcage._engine.node import Lost, answer
from nexcage._sinks.statefile import read_state
from nexcage._transports import frames
from nexcage.tools import claims, lxc, pct
from nexcage.tools import config as pve_config

noise = st.binary(max_size=400)
near_claims = st.lists(
    st.sampled_from(
        [b"@nexcage claim ", b"ended ", b"running ", b"void ", b"lost ", b"- ", b"0 ", b"1 ", b"255 ", b"999999999999999999 ", b"b-1 ",
         b"1.5 ", b"..", b"\n", b"rebooted\n", b"cut\n", b"unusable\n", b"\xff", b"9" * 13, b" "]
    ),
    max_size=30,
).map(b"".join)  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
words = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=30) | st.sampled_from(
    "list state create start stop kill delete events health route config help version man run update exec ps -- - -h --help "
    "--output json table jsonl --debug --log /dev/null --image --node --tag --selector -l id=web --root --bundle --pid-file".split()
)


@given(said=near_claims | noise, dropped=st.integers(0, 3), exit=st.sampled_from([0, 0, 0, 1, 255, None]))
def test_reports_of_claims(said: bytes, dropped: int, exit: int | None) -> None:
    command = claims.settle(Claim(fleet="f", op="o", step=1, id="web-1"), Claim(fleet="f", op="o", step=2, id="web-1"))
    result = Result(exit, said, b"", dropped)
    with contextlib.suppress(NexcageError, Lost):
        answer(command, result, "pve-01")
    try:
        got = claims.unclaimed(result, "pve-01")
        assert got.exit is None or 0 <= got.exit <= 999
    except NexcageError:
        pass


@given(said=noise, bad=noise, exit=st.integers(0, 255))
def test_answers_of_tools(said: bytes, bad: bytes, exit: int) -> None:
    mark = Mark("f", "web-1", 104, "op-1")
    for command in (
        pct.start(104), pct.stop(104), pct.shutdown(104, 5.0), pct.destroy(104), lxc.freeze(104), lxc.signal(mark, 15),
        lxc.guarded(mark, pct.start(104)), lxc.look("pve-01"),
    ):  # fmt: skip
        try:
            answer(command, Result(exit, said, bad), "pve-01")  # type: ignore[arg-type]
        except NexcageError as error:
            assert str(error).isprintable() or "\n" not in str(error)


@given(chunks=st.lists(noise, max_size=6))
def test_frames_of_a_runner(chunks: list[bytes]) -> None:
    decoder = frames.Decoder(frames.FROM_NODE)
    try:
        for chunk in chunks:
            list(decoder.feed(chunk))
    except frames.FrameError:
        pass


@given(
    document=st.dictionaries(
        st.sampled_from(sorted(config_core.Config.__struct_fields__)) | st.text(max_size=8), values, max_size=6
    )
)
def test_settings(document: dict[str, Any]) -> None:
    with contextlib.suppress(NexcageError):
        assert isinstance(config_core.read(document), nexcage.Config)


@given(text=st.text(max_size=300))
def test_configs_of_guests_marks_and_hosts(text: str) -> None:
    pve_config.parse(text)
    mark = Mark.find(text)
    assert mark is None or str(mark) in text
    with contextlib.suppress(NexcageError):
        hosts(text)


@given(data=noise | values.map(msgspec.json.encode))
@settings(max_examples=60)
def test_state_files(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    run = tmp_path_factory.mktemp("run")
    (run / "web-1").mkdir()
    (run / "web-1" / "state.json").write_bytes(data)
    try:
        found = read_state(run, "web-1")
        assert found is None or isinstance(found, OciState)
    except NexcageError:
        pass


@given(
    value=st.text(max_size=60)
    | st.sampled_from(["web-1\n", "web-1\r", "web-1\x00", "\nweb-1", "web-1\u2028", " web-1"])
)
def test_no_name_ends_with_a_line_break_or_holds_what_a_terminal_obeys(value: str) -> None:
    for name in ("container_id", "node", "hostname", "storage", "tag", "snapshot", "op_id"):
        try:
            good = str(getattr(names, name)(value))
        except NexcageError:
            continue
        assert set(good) <= set(string.ascii_letters + string.digits + "_.+-"), (name, good)


@given(argv=st.lists(words, max_size=6))
@settings(max_examples=120)
def test_command_lines_end_with_a_status_and_no_traceback(
    argv: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        place: Path = tmp_path_factory.mktemp("cli")
        patch.chdir(place)
        for variable, value in {"STATE_DIR": place / "state", "RUN_DIR": place / "run", "HOSTS": "127.0.0.1:1"}.items():
            patch.setenv(f"NEXCAGE_{variable}", str(value))
        out, err = io.StringIO(), io.StringIO()
        if "sim" in argv or {"events", "-f"} <= set(argv):
            return
        status = main(argv, stdin=io.StringIO(""), stdout=out, stderr=err)
    assert 0 <= status <= 255
    assert "Traceback" not in err.getvalue()
    assert all(c.isprintable() or c in "\n\t" for c in err.getvalue())


@given(argv=st.lists(st.binary(max_size=10), min_size=1, max_size=4))
def test_a_command_shows_itself_on_one_harmless_line(argv: list[bytes]) -> None:
    given_words = tuple(word.decode("utf-8", "surrogateescape") for word in argv)
    line = nexcage.errors.brief(given_words)
    assert line.isprintable()
    assert line.isascii()
    assert isinstance(str(Command(given_words, parse=lambda result: result)), str)

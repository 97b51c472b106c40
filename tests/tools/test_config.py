"""Config files: what PVE wrote we read, and what we write PVE would have written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage.errors import InvalidInput, NexcageError
from nexcage.tools.config import (
    Config,
    Section,
    decode_text,
    encode_text,
    format_property_string,
    parse,
    property_string,
)

CASES = Path(__file__).parent.parent / "cases" / "pct"

TEXT = """\
#first line
#second%3A line #1 %C3%A4
arch: amd64
hostname: web
mp12: /srv,mp=/srv
net0: name=eth0,bridge=vmbr0,type=veth
lxc.signal.halt: SIGTERM
lxc.environment.runtime: A=1

[pve:pending]
delete: features,nameserver
memory: 1024

[s1]
#before the upgrade
hostname: old
snaptime: 1795373088
"""


def recorded() -> Iterator[str]:
    for file in sorted(CASES.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            case = json.loads(line)
            yield from case["before"]["configs"].values()
            yield from case["after"]["configs"].values()


def test_every_section_is_read() -> None:
    config = parse(TEXT)

    assert config.description == "first line\nsecond: line #1 ä\n"
    assert config.get("mp12") == "/srv,mp=/srv"
    assert config.raw == (("lxc.signal.halt", "SIGTERM"), ("lxc.environment.runtime", "A=1"))
    assert config.pending == Section({"delete": "features,nameserver", "memory": "1024"})
    assert config.snapshots["s1"].description == "before the upgrade\n"
    assert config.broken == ()


def test_what_was_read_is_written_as_it_was() -> None:
    assert parse(TEXT).render() == TEXT


def test_every_recorded_config_is_written_as_it_was() -> None:
    texts = {text for text in recorded() if parse(text).broken == () and "tags: \n" not in text}

    assert len(texts) > 50
    assert [text for text in texts if parse(text).render() != text] == []


def test_a_broken_line_is_reported_and_costs_only_itself() -> None:
    config = parse("arch: amd64\nnot a line\nhostname: x\n")

    assert config.broken == ("not a line",)
    assert config.values == {"arch": "amd64", "hostname": "x"}


def test_unknown_keys_are_kept() -> None:
    assert parse("bogus: 1\n").render() == "bogus: 1\n"


def test_pending_values_are_in_effect_after_the_next_start() -> None:
    config = parse("memory: 512\nfeatures: nesting=1\n\n[pve:pending]\ndelete: features\nmemory: 1024\n")

    assert config.effective() == {"memory": "1024"}
    assert config.get("memory") == "512"


def test_the_last_of_two_equal_keys_counts() -> None:
    assert parse("memory: 1\nmemory: 2\n").get("memory") == "2"


def test_a_value_may_hold_colons_and_trailing_blanks_are_dropped() -> None:
    assert parse("rootfs:  local:1/vm-1.raw  \n").get("rootfs") == "local:1/vm-1.raw"


def test_with_values_sets_and_drops() -> None:
    config = Config({"a": "1", "lock": "create"}).with_values(lock=None, b="2")

    assert config.values == {"a": "1", "b": "2"}


@given(st.text())
def test_any_text_is_parsed_without_an_error(text: str) -> None:
    parse(text)


VALUE = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=20)
KEY = st.from_regex(r"[a-z][a-z_]{1,8}[0-9]{0,3}", fullmatch=True).filter(lambda key: not key.startswith("description"))
RAW = st.from_regex(r"lxc\.[a-z]{2,8}(\.[a-z]{2,8})?", fullmatch=True)
PROSE = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1, max_size=20), max_size=3
).map(lambda lines: "".join(f"{line}\n" for line in lines))
SECTION = st.builds(
    Section, st.dictionaries(KEY, VALUE, max_size=4), PROSE, st.lists(st.tuples(RAW, VALUE), max_size=3).map(tuple)
)
NAME = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{1,12}", fullmatch=True)
CONFIG = st.builds(
    lambda main, pending, snapshots: Config(main.values, main.description, main.raw, pending, snapshots),
    SECTION,
    st.none() | SECTION.filter(lambda part: part != Section()),
    st.dictionaries(NAME, SECTION, max_size=2),
)


@given(CONFIG)
def test_what_pve_writes_is_read_and_written_back_byte_for_byte(config: Config) -> None:
    text = config.render()

    assert parse(text) == config
    assert parse(text).render() == text


@given(
    st.dictionaries(st.text(max_size=12) | KEY, st.text(max_size=12), max_size=2),
    st.lists(st.tuples(st.text(max_size=9) | RAW, st.text(max_size=9)), max_size=2),
)
def test_no_value_begins_another_line(values: dict[str, str], raw: list[tuple[str, str]]) -> None:
    try:
        text = Config(values, raw=tuple(raw)).render()
    except InvalidInput:
        return

    assert len(text.splitlines()) >= text.count("\n") == len(values) + len(raw)
    read = parse(text)
    assert set(read.values) <= set(values)
    assert {key for key, _ in read.raw} <= {key for key, _ in raw}
    assert not read.snapshots
    assert read.pending is None


@pytest.mark.parametrize(
    "config",
    [
        Config({"hostname": "a\nlock: backup"}),
        Config({"hostname: x\nlock": "backup"}),
        Config({"[s1]": "x"}),
        Config(raw=(("lxc.x", "1\n[s1]"),)),
        Config(raw=(("lock", "1"),)),
        Config(snapshots={"s1]\nlock: x\n[s2": Section()}),
        Config(pending=Section({"memory": "1\n2"})),
    ],
)
def test_what_would_be_another_line_is_not_written(config: Config) -> None:
    with pytest.raises(InvalidInput):
        config.render()


@given(st.text())
def test_what_was_written_is_read_back(text: str) -> None:
    once = parse(parse(text).render())

    assert parse(once.render()) == once


def test_only_text_is_parsed() -> None:
    with pytest.raises(InvalidInput):
        parse(b"arch: amd64\n")  # type: ignore[arg-type]  # a caller's mistake


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_a_description_line_survives_encoding(text: str) -> None:
    assert decode_text(encode_text(text)) == text
    assert encode_text(text).isascii()


def test_a_property_string_is_a_dict_in_the_written_order() -> None:
    assert list(property_string("local:1,size=4G,acl=1", "volume").items()) == [
        ("volume", "local:1"),
        ("size", "4G"),
        ("acl", "1"),
    ]


@pytest.mark.parametrize("text", ["a=1,a=2", "bare", "=1", "a=1,=2", "a=", "a=1,b="])
def test_a_property_string_that_pve_refuses_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        property_string(text)


def test_a_property_string_is_written_in_pves_order() -> None:
    values = {"size": "1G", "backup": "1", "mp": "/data", "volume": "local:1"}

    assert format_property_string(values, "volume", ("mp",)) == "local:1,mp=/data,backup=1,size=1G"


@given(st.text(), st.sampled_from(["", "volume"]))
def test_property_strings_raise_only_our_errors(text: str, default: str) -> None:
    try:
        values = property_string(text, default)
        format_property_string(values, default)
    except NexcageError:
        pass

"""Single names: each validator accepts its language, all of it and nothing else."""

from __future__ import annotations

import enum
import re
import signal as stdlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import names
from nexcage.errors import InvalidInput, InvalidName, InvalidPath, InvalidSpec

LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
LANGUAGES: dict[str, str] = {
    "container_id": r"[A-Za-z0-9_][A-Za-z0-9_+.-]{0,127}",
    "hostname": rf"(?=.{{1,255}}\Z){LABEL}(\.{LABEL})*",
    "node": LABEL,
    "op_id": r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}",
    "snapshot": r"(?!(current|vzdump|[Pp][Ee][Nn][Dd][Ii][Nn][Gg])\Z)[A-Za-z][A-Za-z0-9_-]{1,39}",
    "storage": r"[A-Za-z][A-Za-z0-9._-]{0,98}[A-Za-z0-9]",
    "tag": r"[A-Za-z0-9_][A-Za-z0-9_+.-]{0,127}",
    "vmid": r"[1-9][0-9]{2,8}",
}
ALPHABET = "aAzZ09_+.-:@/ =,\n\x00é٣"


def accepts(validator: Callable[[object], object], value: object) -> bool:
    try:
        validator(value)
    except InvalidName:
        return False
    return True


@pytest.mark.parametrize("name", LANGUAGES)
@given(data=st.data())
def test_all_of_the_language_is_accepted_and_nothing_else(name: str, data: st.DataObject) -> None:
    plain = LANGUAGES[name].replace(r"(?=.{1,255}\Z)", "").partition(r"\Z)")[2] or LANGUAGES[name].replace(
        r"(?=.{1,255}\Z)", ""
    )
    text = data.draw(
        st.from_regex(plain, fullmatch=True) | st.text(ALPHABET, max_size=6) | st.text(ALPHABET[:9], max_size=140)
    )

    assert accepts(getattr(names, name), text) == bool(re.fullmatch(LANGUAGES[name], text, re.ASCII))


@pytest.mark.parametrize(
    ("name", "longest"),
    [("container_id", 128), ("node", 63), ("op_id", 64), ("snapshot", 40), ("storage", 100), ("tag", 128)],
)
def test_one_character_more_than_the_longest_is_refused(name: str, longest: int) -> None:
    validator = getattr(names, name)

    assert validator("a" * longest) == "a" * longest
    assert not accepts(validator, "a" * (longest + 1))


@pytest.mark.parametrize(
    "bad", ["a.", ".a", "a..b", "a_b", "-a", "a-", "a.-b", "x" * 64, "a." * 127 + "ab", "a b", "a/b"]
)
def test_a_hostname_that_pve_refuses_is_refused(bad: str) -> None:
    assert not accepts(names.hostname, bad)


def test_a_hostname_may_have_255_characters() -> None:
    assert names.hostname("a." * 127 + "a") == "a." * 127 + "a"


@given(number=st.integers(-10, 10**10))
def test_a_vmid_is_the_same_as_number_and_as_text(number: int) -> None:
    allowed = 100 <= number <= 999_999_999

    assert accepts(names.vmid, number) == accepts(names.vmid, str(number)) == allowed
    if allowed:
        assert names.vmid(number) == names.vmid(str(number)) == number


@pytest.mark.parametrize(
    "bad", ["0100", "+100", " 100", "100 ", "1_000", "1e3", "100.0", 100.0, True, "१००", "0x64", "100\n"]
)
def test_a_vmid_in_any_other_spelling_is_refused(bad: object) -> None:
    assert not accepts(names.vmid, bad)


def test_numbers_come_back_as_plain_int() -> None:
    class Guest(enum.IntEnum):
        WEB = 104

    assert type(names.vmid(Guest.WEB)) is int
    assert type(names.signal(stdlib.SIGTERM)) is int


def test_a_tag_is_lower_cased() -> None:
    assert names.tag("Blue+Green") == "blue+green"


@pytest.mark.parametrize("bad", ["\u212a", "wor\u212a", "\u0130", "\u0130x", "\u017f", "web\u017f", "\ufb00"])
def test_a_tag_is_not_folded_from_another_script(bad: str) -> None:
    assert not accepts(names.tag, bad)


@pytest.mark.parametrize("number", range(1, 65))
def test_a_signal_number_is_taken_as_number_and_as_digits(number: int) -> None:
    assert names.signal(number) == names.signal(str(number)) == number


@pytest.mark.parametrize("member", stdlib.Signals)
def test_every_signal_that_linux_names_is_known(member: stdlib.Signals) -> None:
    short = member.name.removeprefix("SIG")

    for word in (member.name, short, short.lower(), member.name.title()):
        assert names.signal(word) == member.value


@pytest.mark.parametrize(
    ("word", "number"), [("IOT", 6), ("CLD", 17), ("POLL", 29), ("sigPOLL", 29), ("STKFLT", 16), ("PWR", 30)]
)
def test_aliases_mean_the_signal_they_stand_for(word: str, number: int) -> None:
    assert names.signal(word) == number


@pytest.mark.parametrize("steps", range(31))
def test_real_time_signals_count_from_either_end(steps: int) -> None:
    assert names.signal(f"RTMIN+{steps}") == names.signal(f"sigrtmin+{steps}") == 34 + steps
    assert names.signal(f"RTMAX-{steps}") == names.signal(f"SIGRTMAX-{steps}") == 64 - steps


@pytest.mark.parametrize(
    "bad",
    [0, 65, -1, True, 9.0, "0", "00", "09", "65", "+9", "-9", "9 ", " TERM", "TERM ", "TERM\n", "SIG", "SIG9",
    "SIGSIGTERM", "", "FOO",
     "RTMIN+31", "RTMAX-31", "RTMIN-1", "RTMAX+1", "RTMIN+", "RTMIN+01", "RTMIN++1", "RTMIN+1+1", "K\u0131LL",
     "\u017fIGTERM", "\u212aILL",
     "TERM,KILL", "TERM;id", "٩", "S\u0131GTERM", b"TERM", None],
)  # fmt: skip
def test_anything_else_is_no_signal(bad: object) -> None:
    assert not accepts(names.signal, bad)


@pytest.mark.parametrize(
    "bad", ["current", "vzdump", "pending", "Pending", "PENDING", "a", "1a", "_a", "a" * 41, "a.b", "a b", "a@b"]
)
def test_snapshot_names_that_pve_keeps_or_refuses_are_refused(bad: str) -> None:
    assert not accepts(names.snapshot, bad)


@pytest.mark.parametrize(
    "good", ["t", "tank/x", "tank/a b", "tank/-x", "tank/.x", "tank/...", "Tank.a:b_c-d", "logs",
    "log/x".replace("log", "blog"),
             "p" * 239, "/".join(["t"] * 50), "t/" + "x" * 253],
)  # fmt: skip
def test_datasets_that_zfs_takes_are_taken(good: str) -> None:
    assert names.dataset(good) == good


@pytest.mark.parametrize(
    "bad", ["", "/tank", "tank/", "tank//x", "tank/.", "tank/..", "tank/../x", "tank@s", "tank#b", "tank/x@s",
    "tank/x%recv", "1tank", "-t",
            "_tank", "log", "log/x", "mirror", "mirror-1", "raidz2/x", "draid", "spare/x", "tank/ä", "tank/x\t",
            "tank/x,y", "tank\\x",
            "p" * 240, "/".join(["t"] * 51), "t/" + "x" * 254],
)  # fmt: skip
def test_datasets_that_zfs_refuses_are_refused(bad: str) -> None:
    assert not accepts(names.dataset, bad)


@given(parts=st.lists(st.text("aZ0-_.: ", min_size=1, max_size=6), min_size=1, max_size=5))
def test_a_dataset_of_legal_components_is_taken(parts: list[str]) -> None:
    name = "/".join(["tank", *parts])

    assert accepts(names.dataset, name) == (not {".", ".."} & set(parts))


def test_a_path_comes_back_as_given() -> None:
    for text in ("/", "//a", "/a/./b", "/a/", "/größe/имя", "/a/..b/c..", "/x y/=,'\""):
        assert names.path(text) == text


@pytest.mark.parametrize(
    "bad",
    ["", "a", "./a", "a/b", "~", "/..", "/../a", "/a/..", "/a/../b", "/a\n", "/a\x7f", "/a\x9b", "/a\udc80", "/\ud83d"],
)
def test_a_path_that_is_relative_climbs_or_cannot_be_written_is_refused(bad: str) -> None:
    with pytest.raises(InvalidPath):
        names.path(bad)


def test_a_path_is_measured_in_bytes() -> None:
    longest = "/" + "ä" * 2047

    assert names.path(longest) == longest
    with pytest.raises(InvalidPath):
        names.path(longest + "a")


@given(text=st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=200))
def test_a_path_of_any_script_is_taken(text: str) -> None:
    try:
        accepted = names.path("/" + text) == "/" + text
    except InvalidPath:
        accepted = False

    assert accepted == (".." not in text.split("/"))


@given(
    name=st.from_regex("[A-Za-z_][A-Za-z0-9_]*", fullmatch=True),
    content=st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])),
)
def test_an_environment_entry_is_split_at_its_first_equals_sign(name: str, content: str) -> None:
    assert names.env(f"{name}={content}\t=") == (name, f"{content}\t=")


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "A",
        "=x",
        "1A=x",
        "A-B=x",
        "A B=x",
        " A=x",
        "Ä=x",
        "A\n=x",
        "A=x\n",
        "A=\x00",
        "A=\x1b",
        "A=\x7f",
        "A=\x85",
        "A=\ud800",
    ],
)
def test_an_environment_entry_that_pve_refuses_is_refused(bad: str) -> None:
    with pytest.raises(InvalidSpec):
        names.env(bad)


def test_an_environment_entry_fits_into_one_argument() -> None:
    assert names.env("A=" + "x" * 131_069)[1] == "x" * 131_069
    with pytest.raises(InvalidInput):
        names.env("A=" + "x" * 131_070)

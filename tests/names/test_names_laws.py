"""Laws that hold for every validator, whatever it is given."""

from __future__ import annotations

import ast
import math
import re
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import names
from nexcage.errors import InvalidInput, escaped

VALIDATORS: dict[str, Callable[[object], object]] = {
    name: getattr(names, name) for name in names.__all__ if name[0].islower()
}
GOOD: dict[str, tuple[str, ...]] = {
    "backend": ("lxc", "pct", "proxmox-vm", "a" * 32),
    "container_id": ("web-1", "_x", "9", "a+b.c_d-e", "a" * 128),
    "dataset": ("tank", "rpool/data/subvol-100-disk-0", "tank/a b:c.d_e", "logs/x"),
    "env": ("A=", "PATH=/bin:/sbin", "_x1=a=b", "T=a\tb", "N=größe"),
    "hostname": ("web-1", "a.b-c.d", "1", "x" * 63, ".".join(["x" * 63] * 3)),
    "image": (
        "ubuntu", "ubuntu:20.04", "nspawn:debian-12", "ghcr.io/a/b:1@sha256:" + "0" * 64, "local:vztmpl/d.tar.zst",
        "d.tar.gz",
        "/srv/d.tar", "/srv/bundle", "./b", "../b",
    ),
    "mount": ("local:8,mp=/data", "/srv/ü,mp=/srv,ro=1", "/dev/sdb1,mp=/x", "zfs:subvol-100-disk-1,mp=/x,backup=1"),
    "node": ("pve", "pve-01", "N", "n" * 63),
    "op_id": ("0192-ab", "A.b_c-d", "x" * 64),
    "path": ("/", "/srv/x y", "/größe/..a", "/" + "a" * 4094),
    "signal": ("1", "64", "TERM", "sigkill", "RTMIN+3", "SIGRTMAX-1"),
    "snapshot": ("s1", "before-upgrade", "A" * 40),
    "storage": ("local", "local-zfs", "s.1", "ab"),
    "tag": ("web", "blue+green", "_a.b-c", "WEB"),
    "vmid": ("100", "999999999"),
}  # fmt: skip
CASES = [(name, text) for name, texts in GOOD.items() for text in texts]
ASCII_ONLY = set(VALIDATORS) - {"path", "env", "mount"}
BREAKS = "\x00\n\r\x0b\x0c\x1b\x1c\x7f\x85\x9b\u2028\u2029\ud800\udc80"
LETTERS = "\u0430\u0435\u00df\u00e9\u0131\u0130\u017f\u212a\uff21\uff11\u0663\u00b2\u01c5\u200b\u202e\u00a0\u00ad"


def boom(*_: object) -> Any:
    raise RuntimeError("asked the value")


def hostile(name: str, base: type, *methods: str) -> Any:
    """A subclass of ``base`` that raises when any of ``methods`` is asked."""
    return type(name, (base,), dict.fromkeys(methods, boom))


ASKED = [
    f"__{word}__" for word in ("str", "repr", "eq", "hash", "bool", "len", "iter", "contains", "getitem", "format")
]
ASKED += ["__int__", "__index__", "__lt__", "__le__", "__fspath__", "__bytes__", "__getattr__"]
Text = hostile("Text", str, *ASKED, "lower", "upper", "split", "partition", "startswith", "encode", "strip", "replace")
Number = hostile("Number", int, *ASKED)
Hostile = hostile("Hostile", object, *ASKED)


Liar: Any = type("Liar", (), {"__class__": property(lambda _: str), "__repr__": lambda _: "first\nsecond \x1b[31m\xdf"})
Unnamed: Any = type("Named", (type,), {"__name__": property(boom)})("Unnamed", (), {"__repr__": boom})


ODD: tuple[object, ...] = (
    None, True, False, 0, -1, 10**6000, 1.0, math.nan, math.inf, 100.0, 1j, Fraction(100), b"web", bytearray(b"100"),
    b"", (),
    ["web"], {"a": 1}, {1}, object(), Hostile(), Hostile, Liar(), Unnamed(), Unnamed, Text(""), Text("\n"),
    Number(-5), Number(10**30),
    type("evil\nname", (), {"__repr__": boom})(), range(3), iter(()), NotImplemented, ...,
)  # fmt: skip


def refusal(name: str, value: object) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        VALIDATORS[name](value)
    return caught.value


@pytest.mark.parametrize(("name", "text"), CASES)
def test_good_values_pass_and_pass_again(name: str, text: str) -> None:
    first = VALIDATORS[name](text)

    again = VALIDATORS[name](f"{first[0]}={first[1]}" if isinstance(first, tuple) else first)

    assert again == first


@pytest.mark.parametrize(("name", "text"), CASES)
def test_a_str_subclass_is_read_as_its_text_and_comes_back_plain(name: str, text: str) -> None:
    result = VALIDATORS[name](Text(text))

    assert type(result) is type(VALIDATORS[name](text))
    assert result == VALIDATORS[name](text)


@pytest.mark.parametrize("name", VALIDATORS)
def test_odd_objects_are_refused_in_one_line_of_ascii(name: str) -> None:
    for value in ODD:
        error = refusal(name, value)

        assert error.field == name
        assert str(error).isascii()
        assert str(error).isprintable()


@given(
    name=st.sampled_from(sorted(VALIDATORS)),
    value=st.from_type(object) | st.text() | st.text(max_size=12) | st.integers(),
)
def test_any_object_raises_invalid_input_or_nothing(name: str, value: object) -> None:
    try:
        VALIDATORS[name](value)
    except InvalidInput as error:
        assert error.field == name
        assert error.reason
        assert str(error).isascii()
        assert str(error).isprintable()


@pytest.mark.parametrize("name", VALIDATORS)
@pytest.mark.parametrize("bad", ["", " ", "\n", "-", "-x", "--help", "..", "a/../b", b"100", None])
def test_what_no_name_may_be_is_refused(name: str, bad: object) -> None:
    error = refusal(name, bad)

    assert error.field == name
    assert error.value == bad
    assert error.reason


@pytest.mark.parametrize(("name", "text"), CASES)
def test_a_control_character_or_line_break_is_refused_wherever_it_stands(name: str, text: str) -> None:
    for position, bad in product((0, len(text) // 2, len(text)), BREAKS):
        refusal(name, text[:position] + bad + text[position:])


@pytest.mark.parametrize(("name", "text"), [case for case in CASES if case[0] in ASCII_ONLY])
def test_letters_and_digits_of_other_scripts_are_refused_wherever_they_stand(name: str, text: str) -> None:
    for position, letter in product((0, len(text) // 2, len(text)), LETTERS):
        refusal(name, text[:position] + letter + text[position:])
        refusal(name, text[:position] + letter + text[position + 1 :])


@given(case=st.sampled_from([case for case in CASES if case[0] in ASCII_ONLY]), data=st.data())
def test_no_accepted_text_holds_anything_but_printable_ascii(case: tuple[str, str], data: st.DataObject) -> None:
    name, text = case
    position = data.draw(st.integers(0, len(text)))
    changed = text[:position] + data.draw(st.characters()) + text[position:]
    try:
        VALIDATORS[name](changed)
    except InvalidInput:
        return

    assert changed.isascii()
    assert changed.isprintable()


@pytest.mark.parametrize("name", VALIDATORS)
def test_a_megabyte_is_refused_at_once_and_not_repeated_in_the_message(name: str) -> None:
    for huge in (
        "a" * 1_000_000,
        "a-" * 500_000,
        "/a" * 500_000,
        "A=" + "b" * 1_000_000,
        "/a,mp=/" + "b" * 1_000_000,
        "9" * 10_000,
    ):
        error = refusal(name, huge)

        assert len(str(error)) < 1000


@given(value=st.text())
def test_the_message_shows_the_value_escaped(value: str) -> None:
    shown = escaped(value)

    assert shown.isascii()
    assert shown.isprintable()
    assert "..." in shown or ast.literal_eval(shown) == value


def test_a_repr_with_line_breaks_stays_one_line() -> None:
    message = str(refusal("vmid", Liar()))

    assert message.isprintable()
    assert r"first\x0asecond" in message


def test_all_is_sorted_and_is_the_namespace() -> None:
    public = {name for name in vars(names) if not name.startswith(("_", "@"))} - {"annotations"}

    assert names.__all__ == sorted(names.__all__)
    assert set(names.__all__) == public
    assert set(GOOD) == set(VALIDATORS)
    assert all(validator.__doc__ for validator in VALIDATORS.values())


def test_importing_names_loads_no_event_loop_no_files_and_no_other_part_of_nexcage() -> None:
    program = "import sys, nexcage.names; print(*sorted(sys.modules), sep='\\n')"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    loaded = set(done.stdout.split())
    assert not loaded & {"anyio", "asyncio", "asyncssh", "subprocess", "logging", "random", "pathlib", "rich"}
    ours = {module for module in loaded if module.startswith("nexcage")}
    assert {
        module for module in ours if not re.fullmatch(r"nexcage(\._version|\.errors|\.names(\._\w+)?)?", module)
    } == set()

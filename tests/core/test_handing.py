"""Which images Proxmox VE may make containers from itself: only those whose program it starts with exactly the same words."""

from __future__ import annotations

import re
import shlex
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import Spec
from nexcage._core.bundle.image import ImageConfig
from nexcage._core.handing import reads_images, wish, wrong_for_pve


def image(**config: Any) -> ImageConfig:
    """An image whose config says this."""
    said = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}, "config": config}
    return msgspec.convert(said, ImageConfig)


def lxc_words(line: str) -> list[str]:
    """As LXC splits ``lxc.init.cmd``: blanks separate, a word may be in quotes as a whole, and there are no escapes."""
    words, at = [], 0
    while at < len(line):
        if line[at].isspace():
            at += 1
        elif line[at] in "'\"":
            end = line.find(line[at], at + 1)
            if end < 0:
                break
            words.append(line[at + 1 : end])
            at = end + 1
        else:
            end = next((n for n in range(at, len(line)) if line[n].isspace()), len(line))
            words.append(line[at:end])
            at = end
    return words


def pve_line(words: list[str]) -> str:
    """As PVE writes them: what the shell would need quotes for has them."""
    return " ".join(
        word if re.fullmatch(r"[A-Za-z0-9_@%+=:,./^!-]+", word) else "'" + word.replace("'", "'\\''") + "'"
        for word in words
    )


@given(st.lists(st.text(st.characters(max_codepoint=300), max_size=6), min_size=1, max_size=4))
def test_a_program_that_is_handed_over_has_its_words_on_the_other_side(words: list[str]) -> None:
    if not wrong_for_pve(image(Cmd=words)):
        assert lxc_words(pve_line(words)) == words


@pytest.mark.parametrize(
    "config",
    [
        {"Entrypoint": ["/docker-entrypoint.sh"], "Cmd": ["nginx", "-g", "daemon off;"], "StopSignal": "SIGQUIT"},
        {"Cmd": ["/sbin/init"]},
        {"Cmd": ["sh", "-c", 'echo "$HOME"; exec top'], "User": "www-data:33", "WorkingDir": "/srv/my data"},
        {"Cmd": ["x"], "Env": ["PATH=/bin", "EMPTY=", "A=a b\tc"], "User": "1000", "Volumes": {"/data": {}}},
        {"Cmd": ["x"], "StopSignal": "SIGRTMIN+3", "User": ""},
    ],
)
def test_what_images_usually_say_is_handed_over(config: dict[str, Any]) -> None:
    assert wrong_for_pve(image(**config)) == ""


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "no program"),
        ({"Cmd": ["/sbin/init", "--debug"]}, "has arguments"),
        ({"Cmd": ["x", ""]}, "an argument"),
        ({"Cmd": ["x", "it's"]}, "an argument"),
        ({"Cmd": ["x", "a\nb"]}, "an argument"),
        ({"Cmd": ["x"], "Env": ["A=1\n2"]}, "environment"),
        ({"Cmd": ["x"], "Env": ["A=1 "]}, "environment"),
        ({"Cmd": ["x"], "Env": ["A.B=1"]}, "environment"),
        ({"Cmd": ["x"], "Env": ["A"]}, "environment"),
        ({"Cmd": ["x"], "User": "a:b:c"}, "user"),
        ({"Cmd": ["x"], "User": "70000"}, "user"),
        ({"Cmd": ["x"], "WorkingDir": "srv"}, "directory"),
        ({"Cmd": ["x"], "WorkingDir": "/srv/ "}, "directory"),
        ({"Cmd": ["x"], "Volumes": {"/a/../b": {}}}, "directory"),
        ({"Cmd": ["x"], "StopSignal": "SIGFOO"}, "signal"),
        ({"Cmd": ["x"], "StopSignal": "TERM"}, "signal"),
    ],
)
def test_what_a_line_of_its_config_would_change_is_not(config: dict[str, Any], words: str) -> None:
    assert words in wrong_for_pve(image(**config))


@pytest.mark.parametrize(
    ("version", "reads"),
    [("6.0.15", True), ("6.1.10", True), ("7.0", True), ("6.0.14", False), ("5.3.1", False), ("", False), ("x", False)],
)
def test_proxmox_ve_reads_images_since_9_1(version: str, reads: bool) -> None:
    assert reads_images(version) is reads


def test_a_gate_is_had_by_asking_and_by_strict_oci() -> None:
    plain = Spec("./x")
    assert wish(plain, strict_oci=False) == ""
    assert wish(Spec("./x", gate=True), strict_oci=False)
    assert wish(Spec("./x", allow=("/process/user",)), strict_oci=False)
    assert wish(plain, strict_oci=True)


def test_quotes_as_the_shell_reads_them_are_those_of_pve() -> None:
    words = ["a b", "it's", '"', "", "x;y"]
    assert shlex.split(pve_line(words)) == words

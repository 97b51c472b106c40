"""Help is there for every command, on standard output, and costs nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nexcage._cli.commands import COMMANDS, GLOBAL, GROUPS
from nexcage._core.states import BESIDE, DRIVEN

from .conftest import ROOT, Ran


@pytest.mark.parametrize("name", [*COMMANDS, *GROUPS, ""])
def test_help_of_every_command_exits_0_prints_to_stdout_and_opens_nothing(
    name: str, run: Callable[..., Ran], places: Path
) -> None:
    words = name.split()
    spellings = [
        run(*words, "--help"),
        run("--help", *words),
        run(*words, "-h"),
        run("help", *words),
        run("--config", "/no/such", "--hosts", "pve-1", "--debug", *words, "--help"),
    ]

    assert {ran.status for ran in spellings} == {0}
    assert {ran.err for ran in spellings} == {""}
    assert len({ran.out for ran in spellings}) == 1
    assert spellings[0].out.startswith("usage: nexcage")
    assert list(places.iterdir()) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_option_shows_an_example_and_fits_a_screen(name: str, run: Callable[..., Ran]) -> None:
    text = run("help", *name.split()).out

    for option in COMMANDS[name].options:
        if not option.hidden:
            assert all(flag in text for flag in option.flags)
    assert "examples:" in text
    assert len(text.splitlines()) <= 50
    assert max(len(line) for line in text.splitlines()) <= 110


def test_the_overview_names_every_command_and_global_option(run: Callable[..., Ran]) -> None:
    text = run("--help").out

    assert {name.split()[0] for name in COMMANDS} <= set(re.findall(r"[a-z-]+", text.partition("options,")[0]))
    assert all(flag in text for option in GLOBAL for flag in option.flags)
    assert len(text.splitlines()) <= 50


def test_events_can_be_asked_for_by_every_operation_that_is_recorded() -> None:
    (option,) = (option for option in COMMANDS["events"].options if option.name == "op")

    assert set(option.choices) == {str(op) for op in DRIVEN | BESIDE}


def test_a_line_about_each_command_is_there_for_the_asking(run: Callable[..., Ran]) -> None:
    text = run("help", "all").out

    assert [line.split()[0] for line in text.splitlines() if not line.startswith("   ")] == [
        name.split()[0] for name in COMMANDS
    ]


def test_every_command_has_its_place_in_the_overview(run: Callable[..., Ran]) -> None:
    assert "plugins:" not in run("--help").out  # only those of plugins are not sorted


def test_examples_are_command_lines_that_parse() -> None:
    import shlex

    from nexcage._cli.parser import parse

    for command in COMMANDS.values():
        for example in command.examples:
            words = shlex.split(example.partition(" | ")[0].partition(" > ")[0])
            if words[0] == "nexcage":
                assert parse(words[1:]).name in COMMANDS


def test_help_of_what_does_not_exist_is_usage(run: Callable[..., Ran]) -> None:
    ran = run("help", "crate")

    assert (ran.status, ran.out) == (2, "")
    assert ran.err == "nexcage: help: unknown command crate; did you mean create?\n"


def test_help_imports_no_heavy_module() -> None:
    script = (
        "import sys; from nexcage._cli.main import main; main(['--help']); main(['create', '--help']);"
        "print(sorted({'anyio', 'asyncio', 'asyncssh', 'msgspec', 'rich', 'logging', 'pathlib'} & set(sys.modules)))"
    )

    ran = subprocess.run(
        [sys.executable, "-S", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )

    assert ran.stdout.splitlines()[-1] == "[]"

"""Completion scripts and the man page come from the table of commands, so they know every command and option."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nexcage._cli.commands import COMMANDS, GLOBAL, GROUPS

from .conftest import IMAGE, PveNode, Ran

Run = Callable[..., Ran]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_and_option_is_in_the_script(shell: str, run: Run) -> None:
    script = run("completion", shell)

    assert (script.status, script.err) == (0, "")
    for command in COMMANDS.values():
        assert command.name.split()[-1] in script.out
        for option in (*command.options, *GLOBAL):
            if not option.hidden:
                longest = max(option.flags, key=len).removeprefix("--" if shell == "fish" else "")
                assert longest in script.out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_valid_where_its_shell_is_here(shell: str, run: Run, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} here; install the package {shell} to run this")
    script = tmp_path / "script"
    script.write_text(run("completion", shell).out)

    checked = subprocess.run([program, "-n", str(script)], capture_output=True, text=True, timeout=30, check=False)

    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize(
    "words, expected",
    [
        (["sto"], {"stop"}),
        (["sim", ""], set(GROUPS["sim"])),
        (["--config", "x", "si"], {"sim"}),
        (["--output", "json", "li"], {"list"}),
        (["start", "--na"], {"--name"}),
        (["create", "--pri"], {"--privileged"}),
        (["list", "--output", ""], {"table", "json", "jsonl", "name"}),
        (["--output", "jsonl"], {"jsonl"}),
        (["kill", "-s", "KI"], {"KILL"}),
        (["events", "--op", "cr"], {"create"}),
        (["sim", "fault", "--dir", "/tmp", "drop"], {"drop-before", "drop-during", "drop-after", "drop-open"}),
        (["help", "comp"], {"completion"}),
        (["start", ""], {"web-1", "web-2"}),
        (["start", "web-1", "--name", "web-"], {"web-1", "web-2"}),
        (["stop", "--timeout", ""], set()),
    ],
)
def test_bash_completes(words: list[str], expected: set[str], run: Run, tmp_path: Path) -> None:
    (tmp_path / "script").write_text(run("completion", "bash").out)
    program = """
        nexcage() { [[ "${*: -2}" == "completion ids" ]] && printf 'web-1\\nweb-2\\n'; }
        source "$1"; shift
        COMP_WORDS=(nexcage "$@") COMP_CWORD=$#
        _nexcage
        ((${#COMPREPLY[@]})) && printf '%s\\n' "${COMPREPLY[@]}"
        exit 0
    """

    ran = subprocess.run(
        ["bash", "-c", program, "bash", str(tmp_path / "script"), *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert (set(ran.stdout.split()), ran.stderr) == (expected, "")


def test_ids_for_completion_come_from_the_run_directory_and_trouble_is_silent(pve: PveNode, run: Run) -> None:
    assert run("completion", "ids") == Ran(0, "", "")
    run("create", "web-1", "--image", IMAGE)
    run("create", "web-2", "--image", IMAGE)

    assert run("completion", "ids") == Ran(0, "web-1\nweb-2\n", "")
    assert run("completion", "ids", "--config", "/no/such") == Ran(0, "", "")


def test_an_unknown_shell_is_usage(run: Run) -> None:
    assert run("completion", "tcsh").status == 2
    assert run("completion").status == 2


def test_the_man_page_has_every_command_and_option(run: Run) -> None:
    page = run("man").out.replace("\\-", "-")

    for command in COMMANDS.values():
        assert f'.SS "nexcage {command.name}' in page
        for option in (*command.options, *GLOBAL):
            if not option.hidden:
                assert all(f"\\fB{flag}\\fR" in page for flag in option.flags)


def test_the_man_page_formats_without_a_warning(run: Run, tmp_path: Path) -> None:
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("there is no groff here; install the package groff-base to run this")
    (tmp_path / "nexcage.1").write_text(run("man").out)

    formatted = subprocess.run(
        [groff, "-man", "-Tascii", "-ww", str(tmp_path / "nexcage.1")],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert formatted.stderr == ""
    assert "EXIT STATUS" in formatted.stdout.replace("\x08", "").upper() or "EEXXIITT" in formatted.stdout.replace(
        "\x08", ""
    )

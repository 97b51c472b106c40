"""What a command line means, before anything is opened."""

from __future__ import annotations

import pytest

from nexcage._cli.commands import COMMANDS, GLOBAL, GROUPS
from nexcage._cli.parser import Usage, parse

SAMPLES = {
    "--config": "FILE",
    "--hosts": "pve-1",
    "--discover": "pve-1",
    "--state-dir": "DIR",
    "--run-dir": "DIR",
    "--output": "jsonl",
    "--debug": None,
    "--verbose": None,
    "--log-file": "FILE",
    "--log-level": "info",
    "--root": "DIR",
    "--log": "FILE",
    "--log-format": "json",
    "--systemd-cgroup": None,
}


def test_every_global_option_has_a_sample() -> None:
    flags = {option.flags[-1] for option in GLOBAL}

    assert flags - {"--help", "--version"} == set(SAMPLES)


@pytest.mark.parametrize(
    "name, flag",
    [
        (name, flag)
        for name, command in COMMANDS.items()
        for flag in SAMPLES
        if name not in ("help", "version") and (command.outputs or flag != "--output")
    ],
)
def test_a_global_option_means_the_same_before_and_after_the_command(name: str, flag: str) -> None:
    value = SAMPLES[flag]
    if flag == "--output":
        value = COMMANDS[name].outputs[0]
    words = name.split()
    given = [flag] if value is None else [flag, value]

    calls = [parse([*given, *words]), parse([*words, *given])]
    if len(words) == 2:
        calls.append(parse([words[0], *given, words[1]]))
    if value is not None:
        calls += [parse([f"{flag}={value}", *words]), parse([*words, f"{flag}={value}"])]

    assert {call.name for call in calls} == {name}
    option = flag.removeprefix("--").replace("-", "_")
    assert len({(call.text(option), call.many(option), call.flag(option)) for call in calls}) == 1
    assert calls[0].given(option)


@pytest.mark.parametrize(
    "argv, hint",
    [
        (["crate"], "did you mean create?"),
        (["strat", "web-1"], "did you mean start, state or stats?"),
        (["sim", "upp"], "did you mean sim up?"),
        (["list", "--ouput", "json"], "did you mean --output?"),
        (["create", "--nam", "x"], "did you mean --name?"),
        (["create", "web-1", "--memry", "1"], "did you mean --memory?"),
        (["--confg=x", "list"], "did you mean --config?"),
        (["--confg", "x", "list"], "did you mean --config?"),
        (["list", "--zzz"], "nexcage help list"),
        (["run", "--name", "x", "--command", "/bin/echo", "hello"], "nexcage help run"),
        (["sim"], "one of: up, down, effects, path, fault"),
        ([], "'nexcage help' lists them"),
    ],
)
def test_what_is_unknown_is_refused_with_a_suggestion(argv: list[str], hint: str) -> None:
    with pytest.raises(Usage) as caught:
        parse(argv)

    assert hint in caught.value.hint


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_can_be_abbreviated(name: str) -> None:
    command = COMMANDS[name]
    for option in (*command.options, *GLOBAL):
        for flag in option.flags:
            if flag.startswith("--") and flag[:-1] not in {f for o in (*command.options, *GLOBAL) for f in o.flags}:
                with pytest.raises(Usage):
                    parse([*name.split(), flag[:-1], "x"])


@pytest.mark.parametrize("name", COMMANDS)
def test_no_flag_of_a_command_is_also_a_global_one(name: str) -> None:
    flags = [flag for option in (*COMMANDS[name].options, *GLOBAL) for flag in option.flags]

    assert len(flags) == len(set(flags))


def test_help_wins_over_everything_that_is_wrong_or_missing() -> None:
    for argv in (
        ["create", "--help"],
        ["--help", "create"],
        ["create", "--name", "test", "--image", "ubuntu", "--config", "/etc/nexcage/config.json", "--help"],
        ["create", "--nonsense", "-h"],
    ):
        call = parse(argv)

        assert (call.name, call.words) == ("help", ("create",))


def test_the_value_of_an_option_is_never_taken_for_the_command() -> None:
    call = parse(["--log-file", "list", "--output", "json", "state", "web-1"])

    assert (call.name, call.words, call.text("log_file")) == ("state", ("web-1",), "list")


def test_words_behind_a_double_dash_are_words() -> None:
    assert parse(["start", "--", "--all", "-x"]).words == ("--all", "-x")
    assert parse(["--", "start", "web-1"]).words == ("web-1",)


def test_options_and_words_may_be_mixed() -> None:
    call = parse(["stop", "web-1", "--timeout", "3", "web-2", "-f", "web-3"])

    assert call.words == ("web-1", "web-2", "web-3")
    assert (call.text("timeout"), call.flag("force")) == ("3", True)


def test_an_option_given_twice_with_two_values_is_refused() -> None:
    with pytest.raises(Usage, match="given twice"):
        parse(["create", "web-1", "--memory", "512", "--memory", "1024"])


@pytest.mark.parametrize("options", [["--root", "/x"], ["--log", "f"], ["--log-format", "json"], ["--systemd-cgroup"]])
def test_an_engines_own_option_selects_its_dialect(options: list[str]) -> None:
    assert parse([*options, "state", "web-1"]).oci
    assert parse(["state", "web-1", *options]).oci
    assert not parse(["--debug", "--log-file", "f", "state", "web-1"]).oci


def test_an_output_that_a_command_does_not_have_is_refused() -> None:
    with pytest.raises(Usage, match="table, json, jsonl or name"):
        parse(["list", "--output", "yaml"])
    with pytest.raises(Usage, match="jsonl or text"):
        parse(["events", "--output", "name"])


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_without_its_second_word_says_which_there_are(group: str) -> None:
    with pytest.raises(Usage) as caught:
        parse([group])

    assert all(sub in caught.value.hint for sub in GROUPS[group])

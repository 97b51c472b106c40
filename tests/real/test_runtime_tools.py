"""The rules that the specification's own validation suite (runtime-tools) checks, through our command line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .oci_bundle import Cli, bundle, missing, until

pytestmark = pytest.mark.skipif(bool(missing("runc")), reason=missing("runc"))
NAME = f"rules-{os.getpid()}"
Json = Any  # whatever JSON can say


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    cli = Cli(tmp_path)
    yield cli
    cli.close()


def status_of(cli: Cli) -> str:
    said = cli("state", NAME)
    return str(json.loads(said.stdout)["status"]) if said.returncode == 0 else ""


def changed(where: Path, change: Callable[[Json], object]) -> Path:
    """The bundle with another config.json."""
    path = where / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    return where


# create, state, start, kill, delete: what is refused changes nothing.


def test_an_id_and_a_bundle_are_needed_and_an_id_is_taken_once(cli: Cli, tmp_path: Path) -> None:
    where = str(bundle(tmp_path / "b"))
    for argv in (
        ["create", "--bundle", where],
        ["create", "--bundle", where, ""],
        ["state"],
        ["start"],
        ["kill"],
        ["delete"],
    ):
        assert cli(*argv).returncode == 1
    assert cli("create", "--bundle", where, NAME).returncode == 0

    again = cli("create", "--bundle", where, NAME)

    assert (again.returncode, status_of(cli)) == (1, "created")
    assert "already exists" in again.stderr


def test_the_program_runs_at_start_and_not_before_as_it_was_at_create(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    where = bundle(tmp_path / "b", "echo first >> /out; exec sleep 3600")
    changed(where, lambda config: config["root"].update(readonly=False))
    assert cli("create", "--bundle", str(where), NAME).returncode == 0
    written = where / "rootfs" / "out"
    assert not written.exists()
    changed(where, lambda config: config["process"].update(args=["sh", "-c", "echo second >> /out"]))

    assert cli("start", NAME).returncode == 0
    until(written.exists)
    second = cli("start", NAME)

    assert second.returncode == 1
    assert written.read_text() == "first\n"
    assert not out.exists()


def test_what_is_refused_has_no_effect(cli: Cli, tmp_path: Path) -> None:
    assert cli("run", "-d", "--bundle", str(bundle(tmp_path / "b")), NAME).returncode == 0

    assert cli("delete", NAME).returncode == 1
    assert status_of(cli) == "running"
    assert cli("kill", NAME, "TERM").returncode == 0
    until(lambda: status_of(cli) == "stopped")
    assert cli("kill", NAME, "KILL").returncode == 1
    assert status_of(cli) == "stopped"
    assert cli("delete", NAME).returncode == 0
    assert cli("delete", NAME).returncode == 1


def test_a_delete_leaves_nothing_and_the_id_is_free_again(cli: Cli, tmp_path: Path) -> None:
    where = str(bundle(tmp_path / "b"))
    for _ in range(2):
        assert cli("create", "--bundle", where, NAME).returncode == 0
        assert cli("delete", NAME).returncode == 0

    left = [top for top, _, _ in os.walk("/sys/fs/cgroup") if top.endswith(f"/{NAME}")]  # others' come and go meanwhile
    kept = [path for top in ("/run", "/var/lib") for path in Path(top, "nexcage-oci", cli.fleet).glob(f"**/{NAME}")]
    assert (left, kept, cli("list", "-q").stdout) == ([], [], "")
    assert not (cli.root / NAME).exists()


# documents


def test_what_nobody_knows_in_a_document_is_no_error(cli: Cli, tmp_path: Path) -> None:
    where = changed(bundle(tmp_path / "b"), lambda config: config.update(unknown={"a": 1}, annotations={"org.x": "y"}))

    assert cli("create", "--bundle", str(where), NAME).returncode == 0
    assert json.loads(cli("state", NAME).stdout)["annotations"]["org.x"] == "y"


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.update(ociVersion="invalid"),
        lambda config: config["process"].update(rlimits=[{"type": "RLIMIT_TEST", "hard": 1, "soft": 1}]),
        lambda config: config["process"].update(args=[]),
        lambda config: config["root"].update(path="nowhere"),
    ],
    ids=["version", "rlimit", "args", "root"],
)
def test_what_cannot_be_is_refused_and_no_container_is_left(
    cli: Cli, tmp_path: Path, change: Callable[[Json], object]
) -> None:
    where = changed(bundle(tmp_path / "b"), change)

    refused = cli("create", "--bundle", str(where), "--pid-file", str(tmp_path / "pid"), NAME)

    assert refused.returncode == 1
    assert refused.stderr
    assert cli("list", "-q").stdout == ""
    assert not (tmp_path / "pid").exists()


# hooks

HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def hooked(where: Path, said: Path, failing: str = "") -> Path:
    """Every hook writes its name and what it reads. ``startContainer`` runs inside, where it writes to the root file system."""

    def change(config: Json) -> None:
        config["root"]["readonly"] = False
        config["hooks"] = {}
        for name in HOOKS:
            file = "/said" if name == "startContainer" else str(said)
            shell = "/bin/sh"
            script = f'state=$(cat); printf "%s %s\\n" {name} "$state" >> {file}; exit {int(name == failing)}'
            config["hooks"][name] = [{"path": shell, "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}]

    return changed(where, change)


def test_hooks_run_in_order_and_read_the_state(cli: Cli, tmp_path: Path) -> None:
    said = tmp_path / "said"
    where = hooked(bundle(tmp_path / "b"), said)
    assert cli("create", "--bundle", str(where), NAME).returncode == 0
    before = [line.split(" ")[0] for line in said.read_text().splitlines()]
    assert cli("start", NAME).returncode == 0
    assert cli("delete", "--force", NAME).returncode == 0

    lines = [line.split(" ", 1) for line in said.read_text().splitlines()]
    # runc 1.1 runs poststart at the end of create already, so when it has run is left to the runtime.
    assert before[:3] == ["prestart", "createRuntime", "createContainer"]
    assert [name for name, _ in lines] == [*before[:3], "poststart", "poststop"]
    assert (where / "rootfs" / "said").read_text().startswith("startContainer ")
    for name, text in lines:
        state = json.loads(text)
        assert (state["id"], state["bundle"]) == (NAME, str(where)), name
    assert json.loads(lines[-1][1])["status"] == "stopped"


@pytest.mark.parametrize("name", ["prestart", "createRuntime", "createContainer"])
def test_a_hook_of_create_that_fails_leaves_no_container(cli: Cli, tmp_path: Path, name: str) -> None:
    where = hooked(bundle(tmp_path / "b"), tmp_path / "said", failing=name)

    assert cli("create", "--bundle", str(where), NAME).returncode == 1
    assert cli("list", "-q").stdout == ""


def test_a_hook_behind_the_end_that_fails_keeps_nothing_from_ending(cli: Cli, tmp_path: Path) -> None:
    where = hooked(bundle(tmp_path / "b"), tmp_path / "said", failing="poststop")
    assert cli("create", "--bundle", str(where), NAME).returncode == 0

    assert cli("delete", "--force", NAME).returncode == 0
    assert status_of(cli) == ""


def test_signals_arrive_in_the_program(cli: Cli, tmp_path: Path) -> None:
    script = "trap 'echo HUP >> /out' HUP; trap 'echo USR1 >> /out' USR1; echo up >> /out; while :; do sleep 3600 & wait; done"
    where = changed(bundle(tmp_path / "b", script), lambda config: config["root"].update(readonly=False))
    out = where / "rootfs" / "out"
    assert cli("run", "-d", "--bundle", str(where), NAME).returncode == 0
    until(out.exists)

    for signal in ("HUP", "SIGUSR1"):
        assert cli("kill", NAME, signal).returncode == 0
        until(partial(_has, out, signal.removeprefix("SIG")))

    assert status_of(cli) == "running"


def _has(path: Path, word: str) -> bool:
    return word in path.read_text()

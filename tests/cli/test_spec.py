"""``nexcage spec`` writes what ``runc spec`` writes."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nexcage._cli.verbs_spec import document

from .conftest import Ran

OBSERVED = Path(__file__).parents[1] / "data" / "cli"


@pytest.mark.parametrize("rootless, name", [(False, "runc-spec-default.json"), (True, "runc-spec-rootless.json")])
def test_the_document_is_the_one_that_runc_writes_but_for_the_version(rootless: bool, name: str) -> None:
    theirs = OBSERVED.joinpath(name).read_text()

    ours = json.dumps(document(rootless=rootless, unified=False), indent="\t")

    assert ours.replace('"1.0.2"', '"1.0.2-dev"', 1) == theirs


@pytest.mark.skipif(not shutil.which("runc"), reason="runc is not installed: apt-get install runc")
@pytest.mark.parametrize("options", [[], ["--rootless"]])
def test_the_file_is_the_one_that_this_machines_runc_writes(
    run: Callable[..., Ran], tmp_path: Path, options: list[str]
) -> None:
    written: list[dict[str, Any]] = []  # Any: whatever JSON can say
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    assert run("spec", "--bundle", str(tmp_path / "ours"), *options) == Ran(0, "", "")
    subprocess.run(["runc", "spec", "--bundle", str(tmp_path / "theirs"), *options], check=True, timeout=20)

    for name in ("ours", "theirs"):
        written.append(json.loads((tmp_path / name / "config.json").read_text()))
        del written[-1]["ociVersion"]
    assert written[0] == written[1]


def test_a_file_that_is_there_is_never_overwritten(
    run: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.json").write_text("mine")

    refused = run("--root", "/r", "spec")

    assert refused.status == 1
    assert "File config.json exists. Remove it first" in refused.err
    assert Path("config.json").read_text() == "mine"


def test_a_link_is_not_followed(run: Callable[..., Ran], tmp_path: Path) -> None:
    tmp_path.joinpath("config.json").symlink_to(tmp_path / "elsewhere")

    assert run("spec", "-b", str(tmp_path)).status == 1
    assert not tmp_path.joinpath("elsewhere").exists()


@pytest.mark.parametrize("argv, status", [(["spec", "word"], 2), (["spec", "-b", "/nowhere/at/all"], 2)])
def test_what_it_does_not_take_is_refused(run: Callable[..., Ran], argv: list[str], status: int) -> None:
    assert run(*argv).status == status
    assert run("--root", "/r", *argv).status == 1

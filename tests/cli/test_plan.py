"""``nexcage plan`` answers in the form that programs rely on, also when it refuses, and touches nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Ran

Json = dict[str, Any]  # Any: whatever JSON can say
MINIMAL: Json = {"ociVersion": "1.3.0", "process": {"cwd": "/", "args": ["sh"]}, "root": {"path": "rootfs"}}


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., Path]:
    def bundle(**more: object) -> Path:
        made = tmp_path / "bundle"
        (made / "rootfs").mkdir(parents=True)
        (made / "config.json").write_text(json.dumps(MINIMAL | more))
        return made

    return bundle


@pytest.mark.parametrize("backend", ["lxc", "crun", "runc"])
def test_a_bundle_that_can_be_made_is_accepted(
    backend: str, run: Callable[..., Ran], bundle: Callable[..., Path]
) -> None:
    ran = run("plan", str(bundle()), "--backend", backend, "--output", "json")
    said: Json = json.loads(ran.out)

    assert (ran.status, said["verdict"], said["error"], said["refused"]) == (0, "accept", None, [])
    assert list(said) == ["verdict", "applied", "approximated", "refused", "warnings", "error"]
    assert {tuple(entry) for entry in said["applied"]} == {("pointer", "as")}
    assert {tuple(entry) for entry in said["approximated"]} <= {("pointer", "as", "how")}


def test_what_is_refused_is_said_on_standard_output_with_exit_1(
    run: Callable[..., Ran], bundle: Callable[..., Path]
) -> None:
    ran = run("plan", str(bundle(zos={}, linux={"cgroupsPath": "/x"})), "--output", "json")
    said: Json = json.loads(ran.out)

    assert (ran.status, said["verdict"], said["error"]) == (1, "reject", None)
    assert [one["pointer"] for one in said["refused"]] == ["/linux/cgroupsPath", "/zos"]
    assert all(tuple(one) == ("pointer", "reason") for one in said["refused"])


@pytest.mark.parametrize(
    "words",
    [
        ("--allow", "/zos", "--allow", "/linux/cgroupsPath"),
        ("--allow", "/zos,linux.cgroupsPath"),
        ("--allow", "zos", "linux"),
    ],
)
def test_allowed_fields_may_be_dropped(
    words: tuple[str, ...], run: Callable[..., Ran], bundle: Callable[..., Path]
) -> None:
    ran = run("plan", str(bundle(zos={}, linux={"cgroupsPath": "/x"})), *words, "--output", "json")

    assert (ran.status, json.loads(ran.out)["verdict"]) == (0, "accept")


@pytest.mark.parametrize(("backend", "word"), [("lxc", "dropped"), ("crun", "unchanged"), ("runc", "unchanged")])
def test_the_table_says_whether_an_allowed_field_is_dropped_or_handed_over(
    backend: str, word: str, run: Callable[..., Ran], bundle: Callable[..., Path]
) -> None:
    ran = run("plan", str(bundle(zos={})), "--backend", backend, "--allow", "/zos")

    assert (ran.status, [line.split()[0] for line in ran.out.splitlines() if "/zos" in line]) == (0, [word])


def test_who_reads_a_refusal_reads_how_to_do_without(run: Callable[..., Ran], bundle: Callable[..., Path]) -> None:
    made = str(bundle(zos={}, linux={"cgroupsPath": "/x"}))

    assert "to do without: --allow /linux/cgroupsPath --allow ..." in run("plan", made).err
    assert run("plan", made, "--allow", "/linux/cgroupsPath").err.endswith("to do without: --allow /zos\n")
    assert "--allow" not in run("plan", made, "--allow", "/linux,/zos").err


def test_a_layout_of_images_is_told_from_a_bundle(run: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "oci-layout").write_text("{}")

    ran = run("plan", str(tmp_path))

    assert (ran.status, "umoci unpack" in ran.err) == (2, True)


@pytest.mark.parametrize(("backend", "warned"), [("lxc", False), ("crun", True), ("runc", True)])
def test_a_terminal_that_has_to_be_asked_for_is_a_warning(
    backend: str, warned: bool, run: Callable[..., Ran], bundle: Callable[..., Path]
) -> None:
    process = {"cwd": "/", "args": ["sh"], "terminal": True}
    ran = run("plan", str(bundle(process=process)), "--backend", backend, "--output", "json")

    assert any("--console-socket" in one for one in json.loads(ran.out)["warnings"]) is warned


def test_an_invalid_document_is_an_error_with_its_place(run: Callable[..., Ran], bundle: Callable[..., Path]) -> None:
    ran = run("plan", str(bundle(hostname=5)), "--output", "json")
    said: Json = json.loads(ran.out)

    assert (ran.status, said["verdict"], said["error"]["pointer"]) == (1, "reject", "/hostname")
    assert (said["applied"], said["approximated"], said["refused"]) == ([], [], [])


def test_a_document_alone_is_planned_without_its_root_file_system(
    run: Callable[..., Ran], bundle: Callable[..., Path]
) -> None:
    made = bundle()
    (made / "rootfs").rmdir()

    assert run("plan", str(made / "config.json")).status == 0
    missing = run("plan", str(made), "--allow", "/root", "--output", "json")
    assert (missing.status, json.loads(missing.out)["refused"][0]["pointer"]) == (1, "/root/path")


@pytest.mark.parametrize(
    "words", [(), ("/no/such/bundle",), ("a", "b"), (".", "--allow", "nothing"), (".", "--backend", "vm")]
)
def test_usage_exits_2(
    words: tuple[str, ...], run: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(MINIMAL))

    ran = run("plan", *words)

    assert (ran.status, ran.out) == (2, "")


def _nothing(place: Path) -> None:
    pass


def _link(place: Path) -> None:
    place.with_name("other.json").write_text(json.dumps(MINIMAL))
    place.symlink_to("other.json")


@pytest.mark.parametrize(
    ("put", "reason"),
    [
        (_nothing, "No such file"),
        (os.mkfifo, "not a regular file"),
        (Path.mkdir, "not a regular file"),
        (_link, "is a link"),
    ],
)
def test_a_bundle_without_a_document_that_can_be_read_is_rejected_at_its_whole(
    put: Callable[[Path], None], reason: str, run: Callable[..., Ran], tmp_path: Path
) -> None:
    put(tmp_path / "config.json")

    ran = run("plan", str(tmp_path), "--output", "json")
    said: Json = json.loads(ran.out)

    assert (ran.status, said["verdict"], said["error"]["pointer"]) == (1, "reject", "")
    assert reason in said["error"]["reason"]


def test_the_table_names_every_entry_and_nothing_is_written(
    run: Callable[..., Ran], bundle: Callable[..., Path], places: Path
) -> None:
    before = sorted(places.rglob("*"))
    ran = run("plan", str(bundle(zos={}, hostname="web")))

    assert ran.status == 1
    assert [line.split()[:2] for line in ran.out.splitlines() if "/zos" in line] == [["refused", "/zos"]]
    assert "hostname: web" in ran.out
    assert [path for path in sorted(places.rglob("*")) if "bundle" not in path.parts] == before


def test_a_bundle_that_anybody_could_exchange_is_refused_as_a_whole(
    run: Callable[..., Ran], bundle: Callable[..., Path]
) -> None:
    made = bundle()
    made.chmod(0o777)

    ran = run("plan", str(made), "--output", "json")
    said: Json = json.loads(ran.out)

    assert (ran.status, said["verdict"], said["error"]) == (1, "reject", None)
    assert [one["pointer"] for one in said["refused"]] == [""]
    assert said["applied"]

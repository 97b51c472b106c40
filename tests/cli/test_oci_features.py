"""``nexcage features`` says what is honoured, in the specification's own form."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nexcage.oci
from nexcage._cli.oci_features import crun_table, lxc_table, without_ours

from .conftest import Ran

CRUN = """crun version 1.8.1
commit: f8a096be060b22ccd3d5f3ebe44108517fbf6c30
rundir: /run/crun
spec: 1.0.0
+SYSTEMD +SELINUX +APPARMOR +CAP +SECCOMP +EBPF +YAJL
"""
Json = dict[str, Any]  # Any: whatever JSON can say


def said(run: Callable[..., Ran], *argv: str) -> Json:
    done = run("features", *argv)
    assert (done.status, done.err) == (0, "")
    document: Json = json.loads(done.out)
    return document


def test_what_a_build_of_crun_lacks_is_not_listed() -> None:
    assert crun_table(CRUN)["linux"]["seccomp"]["enabled"] is True
    assert crun_table(CRUN)["linux"]["cgroup"]["systemd"] is True
    bare = crun_table("crun version 1.8.1\nspec: 1.0.0\n+CAP +EBPF\n")["linux"]
    assert bare["seccomp"] == {"enabled": False}
    assert (bare["cgroup"]["systemd"], bare["apparmor"]["enabled"], bare["selinux"]["enabled"]) == (False, False, False)


@pytest.mark.parametrize("table", [lxc_table(), crun_table(CRUN), crun_table("crun version 1.8.1\nspec: 1.0.0\n")])
def test_our_tables_are_documents_of_the_specification(table: Json) -> None:
    decoded = nexcage.oci.decode_features(json.dumps(table).encode())

    assert decoded.document.oci_version_min == "1.0.0"
    assert decoded.warnings == ()


def test_checkpoints_are_not_ours_to_offer() -> None:
    asked = {"ociVersionMin": "1.0.0", "annotations": {"org.opencontainers.runc.checkpoint.enabled": "true", "a": "b"}}

    assert without_ours(asked)["annotations"] == {"org.opencontainers.runc.checkpoint.enabled": "false", "a": "b"}


def test_a_create_that_goes_to_proxmox_ve_has_its_features(run: Callable[..., Ran], pve: object) -> None:
    document = said(run, "--output", "json")

    assert document["annotations"] == {"org.nexcage.backend": "lxc"}
    assert {key: document[key] for key in ("ociVersionMin", "ociVersionMax")} == {
        key: lxc_table()[key] for key in ("ociVersionMin", "ociVersionMax")
    }
    assert document["linux"]["cgroup"]["v1"] is False


@pytest.mark.skipif(not shutil.which("runc"), reason="runc is not installed: apt-get install runc")
def test_those_of_runc_are_its_own(run: Callable[..., Ran], places: Path) -> None:
    theirs = json.loads(subprocess.run(["runc", "features"], capture_output=True, check=True, timeout=20).stdout)

    ours = said(run, "--runtime", "runc")

    assert ours["linux"] == theirs["linux"]
    assert ours["annotations"]["org.nexcage.backend"] == "runc"


def test_a_runtime_that_is_not_there_is_named(
    run: Callable[..., Ran], places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(places))

    refused = run("features", "--runtime", "crun")

    assert refused.status == 1
    assert "crun: not found" in refused.err


def test_a_backend_that_takes_no_bundles_has_none(run: Callable[..., Ran], places: Path) -> None:
    assert run("features", "--runtime", "vm").status == 2

"""The real conmon, the monitor of Podman and CRI-O, with ``nexcage`` as its runtime."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .oci_bundle import Cli, bundle, missing, until

NAME = f"monitored-{os.getpid()}"
SCRIPT = "trap 'exit 7' TERM; echo up; echo trouble >&2; while :; do sleep 0.05; done"
pytestmark = pytest.mark.skipif(bool(missing("conmon")), reason=missing("conmon"))


@pytest.fixture(params=["runc", "crun"])
def cli(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cli]:
    if why := missing(request.param):
        pytest.skip(why)
    cli = Cli(tmp_path, request.param)
    yield cli
    cli.close()


def monitor(cli: Cli, where: Path, made_from: Path, *more: str) -> subprocess.CompletedProcess[bytes]:
    """One conmon; it goes to the background at once, and its words about the create come on ``_OCI_SYNCPIPE``."""
    runtime = where / "runtime"
    runtime.write_text(f'#!/bin/sh\nexec {shlex.join(cli.head)} "$@"\n')
    runtime.chmod(0o755)
    reads, writes = os.pipe()
    argv = [
        *("conmon", "--api-version", "1", "--cid", NAME, "--cuuid", NAME, "--name", NAME, "--runtime", str(runtime)),
        *(
            "--bundle",
            str(made_from),
            "--container-pidfile",
            str(where / "pid"),
            "--conmon-pidfile",
            str(where / "conmon.pid"),
        ),
        *("--exit-dir", str(where), "--socket-dir-path", str(where), "--log-path", f"k8s-file:{where / 'log'}", *more),
        *("--runtime-arg", "--log-format=json", "--runtime-arg", f"--log={where / 'runtime.log'}"),
    ]
    env = {**cli.env(), "_OCI_SYNCPIPE": str(writes)}
    try:
        subprocess.run(argv, stdin=subprocess.DEVNULL, env=env, pass_fds=(writes,), timeout=200, check=True)
    finally:
        os.close(writes)
    with open(reads, "rb") as said:
        return subprocess.CompletedProcess(argv, 0, said.readline())


def test_conmon_is_the_parent_of_init_writes_its_output_and_how_it_ended(cli: Cli, tmp_path: Path) -> None:
    where = tmp_path / "conmon"
    where.mkdir()
    answer = json.loads(monitor(cli, where, bundle(tmp_path / "b", SCRIPT)).stdout)

    pid = int((where / "pid").read_text())
    assert answer["data"] == pid == json.loads(cli("state", NAME).stdout)["pid"]
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert parent == int((where / "conmon.pid").read_text())

    assert cli("start", NAME).returncode == 0
    until(lambda: "stdout F up" in (where / "log").read_text() and "stderr F trouble" in (where / "log").read_text())
    assert cli("kill", NAME, str(int(signal.SIGTERM))).returncode == 0
    until((where / NAME).exists)
    assert (where / NAME).read_text() == "7"
    assert cli("delete", "--force", NAME).returncode == 0


def test_conmon_says_what_kept_the_container_from_being(cli: Cli, tmp_path: Path) -> None:
    where = tmp_path / "conmon"
    where.mkdir()
    (tmp_path / "empty").mkdir()

    answer = json.loads(monitor(cli, where, tmp_path / "empty").stdout)

    assert answer["data"] < 0
    last = json.loads((where / "runtime.log").read_text().splitlines()[-1])
    assert (last["level"], "config.json not found" in last["msg"]) == ("error", True)

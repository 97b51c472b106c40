"""Containers of Proxmox VE from bundles through the command line, in both dialects, on this machine as a simulated node."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import PveNode, Ran

Run = Callable[..., Ran]
SECRET = "correct-horse-battery"
pytestmark = pytest.mark.skipif(not shutil.which("zstd"), reason="needs zstd (apt install zstd)")


def bundle(directory: Path, **more: Any) -> Path:  # Any: JSON
    path = directory / "bundle"
    (path / "rootfs/bin").mkdir(parents=True)
    (path / "rootfs/bin/program").write_text("a program")
    process = {"args": ["/bin/program", "two words", ""], "cwd": "/", "env": [f"PASSWORD={SECRET}"]}
    namespaces = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")]
    config = {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": "rootfs"},
        "linux": {"namespaces": namespaces},
    }
    (path / "config.json").write_text(json.dumps(config | more))
    return path


def hooks(pve: PveNode) -> dict[str, list[dict[str, Any]]]:
    """Of each kind one, which gets a secret in its environment."""
    names = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    (pve.root / "opt").mkdir(exist_ok=True)
    for name in names:
        (pve.root / "opt" / name).write_text("#!/bin/sh\nexit 0\n")
        (pve.root / "opt" / name).chmod(0o755)
    return {name: [{"path": f"/opt/{name}", "env": [f"TOKEN={SECRET}"]}] for name in names}


def ok(ran: Ran) -> str:
    assert (ran.status, ran.err) == (0, "")
    return ran.out


def saying(directory: Path, text: str) -> Iterator[Path]:
    """The files below ``directory`` that have it in them."""
    return (path for path in directory.rglob("*") if path.is_file() and text.encode() in path.read_bytes())


def left(pve: PveNode) -> list[str]:
    place = pve.root / "var/lib/nexcage-lxc"
    kept = [path.name for path in place.rglob("*") if path.is_file()] if place.exists() else []
    return [*kept, *(path.name for path in (pve.root / "var/lib/vz/template/cache").glob("*nexcage-*"))]


def test_a_bundle_goes_through_its_life_and_leaves_nothing(pve: PveNode, run: Run, tmp_path: Path) -> None:
    path = bundle(tmp_path)
    assert ok(run("create", "web-1", "--bundle", str(path))) == ""
    state = json.loads(ok(run("state", "web-1")))
    assert (state["status"], state["pid"] > 0, state["bundle"], state["ociVersion"]) == (
        "created",
        True,
        str(path),
        "1.0.2",
    )
    assert ok(run("start", "web-1")) == ""
    assert json.loads(ok(run("state", "web-1")))["pid"] == state["pid"]
    assert ok(run("stop", "web-1", "--force")) == ""
    assert ok(run("delete", "web-1")) == ""
    assert (pve.tool("pct", "list"), left(pve)) == ("", [])


def test_an_engines_words_mean_the_same(pve: PveNode, run: Run, tmp_path: Path) -> None:
    path, root, pidfile = bundle(tmp_path), str(tmp_path / "oci"), tmp_path / "pid"

    def oci(*argv: str) -> Ran:
        return run("--root", root, *argv)

    assert ok(oci("create", "--bundle", str(path), "--pid-file", str(pidfile), "c1")) == ""
    state = json.loads(ok(oci("state", "c1")))
    assert (state["status"], str(state["pid"])) == ("created", pidfile.read_text())
    again = oci("create", "--bundle", str(path), "c1")
    assert (again.status, "container with given ID already exists" in again.err) == (1, True)
    assert ok(oci("start", "c1")) == ""
    twice = oci("start", "c1")
    assert (twice.status, "cannot start an already running container" in twice.err) == (1, True)
    assert ok(oci("kill", "c1", "KILL")) == ""
    assert ok(oci("delete", "--force", "c1")) == ""
    assert ok(oci("create", "--bundle", str(path), "c1")) == ""
    assert ok(oci("delete", "c1")) == ""  # what is only created goes without --force
    assert (pve.tool("pct", "list"), left(pve)) == ("", [])


def test_what_it_cannot_have_is_refused_with_its_place_until_it_is_allowed_to_go(
    pve: PveNode, run: Run, tmp_path: Path
) -> None:
    path = bundle(tmp_path, domainname="x" * 80)
    new = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "cgroup")]
    namespaces = {"namespaces": [*new, {"type": "network", "path": "/run/netns/x"}]}
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "linux": namespaces}))

    refused = run("create", "web-1", "--bundle", str(path))

    assert (refused.status, "/linux/namespaces/5" in refused.err) == (1, True)
    assert (pve.tool("pct", "list"), left(pve)) == ("", [])


def test_a_link_in_the_root_file_system_leads_nothing_out_of_it(pve: PveNode, run: Run, tmp_path: Path) -> None:
    mount = {"destination": "/data/deep", "type": "tmpfs", "source": "tmpfs"}
    path, target = bundle(tmp_path, mounts=[mount]), tmp_path / "precious"
    target.mkdir()
    for name in ("data", ".nexcage"):
        (path / "rootfs" / name).symlink_to(target)

    planned = run("plan", str(path), "--output", "json")
    refused = run("create", "web-1", "--bundle", str(path))

    said = [entry["pointer"] for entry in json.loads(planned.out)["refused"]]
    assert (planned.status, sorted(said)) == (1, ["/mounts/0", "/process/args"])
    assert (refused.status, "/mounts/0" in refused.err, left(pve)) == (1, True, [])
    assert json.loads(run("plan", str(path), "--backend", "runc", "--output", "json").out)["refused"] == []


def test_secrets_of_hooks_and_of_the_program_are_in_no_journal_and_on_no_command_line(
    pve: PveNode, run: Run, tmp_path: Path
) -> None:
    path = bundle(tmp_path, hooks=hooks(pve))
    shown = [run("create", "web-1", "--bundle", str(path), "--dry-run")]
    shown += [
        run("--debug", verb, "web-1", *more) for verb, more in (("create", ("--bundle", str(path))), ("start", ()))
    ]
    assert [ran.status for ran in shown] == [0, 0, 0]

    on_node = {path.name: path.stat().st_mode & 0o077 for path in saying(pve.root / "var/lib/nexcage-lxc", SECRET)}
    assert on_node == {"config.json": 0, "hooks.json": 0, "launch": 0}
    shown.append(run("--debug", "delete", "web-1", "--force"))

    assert SECRET not in "".join(ran.out + ran.err for ran in shown)
    kept = [*saying(tmp_path / "state", SECRET), *saying(tmp_path / "run", SECRET)]
    assert kept == []
    assert list(saying(pve.root, SECRET)) == []
    assert left(pve) == []

"""A bundle with every kind of hook is taken through its life on the real runc, command by command: the order, and what hooks are told.

`pytest -s` prints it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.real.oci_bundle import Cli, bundle, missing, until

pytestmark = pytest.mark.skipif(bool(missing("runc")), reason=missing("runc"))
NAME = f"hooked-{os.getpid()}"
OUTSIDE = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")


def _hook(log: Path, kind: str) -> dict[str, Any]:  # Any: JSON
    text = f'{{ printf "{kind} "; cat; echo; }} >>{log}'
    return {"path": "/bin/sh", "args": ["sh", "-c", text], "env": ["PATH=/usr/bin:/bin"], "timeout": 20}


def test_the_life_of_a_bundle_with_all_hooks(tmp_path: Path) -> None:
    log = tmp_path / "told"
    where = bundle(tmp_path / "bundle", "echo program; exec sleep 3600")
    (where / "rootfs/log").mkdir()
    config = json.loads((where / "config.json").read_text())
    config["root"]["readonly"] = False
    config["hooks"] = {kind: [_hook(log, kind)] for kind in OUTSIDE}
    config["hooks"]["startContainer"] = [_hook(Path("/log/told"), "startContainer")]
    (where / "config.json").write_text(json.dumps(config))
    inside = where / "rootfs/log/told"
    ours = Cli(tmp_path)
    seen: list[tuple[str, list[str]]] = []

    def does(*words: str) -> None:
        before = len(log.read_text().splitlines()) if log.exists() else 0
        was_inside = inside.exists()
        done = ours(*words)
        assert done.returncode == 0, done.stderr
        new = log.read_text().splitlines()[before:] if log.exists() else []
        new = [*(inside.read_text().splitlines() if inside.exists() and not was_inside else []), *new]
        told = [(line.partition(" ")[0], json.loads(line.partition(" ")[2])) for line in new]
        lines = [f"{kind} ({state['status']}, pid {state.get('pid', '-')})" for kind, state in told]
        print(f"{' '.join(words[:1])}: {', '.join(lines) or 'no hooks'}")
        assert all(state["id"] == NAME for _, state in told)
        seen.append((words[0], [f"{kind} {state['status']}" for kind, state in told]))

    try:
        does("create", "--bundle", str(where), NAME)
        does("start", NAME)
        does("kill", NAME, "KILL")
        until(lambda: json.loads(ours("state", NAME).stdout)["status"] == "stopped")
        does("delete", NAME)
    finally:
        ours.close()

    of = dict(seen)
    early = of["create"][3:]  # runc up to 1.1 runs poststart hooks in its create
    assert of["create"][:3] == ["prestart creating", "createRuntime creating", "createContainer creating"]
    assert of["start"][:1] == ["startContainer created"]
    assert [*early, *of["start"][1:]] == ["poststart created"]
    assert (of["kill"], of["delete"]) == ([], ["poststop stopped"])

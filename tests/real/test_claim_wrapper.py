"""The wrapper that runs a claimed command on a node without a runner, in the shells that such nodes have."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nexcage import Claim, Command
from nexcage._core.command import nothing
from nexcage.tools.claims import claimed

SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Path]:
    boot = tmp_path / "proc" / "sys" / "kernel" / "random"
    boot.mkdir(parents=True)
    (boot / "boot_id").write_text("this-boot\n")
    (tmp_path / "run").mkdir()
    yield tmp_path
    for tool in tmp_path.glob("tool.*"):
        try:
            os.killpg(int(tool.suffix[1:]), signal.SIGKILL)
        except ProcessLookupError:
            continue


def start(shell: str, node: Path, *argv: str) -> subprocess.Popen[bytes]:
    claim = Claim(fleet="f", op="op", step=1, id="web-1", boot_id="this-boot")
    wrapped = claimed(Command(argv, nothing, claim=claim))
    env = os.environ | {"NEXCAGE_NODE_ROOT": str(node)}
    return subprocess.Popen(
        [shell, *wrapped.argv[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=env, start_new_session=True
    )


@pytest.mark.parametrize("shell", SHELLS)
def test_a_wrapper_whose_supervisor_was_killed_ends_and_says_that_the_answer_is_lost(shell: str, node: Path) -> None:
    wrapper = start(shell, node, "sh", "-c", 'echo > "$1/tool.$$"; exec sleep 600', "sh", str(node))
    go = node / "run" / "nexcage-ops" / "f" / "op.1" / "go"
    gives_up = time.monotonic() + 20
    while not list(node.glob("tool.*")):
        assert time.monotonic() < gives_up
        time.sleep(0.01)

    os.kill(int(os.readlink(go).split(":")[1]), signal.SIGKILL)

    said, _ = wrapper.communicate(timeout=20)
    assert said.startswith(b"@nexcage claim lost ")

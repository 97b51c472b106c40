"""Programs inside virtual machines: the script around ``qm guest exec`` in real shells, with a ``qm`` that says what it is told to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import (
    Blocked,
    CommandFailed,
    IllegalTransition,
    InvalidInput,
    Mark,
    NexcageError,
    NodeNotUsable,
    NodeTimeout,
    NotOurs,
    Result,
)
from nexcage.tools import agent
from nexcage.tools.attach import BEGUN

SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]
MARK = Mark("f1", "db+1.x", 200, "op.1")
QM = """#!/bin/sh
printf '%s\\n' "$@" > "$(dirname "$0")/argv"
cat > "$(dirname "$0")/stdin" < /dev/stdin
cat "$(dirname "$0")/said"
cat "$(dirname "$0")/complained" >&2
exit "$(cat "$(dirname "$0")/status")"
"""


class OnePlace:
    """A node's files with one machine that runs, and its ``qm``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        for directory in ("bin", "etc/pve/qemu-server", "run/qemu-server", "proc/77"):
            (root / directory).mkdir(parents=True)
        (root / "etc/pve/qemu-server/200.conf").write_text(f"#{MARK}\nagent: 1\n")
        (root / "run/qemu-server/200.pid").write_text("77\n")
        (root / "proc/77/cmdline").write_bytes(b"/usr/bin/kvm\0-pidfile\0/var/run/qemu-server/200.pid\0")
        (self.bin / "qm").write_text(QM)
        (self.bin / "qm").chmod(0o755)

    def run(
        self,
        said: bytes,
        *argv: str,
        stdin: bytes = b"",
        complained: bytes = b"",
        status: int = 0,
        shell: str = SHELLS[0],
        timeout: float | None = None,
    ) -> Result:
        (self.bin / "said").write_bytes(said)
        (self.bin / "complained").write_bytes(complained)
        (self.bin / "status").write_text(f"{status}\n")
        command = agent.guest_exec(MARK, argv or ("true",), given=len(stdin), timeout=timeout)
        environ = {**os.environ, "NEXCAGE_NODE_ROOT": str(self.root), "PATH": f"{self.bin}:{os.environ['PATH']}"}
        done = subprocess.run(
            [shell, *command.argv[1:]], input=stdin, env=environ, capture_output=True, check=False, timeout=60
        )
        return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def place() -> Iterator[OnePlace]:
    with tempfile.TemporaryDirectory() as directory:
        yield OnePlace(Path(directory))


def pretty(ascii: bool = False, /, **found: object) -> bytes:
    """As PVE prints it."""
    named = {key.replace("_", "-"): value for key, value in found.items()}
    return json.dumps(named, indent=3, separators=(",", " : "), sort_keys=True, ensure_ascii=ascii).encode("latin-1")


@given(st.binary(), st.binary(), st.integers(0, 255), st.booleans())
def test_every_byte_and_status_comes_out_as_the_guest_gave_it(
    place: OnePlace, out: bytes, err: bytes, status: int, ascii: bool
) -> None:
    text = {"out_data": out.decode("latin-1"), "err_data": err.decode("latin-1")}

    result = place.run(pretty(ascii, exitcode=status, exited=1, **text))

    assert (result.exit, result.stdout, result.stderr) == (status, out, BEGUN + err)


@pytest.mark.parametrize("shell", SHELLS)
def test_words_and_input_reach_qm_as_they_are(place: OnePlace, shell: str) -> None:
    words = ("sh", "-c", 'echo "$1" --timeout', "*", "--", "a b'c")

    result = place.run(pretty(exitcode=0), *words, stdin=b"in\0\xff", shell=shell, timeout=2.5)

    assert result.exit == 0
    argv = (place.bin / "argv").read_text().splitlines()
    assert argv == ["guest", "exec", "200", "--timeout", "3", "--pass-stdin", "1", "--", *words]
    assert (place.bin / "stdin").read_bytes() == b"in\0\xff"


@pytest.mark.parametrize(("found", "exit"), [({"signal": 9}, 137), ({"exitcode": 256}, 255), ({"exitcode": -1}, 255)])
def test_an_end_that_is_no_status_is_never_a_success(place: OnePlace, found: dict[str, int], exit: int) -> None:
    assert place.run(pretty(exited=1, **found)).exit == exit


@pytest.mark.parametrize(
    ("complained", "status", "said", "error", "uncertain"),
    [
        (b"No QEMU guest agent configured\n", 2, b"", Blocked, False),
        (b"QEMU guest agent is not running\n", 255, b"", Blocked, False),
        (b"VM 200 is not running\n", 25, b"", IllegalTransition, False),
        (b"VM 200 qga command 'guest-exec' failed - got timeout\n", 4, b"", CommandFailed, True),
        (b"", 0, b"", CommandFailed, True),
        (b"timeout reached, returning pid\n", 0, pretty(pid=12), NodeTimeout, True),
    ],
)
def test_without_an_end_it_is_said_whether_it_began(
    place: OnePlace, complained: bytes, status: int, said: bytes, error: type[NexcageError], uncertain: bool
) -> None:
    result = place.run(said, complained=complained, status=status)

    refused = agent.refused(MARK, result, "pve-01")

    assert (type(refused), refused.uncertain, result.stdout) == (error, uncertain, b"")
    assert not result.stderr.startswith(BEGUN)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_machine_that_is_not_ours_or_has_no_process_is_left_alone(tmp_path: Path, shell: str) -> None:
    place = OnePlace(tmp_path)
    (tmp_path / "run/qemu-server/200.pid").unlink()
    stopped = place.run(b"", shell=shell)
    (tmp_path / "etc/pve/qemu-server/200.conf").write_text("#nexcage fleet=other\n[old]\n" + f"#{MARK}\n")
    foreign = place.run(b"", shell=shell)

    assert isinstance(agent.refused(MARK, stopped, "pve-01"), IllegalTransition)
    assert isinstance(agent.refused(MARK, foreign, "pve-01"), NotOurs)
    assert not (place.bin / "argv").exists()


def test_a_node_without_qm_is_not_usable() -> None:
    refused = agent.refused(MARK, Result(6, b"", b"nexcage: there is no qm\n"), "pve-01")

    assert isinstance(refused, NodeNotUsable)


def test_what_the_agent_cannot_is_refused_by_name_and_no_value_is_shown() -> None:
    with pytest.raises(InvalidInput, match="env") as caught:
        agent.guest_exec(MARK, ["true"], env={"TOKEN": "secret"})
    assert "secret" not in str(caught.value)
    with pytest.raises(InvalidInput, match="cwd"):
        agent.guest_exec(MARK, ["true"], cwd="/srv")
    with pytest.raises(InvalidInput, match="at most 1048576 bytes"):
        agent.guest_exec(MARK, ["true"], given=(1 << 20) + 1)

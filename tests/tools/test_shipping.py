"""A node keeps content by its checksum: whole or not at all, whatever becomes of the link."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from nexcage import InvalidPath
from nexcage.tools import shipping

SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]
DATA = b"a root file system\n" * 4096
SUM = hashlib.sha256(DATA).hexdigest()
DEST = "/var/lib/nexcage-oci/cache/sha256-" + SUM + ".tar"


def receive(shell: str, root: Path, data: bytes, **changes: object) -> subprocess.CompletedProcess[bytes]:
    command = shipping.receive(DEST, SUM, int(str(changes.pop("size", len(DATA)))), "abc123", **changes)  # type: ignore[arg-type]
    argv = (shell, *command.argv[1:])
    env = {"PATH": os.environ["PATH"], "NEXCAGE_NODE_ROOT": str(root), "LC_ALL": "C"}
    return subprocess.run(argv, input=data, env=env, capture_output=True, timeout=50)


def left(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("shell", SHELLS)
def test_what_arrives_whole_takes_its_place(shell: str, tmp_path: Path) -> None:
    done = receive(shell, tmp_path, DATA)

    assert (done.returncode, done.stderr) == (0, b"")
    assert left(tmp_path) == [DEST[1:]]
    kept = tmp_path / DEST[1:]
    assert kept.read_bytes() == DATA
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("data", [b"", DATA[:-1], DATA + b"x", DATA[:-1] + b"x"])
def test_anything_else_leaves_nothing(shell: str, data: bytes, tmp_path: Path) -> None:
    done = receive(shell, tmp_path, data)

    assert done.returncode == 74
    assert b"is not what was sent" in done.stderr
    assert left(tmp_path) == []


@pytest.mark.parametrize("shell", SHELLS)
def test_no_room_is_told_before_anything_is_sent(shell: str, tmp_path: Path) -> None:
    done = receive(shell, tmp_path, DATA, size=1 << 60)

    assert done.returncode == shipping.FULL
    assert b"KiB free of the" in done.stderr
    assert left(tmp_path) == []


@pytest.mark.parametrize("shell", SHELLS)
def test_a_template_may_be_read_by_the_root_of_an_unprivileged_container(shell: str, tmp_path: Path) -> None:
    receive(shell, tmp_path, DATA, public=True)

    assert (tmp_path / DEST[1:]).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("shell", SHELLS)
def test_a_term_in_the_middle_leaves_nothing(shell: str, tmp_path: Path) -> None:
    command = shipping.receive(DEST, SUM, len(DATA), "abc123")
    env = {"PATH": os.environ["PATH"], "NEXCAGE_NODE_ROOT": str(tmp_path)}
    with subprocess.Popen(
        (shell, *command.argv[1:]), stdin=subprocess.PIPE, env=env, start_new_session=True
    ) as process:
        assert process.stdin is not None
        process.stdin.write(DATA[:100])
        process.stdin.flush()
        while not any(part.stat().st_size for part in tmp_path.rglob("*.part")):
            assert process.poll() is None  # a shell that has forked and not yet become cat would lose the signal
        os.killpg(process.pid, 15)
        assert process.wait(30) == 143

    assert left(tmp_path) == []


def test_what_is_there_is_told_with_its_size(tmp_path: Path) -> None:
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv/it is").write_bytes(b"12345")
    command = shipping.held(["/srv/it is", "/srv/not"])
    env = {"PATH": os.environ["PATH"], "NEXCAGE_NODE_ROOT": str(tmp_path)}
    done = subprocess.run(command.argv, env=env, capture_output=True)

    from nexcage import Result

    assert command.parse(Result(0, done.stdout)).sizes == {"/srv/it is": 5}


@pytest.mark.parametrize(
    "digest", ["", "sha256:", "sha256:" + "g" * 64, "sha512:" + "0" * 64, "sha256:" + "0" * 63 + "\n"]
)
def test_only_a_digest_names_content(digest: str) -> None:
    with pytest.raises(InvalidPath):
        shipping.cached(digest)

"""What a node has of images: told by a real shell and by its twin alike, read back without loss, and never taken from a stranger."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from nexcage import Result
from nexcage._core.images import Shelf
from nexcage._engine.node import answer
from nexcage.testing import SimCluster
from nexcage.tools.shelf import shelf, stores

SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]
CFG = """\
dir: local
	path /var/lib/vz
	content rootdir,images,vztmpl,iso

nfs: far
	server 10.0.0.9
	export /x
	content vztmpl,import
	nodes pve-02,pve-03

dir: odd
	path /srv/odd
	content vztmpl
	content-dirs vztmpl=my/templates,iso=isos
	shared 1

zfspool: tank
	pool tank
	content images
	disable
"""
FILES = {
    "/var/lib/vz/template/cache/debian-12.tar.zst": "12345",
    "/var/lib/vz/template/cache/empty.tar": "",
    "/var/lib/vz/template/cache/half.tar.zst.tmp_dwnl.4711": "1",
    "/var/lib/vz/template/cache/sub/inner.tar": "1",
    "/var/lib/vz/template/iso/boot.iso": "1234",
    "/mnt/pve/far/template/cache/far.tar.xz": "1",
    "/mnt/pve/far/import/vm.qcow2": "123456",
    "/srv/odd/my/templates/odd.tar.gz": "12",
    "/srv/odd/template/cache/wrong.tar.gz": "12",
    "/srv/image.tar.zst": "1",
}
ALL = {
    "far:import/vm.qcow2": 6,
    "far:vztmpl/far.tar.xz": 1,
    "local:iso/boot.iso": 4,
    "local:vztmpl/debian-12.tar.zst": 5,
    "local:vztmpl/empty.tar": 0,
    "odd:vztmpl/odd.tar.gz": 2,
}


def told(shell: str, root: Path, storage: str = "", *files: str) -> Shelf:
    command = shelf("pve-01", storage, files)
    done = subprocess.run(
        [shell, *command.argv[1:]], env={**os.environ, "NEXCAGE_NODE_ROOT": str(root)}, capture_output=True, check=False
    )
    return answer(command, Result(done.returncode, done.stdout, done.stderr), "pve-01")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path, text in {"/etc/pve/storage.cfg": CFG, **FILES}.items():
        (tmp_path / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path[1:]).write_text(text)
    (tmp_path / "etc/pve/local").symlink_to("nodes/pve-01")
    return tmp_path


@pytest.mark.parametrize("shell", SHELLS)
def test_every_image_of_every_storage_is_found_with_its_size(shell: str, root: Path) -> None:
    seen = told(shell, root)

    assert {image.volume: image.size for image in seen.images} == ALL
    assert seen.pve == "pve-01"
    assert {image.node for image in seen.images} == {"pve-01"}
    assert all(image.at > 1_000_000_000 for image in seen.images)


@pytest.mark.parametrize("shell", SHELLS)
def test_one_storage_alone_is_looked_at_when_one_is_named(shell: str, root: Path) -> None:
    seen = told(shell, root, "odd", "/srv/image.tar.zst", "/srv/missing.tar", "/srv")

    assert [image.volume for image in seen.images] == ["odd:vztmpl/odd.tar.gz"]
    assert seen.files == {"/srv/image.tar.zst": True, "/srv/missing.tar": False, "/srv": False}
    assert set(seen.stores) == {"local", "far", "odd", "tank"}


@pytest.mark.parametrize("shell", SHELLS)
def test_local_is_there_although_nobody_wrote_it_down(shell: str, root: Path) -> None:
    (root / "etc/pve/storage.cfg").write_text("dir: odd\n\tpath /srv/odd\n\tcontent iso\n")

    assert "local:vztmpl/debian-12.tar.zst" in {image.volume for image in told(shell, root).images}


@pytest.mark.parametrize("shell", SHELLS)
def test_where_storages_cannot_be_read_nothing_is_claimed(shell: str, tmp_path: Path) -> None:
    assert told(shell, tmp_path).stores == {}


def test_storages_say_why_an_image_cannot_come_from_them() -> None:
    known = stores(CFG)

    assert known["local"].refusal("pve-01") == ""
    assert known["local"].refusal("pve-01", "import") == "has no content type import"
    assert known["far"].refusal("pve-01") == "is not available there, only on pve-02, pve-03"
    assert known["far"].refusal("pve-02") == ""
    assert known["tank"].refusal("pve-01") == "is disabled"
    assert (known["far"].shared, known["odd"].shared, known["local"].shared) == (True, True, False)


def test_an_answer_without_its_last_line_is_none() -> None:
    command = shelf("pve-01")
    whole = b"welcome\n@nexcage name\n@nexcage storages\n@nexcage images\nlocal vztmpl 5 0 regular file/a.tar\n@nexcage files\n"

    with pytest.raises(ValueError, match="last line"):
        command.parse(Result(0, whole))
    assert [image.volume for image in command.parse(Result(0, whole + b"@nexcage end\n")).images] == [
        "local:vztmpl/a.tar"
    ]


@pytest.mark.parametrize("shell", SHELLS)
async def test_the_twin_says_what_the_shell_says(shell: str, tmp_path: Path) -> None:
    for sim in (SimCluster(1, dir=tmp_path), SimCluster(1)):
        with sim["pve-01"].step():
            sim["pve-01"].files.write("/var/lib/vz/template/iso/boot.iso", "1234")
            sim["pve-01"].files.write("/var/lib/vz/template/cache/half.tar.tmp", "1")
    root = tmp_path / "nodes" / "pve-01" / "root"
    for storage in ("", "local", "local-zfs", "nosuch"):
        command = shelf("pve-01", storage, ("/etc/hostname", "/nosuch"))
        twin = command.parse(await sim["pve-01"].run(command.argv))
        real = told(shell, root, storage, "/etc/hostname", "/nosuch")
        assert [(i.volume, i.size) for i in twin.images] == [(i.volume, i.size) for i in real.images]
        assert (twin.stores, twin.files, twin.pve) == (real.stores, real.files, real.pve)

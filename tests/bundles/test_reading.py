"""Opening a bundle: only what was checked is read, and nothing waits, follows or reads without end."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from nexcage import InvalidPath
from nexcage._bundles import read_bundle
from nexcage._core.bundle_plan.model import GATE, Root


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    made = tmp_path / "roots" / "web"
    (made / "rootfs").mkdir(parents=True)
    write(made, "rootfs")
    return made


def write(bundle: Path, root: str) -> None:
    (bundle / "config.json").write_text(json.dumps({"ociVersion": "1.3.0", "root": {"path": root}}))


def refused(path: Path | str, *roots: str) -> str:
    with pytest.raises(InvalidPath) as caught:
        read_bundle(path, roots)
    return caught.value.reason


def test_a_bundle_is_read_with_what_is_at_its_root(bundle):
    files = read_bundle(bundle)

    assert files.path == str(bundle)
    assert files.config == (bundle / "config.json").read_bytes()
    assert files.decoded
    assert files.error is None
    assert files.root == Root()


def test_a_config_alone_is_read_without_its_root(bundle):
    (bundle / "rootfs").rmdir()

    files = read_bundle(bundle / "config.json")

    assert (files.path, files.root) == (str(bundle), None)
    assert files.decoded


def test_a_path_relative_to_here_becomes_absolute(bundle, monkeypatch):
    monkeypatch.chdir(bundle.parent)

    assert read_bundle("web").path == str(bundle)
    assert read_bundle("web/config.json").path == str(bundle)


def test_a_document_that_is_not_valid_is_an_answer(bundle):
    (bundle / "config.json").write_text('{"ociVersion":"1.0.0"}')

    files = read_bundle(bundle)

    assert files.decoded is None
    assert files.error
    assert files.error.pointer == "/root"


def test_a_config_that_is_a_link_is_not_followed(bundle, tmp_path):
    (bundle / "config.json").rename(tmp_path / "other.json")
    (bundle / "config.json").symlink_to(tmp_path / "other.json")

    assert "link" in refused(bundle)


def test_a_config_that_is_no_file_is_not_waited_for(bundle):
    (bundle / "config.json").unlink()
    assert "No such file" in refused(bundle)

    os.mkfifo(bundle / "config.json")
    assert "regular file" in refused(bundle)

    (bundle / "config.json").unlink()
    (bundle / "config.json").mkdir()
    assert "regular file" in refused(bundle)

    (bundle / "config.json").rmdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(bundle / "config.json"))
        assert "config.json" in refused(bundle)


@pytest.mark.parametrize("path", ["", "/nowhere/web", "a\0b", "x" * 5000, "/dev/zero"])
def test_what_is_no_bundle_is_an_error_about_its_path(path):
    assert refused(path)


def test_a_config_without_end_is_read_no_further_than_allowed(bundle):
    with (bundle / "config.json").open("wb") as file:
        file.truncate(1 << 40)  # sparse

    files = read_bundle(bundle, max_bytes=1000)

    assert len(files.config) == 1001
    assert files.error
    assert "more than 1000" in files.error.reason


def test_a_bundle_is_taken_from_below_the_roots_only(bundle, tmp_path):
    other = tmp_path / "roots-not"
    other.mkdir()

    assert read_bundle(bundle, [str(tmp_path / "nowhere"), str(bundle.parent)]).decoded
    assert read_bundle(bundle, [str(bundle)]).decoded
    assert "bundle_roots" in refused(bundle, str(other))
    assert "bundle_roots" in refused(bundle, str(tmp_path / "nowhere"))
    assert "bundle_roots" in refused(bundle, str(bundle.parent)[:-1])


def test_links_are_resolved_before_the_roots_are_asked(bundle, tmp_path):
    outside = tmp_path / "outside"
    (outside / "rootfs").mkdir(parents=True)
    write(outside, "rootfs")
    (bundle.parent / "in").symlink_to(outside)
    (tmp_path / "alias").symlink_to(bundle.parent)

    assert "bundle_roots" in refused(bundle.parent / "in", str(bundle.parent))
    assert "bundle_roots" in refused(f"{bundle}/../../outside", str(bundle.parent))
    assert read_bundle(tmp_path / "alias" / "web", [str(bundle.parent)]).path == str(bundle)
    assert read_bundle(bundle, [str(tmp_path / "alias")]).decoded


@pytest.mark.parametrize("place", ["web", "."])
def test_a_bundle_that_anybody_could_exchange_is_refused(bundle, place):
    (bundle.parent / place).chmod(0o777)

    assert "anybody" in refused(bundle)
    assert read_bundle(bundle / "config.json").decoded


def test_a_directory_like_tmp_leaves_a_bundle_to_its_owner(bundle):
    bundle.parent.chmod(0o1777)

    assert read_bundle(bundle).decoded


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to somebody else, which only root can")
def test_somebody_elses_bundle_in_a_directory_like_tmp_is_refused(bundle):
    bundle.parent.chmod(0o1777)
    os.chown(bundle, 65534, 65534)

    assert "anybody" in refused(bundle)


@pytest.mark.parametrize(
    ("root", "seen"),
    [
        ("rootfs", Root()),
        ("./rootfs/../rootfs", Root()),
        ("nowhere", Root(exists=False, directory=False)),
        ("config.json", Root(directory=False)),
        ("link-in", Root(link=True)),
        ("link-out", Root(link=True, outside=True)),
        ("link-nowhere", Root(directory=False, link=True)),
        ("circle", Root(directory=False, link=True)),
        ("../other", Root(outside=True)),
        ("rootfs/up/other", Root(outside=True)),
        ("x" * 300, Root(exists=False, directory=False)),
    ],
)
def test_what_is_at_the_root_path_is_seen(bundle, root, seen):
    (bundle.parent / "other").mkdir()
    for name, target in (
        ("link-in", "rootfs"),
        ("link-out", "../other"),
        ("link-nowhere", "gone"),
        ("circle", "circle"),
        ("rootfs/up", ".."),
    ):
        (bundle / name).symlink_to(target)
    (bundle / "rootfs" / "up").unlink()
    (bundle / "rootfs" / "up").symlink_to("../..")
    write(bundle, root)

    assert read_bundle(bundle).root == seen


def test_an_absolute_root_may_be_anywhere_unless_there_are_roots(bundle, tmp_path):
    write(bundle, str(tmp_path))
    assert read_bundle(bundle).root == Root()
    assert read_bundle(bundle, [str(bundle.parent)]).root == Root(outside=True)

    write(bundle, str(bundle.parent / "web" / "rootfs"))
    assert read_bundle(bundle, [str(bundle.parent)]).root == Root()


def test_what_leads_through_a_link_of_the_root_file_system_is_told(bundle, tmp_path):
    mounts = [
        {"destination": path, "type": "tmpfs"} for path in ("/data/deep", "/run/x", "/etc/conf", "/new/one", "proc")
    ]
    linux = {"maskedPaths": ["/etc/conf/secret", "/proc/kcore"], "readonlyPaths": ["/var"]}
    document = {"ociVersion": "1.3.0", "root": {"path": "rootfs"}, "mounts": mounts, "linux": linux}
    (bundle / "config.json").write_text(json.dumps(document))
    for name, target in (("data", str(tmp_path)), ("run", "var"), ("etc/conf", "nowhere"), (".nexcage", "/tmp")):
        (bundle / "rootfs" / name).parent.mkdir(exist_ok=True)
        (bundle / "rootfs" / name).symlink_to(target)

    found = read_bundle(bundle).root.links

    assert found == {"/mounts/0", "/mounts/1", "/mounts/2", "/linux/maskedPaths/0", GATE}


def test_reading_leaves_no_descriptor_open_and_nothing_written(bundle):
    def open_now() -> int:
        return len(os.listdir("/proc/self/fd"))

    (bundle / "rootfs" / "config.json").mkdir()
    before, names = open_now(), sorted(os.listdir(bundle))
    for _ in range(3):
        read_bundle(bundle)
        refused(bundle / "rootfs")
        refused(bundle, "/nowhere")

    assert open_now() == before
    assert sorted(os.listdir(bundle)) == names

"""A node's files are the same thing in memory and on disk, and a step on disk happens whole or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from nexcage.testing._model.files import DiskFiles, Files, MemoryFiles, SharedTree
from nexcage.testing._model.node import Node
from nexcage.testing._model.world import make_cluster, make_disk_cluster

CHECKOUT = Path(__file__).parents[2]
PATHS = st.sampled_from(
    ["/a", "/b/c", "/b/d", "/b/d2/e", "/etc/pve/lxc/100.conf", "/etc/pve/nodes/pve-01/lxc/101.conf", "/etc/pve/x.cfg"]
)
DIRECTORIES = st.sampled_from(["/b", "/b/d2", "/etc/pve/nodes/pve-01/lxc", "/nothing"])
OPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), PATHS, st.text("ab\n", max_size=5)),
        st.tuples(st.just("append"), PATHS, st.text("ab\n", max_size=5)),
        st.tuples(st.just("remove"), st.one_of(PATHS, DIRECTORIES), st.just("")),
        st.tuples(st.just("commit"), st.just(""), st.just("")),
    ),
    max_size=20,
)


def disk(directory: str) -> DiskFiles:
    root = Path(directory) / "nodes" / "pve-01" / "root"
    root.mkdir(parents=True)
    (Path(directory) / "cluster").mkdir()
    return DiskFiles(root)


def apply(files: Files, op: str, path: str, text: str) -> None:
    if op == "write":
        files.write(path, text)
    elif op == "append":
        files.append(path, text)
    elif op == "remove":
        files.remove(path)
    elif isinstance(files, DiskFiles):
        files.commit()


@given(OPS, PATHS, DIRECTORIES)
def test_memory_and_disk_show_the_same_files(ops: list[tuple[str, str, str]], path: str, directory: str) -> None:
    with TemporaryDirectory() as root:
        memory, real = MemoryFiles("pve-01"), disk(root)
        for op in ops:
            apply(memory, *op)
            apply(real, *op)

            assert real.read(path) == memory.read(path)
            assert real.names("/etc/pve/nodes/pve-01/lxc") == memory.names("/etc/pve/nodes/pve-01/lxc")
            assert real.exists(path) == memory.exists(path)
            for vmid in (100, 101):
                assert real.guest(vmid) == memory.guest(vmid)


def test_a_step_that_was_not_committed_changed_nothing(tmp_path: Path) -> None:
    files = disk(str(tmp_path))
    files.write("/a", "1")
    files.discard()

    assert files.read("/a") is None
    assert not (tmp_path / "nodes/pve-01/root/a").exists()


def test_a_step_cut_short_is_finished_by_the_next_one(tmp_path: Path) -> None:
    root = tmp_path / "nodes/pve-01/root"
    files = disk(str(tmp_path))
    files.write("/old", "x")
    files.append("/log", "one\n")
    files.commit()
    changes = [(str(root / "new"), "y"), (str(root / "old"), None)]
    (tmp_path / "cluster/.redo").write_text(
        json.dumps({"changes": changes, "appends": [(str(root / "log"), 4, "two\n")]})
    )
    (root / "log").write_text("one\ntw")  # killed in the middle of the append

    files.recover()

    assert (files.read("/new"), files.read("/old"), files.read("/log")) == ("y", None, "one\ntwo\n")
    assert not (tmp_path / "cluster/.redo").exists()


def test_all_nodes_see_the_clusters_files_and_none_the_others_own() -> None:
    shared = SharedTree()
    one, two = MemoryFiles("a", shared), MemoryFiles("b", shared)
    one.write("/etc/pve/lxc/100.conf", "arch: amd64\n")
    one.write("/etc/hostname", "a\n")

    assert two.read("/etc/pve/nodes/a/lxc/100.conf") == "arch: amd64\n"
    assert two.names("/etc/pve/lxc") == []
    assert two.read("/etc/hostname") is None


def test_vmlist_is_json_and_counts_changes() -> None:
    node = make_cluster(["pve-01"], clock=lambda: 0.0)["pve-01"]
    node.write_config(100, "hostname: a\n")
    before = json.loads(node.files.read("/etc/pve/.vmlist") or "")
    node.write_config(100, "hostname: b\n")
    after = json.loads(node.files.read("/etc/pve/.vmlist") or "")

    assert after["ids"]["100"]["node"] == "pve-01"
    assert after["ids"]["100"]["version"] > before["ids"]["100"]["version"]
    assert after["version"] > before["version"]


def test_real_programs_see_a_node_on_disk(tmp_path: Path) -> None:
    make_disk_cluster(tmp_path, ["pve-01", "pve-02"])
    root = tmp_path / "nodes" / "pve-01" / "root"
    files = DiskFiles(root)
    node = Node(files, "pve-01", clock=lambda: 1e9, random=Random(1))
    node.write_config(100, "hostname: web\n")
    pid = node.start_container(100)
    files.commit()

    assert (root / "etc/pve/lxc/100.conf").read_text() == "hostname: web\n"
    assert '"100": { "node": "pve-01", "type": "lxc"' in (root / "etc/pve/.vmlist").read_text()
    assert " @/var/lib/lxc/100/command\n" in (root / "proc/net/unix").read_text()
    assert (root / "sys/fs/cgroup/lxc/100/ns/cgroup.procs").read_text() == f"{pid}\n"
    other = tmp_path / "nodes" / "pve-02" / "root"
    assert (other / "etc/pve/nodes/pve-01/lxc/100.conf").exists()
    assert not (other / "etc/pve/lxc/100.conf").exists()


def test_a_process_that_dies_while_it_writes_a_file_leaves_no_other_one(tmp_path: Path) -> None:
    files = disk(str(tmp_path))
    (tmp_path / "nodes/pve-01/root/b/c").mkdir(parents=True)  # it cannot be replaced: that is where it dies
    script = f"from nexcage.testing._model.files import DiskFiles; f = DiskFiles({files.root!r}); f.write('/b/c', 'x'); f.commit()"
    died = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=CHECKOUT, check=False)
    (tmp_path / "nodes/pve-01/root/b/c").rmdir()
    during = files.names("/b")

    files.recover()

    assert "IsADirectoryError" in died.stderr
    assert (during, files.names("/b"), files.read("/b/c")) == ([], ["c"], "x")
    assert [path.name for path in (tmp_path / "nodes/pve-01/root/b").iterdir()] == ["c"]

"""Replay recorded runs of the real ``pct`` against the pretend one: ``python -m nexcage.testing.replay FILE.jsonl``.

Each case holds a node's state, one command, what it answered and the state after it. A pretend node is brought into the
state before, the command runs, and everything is compared after :data:`NORMALISED` made equal what differs by nature.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from nexcage.testing._model import TOOLS
from nexcage.testing._model.node import Node
from nexcage.testing._model.pct.conf import mounts, read
from nexcage.testing._model.storage import parse_name, path_of, storages
from nexcage.testing._model.world import make_cluster, populate
from nexcage.testing._stepping import Clock, run

__all__ = ["NORMALISED", "Difference", "main", "replay"]

Case: TypeAlias = Mapping[str, Any]  # Any: JSON

NORMALISED: Sequence[tuple[str, str]] = (
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID"),
    (r"\b[0-9A-F]{2}(:[0-9A-F]{2}){5}\b", "MAC"),
    (r"SHA256:[A-Za-z0-9+/]{43}", "SHA256:DIGEST"),
    (r"UPID:[^ \n]*?:(vz[a-z]+:[0-9]+:[^ \n:]+):", r"UPID:\1:"),
    (r"\b[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}\b", "TIME"),
    (r"^snaptime: [0-9]+$", "snaptime: EPOCH"),
    (r" at /usr/share/perl5/\S+ line [0-9]+\.", " at PERL line N."),
    (r"^Total bytes read: .*$", "Total bytes read: N"),
    (r"^(Creating filesystem with) .*$", r"\1 N"),
    (r"^\t[0-9]+(, [0-9]+)*,? *$", "\tBLOCKS"),
    (r"^(e2fsck|resize2fs) [0-9].*$", r"\1 VERSION"),
    (r"^fsck from util-linux .*$", "fsck from util-linux VERSION"),
    (r"[0-9]+/[0-9]+ files( \([0-9.]+% non-contiguous\))?, [0-9]+/[0-9]+ blocks$", "N files, N blocks"),
    (r"^(MP) +(Volume) +(Size) +(Used) +(Avail) +(Use%) +(Path)$", r"\1 \2 \3 \4 \5 \6 \7"),
    (r"^(pid|uptime|mem|disk|maxdisk|cpus): [0-9]+$", r"\1: N"),
    (r"[0-9][0-9,.]* (bytes|seconds)(/sec)?", r"N \1"),
    (r"^(Number of|Total|Literal|Matched|File list).*$", r"\1"),
    (r"^(sent|total size is) .*$", r"\1"),
    (r" +[0-9.]+[KMGT]? +[0-9.]+[KMGT]? +[0-9.]+[KMGT]? +[0-9.]+ /", " SIZES /"),
    (r"\.tmp\.[0-9]+", ".tmp.PID"),
)
"""What is made equal on both sides before comparing: pattern (line by line) and what stands there instead."""

_PATTERNS = [(re.compile(pattern, re.MULTILINE), text) for pattern, text in NORMALISED]

STORAGE_CFG = """\
dir: local
	path /var/lib/vz
	content rootdir,images,vztmpl,iso,snippets,backup

btrfs: btr
	path /mnt/btr
	content rootdir,images

dir: isoonly
	path /mnt/isoonly
	content iso
"""
_FILES = {
    "/tmp/bad.tar.gz": "this is no archive\n",
    "/var/lib/vz/template/cache/empty.tar.gz": json.dumps({"ostype": None, "arch": None, "size": 10240}),
    "/var/lib/vz/template/cache/oci-demo_latest.tar": json.dumps(
        {
            "ostype": "alpine",
            "oci": {
                "Entrypoint": ["/bin/sh", "-c"],
                "Cmd": ["while true; do sleep 5; done"],
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "APP=demo one"],
                "uid": 33,
                "gid": 33,
                "WorkingDir": "/srv",
                "StopSignal": "SIGQUIT",
            },
        }
    ),
}
_VM = "boot: order=scsi0\nmemory: 512\nname: vm200\n"


class Difference(NamedTuple):
    """One thing that is not as recorded."""

    field: str
    expected: object
    got: object


def normalise(text: str) -> str:
    """``text`` with everything that differs from run to run made equal."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    if re.match(r"(?:.*\n)*?400 (Parameter|Result) verification failed", text) or text.startswith("format error\n"):
        text = "\n".join(sorted(text.split("\n")))
    return text


def prepare(case: Case) -> tuple[Node, Clock]:
    """A node in the state before the case."""
    clock = Clock()
    pace = 1.0 if _beside(case) else 0.0  # waiting for somebody else's work takes as long as that work
    node = make_cluster(["pve1"], clock=clock, seed=1, pace=pace, storage_cfg=STORAGE_CFG, apparmor=False)["pve1"]
    populate(node, nodes=["pve1"], bridges=("vmbr0", "vmbr1"), standalone=True)
    files = node.files
    for path, text in _FILES.items():
        files.write(path, text)
    if "qemu" in case.get("needs", ()):
        files.write("/etc/pve/nodes/pve1/qemu-server/200.conf", _VM)
    before = case["before"]
    for path, text in before["configs"].items():
        files.write(path, text)
    sizes = _sizes(before["configs"])
    for path in before["volumes"]:
        _make_volume(node, path, sizes)
    for vmid in before["running"]:
        conf = read(vmid, node.config(vmid) or "")[0]
        node.start_container(vmid, _init(case, conf.values))
        files.write(f"/var/lib/lxc/{vmid}/config", "lxc.arch = x86_64\n")
    return node, clock


def _init(case: Case, values: Mapping[str, str]) -> str:
    if "stub" in values.get("hostname", "") and "guest" in case.get("needs", ()):
        return "stubborn"
    return "stubborn" if "entrypoint" in values else "busybox"


def _sizes(configs: Mapping[str, str]) -> dict[str, int]:
    """Sizes of volumes by volume id, as the configs say."""
    found: dict[str, int] = {}
    for path, text in configs.items():
        conf = read(int(path.rpartition("/")[2].removesuffix(".conf")), text)[0]
        for mount in mounts(conf.values):
            if mount.size is not None:
                found[mount.volume] = mount.size
    return found


def _make_volume(node: Node, path: str, sizes: Mapping[str, int]) -> None:
    """A volume or a snapshot of one, from its path."""
    plain, _, _ = path.partition("@")
    for place in storages(node).values():
        head = f"{place.path}/images/"
        if not plain.startswith(head):
            continue
        name = plain[len(head) :]
        if place.kind == "btrfs" and not name.endswith(".subvol"):
            name += ".raw"
        vol = parse_name(place, name)
        size = sizes.get(vol.id)
        text = "" if size is None else f"{size}\n"
        if vol.format == "subvol":
            node.files.write(f"{path}/.volume", "")
        else:
            node.files.write(f"{path}/disk.raw" if place.kind == "btrfs" else path, text)
        assert path_of(vol) == plain


def _volumes(node: Node) -> list[str]:
    found: list[str] = []
    for place in storages(node).values():
        base = f"{place.path}/images"
        for guest in node.files.names(base):
            found += [f"{base}/{guest}/{name}" for name in node.files.names(f"{base}/{guest}")]
    return found


def _configs(node: Node) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in node.files.names("/etc/pve/nodes"):
        for file in node.files.names(f"/etc/pve/nodes/{name}/lxc"):
            path = f"/etc/pve/nodes/{name}/lxc/{file}"
            found[path] = node.files.read(path) or ""
    return found


def _beside(case: Case) -> tuple[str, ...]:
    """What else runs meanwhile, as far as it can be told: only a shutdown holds the lock of a running container that is stopped."""
    stops = case["argv"][:2] == ["pct", "stop"] and _vmid(case) in case["before"]["running"]
    if "background" in case.get("needs", ()) and stops:
        return ("pct", "shutdown", str(_vmid(case)), "--timeout", "60")
    return ()


def replay(case: Case) -> list[Difference]:
    """Run the case and say what is different; nothing when the pretend ``pct`` answers as the real one did.

    A case with ``needs`` may differ only because the pretend node cannot make what it needs.
    """
    node, clock = prepare(case)
    flock = "flock" not in case.get("needs", ())
    tool = case["argv"][0]
    if tool not in TOOLS:
        return [Difference("argv", tool, "not simulated")]
    try:
        exit_, stdout, stderr = run(
            node, clock, case["argv"], case.get("stdin") or "", flock=flock, beside=_beside(case)
        )
    except Exception as error:  # noqa: BLE001 (whatever it is, it costs this case only)
        return [Difference("exit", case["exit"], f"{type(error).__name__}: {error}")]
    return list(_compare(case, node, exit_, stdout, stderr))


def _compare(case: Case, node: Node, exit_: int, stdout: str, stderr: str) -> Iterator[Difference]:
    exact = len(case["argv"]) > 1 and case["argv"][1] == "exec" and node.is_running(_vmid(case)) and case["exit"] != 2
    if case["exit"] != exit_ if exact else bool(case["exit"]) != bool(exit_):
        yield Difference("exit", case["exit"], exit_)
    for field, expected, got in (("stdout", case["stdout"], stdout), ("stderr", case["stderr"], stderr)):
        if normalise(expected) != normalise(got):
            yield Difference(field, normalise(expected), normalise(got))
    after = case["after"]
    wanted = {path: normalise(text) for path, text in after["configs"].items()}
    there = {path: normalise(text) for path, text in _configs(node).items()}
    if wanted != there:
        changed = sorted(path for path in {*wanted, *there} if wanted.get(path) != there.get(path))
        yield Difference(
            "after.configs", {path: wanted.get(path) for path in changed}, {path: there.get(path) for path in changed}
        )
    if sorted(after["running"]) != node.running():
        yield Difference("after.running", sorted(after["running"]), node.running())
    if sorted(after["volumes"]) != sorted(_volumes(node)):
        yield Difference("after.volumes", sorted(after["volumes"]), sorted(_volumes(node)))


def _vmid(case: Case) -> int:
    words = [word for word in case["argv"][2:] if word.isdigit()]
    return int(words[0]) if words else 0


# --- command line -----------------------------------------------------------------------------------------------------


def load(paths: Sequence[Path]) -> Iterator[Case]:
    """The cases of files, or of every file in directories."""
    for path in paths:
        for file in sorted(path.glob("*.jsonl")) if path.is_dir() else [path]:
            for line in file.read_text(encoding="utf-8").split(
                "\n"
            ):  # a string may hold other line separators as they are
                if line.strip():
                    yield json.loads(line)


def _result(case: Case) -> dict[str, Any]:  # Any: JSON
    differences = replay(case)
    result = "failed" if differences else "passed"
    if differences and case.get("needs"):
        result, differences = "left_out", []
    return {
        "name": case["name"],
        "result": result,
        "differences": [{"field": d.field, "expected": d.expected, "got": d.got} for d in differences],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Replay the files named; 1 when anything is different."""
    parser = argparse.ArgumentParser(prog="python -m nexcage.testing.replay", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    options = parser.parse_args(argv)
    try:
        results = [_result(case) for case in load(options.files)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        parser.error(f"these are no recorded cases: {type(error).__name__}: {error}")
    counts = {word: sum(entry["result"] == word for entry in results) for word in ("passed", "failed", "left_out")}
    for entry in results:
        if entry["result"] == "left_out":
            print(f"left out: {entry['name']}", file=sys.stderr)
        for difference in entry["differences"]:
            print(f"{entry['name']}: {difference['field']}", file=sys.stderr)
            print(f"  expected {difference['expected']!r}\n  got      {difference['got']!r}", file=sys.stderr)
    if options.output == "json":
        print(json.dumps({**counts, "cases": results}))
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['left_out']} left out", file=sys.stderr)
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())

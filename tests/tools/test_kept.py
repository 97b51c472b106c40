"""What a node keeps of steps, told by a real shell and by its twin, and never more dropped than nobody asks for."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nexcage import Command, CommandFailed, Result
from nexcage._engine.node import answer
from nexcage.testing import SimCluster
from nexcage.tools import kept
from nexcage.tools.kept import Kept

SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]


def _uptime() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])


def _claims(root: Path) -> dict[str, int]:
    """A claim of every kind below a node's root; name to age."""
    ops = root / "run/nexcage-ops/f1"
    now = int(_uptime())
    start = Path("/proc/self/stat").read_text().rpartition(") ")[2].split()[19]
    links = {
        "done.1": "run:1:1:1",
        "void.1": "void",
        "swept.1": "void",
        "lost.2": f"run:4194305:{(now - 30) * 100}:1",
        "work.1": f"run:{os.getpid()}:{start}:1",
        "a.b-c_d.12": "void",
        "empty.1": "",
    }
    for name, link in links.items():
        (ops / name).mkdir(parents=True)
        if link:
            (ops / name / "go").symlink_to(link)
    (ops / "fence").mkdir()
    (ops / "done.1" / "status").write_text(f"0 0 0 0 1 {now - 20}.53\n")
    (ops / "swept.1" / "status").write_text(f"- 0 0 0 0 {now - 10}.01\n")
    return {"done.1": 20, "swept.1": 10, "lost.2": 30, "work.1": now - int(start) // 100}


def _shell(shell: str, root: Path, command: Command[object]) -> Result:
    argv = [shell, *command.argv[1:]]
    env = {"PATH": os.environ["PATH"], "NEXCAGE_NODE_ROOT": str(root)}
    done = subprocess.run(argv, env=env, capture_output=True, timeout=30, check=False)
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_kind_is_listed_with_its_age_and_only_lost_and_empty_ones_are_dropped(shell: str, tmp_path: Path) -> None:
    began = _uptime()
    ages = _claims(tmp_path)

    found = answer(kept.listing("f1"), _shell(shell, tmp_path, kept.listing("f1")), "pve-01")

    assert {claim.name: claim.kind for claim in found} == {
        "done.1": "ended", "void.1": "void", "swept.1": "void", "lost.2": "lost", "work.1": "running",
        "a.b-c_d.12": "void", "empty.1": "empty",
    }  # fmt: skip
    passed = _uptime() - began
    for claim in found:
        assert (claim.age is None) == (claim.name not in ages)
        assert claim.age is None or -1 <= claim.age - ages[claim.name] <= passed + 1

    command = kept.drop("f1", [claim.name for claim in found])
    assert answer(command, _shell(shell, tmp_path, command), "pve-01") == ("empty.1",)  # the lost one is young
    assert not (tmp_path / "run/nexcage-ops/f1/empty.1").exists()
    assert len(answer(kept.listing("f1"), _shell(shell, tmp_path, kept.listing("f1")), "pve-01")) == 6


@pytest.mark.parametrize("shell", SHELLS)
def test_a_claim_that_is_rubbish_costs_only_itself(shell: str, tmp_path: Path) -> None:
    ops = tmp_path / "run/nexcage-ops/f1"
    for number, link in enumerate(["void", f"run:1:{'9' * 40}:1", "run:x:y:z", "void"], 1):
        (ops / f"op.{number}").mkdir(parents=True)
        (ops / f"op.{number}" / "go").symlink_to(link)
    (ops / "op.1" / "status").write_text("what else 5 6 7 8x9\n")

    found = answer(listing := kept.listing("f1"), _shell(shell, tmp_path, listing), "pve-01")

    assert [(claim.name, claim.kind) for claim in found] == [
        ("op.1", "void"),
        ("op.2", "lost"),
        ("op.3", "lost"),
        ("op.4", "void"),
    ]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_node_without_claims_has_none(shell: str, tmp_path: Path) -> None:
    assert answer(kept.listing("f1"), _shell(shell, tmp_path, kept.listing("f1")), "pve-01") == ()


@pytest.mark.parametrize("stdout", [b"", b"op.1 ended 5\n", b"@nexcage kept end\nop.1 ended 5\n"])
def test_a_list_that_was_cut_is_not_believed(stdout: bytes) -> None:
    with pytest.raises(CommandFailed):
        answer(kept.listing("f1"), Result(0, stdout), "pve-01")


def test_lines_that_are_no_claims_are_left_out() -> None:
    said = b"op.1 ended 5\n../x.1 ended 5\nop.2 sleeping 5\nop.x lost -\n@nexcage kept end\n"
    assert answer(kept.listing("f1"), Result(0, said), "pve-01") == (Kept("op", 1, "ended", 5.0),)


@pytest.mark.skipif(not SHELLS, reason="no shell to compare with")
async def test_the_twin_says_what_the_shell_says(tmp_path: Path) -> None:
    with SimCluster(1, seed=3, dir=tmp_path / "sim", pace=0) as sim:
        node, root = sim["pve-01"], tmp_path / "sim" / "nodes" / "pve-01" / "root"
        _claims(root)

        async def twin(command: Command[Any]) -> Any:
            return answer(command, await node.run(command.argv), "pve-01")

        command = kept.listing("f1")
        by_shell = sorted(answer(command, _shell(SHELLS[0], root, command), "pve-01"), key=lambda claim: claim.name)
        by_twin = await twin(command)
        assert [(c.name, c.kind) for c in by_twin] == [(c.name, c.kind) for c in by_shell]
        for one, other in zip(by_twin, by_shell, strict=True):
            assert (one.age is None) == (other.age is None)
            assert one.age is None or abs(one.age - other.age) <= 5
        assert await twin(kept.drop("f1", [claim.name for claim in by_twin])) == ("empty.1",)
        assert not (root / "run/nexcage-ops/f1/empty.1").exists()


@pytest.mark.sim(nodes=1)
async def test_a_node_in_memory_lists_what_its_commands_left(sim: SimCluster) -> None:
    import nexcage

    spec = nexcage.Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst")
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(spec)
        await fleet["web-1"].start()
        found = await fleet.nodes["pve-01"].run(kept.listing(fleet.id))
    assert {claim.kind for claim in found} == {"ended"}
    assert len(found) == 2

"""The demo tells the story that it promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nexcage

ROOT = Path(__file__).parents[2]


def test_the_demo_loses_only_the_containers_of_the_node_that_died_and_takes_them_on_again(tmp_path: Path) -> None:
    home = tmp_path / "demo"

    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "demo.py", "--nodes", "3", "--containers", "36", "--dir", home],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
    )

    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "pve-02 is killed" in done.stdout
    assert re.search(r"\d+ failed, all of them on pve-02", done.stdout)
    rows = {
        row[0]: row[1:4]
        for line in done.stdout.splitlines()
        if re.match(r" *pve-\d\d  ", line) and (row := line.split())
    }
    assert {node: int(failed) > 0 for node, (_, failed, _) in rows.items()} == {
        "pve-01": False,
        "pve-02": True,
        "pve-03": False,
    }
    assert str(home / "state" / "journal") in done.stdout
    machines = nexcage.fold(nexcage.read_journal(home / "state"))
    assert len(machines) == 36
    assert {machine.state for machine in machines.values()} == {nexcage.State.ABSENT}

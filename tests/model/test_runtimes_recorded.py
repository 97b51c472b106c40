"""The pretend crun and runc answer as the real ones did (tests/cases/runtime, recorded by `record.py` there)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import anyio
import pytest

from nexcage.testing import SimCluster, SimNode

CASES = Path(__file__).parent.parent / "cases" / "runtime"
PLACES = {
    "ROOT": "/run/t/root",
    "BUNDLE": "/srv/bundle",
    "EMPTY": "/srv/empty",
    "BAD": "/srv/bad",
    "PIDFILE": "/srv/pid",
    "LOG": "/srv/log",
}
CONFIG = {"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "annotations": {"com.example.k": "v"}}


def plain(text: str) -> str:
    for name, path in PLACES.items():
        text = text.replace(path, name)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
    return re.sub(r"\b\d{3,}\b", "PID", text)


def prepared(sim: SimCluster) -> SimNode:
    node = sim["pve-01"]
    node.files.write(f"{PLACES['BUNDLE']}/config.json", json.dumps(CONFIG))
    node.files.write(f"{PLACES['BAD']}/config.json", "{")
    node.files.write(f"{PLACES['EMPTY']}/rootfs", "")
    return node


async def answered(node: SimNode, program: str, words: list[str]) -> dict[str, Any]:
    node.files.remove(PLACES["LOG"])
    argv = ("--root", "ROOT", "--log", "LOG", "--log-format", "json", *words)
    result = await node.run((program, *(PLACES.get(word, word) for word in argv)))
    said = [json.loads(line) for line in (node.files.read(PLACES["LOG"]) or "").splitlines()]
    return {
        "argv": words,
        "exit": result.exit,
        "out": plain(result.stdout.decode()),
        "err": plain(result.stderr.decode()),
        "log": [{"level": line["level"], "msg": plain(line["msg"])} for line in said],
    }


async def stopped(node: SimNode, program: str, id: str) -> None:
    with anyio.fail_after(60):
        while '"stopped"' not in (await answered(node, program, ["state", id]))["out"]:
            await anyio.sleep(0.05)


@pytest.mark.anyio
@pytest.mark.parametrize("file", sorted(CASES.glob("*.jsonl")), ids=lambda file: file.stem)
async def test_the_pretend_runtimes_answer_as_the_real_ones_did(file: Path) -> None:
    program = file.stem.partition("-")[0]
    cases = [json.loads(line) for line in file.read_text().splitlines()]

    with SimCluster(1, seed=5, pace=0) as sim:
        node = prepared(sim)
        for case in cases:
            if case["argv"][0] == "WAIT":
                await stopped(node, program, case["argv"][1])
            else:
                assert await answered(node, program, case["argv"]) == case


def test_both_programs_were_recorded() -> None:
    recorded = {file.stem.partition("-")[0]: len(file.read_text().splitlines()) for file in CASES.glob("*.jsonl")}

    assert set(recorded) == {"crun", "runc"}
    assert min(recorded.values()) > 60

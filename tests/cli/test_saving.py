"""``nexcage backup``, ``backups`` and ``restore``."""

from __future__ import annotations

import json
from collections.abc import Callable

from .conftest import IMAGE, PveNode, Ran

Run = Callable[..., Ran]


def ok(ran: Ran) -> str:
    assert (ran.status, ran.err) == (0, "")
    return ran.out


def test_what_was_backed_up_is_listed_and_restored(pve: PveNode, run: Run) -> None:
    ok(run("create", "web-1", "--image", IMAGE, "--memory", "640M"))
    ok(run("create", "db-1", "--image", IMAGE))

    ok(run("backup", "web-1", "db-1"))
    (row,) = [json.loads(line) for line in ok(run("backups", "web-1", "--output", "jsonl")).splitlines()]
    assert (row["id"], row["node"]) == ("web-1", "local")
    assert len(ok(run("backups", "--output", "name")).splitlines()) == 2

    dry = ok(run("restore", "web-2", row["volume"], "--dry-run"))
    assert f" {row['volume']} --description " in dry
    restored = json.loads(ok(run("restore", "web-2", row["volume"], "--hostname", "www", "--output", "json")))
    config = pve.tool("pct", "config", str(restored["vmid"]))
    assert "hostname: www" in config
    assert "memory: 640" in config
    ok(run("start", "web-2"))


def test_what_cannot_be_is_said(pve: PveNode, run: Run) -> None:
    ok(run("create", "web-1", "--image", IMAGE))

    for argv in (["restore", "web-2"], ["restore", "web-2", IMAGE], ["backup", "web-1", "--mode", "quick"], ["backup"]):
        assert run(*argv).status == 2, argv
    missing = run("restore", "web-2", "local:backup/vzdump-lxc-104-2025_11_24-16_00_05.tar.zst")
    assert (missing.status, "is not on local" in missing.err) == (1, True)
    refused = run("backup", "web-1", "--storage", "nope")
    assert (refused.status, "storage 'nope' does not exist" in refused.err) == (1, True)

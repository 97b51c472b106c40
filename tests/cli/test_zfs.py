"""What the program does and says about datasets, on this machine as a simulated node: the scripts run in a real shell."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import IMAGE, PveNode, Ran

Run = Callable[..., Ran]


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., str]:
    """A settings file with that ``[zfs]``."""

    def write(**zfs: str | bool) -> str:
        file = tmp_path / "zfs.toml"
        lines = (f"{key} = {json.dumps(value)}\n" for key, value in {"pool": "tank", **zfs}.items())
        file.write_text("[zfs]\n" + "".join(lines))
        return str(file)

    return write


def datasets(pve: PveNode) -> list[str]:
    return pve.tool("zfs", "list", "-H", "-o", "name", "-t", "all", "-r", "tank").split()


def test_a_dry_run_types_what_is_then_done(pve: PveNode, run: Run, config: Callable[..., str]) -> None:
    pve.tool("zpool", "create", "tank", "sdb")
    words = ("--config", config())

    planned = run("create", "web-1", "--image", IMAGE, "--size", "2", "--op-id", "make-1", "--dry-run", *words)
    assert (planned.status, planned.err, datasets(pve)) == (0, "", ["tank"])
    typed = [line.partition(": ")[2].split(" ")[:3] for line in planned.out.splitlines()]
    assert [" ".join(words[:2]) for words in typed] == ["zfs create", "pvesm add", "zfs create", "pct create"]
    assert "refquota=2G" in planned.out

    assert run("create", "web-1", "--image", IMAGE, "--size", "2", "--op-id", "make-1", *words) == Ran(0, "", "")
    name = datasets(pve)[-1]
    assert name.startswith("tank/containers/web-1-")
    gone = run("delete", "web-1", "--dry-run", *words)
    assert [line.partition(": ")[2].split(" ")[:2] for line in gone.out.splitlines()] == [
        ["pct", "destroy"],
        ["zfs", "destroy"],
    ]
    assert run("delete", "web-1", *words) == Ran(0, "", "")
    assert datasets(pve) == ["tank", "tank/containers"]


def test_who_goes_without_is_told_why(pve: PveNode, run: Run, config: Callable[..., str]) -> None:
    made = run("create", "web-1", "--image", IMAGE, "--output", "json", "--config", config())

    assert made.err == "nexcage: create 'web-1': made without ZFS: there is no pool 'tank'\n"
    assert json.loads(made.out)["notes"] == ["made without ZFS: there is no pool 'tank'"]
    refused = run("create", "web-2", "--image", IMAGE, "--config", config(required=True))
    assert (refused.status, refused.out) == (3, "")
    assert "there is no pool 'tank' (zfs.required)" in refused.err


def test_what_is_kept_is_told(pve: PveNode, run: Run, config: Callable[..., str]) -> None:
    pve.tool("zpool", "create", "tank", "sdb")
    words = ("--config", config(on_delete="rename"))
    run("create", "web-1", "--image", IMAGE, "--op-id", "make-1", *words)

    gone = run("delete", "web-1", *words)

    (renamed,) = (name for name in datasets(pve) if name.endswith("-deleted-make-1"))
    assert gone == Ran(0, "", f"nexcage: delete 'web-1': its dataset is {renamed} now\n")


def test_somebody_elses_dataset_survives_in_a_real_shell_too(
    pve: PveNode, run: Run, config: Callable[..., str]
) -> None:
    pve.tool("zpool", "create", "tank", "sdb")
    words = ("--config", config(mount="/srv/data"))
    assert run("create", "web-1", "--image", IMAGE, *words).status == 0
    name = datasets(pve)[-1]
    pve.tool("zfs", "set", "org.nexcage:mark=another", name)

    assert run("delete", "web-1", *words).status == 0
    assert name in datasets(pve)


def test_a_wrong_setting_is_named_with_what_is_allowed(pve: PveNode, run: Run, config: Callable[..., str]) -> None:
    wrong = run("list", "--config", config(on_delete="shred"))

    assert wrong.status == 2
    assert "zfs.on_delete 'shred': one of destroy, keep, rename" in wrong.err

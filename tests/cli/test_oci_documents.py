"""The documents of ``state`` and ``list`` are those that runc prints."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from nexcage import Machine, OciState
from nexcage._cli.oci_documents import as_listed, as_state, said_of, table

from .conftest import Ran

OBSERVED = Path(__file__).parents[1] / "data" / "cli"


def demo(bundle: Path) -> OciState:
    return OciState("1.0.2-dev", "demo", "running", 10516, str(bundle), {"com.example.k": "v"})


def test_a_state_has_the_fields_of_runcs_in_its_order(tmp_path: Path) -> None:
    tmp_path.joinpath("config.json").write_text('{"root": {"path": "rootfs"}}')
    theirs = json.loads(OBSERVED.joinpath("runc-state-running.json").read_text())

    ours = as_state(demo(tmp_path), Machine("demo", created_at=1795454611.628717469))

    assert list(ours) == list(theirs)
    assert ours | {"bundle": "", "rootfs": "", "created": ""} == theirs | {"bundle": "", "rootfs": "", "created": ""}
    assert ours["rootfs"] == f"{tmp_path}/rootfs"
    assert re.fullmatch(r"2026-[0-9-]{5}T[0-9:]{8}\.[0-9]{1,9}Z", ours["created"])
    assert as_state(demo(tmp_path), Machine("demo", created_at=1795454611.5))["created"].endswith(":31.5Z")
    assert as_state(demo(tmp_path), Machine("demo", created_at=1795454611.0))["created"].endswith(":31Z")


def test_an_entry_of_a_list_has_them_too(tmp_path: Path) -> None:
    tmp_path.joinpath("config.json").write_text('{"root": {"path": "rootfs"}}')
    (theirs,) = json.loads(OBSERVED.joinpath("runc-list.json").read_text())

    assert list(as_listed(demo(tmp_path), Machine("demo"))) == list(theirs)


def test_a_bundle_that_cannot_be_read_costs_only_its_root_file_system(tmp_path: Path) -> None:
    tmp_path.joinpath("config.json").write_text('{"root": []}')

    assert "rootfs" not in as_state(demo(tmp_path), Machine("demo"))
    assert "rootfs" not in as_state(demo(tmp_path / "none"), Machine("demo"))


def test_the_table_has_runcs_columns() -> None:
    entry = {"id": "c1", "pid": 25130, "status": "created", "bundle": "/tmp/o1/b", "owner": "root"}

    lines = list(table([entry | {"created": "2026-11-23T05:19:22.993823571Z"}]))

    assert lines == [
        "ID          PID         STATUS      BUNDLE      CREATED                          OWNER",
        "c1          25130       created     /tmp/o1/b   2026-11-23T05:19:22.993823571Z   root",
    ]


def test_an_empty_list_is_said_as_runc_says_it(run: Callable[..., Ran], pve: object, tmp_path: Path) -> None:
    root = str(tmp_path / "r")

    assert run("--root", root, "list", "--format", "json").out == "null\n"
    assert run("--root", root, "list", "-q").out == ""
    assert run("--root", root, "list").out == "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"


def test_a_bundle_cannot_say_what_only_nexcage_says(tmp_path: Path) -> None:
    noted = {"org.nexcage.stale": "true", "org.nexcage.op": "a-lie", "org.nexcagex": "a", "com.example.k": "v"}
    tmp_path.joinpath("config.json").write_text(json.dumps({"ociVersion": "1.2.0", "annotations": noted}))

    assert said_of(str(tmp_path)) == ("1.2.0", {"org.nexcagex": "a", "com.example.k": "v"})

"""``nexcage config``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Ran

Run = Callable[..., Ran]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(
        'hosts = ["pve-1.lan"]\n[limits]\nper_node = 3\n[nodes."pve-1.lan"]\nuser = "me"\n[images]\n"debian:12" = "a.tar.zst"\n'
    )
    return path


def test_origin_says_where_each_value_came_from(config: Path, run: Run, places: Path) -> None:
    ran = run("config", "show", "--origin", "--config", str(config), "--run-dir", "/elsewhere", "--output", "json")

    origins = {row["key"]: (row["value"], row["origin"]) for row in json.loads(ran.out)}
    assert ran.status == 0
    assert origins["limits.per_node"] == (3, str(config))
    assert origins["limits.total"] == (200, "default")
    assert origins["state_dir"] == (str(places / "state"), "environment")
    assert origins["run_dir"] == ("/elsewhere", "command line")
    assert origins['images."debian:12"'] == ("a.tar.zst", str(config))
    assert origins['nodes."pve-1.lan".user'] == ("me", str(config))


def test_runner_drift_and_lease_are_shown_with_their_origin_and_checked(config: Path, run: Run, places: Path) -> None:
    config.write_text('on_drift = "revert"\nrunner = "off"\n[lease]\nkind = "cluster"\nttl = 60\n')
    ran = run("config", "show", "--origin", "--config", str(config), "--output", "json")

    shown = {row["key"]: (row["value"], row["origin"]) for row in json.loads(ran.out)}
    assert {key: shown[key] for key in ("on_drift", "runner", "lease.kind", "lease.ttl", "lease.node")} == {
        "on_drift": ("revert", str(config)),
        "runner": ("off", str(config)),
        "lease.kind": ("cluster", str(config)),
        "lease.ttl": (60.0, str(config)),
        "lease.node": ("", "default"),
    }
    for wrong in ('on_drift = "ignore"', 'runner = "sometimes"', '[lease]\nkind = "etcd"', "[lease]\nttl = 5"):
        config.write_text(f"{wrong}\n")
        assert run("config", "check", str(config)).status == 2


def test_what_is_shown_is_toml_that_can_be_read_again(config: Path, run: Run, tmp_path: Path) -> None:
    import tomllib

    shown = run("config", "show", "--config", str(config))

    assert shown.status == 0
    again = tmp_path / "again.toml"
    again.write_text("".join(line + "\n" for line in shown.out.splitlines() if not line.endswith("= {}")))
    assert tomllib.loads(again.read_text())["limits"]["per_node"] == 3
    assert run("config", "check", str(again)) == Ran(0, "ok\n", "")


@pytest.mark.parametrize(
    "text, words",
    [
        ("limts = 3\n", "did you mean 'limits'?"),
        ("[limits]\nper_nod = 3\n", "did you mean 'per_node'?"),
        ("[limits]\nper_node = -3\n", "limits.per_node"),
        ("hosts = [1,,]\n", "line 1"),
    ],
)
def test_a_wrong_config_is_invalid_input_that_names_the_place(text: str, words: str, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)

    for ran in (run("config", "check", str(path)), run("--config", str(path), "list")):
        assert (ran.status, ran.out) == (2, "")
        assert words in ran.err
        assert str(path) in ran.err
        assert len(ran.err.splitlines()) <= 2


def test_a_host_that_cannot_be_one_is_invalid_input(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('hosts = ["-x"]\n')

    for ran in (run("config", "check", str(path)), run("--config", str(path), "list")):
        assert (ran.status, ran.out) == (2, "")
        assert "invalid host '-x'" in ran.err


def test_a_wrong_value_of_a_table_that_two_files_have_names_the_file_that_said_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "nexcage" / "config.toml"
    mine.parent.mkdir()
    mine.write_text("[limits]\nper_node = -3\n")
    given = tmp_path / "given.toml"
    given.write_text("[limits]\ntotal = 5\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    ran = run("--config", str(given), "list")

    assert ran.status == 2
    assert ran.err.splitlines()[1:] == [f"  said in: {mine}"]


def test_a_config_that_is_missing_is_told(run: Run) -> None:
    ran = run("list", "--config", "/no/such.toml")

    assert ran.status == 2
    assert "/no/such.toml" in ran.err


def test_an_old_configuration_is_converted_and_each_dropped_key_is_told(run: Run, tmp_path: Path) -> None:
    old = tmp_path / "config.json"
    old.write_text(
        json.dumps(
            {
                "network": {"bridge": "vmbr1", "ip": "10.0.0.1/24"},
                "runtime": {"routing": [{"pattern": "^vm-", "runtime": "vm"}]},
            }
        )
    )

    ran = run("config", "convert", str(old))

    assert ran.status == 0
    assert ran.out == '[defaults]\nbridge = "vmbr1"\n\n[[routing]]\nid = "/^vm-/"\nbackend = "vm"\n'
    assert ran.err.startswith("nexcage: config convert: left out network.ip: is said for each container")
    new = tmp_path / "new.toml"
    new.write_text(ran.out)
    assert run("config", "check", str(new)) == Ran(0, "ok\n", "")
    assert run("config", "convert", str(tmp_path / "no.json")).status == 2
    assert run("config", "convert").status == 2


def test_the_schema_is_printed(run: Run) -> None:
    ran = run("config", "schema")
    assert (ran.status, json.loads(ran.out)["title"]) == (0, "nexcage configuration")


def test_rules_and_aliases_are_shown_as_toml_that_can_be_read_again(run: Run, tmp_path: Path, places: Path) -> None:
    import tomllib

    path = tmp_path / "rules.toml"
    text = 'discover = "pve-01"\n[images]\n"a:1" = { lxc = "x.tar", vm = "/v.img" }\n[[routing]]\nid = "/^a/"\ntag = "x y"\n'
    path.write_text(text)

    shown = run("config", "show", "--config", str(path))
    read = tomllib.loads(shown.out)
    assert read["routing"][0]["id"] == "/^a/"
    assert read["images"] == {"a:1": {"lxc": "x.tar", "vm": "/v.img"}}
    (tmp_path / "again.toml").write_text(shown.out)
    assert run("config", "check", str(tmp_path / "again.toml")) == Ran(0, "ok\n", "")
    origins = run("config", "show", "--origin", "--config", str(path), "--hosts", "b", "--output", "json")
    found = {row["key"]: (row["value"], row["origin"]) for row in json.loads(origins.out)}
    assert (found["hosts"], found["discover"][0]) == ((["b"], "command line"), "")

"""Settings: a mistake is named with its place and what was meant; later documents win; every value knows where it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import Config, Host, InvalidInput, InvalidPath, InvalidSpec, Limits, NodeConfig, Route, load_config
from nexcage._core.config import merge, read

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(Config.__struct_fields__) | st.text(max_size=8)
documents = st.dictionaries(keys, json_values, max_size=4)


@pytest.mark.parametrize(
    ("document", "field", "suggested"),
    [
        ({"state_dirr": "/x"}, "state_dirr", "state_dir"),
        ({"limits": {"totl": 5}}, "limits.totl", "total"),
        ({"defaults": {"storge": "x"}}, "defaults.storge", "storage"),
        ({"nodes": {"pve-01.lan": {"usr": "root"}}}, "nodes.pve-01.lan.usr", "user"),
        ({"routing": [{}, {"backnd": "lxc"}]}, "routing.1.backnd", "backend"),
        ({"qqqq": 1}, "qqqq", "fleet"),
    ],
)
def test_an_unknown_key_is_named_with_the_closest_known_one(
    document: dict[str, Any], field: str, suggested: str
) -> None:
    with pytest.raises(InvalidSpec) as refused:
        read(document)
    assert refused.value.field == field
    assert suggested in refused.value.reason


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"fleet": 5}, "fleet"),
        ({"hosts": "pve"}, "hosts"),
        ({"hosts": ["pve", 5]}, "hosts[1]"),
        ({"limits": 5}, "limits"),
        ({"limits": {"total": "many"}}, "limits.total"),
        ({"limits": {"total": 0}}, "limits.total"),
        ({"limits": {"total": True}}, "limits.total"),
        ({"limits": {"per_node": 1.5}}, "limits.per_node"),
        ({"limits": {"breaker_failures": 0}}, "limits.breaker_failures"),
        ({"limits": {"op_timeout": -1}}, "limits.op_timeout"),
        ({"limits": {"op_timeout": float("nan")}}, "limits.op_timeout"),
        ({"nodes": {"a": {"user": "root"}, "pve": {"port": "22"}}}, "nodes.pve.port"),
        ({"nodes": {"a": {}, "pve": 5}}, "nodes.pve"),
        ({"images": {"a": "b.tar", "x": 5}}, "images.x"),
        ({"vmids": [100]}, "vmids"),
        ({"vmids": [99, 200]}, "vmids"),
        ({"vmids": [300, 200]}, "vmids"),
        ({"vmids": [100, "x"]}, "vmids[1]"),
        ({"routing": [{}, {"id": 5}]}, "routing[1].id"),
        ({"routing": [{"id": "/(/"}]}, "routing[0].id"),
        ({"routing": [{"id": "/a{99999999999}/"}]}, "routing[0].id"),
        ({"routing": [{"image": "templates"}]}, "routing[0].image"),
        ({"fleet": "a b"}, "fleet"),
        ({"strict_oci": "yes"}, "strict_oci"),
    ],
)
def test_a_wrong_value_is_named_by_its_dotted_key(document: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        read(document)
    assert refused.value.field == field


@pytest.mark.parametrize(
    "document", [{"nodes": {"-x": {}}}, {"images": {"UPPER CASE": "x.tar"}}, {"images": {"x": "../../../y/../z"}}]
)
def test_names_inside_are_checked_too(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        read(document)


@given(documents)
def test_any_document_is_read_or_refused(document: dict[str, Any]) -> None:
    try:
        config = read(document)
    except InvalidInput as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(config, Config)


@given(documents, documents)
def test_the_later_document_wins_and_neither_is_changed(first: dict[str, Any], second: dict[str, Any]) -> None:
    before = repr((first, second))
    merged = merge(first, second)
    assert repr((first, second)) == before
    for key, value in second.items():
        if isinstance(value, dict) and isinstance(first.get(key), dict):
            assert set(merged[key]) == set(value) | set(first[key])
        else:
            assert merged[key] is value or merged[key] == value


@pytest.mark.parametrize(
    "values", [{"total": 2.5}, {"retries": 1.5}, {"total": -1}, {"op_timeout": "60"}, {"retry_share": None}]
)
def test_limits_are_checked_however_they_are_made(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpec, match=f"limits.{next(iter(values))}"):
        Limits(**values)


def test_a_login_is_the_host_string_and_what_is_known_of_it() -> None:
    config = Config(
        hosts=("root@pve-[1-2]", "local"),
        nodes={"root@pve-1": NodeConfig(address="10.0.0.1", port=2222, jump="gate"), "pve-9": NodeConfig(user="x")},
        known_hosts="/etc/known",
    )
    assert config.logins() == (
        Host("root@pve-1", "10.0.0.1", "root", 2222, known_hosts="/etc/known", jump="gate"),
        Host("root@pve-2", "pve-2", "root", known_hosts="/etc/known"),
        Host("local", known_hosts="/etc/known"),
    )
    assert config.logins()[2].local
    assert [host.key for host in Config(nodes=config.nodes).logins()] == ["root@pve-1", "pve-9"]


def test_files_and_variables_are_merged_in_order_and_each_value_knows_its_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = tmp_path / "xdg" / "nexcage" / "config.toml"
    user.parent.mkdir(parents=True)
    user.write_text(
        'hosts = ["a"]\nfleet = "mine"\n[limits]\ntotal = 5\nper_node = 2\n[nodes."pve.lan"]\nuser = "root"\n'
    )
    given = tmp_path / "given.toml"
    given.write_text('run_dir = "/given"\n[limits]\ntotal = 7\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    origins: dict[str, str] = {}

    config = load_config(given, environ={"NEXCAGE_HOSTS": "b[1-2]", "NEXCAGE_RUN_DIR": "/env"}, origins=origins)

    assert (config.hosts, config.fleet, config.run_dir) == (("b1", "b2"), "mine", "/env")
    assert (config.limits.total, config.limits.per_node) == (7, 2)
    assert config.nodes == {"pve.lan": NodeConfig(user="root")}
    assert {
        key: origins[key]
        for key in ("hosts", "fleet", "run_dir", "limits.total", "limits.per_node", "nodes.pve.lan.user")
    } == {
        "hosts": "environment",
        "fleet": str(user),
        "run_dir": "environment",
        "limits.total": str(given),
        "limits.per_node": str(user),
        "nodes.pve.lan.user": str(user),
    }


def test_a_file_that_names_a_whole_fleet_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = tmp_path / "nexcage" / "config.toml"
    user.parent.mkdir()
    user.write_text('fleet = "mine"\n')
    given = tmp_path / "given.toml"
    given.write_text(f'state_dir = "{tmp_path}/state"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    assert load_config(given, environ={}).fleet == ""
    assert load_config(environ={}).fleet == "mine"


def test_a_file_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("a = 1\nb = = 2\n")
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'fleet = "\xe4"\n')
    with pytest.raises(InvalidPath, match=r"missing\.toml"):
        load_config(tmp_path / "missing.toml", environ={})
    with pytest.raises(InvalidSpec, match="line 2"):
        load_config(broken, environ={})
    with pytest.raises(InvalidSpec, match=r"latin\.toml"):
        load_config(latin, environ={})


def test_settings_survive_being_written_and_read() -> None:
    import msgspec

    config = Config(
        hosts=("a",), nodes={"a": NodeConfig(user="x")}, routing=(Route(id="/^a/", nodes="a*"),), vmids=(100, 200)
    )
    assert read(msgspec.to_builtins(config, builtin_types=())) == config


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"on_drift": "rewert"}, "invalid on_drift 'rewert': one of report, adopt, revert"),
        ({"runner": "on"}, "invalid runner 'on': one of auto, always, off"),
        ({"lease": {"kind": "shared"}}, "invalid lease.kind 'shared': one of file, cluster"),
        ({"lease": {"ttl": "long"}}, "invalid lease.ttl 'long': Expected `float`, got `str`"),
        ({"vmids": [1, 2, 3]}, "invalid vmids [1, 2, 3]: Expected `array` of length 2, got 3"),
    ],
)
def test_a_wrong_word_is_told_with_the_words_that_are_taken(document: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        read(document)
    assert str(caught.value) == said

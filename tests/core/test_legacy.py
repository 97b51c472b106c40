"""Old configurations: what has a counterpart is kept, everything else is named with a reason, patterns mean what was meant."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import Config, InvalidPath, InvalidSpec, Spec, convert_config, load_config
from nexcage._core.config import read
from nexcage._core.legacy import convert, pattern
from nexcage._core.route import plan

SHIPPED = {
    "runtime_type": "lxc",
    "default_runtime": "proxmox-lxc",
    "log_level": "info",
    "log_file": "/var/log/nexcage.log",
    "data_dir": "/var/lib/nexcage",
    "cache_dir": "/var/cache/nexcage",
    "network": {"bridge": "vmbr50", "ip": "10.0.0.2/24", "gateway": None},
    "security": {"seccomp": True, "apparmor": True, "read_only": False},
    "resources": {"memory": 1024, "cpu": 2.0, "disk": 8},
    "container_config": {
        "crun_name_patterns": ["ci-*"],
        "default_container_type": "lxc",
        "default_runtime": "lxc",
        "routing": [
            {"pattern": "^(kube-ovn-.*|cilium-.*)$", "runtime": "crun"},
            {"pattern": "^vm-", "runtime": "proxmox"},
            {"pattern": "db$", "runtime": "vm"},
            {"pattern": "web-*", "runtime": "proxmox-lxc"},
            {"pattern": ".*", "runtime": "lxc"},
        ],
    },
    "proxmox": {"storage": "local-zfs", "rootfs_size_gb": 10, "token": "secret-token", "legacy_api": {"port": 8006}},
}
OLDER = {
    "proxmox": {
        "hosts": ["10.0.0.1"],
        "port": 8006,
        "token": "x",
        "node": "pve",
        "node_cache_duration": 60,
        "verify_ssl": False,
    },
    "runtime": {"root": "/run/proxmox-lxcri", "log_level": "info", "log_format": "json", "systemd_cgroup": True},
    "zfs": {
        "enabled": True,
        "auto_detect": True,
        "base_dataset": "tank/containers",
        "compression": "lz4",
        "deduplication": True,
        "snapshot_retention": {"max_snapshots": 10, "retention_days": 30, "auto_cleanup": True},
    },
    "networking": {"bridge": "vmbr0", "vlan_aware": True, "mtu": 1500},
    "security": {"apparmor": True, "no_new_privileges": True},
}


def matches(text: str, id: str) -> bool:
    config = Config(routing=read({"routing": [{"id": pattern(text), "nodes": "yes"}]}).routing)
    return plan(id, Spec("a.tar.zst"), config, ("no", "yes"), ("lxc",)).nodes == ("yes",)


@pytest.mark.parametrize(
    ("text", "those", "not_those"),
    [
        ("^(kube-ovn-.*|cilium-.*)$", ("kube-ovn-pinger", "cilium-x1"), ("my-cilium-x1", "kube-ovn", "cilium")),
        ("web-*", ("web-1", "web-"), ("web", "my-web-1", "WEB-1")),
        ("^vm-", ("vm-1", "vm-"), ("my-vm-1", "vm")),
        ("db$", ("db", "mydb"), ("db1", "dbx")),
        (".*", ("web-1", "x.y", "a"), ()),
        ("*", ("web-1", "a"), ()),
        ("*ab", ("aab", "ab"), ("aba",)),
        ("web-.*", ("web-1", "web-"), ("my-web-1",)),
        ("a|b", ("a", "b"), ("ab", "xa")),
        ("ci.1", ("ci.1",), ("cix1",)),
    ],
)
def test_patterns_mean_what_was_meant(text: str, those: tuple[str, ...], not_those: tuple[str, ...]) -> None:
    assert [id for id in those if not matches(text, id)] == []
    assert [id for id in not_those if matches(text, id)] == []


def test_the_shipped_configuration_becomes_settings() -> None:
    converted = convert(SHIPPED)

    assert converted.config == {
        "state_dir": "/var/lib/nexcage",
        "defaults": {"bridge": "vmbr50", "storage": "local-zfs", "size": 10, "cores": 2},
        "routing": [
            {"id": "/^(kube-ovn-.*|cilium-.*)$/", "backend": "crun"},
            {"id": "/^vm-/", "backend": "vm"},
            {"id": "/db$/", "backend": "vm"},
            {"id": "web-*", "backend": "lxc"},
            {"id": "*", "backend": "lxc"},
            {"id": "ci-*", "backend": "crun"},
        ],
    }
    assert isinstance(read(converted.config), Config)


def test_every_key_is_either_taken_or_named_with_a_reason() -> None:
    named = {one.key: one.reason for one in convert(SHIPPED).dropped}

    assert set(named) == {
        "runtime_type", "log_level", "log_file", "cache_dir", "network.ip", "network.gateway", "security.seccomp",
        "security.apparmor", "security.read_only", "resources.memory", "resources.disk", "proxmox.token",
        "proxmox.legacy_api.port", "container_config.default_container_type",
    }  # fmt: skip
    assert all(reason and reason != "no such setting" for reason in named.values())
    assert "secret" not in str(named)


def test_the_older_configuration_becomes_settings_too() -> None:
    converted = convert(OLDER)

    assert converted.config == {
        "run_dir": "/run/proxmox-lxcri",
        "defaults": {"bridge": "vmbr0"},
        "zfs": {"pool": "tank/containers", "properties": {"compression": "lz4", "dedup": "on"}},
    }
    assert isinstance(read(converted.config), Config)
    assert {one.key for one in converted.dropped} >= {"proxmox.hosts", "zfs.auto_detect", "networking.mtu"}


@pytest.mark.parametrize(
    ("document", "key"),
    [
        ({"data_dir": "relative"}, "data_dir"),
        ({"data_dir": 5}, "data_dir"),
        ({"proxmox": {"storage": "bad name"}}, "proxmox.storage"),
        ({"proxmox": {"rootfs_size_gb": 1.5}}, "proxmox.rootfs_size_gb"),
        ({"proxmox": {"rootfs_size_gb": float("inf")}}, "proxmox.rootfs_size_gb"),
        ({"resources": {"cpu": float("nan")}}, "resources.cpu"),
        ({"resources": {"cpu": 0.5}}, "resources.cpu"),
        ({"container_config": {"default_runtime": "docker"}}, "container_config.default_runtime"),
        ({"runtime": {"routing": [{"pattern": "x", "runtime": "docker"}]}}, "runtime.routing[0].runtime"),
        ({"runtime": {"routing": [{"pattern": "^(", "runtime": "lxc"}]}}, "runtime.routing[0].pattern"),
        ({"runtime": {"routing": ["x"]}}, "runtime.routing[0]"),
        ({"runtime": {"routing": [{"pattern": "x", "runtime": "lxc", "why": 1}]}}, "runtime.routing[0].why"),
        ({"zfs": {"enabled": True}}, "zfs.enabled"),
        ({"zfs": {"base_dataset": "/a"}}, "zfs.base_dataset"),
        ({"whatever": {"else": 1}}, "whatever.else"),
    ],
)
def test_a_value_that_cannot_be_taken_is_named(document: dict[str, Any], key: str) -> None:
    converted = convert(document)
    assert key in {one.key for one in converted.dropped}
    assert isinstance(read(converted.config), Config)


def test_one_list_of_rules_takes_the_place_of_the_other() -> None:
    rules = {
        "container_config": {"routing": [{"pattern": "a", "runtime": "lxc"}]},
        "runtime": {"routing": [{"pattern": "b"}]},
    }
    converted = convert(rules)
    assert converted.config["routing"] == [{"id": "a", "backend": "lxc"}]
    assert [one.key for one in converted.dropped] == ["runtime.routing"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
known = st.sampled_from([*SHIPPED, *OLDER]) | st.text(max_size=6)


@given(st.dictionaries(known, json_values | st.sampled_from([*SHIPPED.values(), *OLDER.values()]), max_size=5))
def test_any_document_is_converted_and_what_comes_out_can_be_read(document: dict[str, Any]) -> None:
    converted = convert(document)
    try:
        read(converted.config)
    except InvalidSpec as error:
        assert re.match(r"(defaults|zfs)\.", error.field)  # a text that only its setting can judge


# ---- files -------------------------------------------------------------------------------------------------------------------


def test_an_old_file_is_read_in_the_place_of_a_new_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**SHIPPED, "data_dir": str(tmp_path)}))

    config = load_config(file, environ={})

    assert (config.state_dir, config.defaults.bridge, len(config.routing)) == (str(tmp_path), "vmbr50", 6)
    assert any("network.ip has no effect" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ('{"a": 1,}', InvalidSpec, "line 1"),
        ("[]", InvalidSpec, "JSON object"),
        ('{"network": {"bridge": "x' + "y" * (1 << 20) + '"}}', InvalidSpec, "1 MiB"),
    ],
)
def test_a_broken_old_file_is_refused_with_its_name_and_place(
    tmp_path: Path, text: str, kind: type[Exception], words: str
) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(kind, match=words) as raised:
        convert_config(file)
    assert str(file) in "\n".join([str(raised.value), *getattr(raised.value, "__notes__", [])])
    with pytest.raises(InvalidPath, match="missing"):
        convert_config(tmp_path / "missing.json")


@pytest.mark.parametrize("path", [None, 1.5, b"x", "x\0y"])
def test_what_is_no_path_is_refused(path: Any) -> None:
    with pytest.raises(InvalidPath):
        convert_config(path)

"""A fleet of the nodes that one of them names, and of those that ssh_config knows."""

from __future__ import annotations

from pathlib import Path

import pytest

import nexcage
from nexcage import Config, Host, InvalidName, InvalidSpec, NodeConfig, NodeError, NodeNotUsable, Spec
from nexcage._hosts import discovered, expanded
from nexcage.testing import SimCluster
from nexcage.tools.members import MEMBERS, members

DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"


@pytest.mark.sim(nodes=3)
async def test_one_node_names_all_of_its_cluster_and_they_are_driven_by_their_names(sim: SimCluster) -> None:
    async with sim.fleet(None, discover="root@pve-02") as fleet:
        assert list(fleet.nodes) == ["pve-01", "pve-02", "pve-03"]
        assert {node.host.user for node in fleet.nodes.values()} == {"root"}
        assert fleet.nodes["pve-03"].host.address == "10.99.0.3"
        assert (await fleet["web-1"].create(Spec(DEBIAN, node="pve-03"))).node == "pve-03"


@pytest.mark.sim(nodes=2)
async def test_the_next_one_is_asked_when_one_is_away(sim: SimCluster) -> None:
    sim["pve-01"].crash()
    async with sim.fleet(None, discover="pve-[01-02]") as fleet:
        assert list(fleet.nodes) == ["pve-01", "pve-02"]
    sim["pve-02"].crash()
    with pytest.raises(NodeError, match="pve-02"):
        async with sim.fleet(None, discover="pve-01,pve-02"):
            raise AssertionError


@pytest.mark.sim(nodes=1)
async def test_a_node_that_stands_alone_is_its_whole_cluster(sim: SimCluster) -> None:
    sim["pve-01"].files.write("/etc/pve/.members", '{"nodename": "pve-01", "version": 2}\n')
    (host,) = await discovered(Config(discover="root@pve-01"), sim.connect)
    assert host == Host("pve-01", address="pve-01", user="root")


@pytest.mark.sim(nodes=2)
async def test_what_the_settings_say_about_a_node_wins(sim: SimCluster) -> None:
    config = Config(
        discover="admin@pve-01:2222",
        nodes={
            "pve-02": NodeConfig(address="pve-02.lan", port=22),
            "admin@pve-01:2222": NodeConfig(identity_file="/k", address="pve-01"),
        },
    )
    first, second = await discovered(config, sim.connect)
    assert first == Host("pve-01", address="10.99.0.1", user="admin", port=2222, identity_file="/k")
    assert second == Host("pve-02", address="pve-02.lan", user="admin", port=22, identity_file="/k")


@pytest.mark.sim(nodes=1)
async def test_a_machine_that_is_no_pve_node_is_told(sim: SimCluster) -> None:
    sim["pve-01"].files.remove("/etc/pve/.members")
    with pytest.raises(NodeNotUsable, match="Proxmox VE node"):
        await discovered(Config(discover="pve-01"), sim.connect)


@pytest.mark.sim(nodes=1)
async def test_a_node_with_guests_that_is_no_member_is_named(sim: SimCluster, caplog: pytest.LogCaptureFixture) -> None:
    sim["pve-01"].files.write("/etc/pve/nodes/pve-09/lxc/900.conf", "hostname: x\n")
    await discovered(Config(discover="pve-01"), sim.connect)
    assert any("pve-09 has guests and is no member" in record.getMessage() for record in caplog.records)


@pytest.mark.sim(nodes=1)
async def test_hosts_and_discover_exclude_each_other(sim: SimCluster) -> None:
    with pytest.raises(InvalidSpec, match="either hosts or discover"):
        async with sim.fleet(["pve-01"], discover="pve-01"):
            raise AssertionError


@pytest.mark.parametrize("name", ["-x", "a b", "pve;rm", "x" * 300])
def test_names_that_a_node_makes_up_are_refused(name: str) -> None:
    text = f'@nexcage members\n{{"nodename": "pve", "nodelist": {{"{name}": {{"ip": "10.0.0.1"}}}}}}\n@nexcage vmlist\n@nexcage end\n'
    with pytest.raises(ValueError, match="invalid"):
        members().parse(nexcage.Result(0, text.encode()))


def test_an_address_that_a_node_makes_up_is_refused() -> None:
    text = '@nexcage members\n{"nodename": "p", "nodelist": {"p": {"ip": "-oProxyCommand=x"}}}\n@nexcage vmlist\n@nexcage end\n'
    with pytest.raises(ValueError, match="invalid"):
        members().parse(nexcage.Result(0, text.encode()))


async def test_the_twin_says_what_the_shell_says(tmp_path: Path) -> None:
    import os
    import subprocess

    sim, disk = SimCluster(2), SimCluster(2, dir=tmp_path)
    env = {**os.environ, "NEXCAGE_NODE_ROOT": str(tmp_path / "nodes" / "pve-01" / "root")}
    real = subprocess.run(["sh", "-c", MEMBERS, "nexcage"], env=env, capture_output=True, check=True).stdout
    twin = (await sim["pve-01"].run(members().argv)).stdout
    assert disk.hosts == sim.hosts
    assert members().parse(nexcage.Result(0, real)) == members().parse(nexcage.Result(0, twin))


# ---- ssh_config --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ssh_config(tmp_path: Path) -> str:
    (tmp_path / "more.d").mkdir()
    (tmp_path / "more.d" / "a.conf").write_text("Host pve-03 'x\n  HostName 10.0.0.3\n")
    file = tmp_path / "config"
    file.write_text(
        'Include more.d/*.conf\nHost pve-01 "pve-02" !pve-04 *.lan # a comment\n  User root\nhost=gw\nMatch host pve-05\nInclude config\n'
    )
    return str(file)


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["pve-*"], ("pve-01", "pve-02", "pve-03")),
        (["root@pve-0?:2222", "gw"], ("root@pve-01:2222", "root@pve-02:2222", "root@pve-03:2222", "gw")),
        (["pve-[1-2]", "g*"], ("pve-1", "pve-2", "gw")),
    ],
)
def test_names_of_ssh_config_are_found_by_patterns(
    patterns: list[str], names: tuple[str, ...], ssh_config: str
) -> None:
    assert expanded(patterns, ssh_config) == names
    assert expanded(" ".join(patterns), ssh_config) == names


def test_a_pattern_that_nothing_matches_is_refused(ssh_config: str) -> None:
    for given in (["x*"], "pve-1 x*"):
        with pytest.raises(InvalidName, match=r"x\*"):
            expanded(given, ssh_config)
    with pytest.raises(InvalidName):
        expanded(["pve-*"], "none")


@pytest.mark.sim(nodes=3)
async def test_a_fleet_is_opened_by_a_pattern(sim: SimCluster, ssh_config: str) -> None:
    async with sim.fleet("pve-0*", config=Config(ssh_config=ssh_config)) as fleet:
        assert sorted(fleet.nodes) == ["pve-01", "pve-02", "pve-03"]


# ---- settings ----------------------------------------------------------------------------------------------------------------


def test_the_later_one_of_hosts_and_discover_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "nexcage").mkdir()
    (tmp_path / "nexcage" / "config.toml").write_text('hosts = ["a"]\n')
    given = tmp_path / "given.toml"
    given.write_text('discover = "pve-01"\n')

    config = nexcage.load_config(given, environ={})
    assert (config.hosts, config.discover) == ((), "pve-01")
    config = nexcage.load_config(given, environ={"NEXCAGE_HOSTS": "b[1-2]"})
    assert (config.hosts, config.discover) == (("b1", "b2"), "")
    config = nexcage.load_config(environ={"NEXCAGE_DISCOVER": "c"})
    assert (config.hosts, config.discover) == ((), "c")
    given.write_text('discover = "pve-01"\nhosts = ["a"]\n')
    with pytest.raises(InvalidSpec, match="either hosts or discover"):
        nexcage.load_config(given, environ={})

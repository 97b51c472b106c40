"""The example plugin does what its page says, once it is installed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

import nexcage
from nexcage import Config, PluginConfig, Spec
from nexcage._cli.main import main
from nexcage.testing import SimCluster

DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
KINDS = {"hooks": "quota", "sinks": "lines", "placements": "first", "commands": "census", "health": "kernel"}


def config(**options: object) -> Config:
    return nexcage.Config(**options)  # type: ignore[arg-type]


def ran(*argv: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    status = main(argv, stdin=io.StringIO(), stdout=out, stderr=err)
    return status, out.getvalue(), err.getvalue()


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NEXCAGE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("NEXCAGE_RUN_DIR", str(tmp_path / "run"))
    return tmp_path


def test_nothing_is_listed_before_anything_is_installed() -> None:
    assert nexcage.plugins() == ()


def test_each_kind_is_listed_with_its_package_and_version(example: Path) -> None:
    found = {one.group: (one.name, one.package, one.version, one.state) for one in nexcage.plugins()}

    assert found == {group: (name, "nexcage-example", "1.2.0", "on") for group, name in KINDS.items()}


def test_the_command_lists_them_as_a_table_and_as_json(example: Path, places: Path) -> None:
    status, out, err = ran("plugins")
    rows = json.loads(ran("plugins", "--output", "json")[1])

    assert (status, err) == (0, "")
    assert [line.split()[:5] for line in out.splitlines()[1:]] == [
        [row[key] for key in ("name", "group", "package", "version", "state")] for row in rows
    ]
    assert {row["group"] for row in rows} == set(KINDS)


def test_one_that_is_switched_off_is_listed_as_off(example: Path) -> None:
    states = {one.name: one.state for one in nexcage.plugins({"quota": PluginConfig(enabled=False)})}

    assert states == dict.fromkeys(KINDS.values(), "on") | {"quota": "off"}


def test_all_can_be_switched_off_but_one(example: Path) -> None:
    states = {
        one.name: one.state for one in nexcage.plugins({"*": PluginConfig(enabled=False), "quota": PluginConfig()})
    }

    assert states == dict.fromkeys(KINDS.values(), "off") | {"quota": "on"}


def test_settings_that_it_does_not_take_are_told(example: Path) -> None:
    (failed,) = [
        one for one in nexcage.plugins({"quota": PluginConfig(settings={"memroy": 1})}) if one.state == "failed"
    ]

    assert (failed.name, "memroy" in failed.why) == ("quota", True)


@pytest.mark.sim(nodes=1)
async def test_a_hook_with_the_right_to_refuse_refuses_before_anything_begins(sim: SimCluster, example: Path) -> None:
    settings = config(plugins={"quota": PluginConfig(settings={"memory": 600})})
    async with sim.fleet(config=settings) as fleet:
        with pytest.raises(nexcage.Refused, match="at most 600 MiB here") as refused:
            await fleet["web-1"].create(Spec(DEBIAN, memory=1024, storage="local-zfs"))
        events = fleet.seq
        done = await fleet["web-2"].create(Spec(DEBIAN, memory=512, storage="local-zfs"))

    assert refused.value.plugin == "quota"
    assert events == 0 or "web-1" not in fleet.machines
    assert done.state is nexcage.State.CREATED
    assert [effect["argv"][:2] for effect in sim.effects()] == [["pct", "create"]]


@pytest.mark.sim(nodes=1)
async def test_a_sink_gets_every_event(sim: SimCluster, example: Path, tmp_path: Path) -> None:
    log = tmp_path / "events.log"
    settings = config(plugins={"lines": PluginConfig(settings={"path": str(log)})})
    async with sim.fleet(config=settings) as fleet:
        await fleet["web-1"].create(Spec(DEBIAN, storage="local-zfs"))
        last = fleet.seq

    assert len(log.read_text().splitlines()) == last


@pytest.mark.sim(nodes=3)
async def test_a_placement_is_chosen_by_name(sim: SimCluster, example: Path) -> None:
    async with sim.fleet(config=config(placement="first")) as fleet:
        report = await fleet.run([nexcage.Create(f"web-{n}", Spec(DEBIAN, storage="local-zfs")) for n in range(3)])

    assert {done.node for done in report.done} == {"pve-01"}
    assert len(report.done) == 3


@pytest.mark.sim(nodes=1)
async def test_a_placement_that_nobody_has_is_refused_with_those_that_are_there(sim: SimCluster, example: Path) -> None:
    with pytest.raises(nexcage.InvalidSpec, match="one of spread, count, memory, first"):
        async with sim.fleet(config=config(placement="frist")):
            pass


def test_a_command_of_a_plugin_is_parsed_helped_and_run(example: Path, places: Path) -> None:
    status, out, err = ran("census", "--state", "running", "--output", "json")

    assert (status, err, json.loads(out)) == (0, "", [{"node": "local", "containers": 0}])
    assert ran("census", "--help") == ran("help", "census")
    assert "-s, --state STATE" in ran("census", "--help")[1]
    assert ran("census", "--stat")[0] == 2
    assert "unknown command censu" in ran("censu")[2]


def test_a_command_of_a_plugin_that_is_off_is_unknown(example: Path, places: Path) -> None:
    file = places / "config.toml"
    file.write_text("[plugins.census]\nenabled = false\n")

    status, _, err = ran("--config", str(file), "census")

    assert (status, "unknown command census" in err) == (2, True)

"""The pytest plugin, as somebody else's test suite sees it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import anyio
import pytest

import nexcage
from nexcage.testing import SimCluster, is_virtual

ROOT = Path(nexcage.__file__).parent.parent
IMAGE = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"


async def roll_out(fleet: nexcage.Fleet, count: int) -> nexcage.Report:
    spec = nexcage.Spec(image=IMAGE)
    return await fleet.run([nexcage.Create(f"web-{n}", spec) for n in range(count)])


@pytest.mark.sim(nodes=3, seed=7)
async def test_a_dead_node_costs_only_its_own_containers(sim):
    sim["pve-02"].crash()
    async with sim.fleet() as fleet:
        report = await roll_out(fleet, count=30)
    assert report.lost_nodes == {"pve-02"}


@pytest.mark.sim(nodes=5)
async def test_the_marker_says_how_many_nodes(sim):
    assert len(sim.hosts) == 5
    assert is_virtual()


async def test_without_a_marker_there_are_three_nodes(sim):
    assert sim.hosts == ("pve-01", "pve-02", "pve-03")


@pytest.mark.sim(nodes=1, real_time=True)
async def test_real_time_is_there_for_the_asking(sim):
    assert not is_virtual()


async def test_virtual_time_without_a_cluster(virtual_time):
    await anyio.sleep(3600)
    assert is_virtual()


def test_a_plain_test_can_have_a_cluster(sim):
    sim["pve-01"].crash()
    assert sim["pve-01"].down


def suite(tmp_path: Path, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a directory of its own, with no configuration but the plugin."""
    (tmp_path / "test_it.py").write_text(textwrap.dedent(text), "utf-8")
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(tmp_path)]
    if "nexcage" not in _entry_points():
        argv += ["-p", "nexcage.testing.plugin"]
    return subprocess.run(
        [*argv, *arguments, "test_it.py"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def _entry_points() -> set[str]:
    from importlib.metadata import entry_points

    return {entry.name for entry in entry_points(group="pytest11")}


FAILING = """
    import pytest

    @pytest.mark.sim(nodes=2, seed=5)
    async def test_fails(sim):
        assert sim.seed < 5
"""


def test_a_failing_test_says_how_to_repeat_it(tmp_path):
    ran = suite(tmp_path, FAILING)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "seed 5; repeat with: --sim-seed 5" in ran.stdout


def test_the_flag_repeats_it(tmp_path):
    assert suite(tmp_path, FAILING, "--sim-seed", "4").returncode == 0
    assert "--sim-seed 9" in suite(tmp_path, FAILING, "--sim-seed", "9").stdout


def test_many_seeds_are_many_tests(tmp_path):
    ran = suite(tmp_path, FAILING.replace("< 5", "< 7"), "--sim-seeds", "4", "-v")
    assert "2 failed, 2 passed" in ran.stdout
    for seed in (7, 8):
        assert f"repeat with: --sim-seed {seed}" in ran.stdout


def test_async_tests_need_no_setting(tmp_path):
    ran = suite(
        tmp_path,
        """
        import anyio

        async def test_days(sim, virtual_time):
            await anyio.sleep(10 * 86400)
            assert virtual_time.is_virtual()
        """,
        "-W",
        "error",
    )
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr


def test_a_suite_that_does_not_use_it_does_not_pay_for_it(tmp_path):
    ran = suite(
        tmp_path,
        """
        import sys

        def test_nothing_is_loaded():
            slow = {"asyncssh", "msgspec", "nexcage.testing.cluster", "nexcage.errors", "nexcage._open"}
            assert not slow & set(sys.modules)
        """,
    )
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr


def test_the_same_seed_gives_the_same_history():
    from nexcage.testing import virtual_run

    async def history() -> list[object]:
        with SimCluster(nodes=4, seed=11) as sim:
            sim["pve-03"].fault("drop-after", on="pct create", times=2)
            async with sim.fleet() as fleet:
                await roll_out(fleet, count=12)
                await fleet.run([nexcage.Start(f"web-{n}") for n in range(12)])
                return [_told(event) for event in nexcage.read_journal(fleet.state_dir)]

    assert virtual_run(history) == virtual_run(history)


def _told(event: nexcage.Event) -> str:
    import msgspec

    return msgspec.json.encode(event).decode()

"""``nexcage images``, ``pull`` and ``rmi``, and creates that say or do something about a missing image."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.images.layouts import simple

from .conftest import PveNode, Ran

Run = Callable[..., Ran]
DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
UBUNTU = "local:vztmpl/ubuntu-22.04-standard_22.04-1_amd64.tar.zst"


@pytest.fixture
def config(tmp_path: Path, places: Path) -> str:
    path = tmp_path / "config.toml"
    path.write_text(f'[images]\n"ubuntu:22.04" = "{UBUNTU}"\n"debian:12" = {{ lxc = "{DEBIAN}" }}\n')
    return str(path)


def test_images_of_this_machine_with_their_aliases(run: Run, pve: PveNode, config: str) -> None:
    ran = run("images", "--config", config, "--output", "json")

    rows = {row["volume"]: row for row in json.loads(ran.out)}
    assert (ran.status, ran.err) == (0, "")
    assert rows[DEBIAN]["alias"] == ["debian:12"]
    assert (rows[DEBIAN]["node"], rows[DEBIAN]["kind"]) == ("local", "vztmpl")
    assert rows[DEBIAN]["size"] > 0
    assert rows[DEBIAN]["at"].endswith("+00:00")
    names = run("images", "-o", "name").out.splitlines()
    assert DEBIAN in names
    assert "SIZE" in run("images").out.splitlines()[0]
    assert run("images", "--storage", "local", "-o", "name").out.splitlines() == names
    assert run("images", "--storage", "local-zfs", "-o", "name") == Ran(0, "", "")
    assert run("images", "--storage", "a b").status == 2


def test_what_can_be_downloaded_is_listed(run: Run, pve: PveNode) -> None:
    ran = run("images", "--available", "-o", "name")
    assert "ubuntu-24.04-standard_24.04-2_amd64.tar.zst" in ran.out.splitlines()


def test_pull_and_rmi(run: Run, pve: PveNode, config: str) -> None:
    assert run("pull", "ubuntu:22.04", "--config", config) == Ran(0, "", "")
    again = run("pull", UBUNTU, "--output", "json")
    assert [row["volume"] for row in json.loads(again.out)] == [UBUNTU]
    assert run("rmi", "ubuntu:22.04", "--config", config) == Ran(0, "", "")
    gone = run("rmi", UBUNTU)
    assert gone.status == 1
    assert f"image '{UBUNTU}' is not on local" in gone.err
    assert run("rmi", UBUNTU, "--force") == Ran(0, "", "")


def test_a_create_without_its_template_says_what_is_like_it_and_pull_fetches_it(
    run: Run, pve: PveNode, config: str
) -> None:
    refused = run("create", "web-1", "--image", "debian-12-standrd_12.7-1_amd64.tar.zst")
    assert refused.status == 1
    assert "like it are there: debian-12-standard_12.7-1_amd64.tar.zst" in refused.err
    assert "--pull" in refused.err

    assert run("create", "web-1", "--image", "ubuntu:22.04", "--config", config).status == 2  # no backend was named
    done = run("create", "web-1", "--image", "ubuntu:22.04", "--runtime", "lxc", "--pull", "--config", config)
    assert (done.status, done.err) == (0, "")
    assert "web-1" in run("list", "-o", "name").out


def test_what_nobody_offers_is_told(run: Run, pve: PveNode) -> None:
    ran = run("pull", "nosuch-1_amd64.tar.zst")
    assert ran.status == 1
    assert "is not among those that local can download" in ran.err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("pull",), "which image?"),
        (("pull", "a", "b"), "takes one image"),
        (("images", "x"), "does not take the word 'x'"),
        (("rmi",), "which image?"),
        (("pull", "a.tar.zst", "--storage", "bad name"), "storage"),
        (("pull", "./x"), "a template"),
        (("list", "--hosts", "a", "--discover", "b"), "--hosts and --discover"),
    ],
)
def test_wrong_words_are_refused_before_anything_runs(
    argv: tuple[str, ...], words: str, run: Run, places: Path
) -> None:
    ran = run(*argv)
    assert (ran.status, ran.out) == (2, "")
    assert words in ran.err


def test_a_node_that_is_away_costs_its_own_images_only(run: Run, pve: PveNode, tmp_path: Path) -> None:
    ran = run("images", "--hosts", "local,127.0.0.1:1", "-o", "name", "--node", "local")
    assert (ran.status, DEBIAN in ran.out) == (0, True)
    ran = run("images", "--hosts", "local,127.0.0.1:1", "-o", "name")
    assert (ran.status, DEBIAN in ran.out) == (3, True)


@pytest.mark.skipif(not shutil.which("umoci"), reason="needs umoci (apt install umoci)")
def test_an_image_of_this_machine_is_pushed_listed_and_removed(run: Run, pve: PveNode, tmp_path: Path) -> None:
    layout = simple(tmp_path / "layout")

    pushed = run("images", "push", str(layout))
    volume = pushed.out.strip()

    assert (pushed.status, pushed.err) == (0, "")
    assert re.fullmatch(r"local:vztmpl/nexcage-[0-9a-f]{20}\.tar", volume)
    assert volume in run("images", "-o", "name").out.splitlines()
    assert run("images", "push", str(layout)).out == pushed.out
    assert run("rmi", volume) == Ran(0, "", "")


@pytest.mark.parametrize("words", [("push",), ("push", "a", "b"), ("pull", "x"), ("x",)])
def test_images_takes_push_and_one_image_only(run: Run, pve: PveNode, words: tuple[str, ...]) -> None:
    assert run("images", *words).status == 2


def test_what_is_no_image_of_this_machine_is_told(run: Run, pve: PveNode, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    ran = run("images", "push", str(tmp_path / "x"))
    assert ran.status != 0
    assert "a layout: it has no index.json and oci-layout" in ran.err

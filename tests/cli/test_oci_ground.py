"""Which backend an OCI engine gets on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from nexcage._cli.oci_ground import ground
from nexcage._cli.parser import parse


@pytest.fixture
def path(places: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty PATH."""
    directory = places / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(places))
    return directory


def put(path: Path, *names: str) -> None:
    for name in names:
        path.joinpath(name).write_text("#!/bin/sh\n")
        path.joinpath(name).chmod(0o755)


@pytest.mark.parametrize(
    "there, backend, runtime",
    [
        (["pct", "runc", "crun"], "lxc", False),
        (["runc", "crun"], "runc", True),
        (["crun"], "crun", True),
        ([], "lxc", False),
    ],
)
def test_proxmox_ve_comes_first_and_then_what_is_installed(
    path: Path, there: list[str], backend: str, runtime: bool
) -> None:
    put(path, *there)

    at = ground(parse(["--root", "/r", "create", "x"]))

    assert (at.backend, at.runtime, at.config.defaults.backend) == (backend, runtime, backend)


def test_what_the_configuration_says_wins_and_an_option_over_it(path: Path) -> None:
    put(path, "runc")
    config = path.parent / "c.toml"
    config.write_text('[defaults]\nbackend = "crun"\n')

    said = ["--config", str(config), "--root", "/r"]
    assert ground(parse([*said, "create", "x"])).backend == "crun"
    assert "defaults.backend" in ground(parse([*said, "create", "x"])).why
    assert ground(parse([*said, "create", "--runtime", "pct", "x"])).backend == "lxc"


def test_other_machines_are_never_guessed_about(path: Path) -> None:
    put(path, "runc")

    at = ground(parse(["--root", "/r", "--hosts", "pve-01", "create", "x"]))

    assert (at.backend, at.here, at.runtime) == ("lxc", False, False)

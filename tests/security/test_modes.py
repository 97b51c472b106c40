"""What we write is the owner's alone, whatever the umask; links and directories that somebody swaps lead us nowhere."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import anyio
import pytest

import nexcage
from nexcage import Config, Create, Delete, Pause, Resume, Spec, Start, Stop
from nexcage.testing import SimCluster

SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", storage="local-zfs")
IDS = [f"web-{n}" for n in range(8)]


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def wrong_modes(*roots: Path) -> list[str]:
    found: list[str] = []
    for path in [*roots, *(path for root in roots for path in root.rglob("*"))]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        if mode != (0o700 if path.is_dir() else 0o600) and not path.is_symlink():
            found.append(f"{path} {mode:o}")
    return found


@pytest.mark.sim(nodes=2)
async def test_under_umask_0_every_directory_is_0700_and_every_file_0600(
    sim: SimCluster, no_umask: None, tmp_path: Path
) -> None:
    seen: list[str] = []
    state, run = tmp_path / "a" / "state", tmp_path / "b" / "run"
    for _ in range(2):
        async with sim.fleet(state_dir=state, run_dir=run) as fleet:
            for intents in ([Create(id, SPEC) for id in IDS], [Start(id) for id in IDS], [Stop(id) for id in IDS[:2]]):
                await fleet.run(intents)
                seen += wrong_modes(tmp_path / "a", tmp_path / "b")
        seen += wrong_modes(tmp_path / "a", tmp_path / "b")
    assert seen == []


class Attacker(threading.Thread):
    """Somebody who may write into the directory (a bad mode, a shared /run) and swaps what is in it as fast as it can."""

    def __init__(self, place: Path, names: list[str], target: Path, seed: int) -> None:
        super().__init__()
        self.place, self.names, self.target = place, names, target
        self.chance = Random(seed)
        self.over = threading.Event()
        self.swaps = 0

    def run(self) -> None:
        while not self.over.is_set():
            with contextlib.suppress(OSError):
                self._swap(self.place / self.chance.choice(self.names))
                self.swaps += 1

    def _swap(self, path: Path) -> None:
        aside = path.with_name(f".aside-{self.swaps % 4}")
        match self.chance.randrange(4):
            case 0:  # the whole directory becomes a link to elsewhere
                path.rename(aside)
                path.symlink_to(self.target)
            case 1:
                path.unlink()
                aside.rename(path)
            case 2:  # the file in it, or the name that it is written under
                self._link_in(path, self.chance.choice(["state.json", ".state.json.new"]), self.target / "precious")
            case _:
                shutil.rmtree(path)
                path.mkdir()
                self._link_in(path, "state.json", self.target / "new-file")

    def _link_in(self, path: Path, name: str, to: Path) -> None:
        inner = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)  # else it would trap itself
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=inner)
            os.symlink(to, name, dir_fd=inner)
        finally:
            os.close(inner)


@pytest.mark.sim(nodes=1, real_time=True)
@pytest.mark.parametrize("what", ["run_dir", "state_dir"])
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(2))
async def test_an_attacker_who_swaps_directories_and_links_wins_nothing(
    sim: SimCluster, tmp_path: Path, seed: int, what: str
) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / "precious").write_text("precious\n")
    (target / "state.json").write_text("precious\n")
    state, run = tmp_path / "state", tmp_path / "run"
    place, names = (run, IDS) if what == "run_dir" else (state, ["journal", "owners", "fleet", "run", "claims"])
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode) for path in target.iterdir()}
    attacker = Attacker(place, names, target, seed)
    attacker.start()
    try:
        rounds, patience = 0, time.monotonic() + 120  # a thread that does not get its turn swaps nothing
        while rounds < 4 or (attacker.swaps < 200 and time.monotonic() < patience):
            rounds += 1
            with contextlib.suppress(nexcage.NexcageError):
                async with sim.fleet(state_dir=state, run_dir=run, config=Config()) as fleet:
                    with anyio.move_on_after(3):
                        for _ in range(3):
                            for make in (
                                lambda id: Create(id, SPEC), Start, Pause, Resume, lambda id: Stop(id, force=True), Delete,
                            ):  # fmt: skip
                                await fleet.run([make(id) for id in IDS])
    finally:
        attacker.over.set()
        attacker.join()
    assert attacker.swaps >= 200
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode) for path in target.iterdir()}
    assert after == before

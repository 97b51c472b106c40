"""The example plugin, built as a wheel and installed for one test, as pip would; and packages made up on the spot."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent / "example"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from hatchling.builders.wheel import WheelBuilder

    (built,) = WheelBuilder(str(EXAMPLE)).build(directory=str(tmp_path_factory.mktemp("dist")), versions=["standard"])
    return Path(built)


@pytest.fixture
def example(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that it is installed in, on this test's path."""
    place = tmp_path / "site"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(place)
    monkeypatch.syspath_prepend(str(place))
    return place


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install ``module`` with this text, and its entries: ``hooks="loud = MODULE:Loud"``."""

    def install(module: str, text: str, **entries: str) -> None:
        place = tmp_path / module
        info = place / f"{module}-0.1.dist-info"
        info.mkdir(parents=True)
        (place / f"{module}.py").write_text(text)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 0.1\n")
        groups = (f"[nexcage.{group}]\n{lines}\n" for group, lines in entries.items())
        (info / "entry_points.txt").write_text("\n".join(groups))
        monkeypatch.syspath_prepend(str(place))

    return install

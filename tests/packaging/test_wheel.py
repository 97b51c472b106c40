"""What is built and installed."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import nexcage

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel of this checkout, built in this process: no network, no isolated environment."""
    from hatchling.builders.wheel import WheelBuilder

    directory = tmp_path_factory.mktemp("dist")
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(directory), versions=["standard"])
    return zipfile.ZipFile(built)


def test_the_wheel_has_the_package_its_types_and_its_licence(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())

    assert {"nexcage/__init__.py", "nexcage/py.typed"} <= names
    assert any(re.fullmatch(r"nexcage-[^/]+\.dist-info/licenses/LICENSE", name) for name in names)
    assert not [name for name in names if not name.startswith(("nexcage/", "nexcage-"))]


def test_every_file_of_the_package_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    here = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "nexcage").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }

    assert here <= set(wheel.namelist())


def test_the_version_comes_from_one_place(wheel: zipfile.ZipFile) -> None:
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))

    assert f"\nVersion: {nexcage.__version__}\n" in wheel.read(metadata).decode()
    assert PROJECT["dynamic"] == ["version"]
    elsewhere = [
        path
        for path in (ROOT / "nexcage").rglob("*.py")
        if nexcage.__version__ in path.read_text(encoding="utf-8") and path.name != "_version.py"
    ]
    assert elsewhere == []


def test_the_changelog_begins_with_this_version() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert headings[:2] == ["Unreleased", nexcage.__version__]


def test_at_run_time_three_packages_are_needed_and_no_more() -> None:
    assert [re.split(r"[^a-z]", requirement)[0] for requirement in PROJECT["dependencies"]] == [
        "anyio",
        "asyncssh",
        "msgspec",
    ]


def test_nothing_is_imported_that_is_not_a_dependency() -> None:
    """Optional ones are imported where they are used, and only where somebody chose them: rich, trio, pytest."""
    known = {"nexcage", "anyio", "asyncssh", "msgspec", "rich", "trio", "pytest", *sys.stdlib_module_names}
    found: dict[str, str] = {}
    for path in (ROOT / "nexcage").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or "nexcage"] if isinstance(node, ast.ImportFrom) else []
            found.update({module: path.name for module in modules if module.partition(".")[0] not in known})

    assert found == {}


@pytest.mark.parametrize(
    "entry",
    [
        *PROJECT["scripts"].values(),
        *(target for group in PROJECT["entry-points"].values() for target in group.values()),
    ],
)
def test_every_entry_point_leads_somewhere(entry: str) -> None:
    module, _, attribute = entry.partition(":")

    found = import_module(module)

    assert isinstance(found, ModuleType)
    assert not attribute or callable(getattr(found, attribute))


def test_no_module_name_hides_one_of_the_standard_library() -> None:
    """Scripts beside a module called ``random.py`` would import it instead."""
    names = {path.stem for path in (ROOT / "scripts").glob("*.py")} | {
        path.stem for path in (ROOT / "benchmarks").glob("*.py")
    }

    assert not names & sys.stdlib_module_names

"""What the pages show is run: shell and Python blocks of a page, in order, in one empty directory, against a simulated cluster.

``sh``: run by bash, stops at the first failure. ``python``: a whole program. ``python test``: a test file, run by pytest with
the plugin.``console``: shown only (the files it names must exist).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
BLOCK = re.compile(r"^```(sh|python test|python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = {"sh", "python", "python test"}


def blocks(page: Path) -> list[tuple[str, str]]:
    return [(match[1], match[2]) for match in BLOCK.finditer(page.read_text(encoding="utf-8"))]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment in which ``nexcage`` is this checkout; whatever was started with ``sim up`` is stopped."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    command = bin_dir / "nexcage"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m nexcage "$@"\n')
    command.chmod(0o755)
    env = {**os.environ, "PATH": f"{bin_dir}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    yield env
    for config in tmp_path.glob("*/config.toml"):
        subprocess.run([command, "sim", "down", "--dir", config.parent], env=env, capture_output=True, timeout=100)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if RUN & {kind for kind, _ in blocks(page)}], ids=lambda page: page.name
)
def test_what_a_page_shows_runs(page: Path, tmp_path: Path, shell: dict[str, str]) -> None:
    for number, (kind, text) in enumerate(blocks(page)):
        if kind not in RUN:
            continue
        if kind == "sh":
            argv = ["bash", "-euo", "pipefail", "-c", text]
        elif kind == "python":
            argv = [sys.executable, "-c", text]
        else:
            file = tmp_path / f"test_block_{number}.py"
            file.write_text(text)
            settings = tmp_path / "pytest.ini"
            settings.write_text("[pytest]\nanyio_mode = auto\n")
            installed = [] if _plugin_installed() else ["-p", "nexcage.testing.plugin"]
            argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *installed, str(file)]
        done = subprocess.run(argv, cwd=tmp_path, env=shell, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, f"{page.name}, block {number}:\n{text}\n{done.stdout}\n{done.stderr}"


def _plugin_installed() -> bool:
    from importlib.metadata import entry_points

    return any(entry.value == "nexcage.testing.plugin" for entry in entry_points(group="pytest11"))


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))

    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_scripts_that_a_page_names_exist(page: Path) -> None:
    named = set(re.findall(r"\bscripts/\w+", page.read_text(encoding="utf-8")))

    assert [name for name in named if not os.access(ROOT / name, os.X_OK)] == []


def test_every_block_of_code_is_of_a_kind_that_is_looked_at() -> None:
    unknown = [
        (page.name, kind)
        for page in PAGES
        for kind in re.findall(r"^```([\w ]+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        if kind not in {*RUN, "console", "text", "toml", "json", "mermaid"}
    ]

    assert unknown == []

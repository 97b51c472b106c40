"""The habits around a version, in a clone of this checkout's files: bump, check, release."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import nexcage

ROOT = Path(__file__).parents[2]
Ran = subprocess.CompletedProcess[str]
CHANGELOG = f"""# Changelog

## [Unreleased]

### Added

- Something new.

## [{nexcage.__version__}]

The first version.
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A small repository of what makes a version: the package, its project file, the scripts, and a changelog of its own."""
    place = tmp_path / "clone"
    place.mkdir()
    listed = subprocess.run(
        [
            "git",
            "-C",
            str(ROOT),
            "ls-files",
            "nexcage",
            "scripts",
            "pyproject.toml",
            "README.md",
            "LICENSE",
            ".gitignore",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).exists():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes((ROOT / name).read_bytes())
            (place / name).chmod((ROOT / name).stat().st_mode & 0o777)
    (place / "CHANGELOG.md").write_text(CHANGELOG)
    git(place, "init", "--quiet", "--initial-branch=main")
    commit(place)
    return place


def git(place: Path, *argv: str) -> str:
    who = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *who, "-C", str(place), *argv], capture_output=True, text=True, check=True).stdout


def commit(place: Path) -> None:
    git(place, "add", "--all")
    git(place, "commit", "--quiet", "--message", "all of it")


@pytest.fixture
def run(clone: Path) -> Callable[..., Ran]:
    """One of the clone's scripts, with this Python to build with."""
    who = {
        f"GIT_{role}_{part}": value
        for role in ("AUTHOR", "COMMITTER")
        for part, value in (("NAME", "A"), ("EMAIL", "a@b"))
    }
    env = {**os.environ, **who, "NEXCAGE_PYTHON": sys.executable}

    def run(script: str, *argv: str) -> Ran:
        return subprocess.run(
            [str(clone / "scripts" / script), *argv], env=env, cwd="/", capture_output=True, text=True, timeout=200
        )

    return run


def test_a_bump_changes_one_place_and_heads_what_was_unreleased(clone: Path, run: Callable[..., Ran]) -> None:
    done = run("bump_version", "97.0.0")

    assert done.returncode == 0, done.stderr
    assert git(clone, "diff", "--name-only").split() == ["CHANGELOG.md", "nexcage/_version.py"]
    assert '__version__ = "97.0.0"' in (clone / "nexcage" / "_version.py").read_text()
    text = (clone / "CHANGELOG.md").read_text()
    assert re.search(
        r"## \[Unreleased\]\n\n## \[97\.0\.0\] - \d{4}-\d\d-\d\d\n\n### Added\n\n- Something new\.\n", text
    )
    assert text.endswith(CHANGELOG.partition("- Something new.\n")[2])


@pytest.mark.parametrize(
    "version", [nexcage.__version__, "0.9.9", "97.0", "v97.0.0", "97.0.0-1", "97.0.0\n", "", "٣.0.0"]
)
def test_what_is_no_later_version_is_refused_and_changes_nothing(
    version: str, clone: Path, run: Callable[..., Ran]
) -> None:
    assert run("bump_version", version).returncode == 1
    assert git(clone, "status", "--porcelain") == ""


def test_a_bump_without_anything_new_is_refused(clone: Path, run: Callable[..., Ran]) -> None:
    (clone / "CHANGELOG.md").write_text(CHANGELOG.replace("- Something new.\n", ""))

    done = run("bump_version", "97.0.0")

    assert (done.returncode, "nothing under [Unreleased]" in done.stderr) == (1, True)
    assert git(clone, "diff", "--name-only").split() == ["CHANGELOG.md"]


def test_the_check_compares_the_installed_program_with_changelog_and_tag(clone: Path, run: Callable[..., Ran]) -> None:
    fine = run("check_version")
    assert (fine.returncode, fine.stderr) == (0, "")
    assert [line.split()[-1] for line in fine.stdout.splitlines()] == [nexcage.__version__] * 3

    untagged = run("check_version", "--tagged")
    assert (untagged.returncode, "tag of this commit is 'none'" in untagged.stderr) == (1, True)

    git(clone, "tag", "v0.0.1")
    (clone / "CHANGELOG.md").write_text(CHANGELOG.replace(f"[{nexcage.__version__}]", "[0.0.2]"))
    wrong = run("check_version")
    assert wrong.returncode == 1
    assert "CHANGELOG.md is '0.0.2', the installed program says" in wrong.stderr
    assert "tag of this commit is '0.0.1', the installed program says" in wrong.stderr


def test_a_release_builds_both_archives_and_tags(clone: Path, run: Callable[..., Ran]) -> None:
    assert run("bump_version", "97.0.0").returncode == 0
    dirty = run("release")
    assert (dirty.returncode, "not committed" in dirty.stderr) == (1, True)
    commit(clone)

    done = run("release")

    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in (clone / "dist").iterdir()) == [
        "nexcage-97.0.0-py3-none-any.whl", "nexcage-97.0.0.tar.gz",
    ]  # fmt: skip
    assert git(clone, "tag").split() == ["v97.0.0"]
    assert "- Something new." in git(clone, "tag", "--list", "--format=%(contents)", "v97.0.0")
    assert git(clone, "status", "--porcelain") == ""
    assert "is there already" in run("release").stderr


def test_a_release_without_its_heading_is_refused(clone: Path, run: Callable[..., Ran]) -> None:
    (clone / "nexcage" / "_version.py").write_text('__version__ = "97.0.0"\n')
    commit(clone)

    done = run("release")

    assert (done.returncode, "no heading [97.0.0]" in done.stderr) == (1, True)
    assert git(clone, "tag") == ""


def test_the_workflows_call_scripts_that_are_there() -> None:
    text = "\n".join(path.read_text() for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")))
    called = set(re.findall(r"(?:^|[ &])((?:scripts|\.ci)/\w+)", text))

    assert {".ci/run", "scripts/check_version", "scripts/e2e"} <= called
    assert [name for name in called if not os.access(ROOT / name, os.X_OK)] == []

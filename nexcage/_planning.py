"""``nexcage.plan_bundle``: reads a bundle of this machine and says what would become of it. Nothing is written and nothing is run."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from msgspec.structs import replace

from nexcage._bundles import EXCHANGEABLE, BundleFiles, read_bundle
from nexcage._core.bundle import Mount
from nexcage._core.bundle_plan.decide import plan
from nexcage._core.bundle_plan.model import Bundle, BundlePlan, Problem, Refusal
from nexcage._core.bundle_plan.runtimes import Runtime
from nexcage.errors import InvalidBundle

__all__ = ["plan_bundle", "planned"]


def plan_bundle(path: str | os.PathLike[str], *, backend: str = "lxc", allow: Iterable[str] = ()) -> BundlePlan:
    """What would become of the bundle at ``path`` on ``backend`` (lxc, crun or runc).

    ``path`` may be a config.json alone: then the root file system is not looked at. ``allow`` are properties that may be dropped.
    An invalid document, or none that can be read, is the plan's ``error``. Raises InvalidPath for a path that is not there. A bundle that
    anybody could exchange is refused as a whole, at the pointer ``""``.
    """
    files = read_bundle(path, judge=False)
    made = planned(files, backend=backend, allow=allow)
    if not files.exchangeable:
        return made
    return replace(made, refused=(Refusal("", f"the bundle {EXCHANGEABLE}"), *made.refused))


def planned(
    files: BundleFiles, *, backend: str, allow: Iterable[str] = (), runtime: Runtime | None = None
) -> BundlePlan:
    """The plan for a bundle that was read already; ``runtime`` where the program's version is known."""
    if files.decoded is None:
        made = plan(files.config, Bundle(files.path), backend=backend)
        return replace(made, error=_problem(files.error)) if files.error is not None else made
    bundle = Bundle(files.path, files.root, _kinds(files.decoded.document.mounts))
    return plan(files.decoded, bundle, backend=backend, allow=allow, runtime=runtime)


def _problem(error: InvalidBundle) -> Problem:
    return Problem(error.pointer, error.reason)


def _kinds(mounts: Iterable[Mount]) -> frozenset[tuple[str, str]]:
    """Which sources of bind mounts are files, as far as they are on this machine: a mount needs a target of its own kind."""
    sources = {mount.source for mount in mounts if mount.source and mount.source.startswith("/")}
    return frozenset((source, "file") for source in sources if _file(source))


def _file(source: str) -> bool:
    try:
        return not stat.S_ISDIR(Path(source).stat().st_mode)
    except OSError:
        return False

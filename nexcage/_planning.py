"""``nexcage.plan_bundle``: reads a bundle of this machine and says what would become of it. Nothing is written and nothing is run."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from nexcage._core.bundle import Mount, decode_config
from nexcage._core.bundle.strict import MAX_BYTES
from nexcage._core.bundle_plan.decide import plan
from nexcage._core.bundle_plan.model import Bundle, BundlePlan, Root
from nexcage.errors import InvalidBundle, InvalidPath

__all__ = ["plan_bundle", "planned"]


def plan_bundle(path: str | os.PathLike[str], *, backend: str = "lxc", allow: Iterable[str] = ()) -> BundlePlan:
    """What would become of the bundle at ``path`` on ``backend`` (lxc, crun or runc).

    ``path`` may be a config.json alone: then the root file system is not looked at. ``allow`` are properties that may be dropped.
    An invalid document is the plan's ``error``. Raises InvalidPath for a path that cannot be read.
    """
    named = os.fspath(path)
    try:
        whole = Path(path).resolve()
        alone = not whole.is_dir()
        data = _read(whole if alone else whole / "config.json")
    except (OSError, RuntimeError, ValueError) as error:
        raise InvalidPath("bundle", named, _said(error)) from None
    return planned(data, whole.parent if alone else whole, backend=backend, allow=allow, look=not alone)


def planned(data: bytes, directory: Path, *, backend: str, allow: Iterable[str] = (), look: bool = True) -> BundlePlan:
    """The plan for a config.json that was read already; ``look``: at the root file system below ``directory`` too."""
    try:
        decoded = decode_config(data)
    except InvalidBundle:
        return plan(data, Bundle(str(directory)), backend=backend)
    root = decoded.document.root
    seen = _root(directory, root.path) if look and root else None
    bundle = Bundle(str(directory), seen, _kinds(decoded.document.mounts))
    return plan(decoded, bundle, backend=backend, allow=allow)


def _root(directory: Path, path: str) -> Root:
    whole = directory / path
    try:
        outside = not whole.resolve().is_relative_to(directory) and not Path(path).is_absolute()
        return Root(os.path.lexists(whole), whole.is_dir(), whole.is_symlink(), outside)
    except (OSError, RuntimeError):  # a name that is too long, links in a circle
        return Root(exists=False, directory=False)


def _kinds(mounts: Iterable[Mount]) -> frozenset[tuple[str, str]]:
    """Which sources of bind mounts are files, as far as they are on this machine: a mount needs a target of its own kind."""
    sources = {mount.source for mount in mounts if mount.source and mount.source.startswith("/")}
    return frozenset((source, "file") for source in sources if _file(source))


def _file(source: str) -> bool:
    try:
        return not stat.S_ISDIR(Path(source).stat().st_mode)
    except OSError:
        return False


def _read(path: Path) -> bytes:
    """One byte more than is allowed of a file that is too large, so that the decoder says so."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError(f"{path.name} is not a regular file")
        return file.read(MAX_BYTES + 1)


def _said(error: Exception) -> str:
    if isinstance(error, OSError):
        name = Path(error.filename or "").name
        return f"{name}: {os.strerror(error.errno or 0)}"
    return str(error)

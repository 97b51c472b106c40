"""A bundle for simulations: its root file system is packed already, since no real program runs in virtual time."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from pathlib import Path
from random import Random
from typing import Any

from nexcage._engine.contents import Contents, Packed
from nexcage._engine.store import Store
from nexcage._transports.local import LocalTransport

__all__ = ["PackedAlready", "bundle"]


class PackedAlready(Contents):
    """Contents that pack without a program."""

    def __init__(self, directory: Path) -> None:
        super().__init__(Store(directory / "contents"), LocalTransport(), Random(1))
        self._archive = directory / "rootfs.tar.zst"
        self._archive.write_bytes(b"\x28\xb5\x2f\xfd" + b"content" * 100)

    async def pack(
        self, directory: str | os.PathLike[str], *, compress: str = "", targets: tuple[str, ...] = ()
    ) -> Packed:
        data = self._archive.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        return Packed(f"sha256:{sha256}", self._archive, sha256, len(data), f".tar.{compress}", 10 << 20)

    async def archive(self, layout: Path) -> Packed:
        target = self._archive.with_name("image.tar")
        with tarfile.open(target, "w") as archive:
            for name in ("oci-layout", "index.json", "blobs"):
                archive.add(layout.resolve() / name, name)
        data = target.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        return Packed(f"sha256:{sha256}", target, sha256, len(data))


def bundle(directory: Path, **more: Any) -> str:  # Any: JSON
    """The path of a bundle whose config.json says little besides ``more``."""
    path = directory / "bundle"
    (path / "rootfs" / "bin").mkdir(parents=True)
    config = {
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs", "readonly": False},
        "process": {"cwd": "/", "args": ["/bin/sh", "-c", "echo 'two words'\n", ""], "env": ["PATH=/bin"]},
        "annotations": {"org.example.team": "blue"},
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup", "user")]
        },
        **more,
    }
    (path / "config.json").write_text(json.dumps(config))
    for place in (path, path / "rootfs", path / "rootfs" / "bin"):
        place.chmod(0o755)
    return str(path)

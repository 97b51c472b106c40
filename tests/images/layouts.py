"""Tiny images written by hand: layouts and archives whose every byte a test decides."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
REF = "org.opencontainers.image.ref.name"
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nada:x:1000:1001:Ada:/home/ada:/bin/sh\n"
GROUP = b"root:x:0:\nada:x:1001:\nwheel:x:10:ada,root\n"


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, len(data), 0o755
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


ROOT = tar(
    member("bin", kind=tarfile.DIRTYPE),
    member("bin/hello", b"#!/bin/true\n", mode=0o4755, uid=12, gid=34),
    member("bin/hi", kind=tarfile.SYMTYPE, linkname="/bin/hello"),
    member("bin/hard", kind=tarfile.LNKTYPE, linkname="bin/hello"),
    member("etc", kind=tarfile.DIRTYPE),
    member("etc/passwd", PASSWD),
    member("etc/group", GROUP),
    member("etc/gone", b"1"),
)


class Layout:
    """A layout in the making. Blobs are written as they are said; `image` returns the manifest's descriptor."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs/sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self.index: list[dict[str, Any]] = []
        self.write()

    def write(self) -> None:
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self.index}))

    def blob(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        (self.path / "blobs/sha256" / sha256(data)[7:]).write_bytes(data)
        return {"mediaType": media_type, "digest": sha256(data), "size": len(data), **more}

    def layer(self, data: bytes, how: str = "gzip") -> dict[str, Any]:
        if how == "gzip":
            return self.blob(gzip.compress(data, mtime=0), f"{LAYER}+gzip")
        if how == "zstd":
            return self.blob(
                subprocess.run(["zstd", "-q"], input=data, capture_output=True, check=True).stdout, f"{LAYER}+zstd"
            )
        return self.blob(data, LAYER)

    def image(
        self,
        *layers: bytes,
        how: str = "gzip",
        arch: str = "amd64",
        variant: str | None = None,
        config: dict[str, Any] | None = None,
        diff_ids: list[str] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        said = {
            "architecture": arch,
            "os": "linux",
            **({"variant": variant} if variant else {}),
            "config": {"Cmd": ["/bin/hello"]} if config is None else config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids or [sha256(layer) for layer in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(json.dumps(said).encode(), CONFIG),
            "layers": [self.layer(layer, how) for layer in layers],
        }
        return self.blob(json.dumps(manifest).encode(), MANIFEST, **more)

    def nested(self, *manifests: dict[str, Any], **more: Any) -> dict[str, Any]:
        return self.blob(
            json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode(), INDEX, **more
        )

    def add(self, *descriptors: dict[str, Any]) -> Layout:
        self.index += descriptors
        self.write()
        return self

    def archive(self, target: Path) -> Path:
        names = ["oci-layout", "index.json", "blobs"]
        subprocess.run(["tar", "-C", self.path, "-cf", target, *names], check=True)
        return target


def tagged(tag: str) -> dict[str, Any]:
    return {"annotations": {REF: tag}}


def platform(arch: str, variant: str | None = None) -> dict[str, Any]:
    return {"platform": {"os": "linux", "architecture": arch, **({"variant": variant} if variant else {})}}


def simple(path: Path, *layers: bytes, **more: Any) -> Path:
    """A layout with one image."""
    layout = Layout(path)
    layout.add(layout.image(*(layers or (ROOT,)), **more))
    return path


def saved(layout: Path, target: Path, name: str) -> Path:
    """The same as ``docker save`` writes it, by skopeo."""
    argv = ["skopeo", "--insecure-policy", "copy", "-q", f"oci:{layout}", f"docker-archive:{target}:{name}"]
    subprocess.run(argv, check=True)
    return target

"""OCI archives as Proxmox VE 9.1 takes them: a tar that is not compressed, with the exact members ``oci-layout``, ``index.json`` and
something below ``blobs/`` (pve-commands 6.4, oci.md 4.1). The first manifest of its index is the image, whatever its platform.
"""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
from typing import Any

__all__ = ["image_of"]

_OURS = ("Entrypoint", "Cmd", "Env", "WorkingDir", "StopSignal", "Volumes")


def image_of(data: bytes) -> dict[str, Any] | None:  # Any: JSON
    """What its config says, with ``uid``, ``gid`` and ``groups`` of its user; None for what is no OCI archive. ``error`` is what PVE
    refuses it with.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            names = archive.getnames()
            blobs = any(name.startswith("blobs/") for name in names)
            if not ({"oci-layout", "index.json"} <= set(names) and blobs):
                return None
            return _image(archive)
    except (tarfile.TarError, KeyError, ValueError, IndexError, OSError, subprocess.CalledProcessError) as error:
        return {"error": f"failed to parse OCI image: {error}"} if not isinstance(error, tarfile.TarError) else None


def _image(archive: tarfile.TarFile) -> dict[str, Any]:  # Any: JSON
    one: dict[str, Any] = json.loads(_read(archive, "index.json"))["manifests"][0]  # Any: JSON, here and below
    if "index" in one["mediaType"]:
        one = json.loads(_blob(archive, one))["manifests"][0]
    manifest: dict[str, Any] = json.loads(_blob(archive, one))
    said: dict[str, Any] = json.loads(_blob(archive, manifest["config"])).get("config") or {}
    found = {key: said[key] for key in _OURS if said.get(key)}
    return found | (_user(archive, manifest["layers"], said["User"]) if said.get("User") else {})


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file.read()


def _blob(archive: tarfile.TarFile, descriptor: dict[str, Any]) -> bytes:  # Any: JSON
    return _read(archive, "blobs/" + descriptor["digest"].replace(":", "/"))


def _user(archive: tarfile.TarFile, layers: list[dict[str, Any]], user: str) -> dict[str, Any]:  # Any: JSON
    who, _, of = user.partition(":")
    passwd, group = (_inside(archive, layers, f"etc/{name}") for name in ("passwd", "group"))
    entry = next((line for line in passwd if line[0] == who or (who.isdigit() and line[2] == who)), None)
    if entry is None and not who.isdigit():
        return {"error": f"cannot resolve user '{who}' in container rootfs"}
    uid = int(entry[2]) if entry else int(who)
    if of:
        found = next((line for line in group if line[0] == of), None)
        if found is None and not of.isdigit():
            return {"error": f"cannot resolve group '{of}' in container rootfs"}
        return {"uid": uid, "gid": int(found[2]) if found else int(of), "groups": []}
    name = entry[0] if entry else ""
    groups = [int(line[2]) for line in group if name and name in line[3].split(",")]
    return {"uid": uid, "gid": int(entry[3]) if entry else 0, "groups": groups}


def _inside(archive: tarfile.TarFile, layers: list[dict[str, Any]], path: str) -> list[list[str]]:  # Any: JSON
    """The lines of a file, from the topmost layer that has it."""
    for layer in reversed(layers):
        with tarfile.open(fileobj=io.BytesIO(_plain(_blob(archive, layer)))) as tree:
            for member in tree:
                if member.name.removeprefix("./") == path and (file := tree.extractfile(member)) is not None:
                    return [line.split(":") for line in file.read().decode().splitlines() if line]
    return []


def _plain(data: bytes) -> bytes:
    if data.startswith(b"\x1f\x8b"):
        return gzip.decompress(data)
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        return subprocess.run(("zstd", "-dc"), input=data, capture_output=True, check=True).stdout
    return data

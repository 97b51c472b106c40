"""Reading the documents of an image, and the rules of image-spec 1.1 that its schemas do not have."""

from __future__ import annotations

import re
from binascii import Error, a2b_base64
from collections.abc import Iterator

from nexcage._core.bundle.decode import Decoded, decoded
from nexcage._core.bundle.flaws import Flaw, at
from nexcage._core.bundle.image import Descriptor, ImageConfig, ImageIndex, ImageLayout, ImageManifest, ImageSettings
from nexcage.errors import InvalidName, escaped
from nexcage.names import signal

__all__ = ["decode_image_config", "decode_index", "decode_layout", "decode_manifest"]

_GRAMMAR = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")
_HEX = {"sha256": re.compile(r"[0-9a-f]{64}"), "sha512": re.compile(r"[0-9a-f]{128}")}
_INDEX = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFEST = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(?:tcp|udp|sctp))?")


def decode_layout(data: bytes | str) -> Decoded[ImageLayout]:
    """The file ``oci-layout``. Raises InvalidBundle."""
    return decoded("oci-layout", data, ImageLayout, lambda _: ())


def decode_index(data: bytes | str) -> Decoded[ImageIndex]:
    """``index.json``, or a nested index. Raises InvalidBundle."""
    return decoded("image index", data, ImageIndex, _index)


def decode_manifest(data: bytes | str) -> Decoded[ImageManifest]:
    """The manifest of an image for one platform. Raises InvalidBundle."""
    return decoded("image manifest", data, ImageManifest, _manifest)


def decode_image_config(data: bytes | str) -> Decoded[ImageConfig]:
    """The configuration of an image. Raises InvalidBundle."""
    return decoded("image config", data, ImageConfig, _config)


def _index(index: ImageIndex) -> Iterator[Flaw]:
    if index.media_type and index.media_type not in _INDEX:
        yield Flaw("/mediaType", f"{escaped(index.media_type)} is not the type of an index")
    for name, given in (("config", index.config), ("layers", index.layers)):
        if given:
            yield Flaw(at("", name), "belongs to a manifest, not to an index")
    for number, one in enumerate(index.manifests):
        yield from _descriptor(one, at("/manifests", number))
    if index.subject:
        yield from _descriptor(index.subject, "/subject")


def _manifest(manifest: ImageManifest) -> Iterator[Flaw]:
    if manifest.media_type and manifest.media_type not in _MANIFEST:
        yield Flaw("/mediaType", f"{escaped(manifest.media_type)} is not the type of a manifest")
    if manifest.manifests:
        yield Flaw("/manifests", "belongs to an index, not to a manifest")
    yield from _descriptor(manifest.config, "/config")
    if not manifest.layers:
        yield Flaw("/layers", "is empty: the image has no file", fatal=False)
    for number, one in enumerate(manifest.layers):
        yield from _descriptor(one, at("/layers", number))
    if manifest.subject:
        yield from _descriptor(manifest.subject, "/subject")


def _descriptor(one: Descriptor, pointer: str) -> Iterator[Flaw]:
    yield from _digest(one.digest, at(pointer, "digest"))
    if one.data:
        try:
            held = len(a2b_base64(one.data, strict_mode=True))
        except (Error, ValueError):
            yield Flaw(at(pointer, "data"), "is not base64")
        else:
            if held != one.size:
                yield Flaw(at(pointer, "data"), f"holds {held} bytes, not {one.size}")
    if "" in one.annotations:
        yield Flaw(at(pointer, "annotations", ""), "a key must not be empty")


def _digest(digest: str, pointer: str) -> Iterator[Flaw]:
    algorithm, _, encoded = digest.partition(":")
    if not _GRAMMAR.fullmatch(digest):
        yield Flaw(pointer, f"{escaped(digest)} is not a digest")
    elif algorithm not in _HEX:
        yield Flaw(
            pointer, f"{escaped(digest)} cannot be verified: {escaped(algorithm)} is not known here", fatal=False
        )
    elif not _HEX[algorithm].fullmatch(encoded):
        yield Flaw(pointer, f"{escaped(digest)} is not a {algorithm} digest in lower-case hexadecimal")


def _config(config: ImageConfig) -> Iterator[Flaw]:
    for name, value in (("architecture", config.architecture), ("os", config.os)):
        if not value:
            yield Flaw(at("", name), "must not be empty")
    for number, digest in enumerate(config.rootfs.diff_ids):
        yield from _digest(digest, at("/rootfs/diff_ids", number))
    filled = [one for one in config.history or () if not one.empty_layer]
    if config.history and len(filled) != len(config.rootfs.diff_ids):
        said = f"names {len(filled)} layers, /rootfs/diff_ids {len(config.rootfs.diff_ids)}"
        yield Flaw("/history", said, fatal=False)
    if config.config:
        yield from _settings(config.config)


def _settings(given: ImageSettings) -> Iterator[Flaw]:
    for number, entry in enumerate(given.env or ()):
        if entry.find("=") < 1:
            yield Flaw(at("/config/Env", number), f"{escaped(entry)} is not of the form NAME=value", fatal=False)
    if given.working_dir and not given.working_dir.startswith("/"):
        yield Flaw("/config/WorkingDir", f"{escaped(given.working_dir)} is not absolute", fatal=False)
    for port in given.exposed_ports or ():
        if not _PORT.fullmatch(port):
            yield Flaw(at("/config/ExposedPorts", port), f"{escaped(port)} is not a port such as 80/tcp", fatal=False)
    if given.stop_signal:
        try:
            signal(given.stop_signal)
        except InvalidName:
            yield Flaw("/config/StopSignal", f"{escaped(given.stop_signal)} is not a signal", fatal=False)

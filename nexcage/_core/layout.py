"""Images in layouts: from the index to the one manifest that a tag and a platform mean (image-spec 1.1).

Documents come from strangers: what they say is believed only where its digest was compared, and what cannot be read raises
InvalidImage. Unknown properties, media types and files are nobody's business and are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from typing import Any, TypeVar

import msgspec

from nexcage.errors import InvalidImage, UnsupportedImage

__all__ = [
    "DOCUMENT_MOST",
    "Chosen",
    "ContainerConfig",
    "Descriptor",
    "ImageConfig",
    "Manifest",
    "Platform",
    "archive_config",
    "choose",
    "decoded",
]

T = TypeVar("T")

DOCUMENT_MOST = 4 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_INDEXES = frozenset(
    {"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"}
)
_MANIFESTS = frozenset(
    {"application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"}
)
_CONFIGS = frozenset({"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"})
_LAYER = re.compile(
    r"application/vnd\.(oci\.image\.layer\.(nondistributable\.)?v1\.tar(\+gzip|\+zstd)?|docker\.image\.rootfs\.(foreign\.)?diff\.tar(\.gzip|\.zstd)?)"
)
_REF = "org.opencontainers.image.ref.name"
_NAME = "io.containerd.image.name"
_NESTED = 4


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    """An object of these documents; what is null counts as left out."""


class Platform(_Document, frozen=True):
    architecture: str = ""
    os: str = ""
    variant: str | None = None

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    def suits(self, wanted: Platform) -> bool:
        """Whether what is for this platform runs on ``wanted``."""
        same = (self.os, self.architecture) == (wanted.os, wanted.architecture)
        return same and (not self.variant or not wanted.variant or self.variant == wanted.variant)


class Descriptor(_Document, frozen=True):
    """Where a blob is and what it is; ``digest`` and ``size`` are checked for their form when decoded."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] | None = None
    platform: Platform | None = None

    def __post_init__(self) -> None:
        if not _DIGEST.fullmatch(self.digest):
            raise ValueError(f"digest {self.digest[:80]!a} is not sha256: or sha512: and hex digits")
        if not 0 <= self.size < 1 << 62:
            raise ValueError(f"size {self.size} is no size")

    @property
    def blob(self) -> str:
        """Its path in a layout."""
        return "blobs/" + self.digest.replace(":", "/")


class _Index(_Document, frozen=True):
    manifests: tuple[Descriptor, ...] | None = None
    schema_version: int = 2


class Manifest(_Document, frozen=True):
    config: Descriptor
    layers: tuple[Descriptor, ...] | None = None
    schema_version: int = 2


class ContainerConfig(msgspec.Struct, frozen=True, rename="pascal"):
    user: str | None = None
    exposed_ports: Mapping[str, Any] | None = None  # Any: a set, as Go writes it
    env: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: Mapping[str, Any] | None = None  # Any: a set, as Go writes it
    working_dir: str | None = None
    labels: Mapping[str, str] | None = None
    stop_signal: str | None = None


class _Rootfs(msgspec.Struct, frozen=True):
    diff_ids: tuple[str, ...] | None = None
    type: str = "layers"


class ImageConfig(msgspec.Struct, frozen=True):
    """What an image says of itself. ``config`` and its properties may be null."""

    architecture: str
    os: str
    rootfs: _Rootfs
    variant: str | None = None
    author: str | None = None
    created: str | None = None
    config: ContainerConfig | None = None

    @property
    def platform(self) -> Platform:
        return Platform(self.architecture, self.os, self.variant)

    @property
    def diff_ids(self) -> tuple[str, ...]:
        return self.rootfs.diff_ids or ()


class Chosen(msgspec.Struct, frozen=True):
    """The image that was meant: its manifest, and its config, whose digest says all of it."""

    digest: str
    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        return self.manifest.layers or ()


def decoded(where: str, data: bytes, kind: type[T]) -> T:
    """A document; raises InvalidImage."""
    if len(data) > DOCUMENT_MOST:
        raise InvalidImage(where, f"it has {len(data)} bytes, more than {DOCUMENT_MOST}")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        raise InvalidImage(where, str(error)) from None
    except RecursionError:
        raise InvalidImage(where, "it is nested too deep") from None


def choose(index: bytes, tag: str, wanted: Platform) -> Generator[Descriptor, bytes, Chosen]:
    """Gives descriptors to be sent their blobs (compared already); returns the image of ``tag`` (empty: the only one) for ``wanted``.

    Raises InvalidImage, and UnsupportedImage naming what there is.
    """
    top = decoded("index.json", index, _Index).manifests or ()
    named = [one for one in top if not tag or tag in _tags(one)]
    if not named:
        raise UnsupportedImage("image", tag, f"one of the tags that are there: {_listed(top)}")
    found: list[tuple[str, Descriptor]] = []
    others: list[Platform] = []
    for one in named:
        leaves = yield from _leaves(one, wanted, others, _NESTED)
        found += [(one.digest, leaf) for leaf in leaves]
    digests = {leaf.digest for _, leaf in found}
    if not tag and len(digests) > 1:
        roots = [one for one in named if any(root == one.digest for root, _ in found)]
        latest = [one for one in roots if "latest" in _tags(one)] if _several(roots) else roots
        if not latest:
            raise UnsupportedImage("image", "", f"PATH:TAG, with one of the tags that are there: {_listed(roots)}")
        found = [(root, leaf) for root, leaf in found if root == latest[0].digest] if _several(roots) else found
    for _, leaf in sorted(found, key=lambda pair: _rank(pair[1], wanted)):
        chosen = yield from _image(leaf)
        if chosen is None:
            continue
        if chosen.config.platform.suits(wanted):
            return chosen
        others.append(chosen.config.platform)
    if others:
        have = ", ".join(dict.fromkeys(str(one) for one in others))
        raise UnsupportedImage("image", str(wanted), f"a platform that the image is made for: {have}")
    raise UnsupportedImage("image", tag, "an image of a root file system; there are only other artifacts")


def _leaves(
    one: Descriptor, wanted: Platform, others: list[Platform], depth: int
) -> Generator[Descriptor, bytes, list[Descriptor]]:
    if one.platform is not None and not one.platform.suits(wanted):
        if one.platform.os != "unknown":  # what builders attach beside images
            others.append(one.platform)
        return []
    if one.media_type in _MANIFESTS:
        return [one]
    if one.media_type not in _INDEXES:
        return []
    if not depth:
        raise InvalidImage(one.digest, "indexes are nested too deep")
    found: list[Descriptor] = []
    inner = decoded(one.digest, (yield one), _Index)
    for next_ in inner.manifests or ():
        found += yield from _leaves(next_, wanted, others, depth - 1)
    return found


def _image(leaf: Descriptor) -> Generator[Descriptor, bytes, Chosen | None]:
    manifest = decoded(leaf.digest, (yield leaf), Manifest)
    if manifest.config.media_type not in _CONFIGS:
        return None
    config = decoded(manifest.config.digest, (yield manifest.config), ImageConfig)
    layers = manifest.layers or ()
    if len(config.diff_ids) != len(layers):
        raise InvalidImage(leaf.digest, f"it has {len(layers)} layers, and its config {len(config.diff_ids)}")
    for layer in layers:
        if not _LAYER.fullmatch(layer.media_type):
            raise UnsupportedImage("image", layer.media_type, "layers that are tar archives, plain or by gzip or zstd")
    return Chosen(leaf.digest, leaf, manifest, config)


def _rank(leaf: Descriptor, wanted: Platform) -> int:
    return 0 if leaf.platform is not None and leaf.platform.variant == wanted.variant else 1


def _several(roots: list[Descriptor]) -> bool:
    return len({tuple(sorted(_tags(one))) for one in roots}) > 1


def _tags(one: Descriptor) -> set[str]:
    """All names that a tag may be given by: ``1.2``, ``docker.io/library/nginx:1.2``."""
    given = one.annotations or {}
    return _alike({given[key] for key in (_REF, _NAME) if key in given})


def _alike(names: set[str]) -> set[str]:
    """``docker.io/library/nginx:1.2`` is also called ``nginx:1.2`` and ``1.2``."""
    names |= {name.removeprefix("docker.io/").removeprefix("library/") for name in names}
    return names | {name.rpartition(":")[2] for name in names if ":" in name}


def _listed(descriptors: tuple[Descriptor, ...] | list[Descriptor]) -> str:
    names = sorted({(one.annotations or {}).get(_REF, "") for one in descriptors} - {""})
    return ", ".join(name[:80] for name in names[:12]) or "none"


# ---- docker-archive --------------------------------------------------------------------------------------------------------


class _Saved(msgspec.Struct, frozen=True):
    config: str = msgspec.field(name="Config")
    repo_tags: tuple[str, ...] | None = msgspec.field(name="RepoTags", default=None)


def archive_config(manifest: bytes, tag: str) -> tuple[str, int]:
    """The member with the config, and the place of the image in a ``docker save``; raises InvalidImage, UnsupportedImage."""
    saved = decoded("manifest.json", manifest, tuple[_Saved, ...])
    named = [at for at, one in enumerate(saved) if not tag or tag in _saved_tags(one)]
    if len(named) == 1:
        return saved[named[0]].config, named[0]
    have = ", ".join(sorted(name for one in saved for name in one.repo_tags or ())[:12]) or "none"
    raise UnsupportedImage("image", tag, f"PATH:TAG, with one of the tags that are there: {have}")


def _saved_tags(one: _Saved) -> set[str]:
    return _alike(set(one.repo_tags or ()))

"""Images in layouts: from the index to the one manifest that a tag and a platform mean (image-spec 1.1).

What a document says is believed only where its digest was compared. Unknown media types and files are nobody's business and are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence

import msgspec

from nexcage._core.bundle.image import Descriptor, ImageConfig, ImageManifest, Platform
from nexcage._core.bundle.image_rules import decode_image_config, decode_index, decode_manifest
from nexcage.errors import InvalidImage, UnsupportedImage

__all__ = ["DOCUMENT_MOST", "Chosen", "Wanted", "archive_config", "blob_of", "choose", "shown", "suits"]

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
    r"application/vnd\.(oci\.image\.layer\.(nondistributable\.)?v1\.tar(\+gzip|\+zstd)?"
    r"|docker\.image\.rootfs\.(foreign\.)?diff\.tar(\.gzip|\.zstd)?)"
)
_REF = "org.opencontainers.image.ref.name"
_NAME = "io.containerd.image.name"
_NESTED = 4
_DOCUMENTS = 256  # that are read for one image; indexes that name each other lead to as many as somebody wants
_ENTRIES = 1000  # of an index within an index


class Wanted(msgspec.Struct, frozen=True):
    """The platform that an image is to run on."""

    architecture: str
    os: str = "linux"
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


class Chosen(msgspec.Struct, frozen=True):
    """The image that was meant: its manifest, and its config, whose digest says all of it."""

    descriptor: Descriptor
    manifest: ImageManifest
    config: ImageConfig

    @property
    def digest(self) -> str:
        return self.descriptor.digest


def blob_of(descriptor: Descriptor) -> str:
    """Its path in a layout; raises InvalidImage for a digest that cannot be compared."""
    if not _DIGEST.fullmatch(descriptor.digest):
        raise InvalidImage(descriptor.digest[:100], "its digest is neither sha256 nor sha512")
    return "blobs/" + descriptor.digest.replace(":", "/")


def suits(one: Platform | ImageConfig, wanted: Wanted) -> bool:
    """Whether what is for this platform runs on ``wanted``."""
    same = (one.os, one.architecture) == (wanted.os, wanted.architecture)
    return same and (not one.variant or not wanted.variant or one.variant == wanted.variant)


def shown(one: Platform | ImageConfig) -> str:
    return "/".join(part for part in (one.os, one.architecture, one.variant) if part)


def choose(index: bytes, tag: str, wanted: Wanted) -> Generator[Descriptor, bytes, Chosen]:
    """Gives descriptors to be sent their blobs (compared already); returns the image of ``tag`` (empty: the only one) for ``wanted``.

    Raises InvalidBundle and InvalidImage, and UnsupportedImage naming what there is.
    """
    top = decode_index(index).document.manifests
    named = [one for one in top if not tag or tag in _tags(one)]
    if not named:
        raise UnsupportedImage("image", tag, f"one of the tags that are there: {_listed(top)}")
    found: list[tuple[Descriptor, Descriptor]] = []
    others: list[str] = []
    left = iter(range(_DOCUMENTS))
    for one in named:
        leaves = yield from _leaves(one, wanted, others, left, _NESTED)
        found += [(one, leaf) for leaf in leaves]
    for _, leaf in sorted(_meant(found, tag), key=lambda pair: _rank(pair[1], wanted)):
        chosen = yield from _image(leaf, left)
        if chosen is not None and suits(chosen.config, wanted):
            return chosen
        if chosen is not None:
            others.append(shown(chosen.config))
    if others:
        have = ", ".join(dict.fromkeys(others))
        raise UnsupportedImage("image", str(wanted), f"a platform that the image is made for: {have}")
    raise UnsupportedImage("image", tag, "an image of a root file system; there are only other artifacts")


def _meant(found: list[tuple[Descriptor, Descriptor]], tag: str) -> list[tuple[Descriptor, Descriptor]]:
    """Those of one name: where no tag says which, they have but one, or one is called ``latest``."""
    names = {tuple(sorted(_tags(root))) for root, _ in found}
    if tag or len(names) < 2 or len({leaf.digest for _, leaf in found}) < 2:
        return found
    latest = [pair for pair in found if "latest" in _tags(pair[0])]
    if not latest:
        there = _listed([root for root, _ in found])
        raise UnsupportedImage("image", "", f"PATH:TAG, with one of the tags that are there: {there}")
    return latest


def _leaves(
    one: Descriptor, wanted: Wanted, others: list[str], left: Iterator[int], depth: int
) -> Generator[Descriptor, bytes, list[Descriptor]]:
    if one.platform and not suits(one.platform, wanted):
        if one.platform.os != "unknown":  # what builders attach beside images
            others.append(shown(one.platform))
        return []
    if one.media_type in _MANIFESTS:
        return [one]
    if one.media_type not in _INDEXES:
        return []
    if not depth:
        raise InvalidImage(one.digest, "indexes are nested too deep")
    found: list[Descriptor] = []
    data = yield from _document(one, left)
    inside = decode_index(data).document.manifests
    if len(inside) > _ENTRIES:
        raise InvalidImage(one.digest, f"an index within an index has {len(inside)} entries, more than {_ENTRIES}")
    for inner in inside:
        found += yield from _leaves(inner, wanted, others, left, depth - 1)
    return found


def _document(one: Descriptor, left: Iterator[int]) -> Generator[Descriptor, bytes, bytes]:
    if next(left, None) is None:
        raise InvalidImage(
            "index.json", f"it leads to more than {_DOCUMENTS} documents; a tag says which image is meant"
        )
    return (yield one)


def _image(leaf: Descriptor, left: Iterator[int]) -> Generator[Descriptor, bytes, Chosen | None]:
    manifest = decode_manifest((yield from _document(leaf, left))).document
    if manifest.config.media_type not in _CONFIGS:
        return None
    config = decode_image_config((yield manifest.config)).document
    if len(config.rootfs.diff_ids) != len(manifest.layers):
        raise InvalidImage(
            leaf.digest, f"it has {len(manifest.layers)} layers, and its config {len(config.rootfs.diff_ids)}"
        )
    for layer in manifest.layers:
        if not _LAYER.fullmatch(layer.media_type):
            raise UnsupportedImage("image", layer.media_type, "layers that are tar archives, plain or by gzip or zstd")
    return Chosen(leaf, manifest, config)


def _rank(leaf: Descriptor, wanted: Wanted) -> int:
    return 0 if leaf.platform and (leaf.platform.variant or "") == wanted.variant else 1


def _tags(one: Descriptor) -> set[str]:
    return _alike({one.annotations[key] for key in (_REF, _NAME) if key in one.annotations})


def _alike(names: set[str]) -> set[str]:
    """``docker.io/library/nginx:1.2`` is also called ``nginx:1.2`` and ``1.2``."""
    names |= {name.removeprefix("docker.io/").removeprefix("library/") for name in names}
    return names | {name.rpartition(":")[2] for name in names if ":" in name}


def _listed(descriptors: Sequence[Descriptor]) -> str:
    names = sorted({one.annotations.get(_REF, "") for one in descriptors} - {""})
    return ", ".join(name[:80] for name in names[:12]) or "none"


# ---- docker-archive --------------------------------------------------------------------------------------------------------


class _Saved(msgspec.Struct, frozen=True):
    config: str = msgspec.field(name="Config")
    repo_tags: tuple[str, ...] | None = msgspec.field(name="RepoTags", default=None)


def archive_config(manifest: bytes, tag: str) -> tuple[str, int]:
    """The member with the config, and the place of the image in a ``docker save``; raises InvalidImage, UnsupportedImage."""
    try:
        saved = msgspec.json.decode(manifest, type=tuple[_Saved, ...])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidImage("manifest.json", str(error)) from None
    named = [at for at, one in enumerate(saved) if not tag or tag in _alike(set(one.repo_tags or ()))]
    if len(named) == 1:
        return saved[named[0]].config, named[0]
    have = ", ".join(sorted(name for one in saved for name in one.repo_tags or ())[:12]) or "none"
    raise UnsupportedImage("image", tag, f"PATH:TAG, with one of the tags that are there: {have}")

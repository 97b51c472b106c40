"""Images on nodes as values: what a node has, what a pulled one is called there, and what is like a name that it has not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Literal
from zlib import crc32

import msgspec

from nexcage.errors import UnsupportedImage
from nexcage.names import ImageRef

__all__ = ["Image", "ImageStore", "Shelf", "Template", "closest", "volume_of"]


class Image(msgspec.Struct, frozen=True):
    """An image that a node has. ``volume`` is PVE's id of it, ``local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst``; ``kind``
    ``vztmpl`` (containers are made from it), ``iso`` or ``import`` (virtual machines), or ``content``: a root file system that crun and
    runc make containers from, by its digest ``sha256:HEX``. ``size`` in bytes, ``at`` Unix seconds.
    """

    volume: str
    node: str
    kind: Literal["vztmpl", "iso", "import", "content"] = "vztmpl"
    size: int = 0
    at: int = 0

    @property
    def storage(self) -> str:
        return "" if self.kind == "content" else self.volume.partition(":")[0]

    @property
    def name(self) -> str:
        return self.volume if self.kind == "content" else self.volume.partition("/")[2]


class Template(msgspec.Struct, frozen=True):
    """A template that PVE offers for download (`pveam available`)."""

    name: str
    section: str
    arch: str = ""


class ImageStore(msgspec.Struct, frozen=True):
    """A storage that may hold images, as ``storage.cfg`` describes it. ``nodes`` empty: every node has it."""

    name: str
    kind: str
    content: frozenset[str]
    nodes: frozenset[str] = frozenset()
    shared: bool = False
    disabled: bool = False

    def refusal(self, pve: str, kind: str = "vztmpl") -> str:
        """Why images of ``kind`` cannot be taken from it on the node called ``pve``; empty when they can."""
        if self.disabled:
            return "is disabled"
        if self.nodes and pve and pve not in self.nodes:
            return f"is not available there, only on {', '.join(sorted(self.nodes))}"
        if kind not in self.content:
            return f"has no content type {kind}"
        return ""


class Shelf(msgspec.Struct, frozen=True):
    """What one look at the images of a node showed. ``files``: whether paths that were asked for exist there; ``pve``: the node's
    own name.
    """

    stores: Mapping[str, ImageStore]
    images: tuple[Image, ...]
    files: Mapping[str, bool] = {}
    pve: str = ""

    def image(self, volume: str) -> Image | None:
        return next((image for image in self.images if image.volume == volume), None)


def volume_of(image: ImageRef, storage: str) -> str:
    """The volume that a reference is pulled to: ``local:vztmpl/nginx_1.29.tar``. Raises UnsupportedImage for a digest.

    A name that PVE itself would give where that is unambiguous, else with a checksum of the whole reference.
    """
    if image.digest is not None or image.tag is None:
        raise UnsupportedImage("image", image.text, "NAME:TAG: Proxmox VE pulls tags, not digests")
    whole = f"{image.registry}/{image.repository}"
    plain = whole.removeprefix("docker.io/library/")
    name = f"{re.sub('[^a-zA-Z0-9.-]', '_', plain)}_{image.tag}"
    if not re.fullmatch(r"[a-z0-9.-]+", plain):
        name += f"-{crc32(str(image).encode()):08x}"
    if len(name) > 200:
        raise UnsupportedImage("image", image.text, "a name and tag of at most 200 characters to pull it")
    return f"{storage}:vztmpl/{name}.tar"


def closest(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The known names most like ``name``: those that begin with the same system and version first, then by likeness."""
    names = sorted(set(known))
    stem = re.match(r"[a-z]+-?[0-9.]*", name.lower())
    alike = [other for other in names if stem and len(stem[0]) > 2 and other.lower().startswith(stem[0])]
    near = get_close_matches(name, names, most, 0.5)
    return list(dict.fromkeys([*(other for other in near if other in alike), *alike, *near]))[:most]

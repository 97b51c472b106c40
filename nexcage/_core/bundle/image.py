"""Documents of an OCI image (image-spec 1.1): layout, index, manifest, configuration.

In the configuration ``null`` is the same as absent, because builders write both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType, field

from nexcage._core.bundle.kinds import Section, Strings, Texts

__all__ = [
    "Descriptor",
    "History",
    "ImageConfig",
    "ImageIndex",
    "ImageLayout",
    "ImageManifest",
    "ImageRootfs",
    "ImageSettings",
    "Platform",
]

_MediaType: TypeAlias = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}\Z")
]
_Digest: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+\Z")]
_Size: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class ImageLayout(Section, frozen=True, kw_only=True):
    """``oci-layout``."""

    image_layout_version: Literal["1.0.0"]


class Platform(Section, frozen=True, kw_only=True):
    architecture: str
    os: str
    os_version: str | UnsetType = field(default=UNSET, name="os.version")
    os_features: Strings = field(default=(), name="os.features")
    variant: str | UnsetType = UNSET


class Descriptor(Section, frozen=True, kw_only=True):
    """Where a blob is: ``digest`` names it and proves it, ``size`` is in bytes."""

    media_type: _MediaType
    digest: _Digest
    size: _Size
    urls: Strings = ()
    annotations: Texts = {}  # noqa: RUF012 (msgspec copies it)
    data: str | UnsetType = UNSET
    artifact_type: _MediaType | UnsetType = UNSET
    platform: Platform | UnsetType = UNSET


class ImageIndex(Section, frozen=True, kw_only=True):
    """``index.json``. ``config`` and ``layers`` are a manifest's: their presence makes a document that two readers read differently."""

    schema_version: Literal[2]
    manifests: tuple[Descriptor, ...]
    media_type: _MediaType | UnsetType = UNSET
    artifact_type: _MediaType | UnsetType = UNSET
    subject: Descriptor | UnsetType = UNSET
    annotations: Texts = {}  # noqa: RUF012 (msgspec copies it)
    config: Any = UNSET  # Any: only its presence matters
    layers: Any = UNSET  # Any: as above


class ImageManifest(Section, frozen=True, kw_only=True):
    """``layers`` from the lowest to the highest. ``manifests`` is an index's (see `ImageIndex`)."""

    schema_version: Literal[2]
    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: _MediaType | UnsetType = UNSET
    artifact_type: _MediaType | UnsetType = UNSET
    subject: Descriptor | UnsetType = UNSET
    annotations: Texts = {}  # noqa: RUF012 (msgspec copies it)
    manifests: Any = UNSET  # Any: as above


class ImageSettings(Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    """How the image wants to be run: the part ``config`` of the configuration."""

    user: str | None = None
    exposed_ports: Mapping[str, Mapping[str, Any]] | None = None  # Any: the specification wants an empty object
    env: Strings | None = None
    entrypoint: Strings | None = None
    cmd: Strings | None = None
    volumes: Mapping[str, Mapping[str, Any]] | None = None  # Any: as above
    working_dir: str | None = None
    labels: Texts | None = None
    stop_signal: str | None = None
    args_escaped: bool | None = None


class ImageRootfs(Struct, frozen=True, kw_only=True):
    """``diff_ids`` are the digests of the layers' tar streams before compression, lowest first."""

    type: Literal["layers"]
    diff_ids: Strings


class History(Struct, frozen=True, kw_only=True, omit_defaults=True):
    created: str | None = None
    author: str | None = None
    created_by: str | None = None
    comment: str | None = None
    empty_layer: bool | None = None


class ImageConfig(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The image's configuration; ``config`` says how it is to be run."""

    architecture: str
    os: str
    rootfs: ImageRootfs
    created: str | None = None
    author: str | None = None
    variant: str | None = None
    os_version: str | None = field(default=None, name="os.version")
    os_features: Strings | None = field(default=None, name="os.features")
    config: ImageSettings | None = None
    history: tuple[History, ...] | None = None

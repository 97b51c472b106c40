"""Documents of the OCI specifications as values, and what is wrong with one that is not valid. Pure: nothing is opened or run.

Each ``decode_*`` takes bytes (or text) that somebody else wrote and gives a `Decoded`: the document with types, and warnings. What is not
valid raises `nexcage.InvalidBundle` with a JSON pointer and a reason, and nothing else is ever raised for it. Unknown properties
are ignored, as the specifications say; unknown values of known properties are not.

A property that a document leaves out is `msgspec.UNSET` (which is falsy), ``()``, ``{}`` or a section without properties.
"""

from __future__ import annotations

from nexcage._core.bundle import Config, Decoded, Linux, Notice, Process, Resources, Seccomp, decode_config
from nexcage._core.bundle.features import Features, decode_features
from nexcage._core.bundle.image import Descriptor, ImageConfig, ImageIndex, ImageLayout, ImageManifest
from nexcage._core.bundle.image_rules import decode_image_config, decode_index, decode_layout, decode_manifest
from nexcage._core.bundle.parts import decode_process, decode_resources
from nexcage._core.bundle.state import ContainerState, decode_state

__all__ = [
    "Config",
    "ContainerState",
    "Decoded",
    "Descriptor",
    "Features",
    "ImageConfig",
    "ImageIndex",
    "ImageLayout",
    "ImageManifest",
    "Linux",
    "Notice",
    "Process",
    "Resources",
    "Seccomp",
    "decode_config",
    "decode_features",
    "decode_image_config",
    "decode_index",
    "decode_layout",
    "decode_manifest",
    "decode_process",
    "decode_resources",
    "decode_state",
]

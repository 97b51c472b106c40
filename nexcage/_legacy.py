"""Reading the JSON configuration of NexCage."""

from __future__ import annotations

import json
import os
from pathlib import Path

from nexcage._core import config as _config
from nexcage._core.legacy import ConvertedConfig, convert
from nexcage.errors import InvalidInput, InvalidPath, InvalidSpec

__all__ = ["convert_config"]

_LARGEST = 1 << 20


def convert_config(path: str | os.PathLike[str]) -> ConvertedConfig:
    """What NexCage's ``config.json`` (or the older ``proxmox-lxcri.json``) means as settings, and what has no counterpart.

    Raises InvalidPath for a file that cannot be read and InvalidSpec, with the line, for one that is no such configuration.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(_LARGEST + 1)
    except (OSError, TypeError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InvalidPath("config", path, f"a readable file ({why})") from None
    if len(data) > _LARGEST:
        raise InvalidSpec("config", str(path), "at most 1 MiB")
    try:
        document: object = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InvalidSpec("config", str(path), f"JSON ({error})") from None
    try:
        converted = convert(document)
        _config.read(converted.config)
    except InvalidInput as error:
        error.add_note(f"said in: {path}")
        raise
    return converted

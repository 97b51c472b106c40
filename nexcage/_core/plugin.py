"""What is known about a plugin, and what the configuration says about it; loading one is elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from nexcage.errors import InvalidSpec

__all__ = ["GROUPS", "Plugin", "PluginConfig", "configured"]

GROUPS = ("backends", "sinks", "placements", "hooks", "commands", "health")
"""The entry-point groups are these with ``nexcage.`` before them."""


class PluginConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[plugins.NAME]``, for the plugins called NAME in every group; the NAME ``"*"`` is for those without a table of their own.

    ``settings`` are the keywords that the plugin is made with. ``timeout`` (seconds, 0: the plugin's own) bounds each call of a hook,
    and ``policy`` (empty: the plugin's own) says what becomes of an operation when a hook fails.
    """

    enabled: bool = True
    timeout: float = 0.0
    policy: Literal["", "skip", "retry", "abort"] = ""
    settings: Mapping[str, Any] = {}  # Any: TOML values; the plugin says what it takes

    def __post_init__(self) -> None:
        if not 0 <= self.timeout <= 3600:
            raise InvalidSpec("plugins.timeout", self.timeout, "seconds from 0 to 3600")


class Plugin(msgspec.Struct, frozen=True, omit_defaults=False):
    """One installed plugin. ``state``: ``on``, ``off`` (by the configuration) or ``failed``; ``why`` says what was wrong with it."""

    name: str
    group: str
    package: str
    version: str
    state: Literal["on", "off", "failed"]
    why: str = ""


def configured(settings: Mapping[str, PluginConfig], name: str) -> PluginConfig:
    """What holds for the plugin of that name."""
    return settings.get(name) or settings.get("*") or PluginConfig()

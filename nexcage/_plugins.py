"""Plugins: what other installed packages add, by the entry-point groups ``nexcage.backends``, ``sinks``, ``placements``, ``hooks``,
``commands`` and ``health``.

One that is installed is plugged in, unless the configuration says ``[plugins.NAME] enabled = false``. What cannot be loaded is named
in the log and left out. Asking the packages of an environment is slow, so whether any of them has something for us is found out
from the files first, which is quick.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from nexcage._core.plugin import GROUPS, Plugin, PluginConfig, configured
from nexcage._engine.hooks import BREAKS, VERBS, Around, Hooked
from nexcage._engine.placement import PLACEMENTS
from nexcage.abc import Health, Placement, Sink
from nexcage.errors import InvalidSpec

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["hooks_of", "load", "placement_of", "plugged", "plugins", "sinks_of"]

_log = logging.getLogger("nexcage")

Settings = Mapping[str, PluginConfig]
_Policy = Literal["skip", "retry", "abort"]
_POLICIES: tuple[_Policy, ...] = get_args(_Policy)


def plugged(group: str, settings: Settings) -> dict[str, Any]:  # Any: each group has a contract of its own
    """The plugins of ``group`` that are on, by name, made with their settings; what cannot be made is named in the log."""
    found: dict[str, Any] = {}
    for entry in _offered(group):
        if not configured(settings, entry.name).enabled:
            continue
        try:
            found[entry.name] = load(entry, group, settings)
        except BREAKS as error:  # one bad plugin costs only itself
            _log.warning("plugin '%s' (%s) cannot be loaded and is left out: %s", entry.name, _origin(entry), error)
    return found


def load(entry: EntryPoint, group: str, settings: Settings) -> Any:  # Any: see above
    """Make one plugin, and see that it is what its group asks for."""
    given = configured(settings, entry.name).settings
    made = entry.load()(**given)
    if reason := _misfit(group, made):
        raise TypeError(f"it is no {group} plugin: {reason}")
    return made


def plugins(settings: Settings | None = None) -> tuple[Plugin, ...]:
    """Every installed plugin with its package and whether it is on; those that are, are imported, but none is made."""
    known = settings or {}
    return tuple(_described(entry, group, known) for group in GROUPS for entry in _offered(group))


def sinks_of(settings: Settings) -> list[Sink]:
    """The sinks that are plugged in."""
    return list(plugged("sinks", settings).values())


def placement_of(settings: Settings, name: str) -> Placement:
    """The placement of that name; raises InvalidSpec when no plugin that is on has it."""
    found = plugged("placements", settings)
    if name not in found:
        raise InvalidSpec("placement", name, f"one of {', '.join((*PLACEMENTS, *found))}")
    return cast("Placement", found[name])


def hooks_of(settings: Settings, random: Random, *, inline: bool) -> Around | None:
    """All hooks that are plugged in; None when there are none, which costs an operation nothing."""
    found = plugged("hooks", settings)
    hooked: list[Hooked] = []
    for name in sorted(found):
        given, hooks = configured(settings, name), found[name]
        timeout = given.timeout or float(getattr(hooks, "timeout", 5.0))
        policy: _Policy = given.policy or cast("_Policy", getattr(hooks, "policy", "skip"))
        hooked.append(Hooked(name, hooks, timeout, policy))
    return Around(hooked, random, inline=inline) if hooked else None


def _misfit(group: str, made: object) -> str:
    """Why this cannot be a plugin of its group; empty when it can."""
    match group:
        case "hooks":
            return _no_hooks(made)
        case "sinks" if not isinstance(made, Sink):
            return "it lacks put or aclose"
        case "health" if not isinstance(made, Health):
            return "it lacks check"
        case "placements" if not callable(getattr(made, "place", None)):
            return "it lacks place"
        case "commands" if not callable(getattr(made, "run", None)):
            return "it lacks run"
        case "backends" if not isinstance(getattr(made, "name", None), str):
            return "it lacks a name"
        case _:
            return ""


def _no_hooks(made: object) -> str:
    from difflib import get_close_matches

    named = [name for name in dir(made) if name.startswith(("pre_", "post_")) or name == "failed"]
    for name in named:
        if name not in VERBS:
            close = get_close_matches(name, sorted(VERBS), 1)
            return f"nothing calls '{name}'" + (f"; did you mean '{close[0]}'?" if close else "")
    if not named:
        return f"it has none of {', '.join(sorted(VERBS))}"
    if getattr(made, "policy", "skip") not in _POLICIES:
        return f"its policy is none of {', '.join(_POLICIES)}"
    timeout: object = getattr(made, "timeout", 5.0)
    return (
        "" if isinstance(timeout, (int, float)) and 0 < timeout <= 3600 else "its timeout is not in 0 to 3600 seconds"
    )


def _described(entry: EntryPoint, group: str, settings: Settings) -> Plugin:
    package, version = _package(entry)
    state: Literal["on", "off", "failed"] = "on" if configured(settings, entry.name).enabled else "off"
    why = ""
    if state == "on":
        try:
            _examine(entry, group, settings)
        except BREAKS as error:  # it is what is shown
            state, why = "failed", f"{type(error).__name__}: {error}"
    return Plugin(entry.name, group, package, version, state, why)


def _examine(entry: EntryPoint, group: str, settings: Settings) -> None:
    """Raise what is wrong with a plugin as far as it shows without making it."""
    import inspect

    factory = entry.load()
    inspect.signature(factory).bind(**configured(settings, entry.name).settings)
    if isinstance(factory, type) and group != "backends" and (reason := _misfit(group, factory)):
        raise TypeError(f"it is no {group} plugin: {reason}")


def _offered(group: str) -> list[EntryPoint]:
    """The entry points of other packages in ``nexcage.GROUP``, by name; the first of two with one name counts."""
    if f"nexcage.{group}" not in _groups_on(tuple(sys.path)):
        return []
    from importlib.metadata import entry_points

    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=f"nexcage.{group}"):
        if not entry.value.startswith("nexcage."):
            found.setdefault(entry.name, entry)
    return [found[name] for name in sorted(found)]


@cache
def _groups_on(path: tuple[str, ...]) -> frozenset[str]:
    """The groups that some package on ``path`` but ourselves has entries in."""
    found: set[str] = set()
    for place in path:
        try:
            with os.scandir(place or ".") as entries:
                names = [entry.name for entry in entries if entry.name.endswith((".dist-info", ".egg-info"))]
        except OSError:
            continue
        for name in names:
            if name.startswith("nexcage-"):
                continue
            try:
                text = (Path(place or ".") / name / "entry_points.txt").read_text("utf-8")
            except (OSError, ValueError):
                continue
            found.update(f"nexcage.{group}" for group in GROUPS if f"[nexcage.{group}]" in text)
    return frozenset(found)


def _package(entry: EntryPoint) -> tuple[str, str]:
    return (entry.dist.name, entry.dist.version) if entry.dist is not None else ("?", "?")


def _origin(entry: EntryPoint) -> str:
    return " ".join(_package(entry))

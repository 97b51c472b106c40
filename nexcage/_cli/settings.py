"""From global options to what ``open_fleet`` takes; and where the state lies, for commands that open no fleet."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nexcage
from nexcage._cli.parser import Call

if TYPE_CHECKING:
    from nexcage import Config

__all__ = ["fleet_options", "run_dir", "settings", "state_dir"]


def fleet_options(call: Call) -> dict[str, Any]:  # Any: the keywords of open_fleet
    """The keywords for ``open_fleet``."""
    options: dict[str, Any] = {}
    if hosts := call.many("hosts"):
        # Names with * or ? are those of ssh_config, which is read when the fleet is opened.
        options["hosts"] = hosts if any(c in word for word in hosts for c in "*?") else nexcage.hosts(hosts)
    if (discover := call.text("discover")) is not None:
        if hosts:
            raise call.usage("--hosts and --discover both say which nodes")
        options["discover"] = discover
    if (config := call.text("config")) is not None:
        options["config"] = config
    for name in ("state_dir", "run_dir"):
        if (value := call.text(name)) is not None:
            options[name] = os.path.abspath(value)
    if call.oci:
        from nexcage._cli.oci_ground import ground

        options |= {"strict_oci": True, "config": ground(call).config}
        if (root := call.text("root")) is not None:
            # With its own directories an engine gets its own fleet, however many --root it uses on one machine.
            where = os.path.abspath(root)
            options |= {"run_dir": where, "state_dir": os.path.join(where, ".nexcage")}
    return options


def settings(call: Call, origins: dict[str, str] | None = None) -> Config:
    """The configuration with the options that win over it; ``origins`` learns where each value came from."""
    import msgspec

    options = fleet_options(call)
    config = nexcage.load_config(call.text("config"), origins=origins)
    known = ("state_dir", "run_dir", "strict_oci", "hosts", "discover")
    changes = {key: options[key] for key in known if key in options}
    for one, other in (("hosts", "discover"), ("discover", "hosts")):
        if one in options:
            changes[other] = () if other == "hosts" else ""
    if origins is not None:
        origins.update(dict.fromkeys(changes, "command line"))
    return msgspec.structs.replace(config, **changes) if changes else config


def state_dir(call: Call) -> Path:
    """The directory that has the journal. Makes nothing."""
    return nexcage.state_dir_of(settings(call))


def run_dir(call: Call) -> Path:
    """The directory that has ``ID/state.json``. Makes nothing."""
    return nexcage.run_dir_of(settings(call))

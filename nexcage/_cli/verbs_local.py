"""Commands that need neither fleet nor journal: version (unless it asks nodes), completion, man."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from nexcage._cli.main import exit_status
from nexcage._cli.parser import Call
from nexcage._cli.render import as_json
from nexcage._cli.streams import Streams, one_line

if TYPE_CHECKING:
    from nexcage import Fleet, NexcageError
    from nexcage._cli.verbs_fleet import Verb

__all__ = ["completion", "man", "prepare_version", "version"]


def version(call: Call, streams: Streams) -> int:
    """``nexcage X.Y.Z``; as JSON with what it runs on, and the nodes' tools when ``--hosts`` names nodes."""
    import nexcage

    if call.words:
        raise call.usage(f"does not take the word {call.words[0]!a}")
    if call.many("hosts"):
        from nexcage._cli.verbs_fleet import with_fleet

        return with_fleet(call, streams)
    if call.text("output") == "json":
        streams.line(as_json(streams, _parts(), indent=2))
    else:
        streams.line(f"nexcage {nexcage.__version__}")
    return 0


def prepare_version(call: Call, streams: Streams) -> Verb:
    """The same for nodes: what their tools say they are; 3 when one does not answer, 1 when one is no Proxmox VE node."""
    import anyio

    import nexcage
    from nexcage.tools import health

    async def verb(fleet: Fleet) -> int:
        nodes: dict[str, dict[str, str]] = {}
        failed: list[NexcageError] = []

        async def ask(key: str) -> None:
            try:
                nodes[key] = await fleet.nodes[key].run(health.packages())
            except nexcage.NexcageError as error:
                nodes[key] = {"error": str(error)}
                failed.append(error)

        async with anyio.create_task_group() as tasks:
            for key in fleet.nodes:
                tasks.start_soon(ask, key)
        ordered = {key: nodes[key] for key in fleet.nodes}
        if call.text("output") == "json":
            streams.line(as_json(streams, {**_parts(), "nodes": ordered}, indent=2))
        else:
            streams.line(f"nexcage {nexcage.__version__}")
            for key, parts in ordered.items():
                shown = ", ".join(f"{name} {parts[name]}" for name in ("error", *_SHOWN) if name in parts)
                streams.line(one_line(f"{key}: {shown}"))
        return max((exit_status(error) for error in failed), default=0)

    return verb


_SHOWN = ("pve-manager", "pve-container", "lxc-pve", "qemu-server", "zfsutils-linux")


def _parts() -> dict[str, str]:
    """The program, Python and the libraries, with their versions."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    import nexcage

    parts: dict[str, str] = {
        "nexcage": nexcage.__version__,
        "oci": nexcage.OCI_VERSION,
        "python": sys.version.split()[0],
    }
    for name in ("anyio", "asyncssh", "msgspec", "rich"):
        try:
            parts[name] = installed(name)
        except PackageNotFoundError:
            continue
    return parts


def man(call: Call, streams: Streams) -> int:
    """The man page."""
    import nexcage
    from nexcage._cli.man import page

    if call.words:
        raise call.usage(f"does not take the word {call.words[0]!a}")
    streams.write(page(nexcage.__version__))
    return 0


def completion(call: Call, streams: Streams) -> int:
    """A script for a shell; ``completion ids``, which the scripts call, lists container ids and is silent about trouble."""
    from nexcage._cli.complete import SHELLS, script

    if call.words == ("ids",):
        for id in _known_ids(call):
            streams.line(id)
        return 0
    if len(call.words) != 1 or call.words[0] not in SHELLS:
        raise call.usage("for which shell?", f"one of: {', '.join(SHELLS)}")
    streams.write(script(call.words[0]))
    return 0


def _known_ids(call: Call) -> list[str]:
    from nexcage._cli.settings import run_dir
    from nexcage.errors import NexcageError

    try:
        with os.scandir(run_dir(call)) as entries:
            return sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            )
    except (OSError, NexcageError):
        return []

"""Commands that need neither fleet nor journal: version, completion, man."""

from __future__ import annotations

import os
import sys

from nexcage._cli.parser import Call
from nexcage._cli.render import as_json
from nexcage._cli.streams import Streams

__all__ = ["completion", "man", "version"]


def version(call: Call, streams: Streams) -> int:
    """``nexcage X.Y.Z``; as JSON with what it runs on."""
    import nexcage

    if call.words:
        raise call.usage(f"does not take the word {call.words[0]!a}")
    if call.text("output") != "json":
        streams.line(f"nexcage {nexcage.__version__}")
        return 0
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

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
    streams.line(as_json(streams, parts, indent=2))
    return 0


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

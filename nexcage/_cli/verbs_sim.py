"""``nexcage sim``: a simulated cluster to play with. It is never chosen silently: somebody said ``sim up``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from nexcage._cli.dialects import number
from nexcage._cli.parser import Call
from nexcage._cli.render import as_json
from nexcage._cli.streams import Streams

__all__ = ["sim"]

_FIRST = ("seq", "at", "node", "op_id", "step", "epoch", "claim", "argv", "exit", "changed")


def sim(call: Call, streams: Streams) -> int:
    """One of ``up down effects path fault``."""
    directory = call.text("dir")
    if not directory:
        raise call.usage("which directory?", "--dir DIR")
    directory = os.path.abspath(directory)
    if call.words and call.name != "sim fault":
        raise call.usage(f"does not take the word {call.words[0]!a}")
    match call.name:
        case "sim up":
            return _up(call, streams, directory)
        case "sim down":
            from nexcage.testing import simctl

            simctl.down(directory)
        case "sim effects":
            _effects(call, streams, directory)
        case "sim path":
            from nexcage.testing import simctl

            streams.line(str(simctl.path(directory, _node(call))))
        case _:
            _fault(call, directory)
    return 0


def _up(call: Call, streams: Streams, directory: str) -> int:
    nodes = number("nodes", call.text("nodes") or "3")
    seed = number("seed", call.text("seed") or "0")
    from nexcage.testing import simctl

    def ready(config: object) -> None:
        streams.line(str(config))
        streams.flush()

    simctl.up(nodes, directory, seed, call.flag("detach"), ready=ready)
    return 0


def _effects(call: Call, streams: Streams, directory: str) -> None:
    from nexcage.testing import simctl

    found: list[Mapping[str, Any]] = list(simctl.effects(directory))  # Any: JSON
    effects = [{key: effect[key] for key in (*_FIRST, *effect) if key in effect} for effect in found]
    if call.text("output") == "json":
        streams.line(as_json(streams, effects, indent=2))
        return
    for effect in effects:
        streams.line(as_json(streams, effect))


def _fault(call: Call, directory: str) -> None:
    from nexcage.errors import InvalidInput
    from nexcage.testing import faults, simctl

    if not call.words:
        raise call.usage("which fault?", f"one of: {', '.join(call.command.choices)}")
    words = " ".join(call.words)
    try:
        kind = faults.kind_of(words)
    except InvalidInput:
        from nexcage._cli.parser import close_to

        raise call.usage(
            f"unknown fault {words!a}", close_to(words, call.command.choices) or ", ".join(call.command.choices)
        ) from None
    simctl.fault(directory, _node(call), kind, call.text("on"), number("times", call.text("times") or "1"))


def _node(call: Call) -> str:
    node = call.text("node")
    if not node:
        raise call.usage("which node?", "--node NODE, such as pve-01")
    return node

"""``create``, ``run`` and ``kill --all`` for an OCI engine: with a runtime of this machine the container's streams are the caller's."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec

from nexcage import BackendConfig, InvalidInput, Unsupported
from nexcage._cli.console import console_socket
from nexcage._cli.dialects import creation, number, oci_refusals
from nexcage._cli.handover import Given, Handover
from nexcage._cli.main import bare
from nexcage._cli.oci_documents import has_terminal
from nexcage._cli.oci_ground import RUNTIMES, Ground, ground
from nexcage._cli.oci_run import foreground
from nexcage._cli.oci_words import spoken
from nexcage._cli.parser import Call
from nexcage._cli.settings import fleet_options
from nexcage._cli.streams import Streams
from nexcage._cli.verbs_create import prepare
from nexcage._cli.verbs_fleet import Verb, drive

if TYPE_CHECKING:
    from nexcage import Config, Fleet

__all__ = ["kill", "launch"]


def launch(call: Call, streams: Streams) -> int:
    """Make it, and for ``run`` start it and stay until its program ends, unless ``--detach``."""
    at = ground(call)
    stays = call.name == "run" and not call.flag("detach")
    verb = prepare(call, streams)
    if not at.runtime:
        _refuse(call, at, stays=stays)
        return drive(call, streams, verb, fleet_options(call))
    with ExitStack() as stack:
        options = _options(call)
        terminal: socket.socket | None = None
        if stays and call.text("console_socket") is None and has_terminal(os.path.abspath(call.text("bundle") or ".")):
            path, terminal = stack.enter_context(console_socket())
            options += ("--console-socket", path)
        given = Given(("--systemd-cgroup",) if call.flag("systemd_cgroup") else (), options)
        handed = stack.enter_context(Handover({"create": given}, _descriptors(call)))
        if stays:
            verb = foreground(call, streams, terminal)
        fleet = fleet_options(call) | {"config": _in_front(at.config, handed)}
        try:
            return drive(call, streams, _on_a_runtime(call, verb), fleet, interruptible=not stays)
        except Exception as error:
            streams.heard = handed.taken and _heard(error)
            raise


def kill(call: Call, streams: Streams) -> int:
    """``kill --all``: a runtime of this machine sends the signal to every process; elsewhere it goes to init alone."""
    from nexcage._cli.verbs_life import prepare as prepare_life

    at = ground(call)
    verb = prepare_life(call, streams)
    with Handover({"kill": Given(behind=("--all",))}, ()) as handed:
        fleet = fleet_options(call) | ({"config": _in_front(at.config, handed)} if at.here else {})
        return drive(call, streams, verb, fleet)


def _heard(error: BaseException) -> bool:
    """Whether a runtime that was given the caller's standard error has said it there."""
    own = spoken(bare(error))
    return own is not None and own.command == "create"


def _refuse(call: Call, at: Ground, *, stays: bool) -> None:
    where = f"it goes to the backend {at.backend}" + ("" if at.here else ", on another machine")
    oci_refusals(call, where)
    if stays:
        raise call.usage(f"only with --detach: {where}, so its program is no child of this process")


def _on_a_runtime(call: Call, verb: Verb) -> Verb:
    """Refuses what only a runtime can do when a rule of the configuration routes this container elsewhere."""
    id, spec = creation(call, lambda _: "")

    async def checked(fleet: Fleet) -> int:
        backend = fleet.route(id, spec).backend
        if backend not in RUNTIMES:
            oci_refusals(call, f"it is routed to the backend {backend}")
            if call.name == "run" and not call.flag("detach"):
                raise Unsupported(id, "run", backend, "in the foreground: its program is no child of this process")
        return await verb(fleet)

    return checked


def _in_front(config: Config, handed: Handover) -> Config:
    """The settings with ``handed`` in front of the programs."""
    kinds = dict(config.backends)
    for name in RUNTIMES:
        kind = kinds.get(name, BackendConfig())
        kinds[name] = BackendConfig(handed.in_front_of(kind.command or (name,)))
    return msgspec.structs.replace(config, backends=kinds)


def _options(call: Call) -> tuple[str, ...]:
    """What goes through to the runtime's create."""
    options: list[str] = [flag for flag in ("--no-pivot", "--no-new-keyring") if call.flag(flag[2:].replace("-", "_"))]
    if (path := call.text("console_socket")) is not None:
        options += ["--console-socket", os.path.abspath(path)]
    if (count := call.text("preserve_fds")) not in (None, "0"):
        options += ["--preserve-fds", str(count)]
    return tuple(options)


def _descriptors(call: Call) -> tuple[int, ...]:
    """The standard ones, and those of ``--preserve-fds``."""
    count = number("preserve-fds", call.text("preserve_fds") or "0")
    given = tuple(range(3 + count)) if count <= 200 else ()
    for descriptor in given:
        try:
            os.fstat(descriptor)
        except OSError:
            given = ()
            break
    if not given:
        raise InvalidInput("preserve-fds", count, "descriptors from 3 on that are open, 200 at most")
    return given

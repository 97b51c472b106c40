"""Which hosts a fleet has when they are not simply listed: names of ssh_config, and members of the cluster that one node is in."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import anyio
import msgspec

from nexcage._core.config import Config
from nexcage._core.hosts import Host, hosts, is_pattern, matching, ssh_hosts, words
from nexcage._engine.node import Lost, answer
from nexcage.abc import Transport
from nexcage.errors import NexcageError, NodeNotUsable, NodeTimeout, NodeUnreachable
from nexcage.tools.members import Members, members

__all__ = ["discovered", "expanded"]

_log = logging.getLogger("nexcage")
_FILES = ("~/.ssh/config", "/etc/ssh/ssh_config")
_DEPTH = 8  # of Include


def expanded(given: str | Iterable[str], ssh_config: str = "") -> tuple[str, ...]:
    """Host strings from patterns: ranges as `nexcage.hosts` reads them; with ``*`` or ``?``, the names that ssh_config has for them.

    ``ssh_config``: a file, empty for the user's and the system's, ``none`` for none. Raises InvalidName for a pattern that nothing
    matches.
    """
    given = words(given) if isinstance(given, str) else list(given)
    if not any(is_pattern(word) for word in given):
        return hosts(given)
    known = _ssh_names(ssh_config)
    return hosts([one for word in given for one in (matching(word, known) if is_pattern(word) else (word,))])


def _ssh_names(ssh_config: str) -> tuple[str, ...]:
    if ssh_config == "none":
        return ()
    found: dict[str, None] = {}
    for file in (ssh_config,) if ssh_config else _FILES:
        found |= dict.fromkeys(_names_in(Path(file).expanduser(), 0))
    return tuple(found)


def _names_in(path: Path, depth: int) -> Iterable[str]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    names, includes = ssh_hosts(text)
    yield from names
    for include in includes if depth < _DEPTH else ():
        where = os.path.join(path.parent, os.path.expanduser(include))  # noqa: PTH111, PTH118 (a pattern, not a path)
        for file in sorted(glob.glob(where)):  # noqa: PTH207 (absolute ones too)
            yield from _names_in(Path(file), depth + 1)


async def discovered(config: Config, connect: Callable[[Host], Transport]) -> tuple[Host, ...]:
    """The logins of every member of the cluster of the first node of ``config.discover`` that answers, by their PVE names.

    Address, user, port and key are those of ``[nodes.NAME]`` where it says so, else the address that the cluster uses and the seed's
    login. Raises the error of the last node when none answers.
    """
    failure: NexcageError | None = None
    for key in expanded(config.discover, config.ssh_config):
        seed = config.login(key)
        try:
            found = await _asked(seed, connect, config.limits.connect_timeout + config.limits.probe_timeout)
        except NexcageError as error:
            failure = error
            _log.info("%s does not name the nodes of its cluster: %s", key, error)
            continue
        for stranger in found.strangers:
            _log.warning("%s has guests and is no member of the cluster of %s", stranger, key)
        return tuple(_login(config, seed, name, address) for name, address in _addresses(found, seed).items())
    assert failure is not None
    raise failure


def _addresses(found: Members, seed: Host) -> dict[str, str]:
    """Of every member; a node that stands alone is the seed."""
    return {**found.addresses} or {found.name: seed.address or seed.key}


async def _asked(seed: Host, connect: Callable[[Host], Transport], patience: float) -> Members:
    transport = connect(seed)
    try:
        with anyio.fail_after(patience):
            command = members()
            return answer(command, await transport.run(command), seed.key)
    except Lost:
        raise NodeUnreachable(seed.key, "the link was lost while it was asked for the nodes of its cluster") from None
    except TimeoutError as error:
        if isinstance(error, NexcageError):
            raise
        raise NodeTimeout(seed.key, "it did not name the nodes of its cluster in time") from None
    except NexcageError as error:
        if getattr(error, "exit", None) is None:
            raise
        raise NodeNotUsable(seed.key, "it does not name the nodes of a cluster: is it a Proxmox VE node?") from error
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(5):
            await transport.aclose()


def _login(config: Config, seed: Host, name: str, address: str) -> Host:
    own, known = config.login(name), config.nodes.get(name)
    return msgspec.structs.replace(
        own,
        address=known.address if known is not None and known.address else address,
        user=own.user or seed.user,
        port=own.port or seed.port,
        identity_file=own.identity_file or seed.identity_file,
        known_hosts=own.known_hosts or seed.known_hosts,
        jump=own.jump or seed.jump,
    )

"""Parts of config.json that come as documents of their own: ``exec --process FILE`` and ``update --resources FILE``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nexcage._core.bundle.decode import Decoded, decoded
from nexcage._core.bundle.flaws import Flaw
from nexcage._core.bundle.process import Process
from nexcage._core.bundle.resources import Resources
from nexcage._core.bundle.rules_process import process_flaws
from nexcage._core.bundle.rules_resources import resource_flaws

__all__ = ["decode_process", "decode_resources"]


def decode_process(data: bytes | str) -> Decoded[Process]:
    """A ``process`` section alone. Raises InvalidBundle."""
    return decoded("process", data, Process, lambda given: _below("/process", process_flaws(given)))


def decode_resources(data: bytes | str) -> Decoded[Resources]:
    """A ``linux.resources`` section alone. Raises InvalidBundle."""
    return decoded("resources", data, Resources, lambda given: _below("/linux/resources", resource_flaws(given)))


def _below(pointer: str, flaws: Iterable[Flaw]) -> Iterator[Flaw]:
    for flaw in flaws:
        yield Flaw(flaw.pointer.removeprefix(pointer), flaw.reason, flaw.fatal, flaw.legal)

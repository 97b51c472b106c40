"""What takes long says how far it has come: on the logger ``nexcage.progress``, level INFO, after 2, 4, 8, 16 ... seconds."""

from __future__ import annotations

import logging

import anyio

__all__ = ["Telling"]

_log = logging.getLogger("nexcage.progress")
_FIRST = 2.0  # seconds; what is over by then is not worth a line
_MIB = 1 << 20


class Telling:
    """One piece of work, such as ``packing /srv/rootfs``. ``total`` in bytes, where that is known."""

    def __init__(self, what: str, total: int = 0) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._began = anyio.current_time()
        self._after = _FIRST

    def more(self, size: int) -> None:
        """So many more bytes are done."""
        self._done += size
        if anyio.current_time() - self._began < self._after:
            return
        self._after *= 2
        of = f" of {self._total // _MIB}" if self._total else ""
        _log.info("%s: %d%s MiB", self._what, self._done // _MIB, of)

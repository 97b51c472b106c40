"""How a forced stop ends a graceful one that is under way."""

from __future__ import annotations

import anyio

__all__ = ["Hurry"]


class Hurry:
    """Set when a forced stop wants a graceful one to end: what runs within `scope` is cancelled then."""

    __slots__ = ("_scope", "asked")

    def __init__(self) -> None:
        self.asked: bool = False
        self._scope: anyio.CancelScope | None = None

    def set(self) -> None:
        """End what runs in the scope now, and what enters it later."""
        self.asked = True
        if self._scope is not None:
            self._scope.cancel()

    def scope(self) -> anyio.CancelScope:
        """A scope that ends when it is set; one at a time."""
        self._scope = anyio.CancelScope()
        if self.asked:
            self._scope.cancel()
        return self._scope

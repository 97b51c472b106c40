"""A link around another one: what it does not change passes through."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from nexcage._core.command import Command, Result

if TYPE_CHECKING:
    from nexcage.abc import Stream, Transport

__all__ = ["Around"]


class Around:
    """Implements `nexcage.abc.Transport` by another one; a subclass changes what it watches or breaks."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    @property
    def claims(self) -> bool:
        return bool(getattr(self._inner, "claims", False))

    @property
    def fencing(self) -> bool:
        return bool(getattr(self._inner, "fencing", False))

    @property
    def mode(self) -> str:
        return str(getattr(self._inner, "mode", ""))

    async def run(self, command: Command[Any]) -> Result:  # Any: of whatever type its answer is
        return await self._inner.run(command)

    def stream(self, command: Command[Any]) -> AbstractAsyncContextManager[Stream]:  # Any: as above
        return self._inner.stream(command)

    async def aclose(self) -> None:
        await self._inner.aclose()

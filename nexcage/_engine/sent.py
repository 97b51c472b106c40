"""What a create on Proxmox VE works from: content of this machine that is sent to a template storage of its node, for it alone."""

from __future__ import annotations

from typing import Protocol

from nexcage._engine.contents import Packed

__all__ = ["Handed", "Sender", "Sent"]


class Sender(Protocol):
    async def __call__(self) -> None: ...


class Sent:
    """Content for one create. Until it was made ready on a node it can only be shown.

    ``given``: the archive, where that was made already.
    """

    def __init__(self, op_id: str, storage: str, name: str, given: Packed | None = None) -> None:
        self.storage: str = storage
        self.size: int = 0
        self.sources: tuple[str, ...] = ()
        self.given: Packed | None = given
        self._op_id = op_id
        self._name = name
        self._directory = "/var/lib/vz/template/cache"
        self._sender: Sender | None = None

    @property
    def template(self) -> str:
        return f"{self.storage}:vztmpl/{self._own}"

    @property
    def path(self) -> str:
        return f"{self._directory}/{self._own}"

    @property
    def _own(self) -> str:
        stem, ending = self._name.split(".", 1)
        return f"{stem}-{self._op_id}.{ending}"

    def packed(self, packed: Packed, directory: str, sender: Sender) -> None:
        """It lies in ``directory`` of the node: kept under its name, or where nobody sees it."""
        self.size, self._name, self._directory = packed.unpacked, packed.template, directory
        self._sender = sender
        self.sources = (f"{directory}/{packed.template}", f"{directory}/.{packed.template}")

    async def send(self) -> None:
        """Have it there (again)."""
        if self._sender is not None:
            await self._sender()


class Handed(Sent):
    """An image that Proxmox VE makes the container from itself."""

"""Which node takes a new container."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

from nexcage._core.spec import Spec
from nexcage.abc import Candidate
from nexcage.errors import NoRoute

__all__ = ["Spread"]


class Spread:
    """Fewest containers first, then the most free memory; ties are spread by a hash of the id. Nodes without quorum
    are left out.
    """

    def place(self, id: str, spec: Spec, nodes: Sequence[Candidate]) -> str:  # noqa: ARG002 (the contract)
        able = [node for node in nodes if node.look.quorate]
        if not able:
            raise NoRoute(f"no node for container {id!r}: none of {len(nodes)} has quorum")
        return min(able, key=lambda node: self._load(id, node)).node

    @staticmethod
    def _load(id: str, node: Candidate) -> tuple[int, int, int]:
        return (len(node.look.guests) + node.coming, -(node.look.memory // 4096), crc32(f"{id} {node.node}".encode()))

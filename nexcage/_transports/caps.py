"""Keeping the head and the tail of output that may never end, in bounded memory."""

from __future__ import annotations

__all__ = ["HeadTail"]


class HeadTail:
    """Keeps at most ``cap`` bytes of what is added: the first half and the last half. ``dropped`` counts the bytes between."""

    __slots__ = ("_head", "_head_room", "_tail", "_tail_room", "_total")

    def __init__(self, cap: int) -> None:
        self._head_room = max(cap, 0) - max(cap, 0) // 2
        self._tail_room = max(cap, 0) // 2
        self._head = bytearray()
        self._tail = bytearray()
        self._total = 0

    def add(self, data: bytes) -> None:
        self._total += len(data)
        room = self._head_room - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if data:
            self._tail += data[-self._tail_room :] if self._tail_room else b""
            # Trimming only at twice the room moves each byte once or twice, however small the pieces are.
            if len(self._tail) > 2 * self._tail_room:
                del self._tail[: len(self._tail) - self._tail_room]

    @property
    def dropped(self) -> int:
        """How many bytes were added and are not kept."""
        return max(0, self._total - self._head_room - self._tail_room)

    def __bytes__(self) -> bytes:
        return bytes(self._head) + (bytes(self._tail[-self._tail_room :]) if self._tail_room else b"")

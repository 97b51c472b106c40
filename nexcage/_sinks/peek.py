"""Looking at files without changing them, and without following a link that somebody put there."""

from __future__ import annotations

import os

__all__ = ["listed", "small", "under"]


def under(path: str, flags: int) -> int:
    """An opener that follows no link at the end of the path."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def listed(folder: str) -> list[str]:
    """What is in a directory, sorted; nothing when it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def small(path: str) -> bytes | None:
    """A small file; None when it is not there. Raises OSError when it cannot be read."""
    try:
        with open(path, "rb", opener=under) as file:
            return file.read(4 << 20)
    except FileNotFoundError:
        return None

"""Nodes that take no new containers until somebody says otherwise: one empty file each in ``STATE_DIR/cordoned``.

Making and removing a file is atomic, so processes that share the state directory need no lock for it; what is read is what is there
now, so a driver that has been open for days hears of it too.
"""

from __future__ import annotations

import os
from urllib.parse import quote, unquote

from nexcage._sinks.disk import Disk, made_directory, sync_directory
from nexcage.errors import JournalError

__all__ = ["Cordons"]

_NODE = "node="  # in front of the key, so that no key is a hidden file


class Cordons:
    """The cordoned nodes of a state directory, by key."""

    def __init__(self, state_dir: str | os.PathLike[str], disk: Disk | None = None) -> None:
        self._path: str = os.path.join(os.fspath(state_dir), "cordoned")
        self._disk: Disk = disk or Disk()

    def nodes(self) -> frozenset[str]:
        """All of them; read at once and from the directory itself, which is tiny. Raises JournalError."""
        try:
            found = os.listdir(self._path)
        except FileNotFoundError:
            return frozenset()
        except OSError as error:
            raise JournalError(f"cannot tell which nodes are cordoned: {error}") from None
        return frozenset(unquote(name[len(_NODE) :]) for name in found if name.startswith(_NODE))

    def add(self, node: str) -> bool:
        """Durably; False when it was cordoned already. Raises JournalError."""
        try:
            made_directory(self._disk, self._path)
            os.close(self._disk.open(self._file(node), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            sync_directory(self._disk, self._path)
        except FileExistsError:
            return False
        except OSError as error:
            raise JournalError(f"cannot cordon {node}: {error}") from None
        return True

    def remove(self, node: str) -> bool:
        """Durably; False when it was not cordoned. Raises JournalError."""
        try:
            self._disk.unlink(self._file(node))
            sync_directory(self._disk, self._path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise JournalError(f"cannot uncordon {node}: {error}") from None
        return True

    def _file(self, node: str) -> str:
        return os.path.join(self._path, _NODE + quote(node, safe="@:[]"))

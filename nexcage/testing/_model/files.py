"""The file tree of one simulated node: in memory, or a directory on disk that real programs can read too.

Paths are absolute, as the node sees them. Everything below ``/etc/pve`` belongs to the cluster and is the same for every
node, except ``.members``; ``/etc/pve/lxc`` and ``/etc/pve/local`` are the node's own part of it.

Some files are sums over others (``/etc/pve/.vmlist``, ``/proc/net/unix``). In memory they are computed when somebody reads
them, on disk they are written at the end of the step that changed what they are made of.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["REAL", "SIM", "DiskFiles", "Files", "MemoryFiles", "SharedTree"]

SIM = "/var/lib/nexcage-sim"
"""The node's directory for what the model knows and a real node would keep in its kernel."""
REAL = f"{SIM}/real.json"
"""What a node with real containers stands on."""

_GUEST = re.compile(r"/etc/pve/nodes/([^/]+)/(lxc|qemu-server)/([0-9]+)\.conf")


class Files(Protocol):
    """Text files by absolute path. Directories exist while something is in them."""

    def read(self, path: str) -> str | None: ...
    def write(self, path: str, text: str) -> None: ...
    def append(self, path: str, text: str) -> None: ...
    def remove(self, path: str) -> None: ...
    def names(self, directory: str) -> list[str]: ...
    def exists(self, path: str) -> bool: ...
    def guest(self, vmid: int) -> tuple[str, str] | None: ...
    def compute(self, path: str, text: Callable[[], str]) -> None: ...
    def stale(self, path: str) -> None: ...


def canonical(path: str, node: str) -> str:
    """``path`` without pmxcfs's two links to the node's own directory."""
    if path.startswith("/etc/pve/lxc"):
        return f"/etc/pve/nodes/{node}/lxc{path[12:]}"
    if path.startswith("/etc/pve/qemu-server"):
        return f"/etc/pve/nodes/{node}/qemu-server{path[20:]}"
    if path.startswith("/etc/pve/local"):
        return f"/etc/pve/nodes/{node}{path[14:]}"
    return path


class _Tree:
    """Files and the names in each directory, both flat dicts."""

    __slots__ = ("directories", "texts")

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.directories: dict[str, dict[str, None]] = {}

    def write(self, path: str, text: str) -> None:
        if path not in self.texts:
            self._enter(path)
        self.texts[path] = text

    def _enter(self, path: str) -> None:
        while path:
            parent, _, name = path.rpartition("/")
            known = self.directories.setdefault(parent, {})
            if name in known:
                return
            known[name] = None
            path = parent

    def remove(self, path: str) -> None:
        if self.texts.pop(path, None) is None:
            for name in list(self.directories.get(path, ())):
                self.remove(f"{path}/{name}")
            self.directories.pop(path, None)
        self._leave(path)

    def _leave(self, path: str) -> None:
        while path:
            parent, _, name = path.rpartition("/")
            known = self.directories.get(parent)
            if known is None or known.pop(name, 0) == 0 or known:
                return
            del self.directories[parent]
            path = parent


class SharedTree(_Tree):
    """What all nodes of a cluster in memory see below ``/etc/pve``, with pmxcfs's change counters."""

    __slots__ = ("_body", "_lines", "guests", "logs", "version")

    def __init__(self) -> None:
        super().__init__()
        self.version: int = 0
        self._lines: dict[int, str] = {}
        self._body: str | None = None
        self.guests: dict[int, tuple[str, str, int]] = {}
        self.logs: dict[str, list[str]] = {}

    def write(self, path: str, text: str) -> None:
        super().write(path, text)
        self.version += 1
        if found := _GUEST.fullmatch(path):
            self.guests[int(found[3])] = (found[1], found[2], self.version)
            self._changed(int(found[3]))

    def remove(self, path: str) -> None:
        super().remove(path)
        self.version += 1
        if found := _GUEST.fullmatch(path):
            guest = self.guests.get(int(found[3]))
            if guest is not None and guest[0] == found[1]:
                del self.guests[int(found[3])]
                self._changed(int(found[3]))

    def _changed(self, vmid: int) -> None:
        self._lines.pop(vmid, None)
        self._body = None

    def vmlist(self) -> str:
        """The text of ``/etc/pve/.vmlist``; every look reads it, so only lines that changed are made again."""
        if self._body is None:
            lines = self._lines
            for vmid in self.guests.keys() - lines.keys():
                lines[vmid] = vmlist_line(vmid, self.guests[vmid])
            self._body = ",\n".join(map(lines.__getitem__, sorted(self.guests)))
        return vmlist_text(self.version, self._body)


def vmlist_line(vmid: int, guest: tuple[str, str, int]) -> str:
    """One guest in ``/etc/pve/.vmlist``."""
    node, kind, change = guest
    return (
        f'"{vmid}": {{ "node": "{node}", "type": "{"qemu" if kind == "qemu-server" else kind}", "version": {change} }}'
    )


def vmlist_text(version: int, body: str) -> str:
    """``/etc/pve/.vmlist`` around its guests."""
    ids = f',\n"ids": {{\n{body}}}\n' if body else "\n"
    return f'{{\n"version": {version}{ids}\n}}\n'


def vmlist(version: int, guests: dict[int, tuple[str, str, int]]) -> str:
    """The text of ``/etc/pve/.vmlist``."""
    return vmlist_text(version, ",\n".join(vmlist_line(vmid, guest) for vmid, guest in sorted(guests.items())))


class MemoryFiles:
    """A node's tree in memory; ``shared`` is the part it has in common with the other nodes of its cluster."""

    __slots__ = ("_computed", "_logs", "_own", "_shared", "node")

    def __init__(self, node: str, shared: SharedTree | None = None) -> None:
        self.node: str = node
        self._own: _Tree = _Tree()
        self._shared: SharedTree = SharedTree() if shared is None else shared
        self._logs: dict[str, list[str]] = {}
        shared_tree = self._shared
        self._computed: dict[str, Callable[[], str]] = {"/etc/pve/.vmlist": shared_tree.vmlist}

    def _place(self, path: str) -> tuple[_Tree, dict[str, list[str]], str]:
        if path[:8] != "/etc/pve" or path == "/etc/pve/.members":
            return self._own, self._logs, path
        if path[9:15] != "nodes/":
            path = canonical(path, self.node)
        return self._shared, self._shared.logs, path

    def guest(self, vmid: int) -> tuple[str, str] | None:
        """Where in the cluster a VMID is used: (directory of its kind, node name)."""
        found = self._shared.guests.get(vmid)
        return None if found is None else (found[1], found[0])

    def read(self, path: str) -> str | None:
        tree, logs, path = self._place(path)
        text = tree.texts.get(path)
        if text is not None:
            return "".join(logs[path]) if path in logs else text
        computed = self._computed.get(path)
        return None if computed is None else computed()

    def write(self, path: str, text: str) -> None:
        tree, logs, path = self._place(path)
        logs.pop(path, None)
        tree.write(path, text)

    def append(self, path: str, text: str) -> None:
        tree, logs, path = self._place(path)
        log = logs.get(path) if path in tree.texts else None
        if log is None:
            log = logs[path] = [tree.texts.get(path, "")]
            tree.write(path, "")
        log.append(text)

    def remove(self, path: str) -> None:
        tree, logs, path = self._place(path)
        logs.pop(path, None)
        tree.remove(path)

    def names(self, directory: str) -> list[str]:
        tree, _, directory = self._place(directory.rstrip("/"))
        return sorted(tree.directories.get(directory, ()))

    def exists(self, path: str) -> bool:
        tree, _, path = self._place(path)
        return path in tree.texts or path in tree.directories or path in self._computed

    def compute(self, path: str, text: Callable[[], str]) -> None:
        self._computed[path] = text

    def stale(self, path: str) -> None:
        """Nothing to do: computed files are never stored."""


_NEW = ".nexcage-sim-new"
"""The end of the name of a file that is being written."""


class DiskFiles:
    """A node's tree as a directory. ``root`` is ``DIR/nodes/NAME/root``; the cluster's part lies in ``DIR/cluster``.

    Changes are collected and made by :meth:`commit`, which the driver calls at the end of a step with the cluster's lock
    held. They go through a redo file first: a process that is killed half-way leaves it, and the next one that takes the lock
    finishes the step (:meth:`recover`). So a step and its line in the effects log happen both or not at all.
    """

    def __init__(self, root: Path | str) -> None:
        self.root: str = os.fspath(root)
        directory = os.path.dirname(self.root)
        self.node: str = os.path.basename(directory)
        self.cluster: str = os.path.join(os.path.dirname(os.path.dirname(directory)), "cluster")
        self._changes: dict[str, str | None] = {}
        self._appends: dict[str, str] = {}
        self._computed: dict[str, Callable[[], str]] = {"/etc/pve/.vmlist": self._vmlist}
        self._stale: set[str] = set()

    def real(self, path: str) -> str:
        """Where ``path`` lies on this machine."""
        if path.startswith("/etc/pve/") and path != "/etc/pve/.members":
            return self.cluster + canonical(path, self.node)[8:]
        return self.root + path

    def read(self, path: str) -> str | None:
        path = canonical(path, self.node)
        if path in self._changes:
            text = self._changes[path]
        elif self._removed(path):
            text = None
        else:
            try:
                with open(self.real(path), encoding="utf-8", errors="surrogateescape", newline="") as file:
                    text = file.read()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                text = None
        added = self._appends.get(path)
        return text if added is None else (text or "") + added

    def write(self, path: str, text: str) -> None:
        path = canonical(path, self.node)
        self._appends.pop(path, None)
        self._changes.pop(path, None)  # changes are made in the order they came
        self._changes[path] = text
        if _GUEST.fullmatch(path):
            self._stale.add("/etc/pve/.vmlist")

    def append(self, path: str, text: str) -> None:
        path = canonical(path, self.node)
        if path not in self._changes and not self._removed(path) and os.path.exists(self.real(path)):
            self._appends[path] = self._appends.get(path, "") + text
        else:
            self.write(path, (self._changes.get(path) or "") + text)

    def remove(self, path: str) -> None:
        path = canonical(path, self.node)
        below = path + "/"
        for known in [known for known in self._changes if known.startswith(below)]:
            del self._changes[known]
        for known in [known for known in self._appends if known == path or known.startswith(below)]:
            del self._appends[known]
        self._changes.pop(path, None)
        self._changes[path] = None
        if path.startswith("/etc/pve/nodes/"):
            self._stale.add("/etc/pve/.vmlist")

    def _removed(self, path: str) -> bool:
        """True when an ancestor of ``path`` goes in this step."""
        if not self._changes:
            return False
        while len(path) > 1:
            path = path.rpartition("/")[0]
            if path in self._changes and self._changes[path] is None:
                return True
        return False

    def names(self, directory: str) -> list[str]:
        directory = canonical(directory.rstrip("/"), self.node)
        found: set[str] = set()
        if self._changes.get(directory, "") is not None and not self._removed(directory):
            with suppress(FileNotFoundError, NotADirectoryError):
                found.update(name for name in os.listdir(self.real(directory)) if not name.endswith(_NEW))
        below = directory + "/"
        for path, text in self._changes.items():
            if path.startswith(below):
                name, _, rest = path[len(below) :].partition("/")
                if text is not None:
                    found.add(name)
                elif not rest:
                    found.discard(name)
        return sorted(found)

    def exists(self, path: str) -> bool:
        path = canonical(path, self.node)
        if path in self._appends or self._changes.get(path) is not None:
            return True
        if any(text is not None and known.startswith(path + "/") for known, text in self._changes.items()):
            return True
        if path in self._changes or self._removed(path):
            return False
        return os.path.lexists(self.real(path))

    def guest(self, vmid: int) -> tuple[str, str] | None:
        """Where in the cluster a VMID is used: (directory of its kind, node name)."""
        for node in self.names("/etc/pve/nodes"):
            for kind in ("lxc", "qemu-server"):
                if self.exists(f"/etc/pve/nodes/{node}/{kind}/{vmid}.conf"):
                    return kind, node
        return None

    def compute(self, path: str, text: Callable[[], str]) -> None:
        self._computed[path] = text

    def stale(self, path: str) -> None:
        self._stale.add(path)

    def _vmlist(self) -> str:
        """From the directories, keeping the change counters of what did not change."""
        before: dict[str, Any] = {}  # Any: JSON
        with suppress(ValueError):
            before = json.loads(self.read("/etc/pve/.vmlist") or "{}")
        version = int(before.get("version", 0)) + 1
        known: dict[str, Any] = before.get("ids", {})  # Any: JSON
        guests: dict[int, tuple[str, str, int]] = {}
        for node in self.names("/etc/pve/nodes"):
            for kind in ("lxc", "qemu-server"):
                directory = f"/etc/pve/nodes/{node}/{kind}"
                for name in self.names(directory):
                    number = name.removesuffix(".conf")
                    if number == name or not number.isdigit():
                        continue
                    old = known.get(number, {})
                    same = old.get("node") == node and f"{directory}/{name}" not in self._changes
                    guests[int(number)] = (node, kind, old["version"] if same else version)
        return vmlist(version, guests)

    @property
    def _redo(self) -> str:
        return os.path.join(self.cluster, ".redo")

    def commit(self) -> None:
        """Make the changes of this step, all or (when killed before the redo file is there) none."""
        for path in sorted(self._stale):
            self._changes[path] = self._computed[path]()
        self._stale.clear()
        if not self._changes and not self._appends:
            return
        appends: list[tuple[str, int, str]] = []
        for path, text in self._appends.items():
            real = self.real(path)
            appends.append((real, os.path.getsize(real) if os.path.exists(real) else 0, text))
        changes = [(self.real(path), text) for path, text in self._changes.items()]
        self._changes, self._appends = {}, {}
        _replace(self._redo, json.dumps({"changes": changes, "appends": appends}))
        _redo(changes, appends)
        os.unlink(self._redo)

    def recover(self) -> None:
        """Finish the step of a process that was killed in the middle of it; call with the cluster's lock held."""
        try:
            with open(self._redo, encoding="utf-8") as file:
                record = json.load(file)
        except FileNotFoundError:
            return
        _redo(record["changes"], record["appends"])
        os.unlink(self._redo)

    def discard(self) -> None:
        """Forget the changes that were not committed."""
        self._changes, self._appends = {}, {}
        self._stale.clear()


def _redo(changes: Iterable[tuple[str, str | None]], appends: Iterable[tuple[str, int, str]]) -> None:
    """Effects first: who sees a change can see why. Repeating it changes nothing."""
    for path, size, text in appends:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "ab") as file:
            file.truncate(size)
            file.write(text.encode("utf-8", "surrogateescape"))
    for path, content in changes:
        if content is not None:
            _replace(path, content)
        elif os.path.isdir(path) and not os.path.islink(path):
            _remove_tree(path)
        else:
            with suppress(FileNotFoundError):
                os.unlink(path)


def _remove_tree(path: str) -> None:
    for directory, directories, files in os.walk(path, topdown=False):
        for name in files:
            os.unlink(os.path.join(directory, name))
        for name in directories:
            inner = os.path.join(directory, name)
            if os.path.islink(inner):
                os.unlink(inner)
            else:
                os.rmdir(inner)
    os.rmdir(path)


def _replace(path: str, text: str) -> None:
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}{_NEW}")  # always the same: whoever finishes a step leaves none behind
    data = text.encode("utf-8", "surrogateescape")
    try:
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(file, data)
    finally:
        os.close(file)
    os.replace(temporary, path)

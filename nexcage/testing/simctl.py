"""``nexcage sim``: a simulated cluster on disk, behind SSH servers, for people and scripts.

``DIR/config.toml`` is for ``nexcage --config``, ``DIR/state`` and ``DIR/run`` are the fleet's own directories, ``DIR/ssh`` has the
servers' keys and ports, ``DIR/cluster`` what the nodes share and the effects log, ``DIR/nodes/NAME`` one node: its files and its
programs. ``DIR/up.lock`` is held while the servers run.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from nexcage.errors import Busy, InvalidInput, InvalidPath, NexcageError, NotFound
from nexcage.testing import executables, faults
from nexcage.testing._model.drive import cluster_lock
from nexcage.testing._model.files import DiskFiles
from nexcage.testing._model.world import disk_node
from nexcage.testing._model.world import effects as read_effects

if TYPE_CHECKING:
    from nexcage.testing.cluster import SimCluster

__all__ = ["down", "effects", "fault", "path", "up"]

_MARK = ".nexcage-sim"
_POLL = 0.05
_PATIENCE = 30.0
MOST = 1000


def up(
    nodes: int,
    dir: str | os.PathLike[str],
    seed: int = 0,
    detach: bool = False,
    *,
    ready: Callable[[Path], None] | None = None,
) -> None:
    """Run a simulated cluster behind SSH servers until SIGTERM or SIGINT; ``ready`` gets the path of its config.toml.

    ``detach``: in a process of its own; returns when that is ready. A directory that holds a cluster is used again, with the state
    that it has (then ``nodes`` and ``seed`` do not matter). Raises InvalidPath for any other directory that is not empty, Busy when
    its cluster is up already.
    """
    directory = Path(dir).absolute()
    if isinstance(nodes, bool) or not 1 <= nodes <= MOST:
        raise InvalidInput("nodes", nodes, f"from 1 to {MOST}")
    _claim(directory)
    if detach:
        config = _detached(nodes, directory, seed)
        if ready is not None:
            ready(config)
        return
    anyio.run(_serve, nodes, directory, seed, ready)


def down(dir: str | os.PathLike[str]) -> None:
    """Stop it; its state stays. One that is not up is left as it is."""
    directory = _cluster(dir)
    deadline = time.monotonic() + _PATIENCE
    stop = signal.SIGTERM
    while (pid := _running(directory)) is not None:
        if time.monotonic() > deadline:
            stop, deadline = signal.SIGKILL, deadline + _PATIENCE
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, stop)
        time.sleep(_POLL)


def effects(dir: str | os.PathLike[str]) -> list[dict[str, Any]]:  # Any: JSON
    """Every command that changed something, in order; of a stopped cluster too."""
    directory = _cluster(dir)
    return read_effects(disk_node(directory, _names(directory)[0]).files)


def path(dir: str | os.PathLike[str], node: str) -> Path:
    """The directory to put on PATH in order to be on ``node``."""
    directory = _cluster(dir)
    _known(directory, node)
    executables.install(directory, (node,))
    return executables.bin_dir(directory, node)


def fault(dir: str | os.PathLike[str], node: str, kind: str, on: str | None = None, times: int = 1) -> None:
    """Script a fault, or let it happen; returns when a running cluster has taken note of it."""
    directory = _cluster(dir)
    _known(directory, node)
    wanted = faults.Fault(kind, on, times)
    model = disk_node(directory, node)
    assert isinstance(model.files, DiskFiles)
    with cluster_lock(model.files):
        if wanted.kind in faults.AT_ONCE and not on:
            faults.happen(model, wanted.kind)
        else:
            faults.add(model, wanted)
        serial = faults.serial(model)
    deadline = time.monotonic() + _PATIENCE
    while _running(directory) is not None and _noted(directory) < serial and time.monotonic() < deadline:
        time.sleep(_POLL / 5)


# --- the directory ------------------------------------------------------------------------------------------------------


def _claim(directory: Path) -> None:
    """Make the directory ours, or find that it is."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if (directory / _MARK).exists():
            return
        if any(directory.iterdir()):
            raise InvalidPath("dir", str(directory), "a new or empty directory, or one of a simulated cluster")
        (directory / _MARK).write_text("a simulated cluster of nexcage\n", "ascii")
    except OSError as error:
        raise InvalidPath("dir", str(directory), f"a directory that can be written ({error.strerror})") from None


def _cluster(dir: str | os.PathLike[str]) -> Path:
    directory = Path(dir).absolute()
    if not (directory / _MARK).exists() or not (directory / "nodes").is_dir():
        raise InvalidPath("dir", str(directory), "a directory of a simulated cluster (nexcage sim up --dir DIR)")
    return directory


def _names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in (directory / "nodes").iterdir())


def _known(directory: Path, node: str) -> None:
    names = _names(directory)
    if node not in names:
        raise NotFound("node", node, f"is not one of this cluster's: {', '.join(names)}")


# --- the process that serves --------------------------------------------------------------------------------------------


class _Claimed:
    """DIR/up.lock, held: nobody else serves this directory. The lock tells whether it is up; the pid in it is whom to signal."""

    def __init__(self, directory: Path) -> None:
        self._file = os.open(directory / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._file, 20, 0).decode("ascii", "replace").strip()
            os.close(self._file)
            raise Busy(f"the simulated cluster in {directory}", f"it is up (pid {pid})") from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode("ascii"), 0)

    def close(self) -> None:
        os.ftruncate(self._file, 0)
        os.close(self._file)


def _running(directory: Path) -> int | None:
    """The pid of the process that serves the directory (0 while it does not say), None when there is none."""
    try:
        file = os.open(directory / "up.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        word = os.pread(file, 20, 0).strip()
        return int(word) if word.isdigit() else 0
    finally:
        os.close(file)
    return None


async def _serve(nodes: int, directory: Path, seed: int, ready: Callable[[Path], None] | None) -> None:
    from nexcage.testing.cluster import SimCluster

    claimed = _Claimed(directory)
    try:
        cluster = SimCluster(nodes, seed=seed, dir=directory)
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with (
                cluster.serve(dir=directory / "ssh", ports=_ports(directory)) as served,
                anyio.create_task_group() as tasks,
            ):
                ports = {host.key: host.port for host in served.hosts}
                _replace(directory / "ssh" / "ports.json", json.dumps(ports))
                config = served.config(directory)
                tasks.start_soon(_watch, cluster, directory)
                if ready is not None:
                    ready(config)
                async for _ in signals:
                    break
                tasks.cancel_scope.cancel()
    finally:
        claimed.close()


def _ports(directory: Path) -> dict[str, int]:
    """The ports of the last time, as far as they are free: configs and known_hosts of clients name them."""
    import socket

    try:
        known = json.loads((directory / "ssh" / "ports.json").read_text("ascii"))
    except (OSError, ValueError):
        return {}
    free: dict[str, int] = {}
    for name, port in known.items():
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            free[name] = port
    return free


async def _watch(cluster: SimCluster, directory: Path) -> None:
    """Follow what other processes do to the nodes: faults, and what happens on them by itself."""
    seen = -1
    while True:
        serial = faults.serial(next(iter(cluster)).model)
        if serial != seen:
            seen = serial
            for node in cluster:
                node.notice()
            _replace(directory / "cluster" / "noted", str(serial))
        for node in cluster:
            node.settle()
        await anyio.sleep(_POLL)


def _noted(directory: Path) -> int:
    try:
        return int((directory / "cluster" / "noted").read_text("ascii"))
    except (OSError, ValueError):
        return -1


def _replace(file: Path, text: str) -> None:
    temporary = file.with_name(f"{file.name}.tmp.{os.getpid()}")
    temporary.write_text(text, "ascii")
    temporary.replace(file)


# --- in the background --------------------------------------------------------------------------------------------------


def _detached(nodes: int, directory: Path, seed: int) -> Path:
    """Start a process of its own and wait until it is ready."""
    home = str(Path(__file__).resolve().parent.parent.parent)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])}
    reading, writing = os.pipe()
    log = directory / "up.log"
    with open(log, "ab") as file, open(reading, encoding="utf-8") as answer:
        try:
            argv = [sys.executable, "-m", "nexcage.testing.simctl", str(nodes), str(directory), str(seed), str(writing)]
            # It forks once more, so that it is nobody's child and what is waited for here ends at once.
            subprocess.run(
                argv,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                pass_fds=(writing,),
                check=True,
                cwd="/",
            )
        except subprocess.CalledProcessError:
            pass  # its log says why
        finally:
            os.close(writing)
        said = answer.read().strip()
    if not said.startswith("/"):
        if said:
            raise Busy(f"the simulated cluster in {directory}", said)
        lines = log.read_text("utf-8", "replace").strip().splitlines()
        raise NexcageError(
            f"cannot start the simulated cluster in {directory}: {lines[-1] if lines else 'it said nothing'}"
        ).noted(f"its log is {log}")
    return Path(said)


def _background(argv: list[str]) -> None:
    """The process behind ``up(detach=True)``."""
    nodes, directory, seed, answer = argv
    if os.fork():
        os._exit(0)
    os.setsid()

    def say(text: str) -> None:
        with suppress(OSError), open(int(answer), "w", encoding="utf-8") as pipe:
            pipe.write(text)

    def ready(config: Path) -> None:
        say(str(config))

    try:
        anyio.run(_serve, int(nodes), Path(directory), int(seed), ready)
    except Busy as error:
        say(error.owner)
        raise SystemExit(1) from None


if __name__ == "__main__":
    _background(sys.argv[1:])

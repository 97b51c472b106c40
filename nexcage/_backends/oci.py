"""Containers of ``crun`` and ``runc``, on any Linux node: bundles as they lie there, and content that the engine has sent.

A created container has a process, which waits; a container runs once, as OCI says. What somebody does to it with the program itself is
seen, and so is a reboot, after which these programs know no container any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from nexcage._backends.numbers import candidates
from nexcage._core.command import MIB, Command, Result
from nexcage._core.config import BackendConfig
from nexcage._core.inside import Process, Stats
from nexcage._core.keeping import Update
from nexcage._core.seen import Look, Mark, Settled
from nexcage._core.settings import FIELDS, refuse
from nexcage._core.spec import Spec
from nexcage.abc import Node, Ref
from nexcage.errors import AlreadyExists, InvalidInput, InvalidPath, NexcageError, UnsupportedImage
from nexcage.names import ImageRef, image
from nexcage.tools import runtime
from nexcage.tools.runtime import Runtime, inside, stopping, using

__all__ = ["Crun", "Oci", "Runc", "runtimes"]

_MAPPED = ("cpulimit", "cpuunits", "arch")
_PVE = (*(field for field in FIELDS if field not in _MAPPED), "storage", "size", "ssh_public_keys", "onboot", "vm")


_FIXED = ("hostname", "onboot", "protection", "tags", "description", "nets", "mounts", "unset", "digest")
_PERIOD = 100_000


class Oci:
    """What both backends are. ``programs``: both of them, because one look shows the containers of both."""

    family: str = "oci"
    only_commands: bool = True
    restarts: bool = False
    contents: bool = True  # what does not lie on its node as a bundle is sent there by the engine

    def __init__(self, name: Literal["crun", "runc"], programs: Mapping[str, BackendConfig] | None = None) -> None:
        given = programs or {}
        self.name: str = name
        self._crun = Runtime("crun", _command(given, "crun"))
        self._runc = Runtime("runc", _command(given, "runc"))
        self._runtime = self._crun if name == "crun" else self._runc

    def accepts(self, image: ImageRef) -> bool:
        return image.kind == "path" or (image.kind == "template" and image.path is not None)

    def check(self, id: str, spec: Spec) -> None:  # noqa: ARG002 (the contract)
        if spec.bundle is None and not self.accepts(image(spec.image)):
            ways = "a bundle (--bundle DIR), an OCI layout or archive (/DIR, /FILE.tar), or an alias of one in [images]"
            raise UnsupportedImage("image", spec.image, ways)
        refuse(spec, _PVE, f"left out: it is a setting of Proxmox VE, and {self.name} has none of it")
        if spec.bundle is not None:
            refuse(spec, ("cores", "hostname", *_MAPPED), "left out: a bundle says it in its config.json")

    def version(self) -> Command[tuple[str, str]]:
        """Which version of the program a node has, and of the specification: what it honours depends on it."""
        return runtime.version(self._runtime)

    # ---- its life ----------------------------------------------------------------------------------------------------------

    async def create(self, node: Node, ref: Ref, spec: Spec) -> Ref:
        made_from = spec.content or spec.bundle or image(spec.image).path
        if made_from is None:
            raise InvalidPath("bundle", spec.image, "a directory with config.json")
        for number in candidates(ref.id, node.vmids, node.seen):
            mark = node.mark(ref.id, number)
            try:
                await node.run(runtime.create(self._runtime, mark, made_from))
            except AlreadyExists as error:
                if error.what != "VMID":
                    raise
                continue
            return Ref(ref.id, number, ref.node)
        raise AlreadyExists("number", f"{node.vmids.start}-{node.vmids.stop - 1}", "is not free for this container")

    async def start(self, node: Node, ref: Ref) -> int:
        await node.run(runtime.start(self._runtime, _mark(node, ref)))
        return 0

    async def stop(self, node: Node, ref: Ref, *, timeout: float, force: bool) -> None:
        mark = _mark(node, ref)
        if force or not await node.run_unless_hurried(stopping.stop(self._runtime, mark, timeout)):
            await node.run(stopping.stop(self._runtime, mark, 0))

    async def kill(self, node: Node, ref: Ref, signal: int) -> None:
        await node.run(runtime.kill(self._runtime, _mark(node, ref), signal))

    async def pause(self, node: Node, ref: Ref) -> None:
        await node.run(runtime.pause(self._runtime, _mark(node, ref)))

    async def resume(self, node: Node, ref: Ref) -> None:
        await node.run(runtime.resume(self._runtime, _mark(node, ref)))

    def limits(self, change: Update) -> None:
        """Refuse, before anything runs, what cannot be changed in a live one: raises InvalidInput."""
        said = tuple(field for field in _FIXED if getattr(change, field) not in (None, "", (), {}))
        refuse(change, said, f"left alone: {self.name} changes memory, swap, cores, cpulimit, cpuunits and limits")
        if change.swap is not None and change.memory is None:
            raise InvalidInput("swap", change.swap, "given with memory: what is set is the sum of both")

    async def update(
        self,
        node: Node,
        ref: Ref,
        values: Mapping[str, str],
        *,
        unset: Sequence[str],  # noqa: ARG002 (none, as `limits` sees to it)
        digest: str,  # noqa: ARG002 (likewise)
    ) -> None:
        given = {key[2:]: value for key, value in values.items() if key.startswith("--")}
        await node.run(runtime.update(self._runtime, _mark(node, ref), given, **_in_words(values)))

    async def delete(self, node: Node, ref: Ref, *, force: bool, purge: bool) -> None:  # noqa: ARG002 (nothing is beside it)
        await node.run(runtime.delete(self._runtime, _mark(node, ref), force=force))

    async def mend(self, node: Node, ref: Ref, lock: str, proof: Settled) -> None:  # noqa: ARG002 (its mark is the proof)
        await node.run(runtime.delete(self._runtime, _mark(node, ref), force=True))

    def observe(self, node: str, ops: tuple[str, ...] = ()) -> Command[Look]:
        return runtime.look(node, ops, crun=self._crun, runc=self._runc)

    # ---- looking inside ----------------------------------------------------------------------------------------------------

    def attach(
        self,
        mark: Mark,
        argv: Sequence[str | bytes],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        size: tuple[int, int] | None = None,
        safe: bool = False,
        timeout: float | None = None,
        cap: int = MIB,
    ) -> Command[None]:
        return inside.exec_(
            self._runtime, mark, argv, env=env, cwd=cwd, user=user, size=size, safe=safe, timeout=timeout, cap=cap
        )

    def refused(self, mark: Mark, result: Result, node: str) -> NexcageError:
        return inside.refused(mark, result, node)

    def processes(self, mark: Mark) -> Command[tuple[Process, ...]]:
        return using.processes(self._runtime, mark)

    def usage(self) -> Command[dict[int, Stats]]:
        return using.usage()

    def logs(self, mark: Mark, lines: int, *, follow: bool = False) -> Command[None]:
        return inside.logs(self._runtime, mark, lines, follow=follow)


class Crun(Oci):
    """The backend ``crun``."""

    def __init__(self, programs: Mapping[str, BackendConfig] | None = None) -> None:
        super().__init__("crun", programs)


class Runc(Oci):
    """The backend ``runc``."""

    def __init__(self, programs: Mapping[str, BackendConfig] | None = None) -> None:
        super().__init__("runc", programs)


def runtimes(programs: Mapping[str, BackendConfig]) -> Iterator[Oci]:
    """Both, as the configuration says."""
    return iter((Crun(programs), Runc(programs)))


def _in_words(values: Mapping[str, str]) -> dict[str, int | str]:
    """Settings in the runtime's units: bytes, and microseconds of a period."""
    words: dict[str, int | str] = {}
    if "memory" in values:
        words["memory"] = int(values["memory"]) << 20
        if "swap" in values:
            words["swap"] = (int(values["memory"]) + int(values["swap"])) << 20
    cores = float(values.get("cpulimit", values.get("cores", 0)))
    if "cpulimit" in values or "cores" in values:
        words |= {"period": _PERIOD, "quota": round(cores * _PERIOD) or -1}
    if "cpuunits" in values:
        words["shares"] = values["cpuunits"]
    return words


def _command(programs: Mapping[str, BackendConfig], name: str) -> tuple[str, ...]:
    known = programs.get(name)
    return known.command if known is not None else ()


def _mark(node: Node, ref: Ref) -> Mark:
    return node.mark(ref.id, ref.vmid)

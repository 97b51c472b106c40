"""``pvesh``: what PVE offers only as a call of its API, made on the node itself (pve-commands 0.5 and 6.4)."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from nexcage._core.command import Command, Result, shown
from nexcage.errors import NexcageError, NodeNotUsable
from nexcage.tools import pvesm

__all__ = ["Task", "get", "oci_pull", "oci_tags", "task"]

T = TypeVar("T")
_NO_CALL = re.compile(r"No '[a-z]+' handler defined for '([^']*)'")
_UPID = re.compile(r"UPID:[^\s\"]+:")


class Task(msgspec.Struct, frozen=True):
    """What PVE knows of a task: ``running`` or ``stopped``, and how it ended: ``OK``, ``WARNINGS: 2``, or what went wrong."""

    status: str
    exitstatus: str = ""

    @property
    def failed(self) -> bool:
        return self.status == "stopped" and self.exitstatus != "OK" and not self.exitstatus.startswith("WARNINGS")


def get(path: str, kind: type[T], *options: str) -> Command[T]:
    """A GET; the answer read as ``kind``, unknown keys left out."""
    argv = ("pvesh", "get", path, *options, "--output-format", "json")

    def parse(result: Result) -> T:
        try:
            return msgspec.json.decode(result.stdout, type=kind, strict=False)
        except msgspec.MsgspecError as error:
            raise ValueError(str(error)) from None

    return Command(argv, parse, safe=True, weight="read", timeout=60.0, cap=16 << 20, classify=_classify)


def task(pve: str, upid: str) -> Command[Task]:
    """What became of a task of the node that PVE calls ``pve``."""
    return get(f"/nodes/{pve}/tasks/{upid}/status", Task)


def oci_tags(pve: str, reference: str) -> Command[tuple[str, ...]]:
    """The tags of a repository in its registry (PVE 9.1)."""
    return get(f"/nodes/{pve}/query-oci-repo-tags", tuple[str, ...], "--reference", reference)


def oci_pull(pve: str, storage: str, reference: str, filename: str) -> Command[str]:
    """Pull an image into ``filename`` (without ``.tar``); the task's UPID. Exit 0 even when it failed: look whether it is there."""
    path = f"/nodes/{pve}/storage/{storage}/oci-registry-pull"
    argv = ("pvesh", "create", path, "--reference", reference, "--filename", filename, "--output-format", "json")
    return Command(argv, _upid, cancel="term", timeout=3600.0, weight="create", classify=_classify)


def _upid(result: Result) -> str:
    found = _UPID.findall(shown(result.stdout))
    return found[-1] if found else ""


def _classify(command: Command[Any], result: Result, node: str) -> NexcageError:
    if missing := _NO_CALL.search(shown(result.stderr)):
        old = "; pulling from registries came with Proxmox VE 9.1" if "oci" in missing[1] else ""
        return NodeNotUsable(node, f"its PVE does not know {missing[1]}{old}")
    return pvesm.classify(command, result, node)

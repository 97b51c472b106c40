"""``umoci``: the layers of an image in a layout become a root file system (oci.md 4.4). It keeps every name inside of that."""

from __future__ import annotations

from nexcage._core.command import Command, Result, nothing, shown
from nexcage.errors import CommandFailed, InvalidImage, NexcageError, NodeNotUsable

__all__ = ["TAG", "unpack"]

TAG = "image"
"""What the one image in a layout of ours is called."""


def unpack(layout: str, rootfs: str, *, most: int, rootless: bool = False) -> Command[None]:
    """The image of ``layout`` as the new directory ``rootfs``; no file of it may become larger than ``most`` bytes."""
    inner = ("umoci", "raw", "unpack", *(("--rootless",) if rootless else ()), "--image", f"{layout}:{TAG}", rootfs)
    return Command(("prlimit", f"--fsize={most}", "--core=0", *inner), nothing, safe=True, classify=_refused)


def _refused(command: Command[None], result: Result, node: str) -> NexcageError:
    said = shown(result.stderr).strip()
    if result.exit == 127 or "failed to execute umoci" in said:
        missing = "umoci" if "umoci" in said else "prlimit"
        package = {"umoci": "umoci", "prlimit": "util-linux"}[missing]
        return NodeNotUsable(node, f"there is no {missing} (apt install {package}), which unpacks images")
    last = said.splitlines()[-1] if said else f"exit status {result.exit}, no message"
    if "no space left on device" in said:
        return NodeNotUsable(node, "there is no room to unpack the image")
    if "panic: d.nx != 0" in said:
        # umoci 0.4.7 sums up the rest of a layer that it cannot unpack while that is still being read, and so loses the reason.
        return NodeNotUsable(node, "umoci cannot unpack the image and does not say why; mostly there is no room")
    if "unpack layer" in said or "unpack rootfs" in said:
        return InvalidImage("its layers", f"umoci refuses them: {last[:400]}")
    return CommandFailed(node, command.argv, result.exit or 0, said)

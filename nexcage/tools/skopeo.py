"""``skopeo``: images of other forms become layouts whose layers everybody can read (oci.md 4.4)."""

from __future__ import annotations

from nexcage._core.command import Command, Result, nothing, shown
from nexcage.errors import CommandFailed, InvalidImage, NexcageError, NodeNotUsable
from nexcage.tools.umoci import TAG

__all__ = ["copy"]


def copy(source: str, layout: str, scratch: str) -> Command[None]:
    """``source`` (``oci:DIRECTORY:TAG``, ``docker-archive:FILE:TAG``) as the only image of the new ``layout``, layers by gzip.

    Nothing is fetched from anywhere: both are files of this machine. ``scratch``: where it may put what it needs meanwhile.
    """
    target = f"oci:{layout}:{TAG}"
    options = ("--insecure-policy", "--tmpdir", scratch)
    argv = ("skopeo", *options, "copy", "--quiet", "--format", "oci", "--dest-compress-format", "gzip", source, target)
    return Command(argv, nothing, safe=True, env={"TMPDIR": scratch}, classify=_refused)


def _refused(command: Command[None], result: Result, node: str) -> NexcageError:
    said = shown(result.stderr).strip()
    if result.exit == 127:
        return NodeNotUsable(node, "there is no skopeo (apt install skopeo), which reads this form of image")
    if "no space left on device" in said:
        return NodeNotUsable(node, "there is no room to convert the image")
    if result.exit == 1 and "level=fatal" in said:
        return InvalidImage("its form", f"skopeo refuses it: {said.splitlines()[-1][:400]}")
    return CommandFailed(node, command.argv, result.exit or 0, said)

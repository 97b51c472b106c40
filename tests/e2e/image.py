"""The image ``nginx`` of the suite: busybox and a program that serves nothing, as an OCI layout that umoci makes on this machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

__all__ = ["PROGRAM", "build"]

PROGRAM = "trap 'echo told; exit 0' TERM; echo serving; while :; do sleep 0.1; done"
APPLETS = "sh sleep echo cat".split()


def build(work: Path) -> Path:
    """The directory of a layout with the tag ``latest``. Raises OSError that names what is missing."""
    busybox = shutil.which("busybox")
    if busybox is None or shutil.which("umoci") is None:
        raise OSError("the image needs busybox and umoci on this machine: apt-get install busybox-static umoci")
    layout, bundle = work / "nginx", work / "nginx-bundle"
    image = f"{layout}:latest"
    _umoci("init", "--layout", str(layout))
    _umoci("new", "--image", image)
    _umoci("unpack", "--image", image, str(bundle))
    bin = bundle / "rootfs" / "bin"
    bin.mkdir(mode=0o755)
    shutil.copy(busybox, bin / "busybox")
    for applet in APPLETS:
        (bin / applet).symlink_to("busybox")
    _umoci("repack", "--image", image, str(bundle))
    words = [word for one in ("sh", "-c", PROGRAM) for word in ("--config.cmd", one)]
    _umoci("config", "--image", image, *words, "--config.env", "PATH=/bin")
    return layout


def _umoci(*words: str) -> None:
    done = subprocess.run(["umoci", *words], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise OSError(f"umoci {words[0]}: {done.stderr.strip()}")

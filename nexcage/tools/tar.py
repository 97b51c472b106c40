"""GNU ``tar`` where root file systems are packed: nothing of a tree is lost, and the same tree gives the same bytes."""

from __future__ import annotations

from nexcage._core.command import Command, Result, nothing, shown
from nexcage.errors import CommandFailed, NexcageError, NodeNotUsable

__all__ = ["archive", "compress", "expand", "pack"]

_PACK = (
    "--format=posix",
    "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",  # else the hour of packing is part of the bytes
    "--sort=name",
    "--numeric-owner",
    "--xattrs",
    "--xattrs-include=*",
    "--acls",
    "--sparse",
    "--sparse-version=0.0",  # later ones name the member after the process that packs
    "--one-file-system",
    "--no-check-device",
)


def pack(directory: str, besides: str = "", names: tuple[str, ...] = ()) -> Command[None]:
    """The tree below ``directory`` as an archive on standard output: modes, owners by number, links, hard links, extended attributes,
    access lists, holes and devices; what is mounted in it is left out. A tree that changes meanwhile is an error.
    ``names`` are added, as they are in the directory ``besides``.
    """
    more = (f"--directory={besides}", *(f"./{name}" for name in names)) if names else ()
    argv = ("tar", "--create", "--file=-", *_PACK, f"--directory={directory}", ".", *more)
    return Command(argv, parse=nothing, safe=True, classify=_refused)


def archive(layout: str) -> Command[None]:
    """An image layout as an oci-archive on standard output. Proxmox VE looks for exactly these names, and for a plain archive."""
    how = (
        "--format=gnu",
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mtime=@0",
        "--mode=u=rwX,go=rX",
    )
    whole = ("--dereference", "--hard-dereference")
    argv = ("tar", "--create", "--file=-", *how, *whole, f"--directory={layout}", "oci-layout", "index.json", "blobs")
    return Command(argv, parse=nothing, safe=True, classify=_refused)


def compress(archive: str, target: str, kind: str) -> Command[None]:
    """``archive`` compressed into the new file ``target``; ``kind`` is ``zst`` or ``gz``."""
    if kind == "zst":
        argv: tuple[str, ...] = ("zstd", "-q", "-3", "-T0", "-f", "-o", target, "--", archive)
    else:
        argv = ("sh", "-c", 'exec gzip -nc6 -- "$1" > "$2"', "nexcage", archive, target)
    return Command(argv, parse=nothing, safe=True, classify=_refused)


def expand(archive: str) -> Command[None]:
    """What is compressed by zstd in ``archive``, on standard output; its window is bounded by zstd itself."""
    return Command(("zstd", "-dc", "--no-progress", "--", archive), parse=nothing, safe=True, classify=_refused)


_PACKAGES = {"tar": "tar", "zstd": "zstd", "gzip": "gzip"}


def _refused(command: Command[None], result: Result, node: str) -> NexcageError:
    program = command.argv[0]
    if result.exit == 127 and program in _PACKAGES:
        return NodeNotUsable(node, f"there is no {program} (apt install {_PACKAGES[program]})")
    return CommandFailed(node, command.argv, result.exit or 0, shown(result.stderr))

"""What mke2fs prints for a new ext4 file system."""

from __future__ import annotations

__all__ = ["mkfs_lines"]


def _backups(groups: int) -> list[int]:
    """The block groups that hold a copy of the superblock: 1 and the powers of 3, 5 and 7."""
    found = {1}
    for base in (3, 5, 7):
        power = base
        while power < groups:
            found.add(power)
            power *= base
    return sorted(group for group in found if group < groups)


def mkfs_lines(size: int, uuid: str) -> str:
    """Its lines for a file of ``size`` bytes."""
    small = size < 512 * 1024**2
    block = 1024 if small else 4096
    blocks = size // block
    per_group, first = block * 8, 1 if small else 0
    groups = -(-(blocks - first) // per_group)
    inodes = size // (4096 if small else 16384)
    per = -(-inodes // max(groups, 1))
    inodes = -(-per // 8) * 8 * groups
    lines = [
        f"Creating filesystem with {blocks} {block // 1024}k blocks and {inodes} inodes\n",
        f"Filesystem UUID: {uuid}\n",
    ]
    if backups := _backups(groups):
        lines.append("Superblock backups stored on blocks: ")
        left = 0
        for n, group in enumerate(backups):
            number = str(group * per_group + first)
            lines.append(", " if n else "")
            if len(number) + 2 > left:
                lines.append("\n\t")
                left = 72
            left -= len(number) + 2
            lines.append(number)
        lines.append("\n")
    return "".join(lines)

"""Bundles before they are containers."""

from __future__ import annotations

from nexcage._cli.commands.table import Command, Option

__all__ = ["COMMANDS"]

COMMANDS: tuple[Command, ...] = (
    Command(
        "plan",
        "BUNDLE [--backend lxc|crun|runc] [--allow FIELD]...",
        "what would become of each property of a bundle",
        "BUNDLE is a directory with a config.json, or a config.json alone: then the root file system is not looked at. It touches "
        "nothing. Exit status 0 when create would go on, 1 when it would refuse.",
        (
            Option(
                ("--runtime", "--backend"),
                "lxc (the default, also proxmox-lxc, pct), crun or runc",
                "NAME",
                choices=("lxc", "proxmox-lxc", "pct", "crun", "runc"),
                open=True,
            ),
            Option(("--allow",), "drop it if it is refused, and all below it: /linux/intelRdt", "FIELD", many=True),
        ),
        (
            "nexcage plan ./nginx",
            "nexcage plan ./nginx/config.json --backend runc --output json",
            "nexcage plan ./nginx --allow /linux/cgroupsPath --allow /domainname",
        ),
        words="file",
        outputs=("table", "json"),
    ),
)

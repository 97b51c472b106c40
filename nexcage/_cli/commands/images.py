"""Images on the nodes."""

from __future__ import annotations

from nexcage._cli.commands.table import ON_NODES, OUTPUTS, PLACE, Command, Option

__all__ = ["COMMANDS"]

COMMANDS: tuple[Command, ...] = (
    Command(
        "images",
        "[push IMAGE [--storage STORAGE]] [--node NODE]... [--available]",
        "the images on the nodes: templates, ISO images, disks to import, content for crun and runc",
        "push sends the root file system of an image of this machine (a layout's directory, an archive, a bundle, or an alias of one) to "
        "the template storage of the nodes. Content is named by its digest.",
        (ON_NODES, PLACE, Option(("--available",), "the templates that Proxmox VE offers for download instead")),
        (
            "nexcage images",
            "nexcage images --available --node pve-01",
            "nexcage images push ./layouts/nginx:1.29 --node pve-01",
        ),
        outputs=OUTPUTS,
    ),
    Command(
        "pull",
        "IMAGE [--node NODE]... [--storage STORAGE]",
        "see to it that nodes have an image",
        "IMAGE is a template of Proxmox VE's index, an alias of [images], or NAME:TAG of a registry (Proxmox VE 9.1). What is there "
        "already is not fetched again.",
        (ON_NODES, PLACE),
        (
            "nexcage pull debian-12-standard_12.12-1_amd64.tar.zst",
            "nexcage pull docker.io/library/nginx:1.29 --node pve-02",
        ),
        outputs=OUTPUTS,
    ),
    Command(
        "rmi",
        "IMAGE... [--node NODE]... [--storage STORAGE]",
        "remove images from nodes",
        "Containers that were made from it stay.",
        (ON_NODES, PLACE, Option(("-f", "--force"), "no error for one that no node has")),
        ("nexcage rmi local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst --node pve-01",),
        outputs=OUTPUTS,
    ),
)

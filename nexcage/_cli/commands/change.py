"""What changes a container that is there, or where it is."""

from __future__ import annotations

from nexcage._cli.commands import oci
from nexcage._cli.commands.table import DRY, OP_ID, OUTPUTS, SELECTOR_TEXT, TARGETS, Command, Option

__all__ = ["COMMANDS"]

_UPDATE = (
    *TARGETS,
    Option(("--memory",), "memory in MiB, or with M or G", "MIB"),
    Option(("--swap",), "swap in MiB, or with M or G", "MIB"),
    Option(("--cores",), "whole cores", "N"),
    Option(("--cpulimit",), "cores' worth of time, such as 1.5; 0 for no limit", "N"),
    Option(("--cpuunits",), "weight against other containers", "N"),
    Option(("--hostname",), "host name, from the next start on", "NAME"),
    Option(("--onboot",), "start it when its node boots"),
    Option(("--no-onboot",), "do not"),
    Option(("--protection",), "let PVE refuse to destroy it or change its disks"),
    Option(("--no-protection",), "do not"),
    Option(("--tag",), "its tags from now on; several times for several", "TAG", many=True),
    Option(("--description",), "notes shown by PVE", "TEXT"),
    Option(("--net",), "an interface: net0=name=eth0,bridge=vmbr0,ip=dhcp", "KEY=NET", many=True),
    Option(("--mount",), "a mount point: mp0=local-zfs:8,mp=/data", "KEY=MOUNT", many=True),
    Option(("--unset",), "back to its default, or away with it: cores, cpulimit, net1, mp0", "KEY", many=True),
    Option(("--digest",), "refuse when its config is another one than this (from snapshots or the API)", "SHA1"),
    Option(("--cpu-quota",), "as runc takes it: microseconds of --cpu-period, -1 for no limit", "US"),
    Option(("--cpu-period",), "microseconds (100000)", "US"),
    Option(("--cpu-share",), "as runc takes it: 2 to 262144", "N"),
    Option(("--memory-swap",), "as runc takes it: memory and swap together", "MIB"),
    *oci.UPDATE,
)

COMMANDS: tuple[Command, ...] = (
    Command(
        "update",
        "ID... | --all | -l SELECTOR OPTION...",
        "change settings of containers",
        "What a running container cannot take on waits for its next start; --dry-run says which. Nothing is changed when somebody else "
        f"has changed the config meanwhile. {SELECTOR_TEXT}",
        _UPDATE,
        ("nexcage update web-1 --memory 2G --tag web --dry-run", "nexcage update -l tag=web --cpulimit 1.5"),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "resize",
        "ID... DISK SIZE",
        "let a disk of containers grow",
        f"DISK is rootfs or mpN, SIZE is 10G, or +2G to grow by it. {SELECTOR_TEXT}",
        TARGETS,
        ("nexcage resize web-1 rootfs +2G", "nexcage resize web-1 mp0 20G"),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "move-volume",
        "ID... DISK STORAGE [--delete]",
        "move a disk of containers at rest to another storage",
        SELECTOR_TEXT,
        (*TARGETS, Option(("--delete",), "remove the old volume; else it stays as unusedN")),
        ("nexcage move-volume web-1 rootfs local-zfs --delete",),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "migrate",
        "ID... NODE [--restart]",
        "move containers to another node of their cluster",
        SELECTOR_TEXT,
        (
            *TARGETS,
            Option(("--restart",), "shut running ones down for it and start them again there"),
            Option(("-t", "--timeout"), "seconds to shut down (180)", "SECONDS"),
            Option(("--storage",), "where their volumes go there", "STORAGE"),
        ),
        ("nexcage migrate web-1 pve-02", "nexcage migrate -l node=pve-01 pve-02 --restart"),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "drain",
        "NODE [--restart] [--dry-run]",
        "move every container of a node to the other nodes of its cluster",
        "They are spread: the node with the fewest guests takes the next one. Running containers are moved with --restart only. The node "
        "is cordoned first and stays so: it takes no new containers until `nexcage uncordon NODE`. Exit "
        "status: 0 the node has none left, 1 one could not be moved, 3 a node is away.",
        (
            Option(("--restart",), "shut running ones down for it and start them again there"),
            Option(("-t", "--timeout"), "seconds to shut down (180)", "SECONDS"),
            Option(("-n", "--dry-run"), "only say which container would go where"),
            Option(("--no-wait",), "do not wait for another operation on a container, say who holds it"),
        ),
        ("nexcage drain pve-01 --dry-run", "nexcage drain pve-01 --restart"),
        outputs=OUTPUTS,
    ),
    Command(
        "clone",
        "ID NEWID [--linked] [--snapshot NAME]",
        "make a container as a copy of another one, on the same node",
        "Everything is as there but the host name and the MAC addresses. --linked shares the disks of a template and takes a moment; "
        "others are copied, of a running container only as they were at a snapshot. Also: create NEWID --from ID [--linked].",
        (
            Option(("--linked",), "share the disks of a template"),
            Option(("--snapshot",), "as it was then", "NAME"),
            Option(("--hostname",), "host name (the new id, where it is a valid one)", "NAME"),
            Option(("--storage",), "storage of a full copy (that of the source)", "STORAGE"),
            Option(("--description",), "notes shown by PVE", "TEXT"),
            OP_ID,
            DRY,
        ),
        ("nexcage clone base web-1 --linked", "nexcage clone web-1 web-2 --snapshot before-upgrade"),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "template",
        "ID...",
        "turn containers at rest into templates for clones, for good",
        SELECTOR_TEXT,
        TARGETS,
        ("nexcage template base",),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "adopt",
        "VMID --id ID [--node NODE]",
        "take a guest that somebody else made into the fleet",
        "It goes on as it is: only its tags and its description get our mark. 'nexcage list --all-guests' shows what is not managed.",
        (
            Option(("--id",), "what it is called from then on", "ID"),
            Option(("--node",), "where it is, when several nodes have that VMID", "NODE", complete="node"),
            OP_ID,
            DRY,
        ),
        ("nexcage adopt 104 --id db-1", "nexcage adopt 104 --id db-1 --node pve-02 --dry-run"),
        outputs=OUTPUTS,
    ),
)

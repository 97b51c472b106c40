"""Snapshots and backups."""

from __future__ import annotations

from nexcage._cli.commands.table import DRY, NAME, OP_ID, OUTPUTS, SELECTOR_TEXT, TARGETS, Command, Option

__all__ = ["COMMANDS"]

COMMANDS: tuple[Command, ...] = (
    Command(
        "snapshot",
        "ID... NAME | --all NAME | -l SELECTOR NAME",
        "keep the disks and settings of containers as they are now",
        f"A running container is frozen for a moment. {SELECTOR_TEXT}",
        (*TARGETS, Option(("--description",), "what it is for", "TEXT")),
        ("nexcage snapshot web-1 before-upgrade", "nexcage snapshot -l tag=web nightly"),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "snapshots",
        "ID",
        "the snapshots of a container, oldest first",
        options=(NAME,),
        examples=("nexcage snapshots web-1", "nexcage snapshots web-1 --output json"),
        words="id",
        outputs=OUTPUTS,
    ),
    Command(
        "delsnapshot",
        "ID... NAME | --all NAME | -l SELECTOR NAME",
        "forget a snapshot of containers",
        SELECTOR_TEXT,
        TARGETS,
        ("nexcage delsnapshot web-1 before-upgrade",),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "rollback",
        "ID... NAME [--start] | -l SELECTOR NAME",
        "make disks and settings as they were at a snapshot",
        "What was written since is lost. A running container is killed for it and stays stopped, unless --start. ZFS takes the newest "
        f"snapshot only. Never repeated by itself. {SELECTOR_TEXT}",
        (*TARGETS, Option(("--start",), "start it afterwards")),
        ("nexcage rollback web-1 before-upgrade --start",),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "backup",
        "ID... [--storage STORAGE] [--mode MODE]",
        "save containers as archives, by vzdump",
        SELECTOR_TEXT,
        (
            *TARGETS,
            Option(("--storage",), "where the archive goes (local)", "STORAGE"),
            Option(("--mode",), "snapshot (the default), suspend, or stop and start again", "MODE"),
            Option(("--compress",), "zstd (the default), gzip, lzo or 0", "HOW"),
        ),
        ("nexcage backup web-1", "nexcage backup -l tag=db --storage backup --mode stop"),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "backups",
        "[ID...]",
        "the archives on the nodes: of all guests, or of these containers",
        "By VMID: an archive of a guest that had the VMID before is listed too.",
        examples=("nexcage backups web-1", "nexcage backups --output json"),
        words="id",
        outputs=OUTPUTS,
    ),
    Command(
        "restore",
        "ID VOLUME [--node NODE]",
        "make a container from an archive",
        "It gets a VMID of its own and is as it was saved; network addresses of its own too while the one that was saved is there.",
        (
            Option(("--node",), "where to make it; else where the archive is", "NODE", complete="node"),
            Option(("--storage",), "where its disks go", "STORAGE"),
            Option(("--hostname",), "another host name than the saved one", "NAME"),
            OP_ID,
            DRY,
        ),
        ("nexcage restore web-2 local:backup/vzdump-lxc-104-2025_11_24-16_00_05.tar.zst --storage local-zfs",),
        outputs=OUTPUTS,
    ),
)

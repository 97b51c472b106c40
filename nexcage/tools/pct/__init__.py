"""``pct``: its argv and what its words mean (pct-observed 2-9, pve-commands 1).

Two rules stand above all: branch on exit zero or not and on the words, never on the number; and exit 0 is no proof.
"""

from __future__ import annotations

from nexcage.tools.pct.inside import exec_, passwd, program_said, pull, push
from nexcage.tools.pct.life import destroy, reboot, resume, shutdown, start, stop, suspend, unlock
from nexcage.tools.pct.making import besides, create, hostname_for, net, restore, rootfs
from nexcage.tools.pct.settings import Settings, set_
from nexcage.tools.pct.shows import (
    Pending,
    Row,
    Status,
    config,
    cpusets,
    list_,
    parse_config,
    parse_cpusets,
    parse_list,
    parse_pending,
    parse_status,
    pending,
    status,
)
from nexcage.tools.pct.snapshots import (
    Snapshot,
    clone,
    delsnapshot,
    listsnapshot,
    parse_snapshots,
    rollback,
    snapshot,
    template,
)
from nexcage.tools.pct.volumes import (
    Usage,
    df,
    fsck,
    fstrim,
    migrate,
    mount,
    move_volume,
    parse_usage,
    rescan,
    resize,
    unmount,
)
from nexcage.tools.pct.words import classify

__all__ = [
    "Pending",
    "Row",
    "Settings",
    "Snapshot",
    "Status",
    "Usage",
    "besides",
    "classify",
    "clone",
    "config",
    "cpusets",
    "create",
    "delsnapshot",
    "destroy",
    "df",
    "exec_",
    "fsck",
    "fstrim",
    "hostname_for",
    "list_",
    "listsnapshot",
    "migrate",
    "mount",
    "move_volume",
    "net",
    "parse_config",
    "parse_cpusets",
    "parse_list",
    "parse_pending",
    "parse_snapshots",
    "parse_status",
    "parse_usage",
    "passwd",
    "pending",
    "program_said",
    "pull",
    "push",
    "reboot",
    "rescan",
    "resize",
    "restore",
    "resume",
    "rollback",
    "rootfs",
    "set_",
    "shutdown",
    "snapshot",
    "start",
    "status",
    "stop",
    "suspend",
    "template",
    "unlock",
    "unmount",
]

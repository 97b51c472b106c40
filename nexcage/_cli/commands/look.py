"""What is so, and what was."""

from __future__ import annotations

from nexcage._cli.commands import oci
from nexcage._cli.commands.table import ALL, NAME, ON_NODES, OUTPUTS, RUNTIME, SELECT, SELECTORS, Command, Option

__all__ = ["COMMANDS"]

# What a journal has; a test keeps it equal to the operations that are driven.
_RECORDED = tuple(
    "create start stop kill pause resume delete update snapshot delsnapshot rollback resize move-volume template migrate adopt "
    "backup exec push".split()
)

COMMANDS: tuple[Command, ...] = (
    Command(
        "list",
        "[-l SELECTOR] [--all-guests]",
        "containers, what the journal knows joined with a look at the nodes",
        SELECTORS,
        (
            RUNTIME,
            SELECT,
            Option(("-a", "--all"), "every container of the fleet, which is the default"),
            Option(("--all-guests",), "also those that are not managed by this fleet"),
            Option(("-q", "--quiet"), "print ids only, as --output name does"),
            Option(
                ("-f", "--format"), "table or json, as the OCI runtimes take it", "FORMAT", choices=("table", "json")
            ),
        ),
        ("nexcage list", "nexcage list -l 'node=pve-0* state=running' --output jsonl"),
        outputs=OUTPUTS,
    ),
    Command(
        "state",
        "ID... | --all | -l SELECTOR",
        "the OCI state of containers, after looking",
        "Prints OCI JSON. With the node away: the last record, with the annotation org.nexcage.stale, and exit status 3.",
        (NAME, RUNTIME, ALL, SELECT),
        ("nexcage state web-1", "nexcage state 104 --output table", "nexcage state --all --output jsonl"),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "events",
        "[--follow] [--since N] [--id ID] [--op OP]",
        "what happened, from the journal",
        "Reads the journal only: no node is asked. text on a terminal, else jsonl.",
        (
            Option(("-f", "--follow"), "go on with what happens from now on"),
            Option(("--since",), "only events with a number above N", "N"),
            Option(("--id",), "only of this container; several times for several", "ID", many=True, complete="id"),
            Option(
                ("--op",),
                "only of this operation",
                "OP",
                many=True,
                choices=_RECORDED,
            ),
            *oci.EVENTS,
        ),
        ("nexcage events --follow --output jsonl | jq .event", "nexcage events --id web-1 --op start"),
        outputs=("jsonl", "text"),
    ),
    Command(
        "watch",
        "[--node NODE]",
        "notice what somebody else does to containers, and record it",
        "Follows what the nodes say until interrupted: a container that is stopped, killed or paused behind our back is in the journal "
        "(and in 'events --follow') a moment later, and on_drift is done about it. Prints what it notices: text on a terminal, else jsonl.",
        (ON_NODES,),
        ("nexcage watch", "nexcage watch --node pve-01 --output jsonl"),
        outputs=("jsonl", "text"),
    ),
    Command(
        "route",
        "ID [--image IMAGE]",
        "explain which backend and node a create would take",
        options=(
            Option(("--image",), "the image, for rules that look at it", "IMAGE", complete="file"),
            NAME,
            RUNTIME,
            Option(("--tag",), "a tag, for rules that look at it", "TAG", many=True),
            Option(("--node",), "pinned to this node", "NODE", complete="node"),
        ),
        examples=("nexcage route web-1 --image debian:12 --runtime lxc",),
        words="id",
        outputs=("table", "json", "jsonl"),
    ),
)

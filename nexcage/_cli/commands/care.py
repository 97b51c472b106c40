"""The health of nodes and journal."""

from __future__ import annotations

from nexcage._cli.commands.table import ALL, NAME, OUTPUTS, RUNTIME, SELECT, SELECTORS, Command, Option

__all__ = ["COMMANDS"]

COMMANDS: tuple[Command, ...] = (
    Command(
        "health",
        "",
        "check the nodes and this machine, and say what to do",
        "Each row is PASS, WARN or FAIL with the value seen. Exit status: 0 nothing fails, 1 something does, 3 a node is away.",
        (),
        ("nexcage health", "nexcage health --hosts 'pve-[01-03].lan' --output json"),
        outputs=("table", "json", "jsonl"),
    ),
    Command(
        "cordon",
        "NODE...",
        "from now on these nodes take no new containers",
        "It holds for every process of this state directory until `nexcage uncordon`. Containers that are there stay; `nexcage route` and "
        "`nexcage health` show it.",
        examples=("nexcage cordon pve-01",),
    ),
    Command(
        "uncordon",
        "NODE...",
        "these nodes take new containers again",
        "The opposite of cordon, and what ends a drain.",
        examples=("nexcage uncordon pve-01",),
    ),
    Command(
        "reconcile",
        "[ID... | --all | -l SELECTOR] [--dry-run]",
        "make the journal and the nodes agree, and say what differed",
        "Finds out what became of lost operations, records what somebody else changed, and does about it what on_drift in the "
        "configuration says: report, adopt or revert. Without an ID: every container. Exit status: 0 nothing differs or all of it "
        f"was dealt with, 1 something is left, 3 a node is away. {SELECTORS}",
        (
            NAME,
            RUNTIME,
            ALL,
            SELECT,
            Option(("-n", "--dry-run"), "only say what differs and what would be done"),
        ),
        (
            "nexcage reconcile --dry-run",
            "nexcage reconcile web-1 web-2",
            "nexcage reconcile -l node=pve-02 --output jsonl",
        ),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "doctor",
        "[--repair] [--rebuild [--fleet ID]]",
        "examine the state directory and the nodes for damage, orphans and leftovers",
        "Without an option nothing is changed, here or there. Exit status: 0 nothing is wrong or all of it was mended, 1 something is "
        "wrong, 3 a node is away.",
        (
            Option(
                ("--repair",),
                "mend what is safe: cut torn journal ends (kept beside), make state files again, remove what dead drivers left, find "
                "out what became of their operations, sweep old claims, believe the nodes about damaged records",
            ),
            Option(
                ("--rebuild",),
                "a state directory was lost: write down again what the marks on the nodes say about containers",
            ),
            Option(("--fleet",), "the fleet to rebuild, when the nodes have containers of several", "ID"),
        ),
        (
            "nexcage doctor",
            "nexcage doctor --repair --output json",
            "nexcage doctor --rebuild --fleet 3f0c9ab1d2e45678",
        ),
        outputs=OUTPUTS,
    ),
)

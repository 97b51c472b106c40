"""What a command and an option are, and the options that many commands share."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = [
    "ALL",
    "DRY",
    "GLOBAL",
    "NAME",
    "NO_WAIT",
    "ON_NODES",
    "OP_ID",
    "OUTPUTS",
    "PLACE",
    "RUNTIME",
    "SELECT",
    "SELECTORS",
    "SELECTOR_TEXT",
    "TARGETS",
    "Command",
    "Complete",
    "Option",
]

Complete = Literal["", "id", "file", "dir", "signal", "node"]


class Option(NamedTuple):
    """One option. ``value`` is its metavar, empty for a flag; completion offers ``choices``, unless ``open`` they are checked.

    ``brief``: its help names it only, together with the others that are; the man page and the completion say more.
    """

    flags: tuple[str, ...]
    help: str
    value: str = ""
    many: bool = False
    choices: tuple[str, ...] = ()
    complete: Complete = ""
    hidden: bool = False
    open: bool = False
    brief: bool = False

    @property
    def name(self) -> str:
        """What the parsed value is called."""
        long = next((flag for flag in self.flags if flag.startswith("--")), self.flags[0])
        return long.lstrip("-").replace("-", "_")


class Command(NamedTuple):
    """One command. ``usage`` is what follows ``nexcage NAME``; ``words`` says how its positionals are completed; ``verbatim``: what
    stands behind the first word belongs to a program that it runs (``verbatim_oci``: only when an OCI engine says so).
    """

    name: str
    usage: str
    summary: str
    text: str = ""
    options: tuple[Option, ...] = ()
    examples: tuple[str, ...] = ()
    words: Complete = ""
    choices: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    verbatim: bool = False
    verbatim_oci: bool = False


OUTPUTS = ("table", "json", "jsonl", "name")

GLOBAL: tuple[Option, ...] = (
    Option(("-h", "--help"), "show help and do nothing else"),
    Option(("--version",), "print the version and do nothing else"),
    Option(("--config",), "read this configuration file after the usual ones", "FILE", complete="file"),
    Option(("--hosts",), "drive these nodes: 'pve-[01-50].lan', commas between several", "HOSTS", many=True),
    Option(("--discover",), "drive all nodes of the cluster that this node is in: 'root@pve-01'", "HOST"),
    Option(("--state-dir",), "where journal and fleet id live", "DIR", complete="dir"),
    Option(("--run-dir",), "where ID/state.json files are written", "DIR", complete="dir"),
    Option(
        ("-o", "--output"), "how results are printed: table, json, jsonl or name", "FORMAT", choices=(*OUTPUTS, "text")
    ),
    Option(("--debug",), "show on stderr each command with its node, exit status and time"),
    Option(("-v", "--verbose"), "show on stderr what happens"),
    Option(("--log-file",), "append log lines to this file", "FILE", complete="file"),
    Option(
        ("--log-level",),
        "debug, info, warning or error",
        "LEVEL",
        choices=("debug", "info", "warning", "error"),
    ),
    Option(("--root",), "OCI: state below DIR, strict OCI rules, runc's messages, exit 1", "DIR", complete="dir"),
    Option(("--log",), "OCI: write errors to this file too", "FILE", complete="file"),
    Option(("--log-format",), "OCI: text or json", "FORMAT", choices=("text", "json")),
    Option(("--systemd-cgroup",), "OCI: cgroups by systemd, as the runtimes take it; on PVE it is so anyway"),
)

NAME = Option(("--name",), "the container's id, when it is not the positional", "ID", complete="id")

RUNTIME = Option(
    ("--runtime", "--backend"),
    "the backend: lxc (also proxmox-lxc, pct), vm (qemu, proxmox-vm), crun or runc",
    "NAME",
    choices=("lxc", "proxmox-lxc", "pct", "vm", "qemu", "proxmox-vm", "crun", "runc"),
    open=True,
)

ALL = Option(("-a", "--all"), "every container of the fleet")

SELECT = Option(
    ("-l", "--selector"), "those that match: 'tag=web node=pve-0* state=stopped id~^web-'", "SELECTOR", many=True
)

OP_ID = Option(("--op-id",), "idempotency key: the same key again, the same outcome, one effect", "KEY")

NO_WAIT = Option(("--no-wait",), "do not wait for another operation on the container, say who holds it")

DRY = Option(("-n", "--dry-run"), "only print the commands that would be run on the nodes")

TARGETS = (NAME, RUNTIME, ALL, SELECT, OP_ID, NO_WAIT, DRY)

SELECTORS = (
    "Selectors: KEY=GLOB, KEY!=GLOB or KEY~REGEX with the keys id, tag, node, state, backend, vmid and image; blanks mean 'and'. "
    "They may stand without -l."
)

SELECTOR_TEXT = f"Each ID is a container id or its VMID; an exact id wins. {SELECTORS}"

ON_NODES = Option(("--node",), "on this node; several times for several (all)", "NODE", many=True, complete="node")

PLACE = Option(("--storage",), "the storage that has it (defaults.image_storage)", "STORAGE")


def options_of(command: Command, *, hidden: bool = True) -> tuple[Option, ...]:
    """The command's own options and the global ones; no flag is in both."""
    return tuple(option for option in (*command.options, *GLOBAL) if hidden or not option.hidden)

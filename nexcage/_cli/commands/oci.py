"""What only the OCI runtimes' command lines have: their own commands, and the options of ours that an engine gives.

The options are hidden: they are for programs, and docs/oci-cli.md lists them.
"""

from __future__ import annotations

from nexcage._cli.commands.table import RUNTIME, Command, Option

__all__ = ["COMMANDS", "CREATE", "EVENTS", "EXEC", "RUN", "UPDATE"]

CONSOLE = Option(("--console-socket",), "the terminal's master end is sent over this socket", "PATH", hidden=True)
PRESERVE = Option(("--preserve-fds",), "this many more descriptors, from 3 on, are the container's", "N", hidden=True)

CREATE = (
    CONSOLE,
    PRESERVE,
    Option(("--no-pivot",), "do not pivot into the root file system", hidden=True),
    Option(("--no-new-keyring",), "keep the caller's session keyring", hidden=True),
)

RUN = (
    Option(("--keep",), "do not delete it when its program has ended", hidden=True),
    Option(("--no-subreaper",), "accepted", hidden=True),
)

EXEC = (
    Option(("-p", "--process"), "what to run, as a process document", "FILE", complete="file", hidden=True),
    Option(("-d", "--detach"), "do not wait for it", hidden=True),
    Option(("--pid-file",), "write its host pid there", "FILE", complete="file", hidden=True),
    CONSOLE,
    PRESERVE,
    Option(("-g", "--additional-gids"), "its other groups", "GID", many=True, hidden=True),
    Option(("-c", "--cap"), "a capability more", "CAP", many=True, hidden=True),
    Option(("--apparmor",), "its AppArmor profile", "PROFILE", hidden=True),
    Option(("--process-label",), "its SELinux label", "LABEL", hidden=True),
    Option(("--no-new-privs",), "it can never gain privileges", hidden=True),
    Option(("--ignore-paused",), "in a paused container too", hidden=True),
    Option(("--cgroup",), "in this cgroup below the container's", "PATH", hidden=True),
)

EVENTS = (
    Option(("--stats",), "OCI: what it uses now, once", hidden=True),
    Option(("--interval",), "OCI: seconds between two of them (5s)", "TIME", hidden=True),
)

UPDATE = (
    Option(("-r", "--resources"), "a document with linux.resources; - for stdin", "FILE", complete="file", hidden=True),
    Option(("--memory-reservation",), "bytes", "BYTES", hidden=True),
    Option(("--cpuset-cpus",), "these CPUs only", "LIST", hidden=True),
    Option(("--cpuset-mems",), "these memory nodes only", "LIST", hidden=True),
    Option(("--cpu-rt-period",), "microseconds", "US", hidden=True),
    Option(("--cpu-rt-runtime",), "microseconds", "US", hidden=True),
    Option(("--pids-limit",), "how many processes", "N", hidden=True),
    Option(("--blkio-weight",), "10 to 1000", "N", hidden=True),
    Option(("--kernel-memory",), "accepted by runc, which ignores it", "BYTES", hidden=True),
    Option(("--kernel-memory-tcp",), "accepted by runc, which ignores it", "BYTES", hidden=True),
    Option(("--l3-cache-schema",), "Intel RDT", "TEXT", hidden=True),
    Option(("--mem-bw-schema",), "Intel RDT", "TEXT", hidden=True),
)

COMMANDS: tuple[Command, ...] = (
    Command(
        "spec",
        "[--bundle DIR] [--rootless]",
        "write a config.json to begin with",
        "The document that runc spec writes, into the current directory. A file that is there is not overwritten.",
        (
            Option(("-b", "--bundle"), "into this directory", "DIR", complete="dir"),
            Option(("--rootless",), "for a container that is not run by root"),
        ),
        ("nexcage spec --bundle ./nginx",),
    ),
    Command(
        "features",
        "[--runtime NAME]",
        "what of the OCI runtime specification is honoured, as its features document",
        "Of the backend that a create would be routed to: a runtime's own answer where it has one. Always JSON.",
        (RUNTIME,),
        ("nexcage features --runtime runc", "nexcage features | jq .linux.namespaces"),
        outputs=("json",),
    ),
)

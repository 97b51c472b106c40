"""Inside containers."""

from __future__ import annotations

from nexcage._cli.commands import oci
from nexcage._cli.commands.table import ALL, NAME, OUTPUTS, RUNTIME, SELECT, Command, Option

__all__ = ["COMMANDS"]

COMMANDS: tuple[Command, ...] = (
    Command(
        "exec",
        "ID COMMAND [ARGUMENT...] | -l SELECTOR COMMAND [ARGUMENT...]",
        "run a program inside a container",
        "Its standard streams are this command's, byte for byte, and so is its exit status; 255 when it could not be run. What stands "
        "behind the ID is the program's. With a selector it runs in each container at once, every line behind the container's id.",
        (
            NAME,
            RUNTIME,
            ALL,
            SELECT,
            Option(
                ("-e", "--env"),
                "set a variable (NAME alone: as it is here); no value is shown to anybody",
                "NAME=VALUE",
                many=True,
            ),
            Option(("--env-file",), "variables from FILE, one NAME=VALUE a line", "FILE", many=True, complete="file"),
            Option(("-u", "--user"), "as this user of the container (root)", "USER|UID[:GID]"),
            Option(("-w", "--cwd"), "in this directory (/)", "DIR"),
            Option(("-t", "--tty"), "give it a terminal"),
            Option(("-i", "--interactive"), "accepted: standard input is handed on anyway", hidden=True),
            Option(("--no-stdin",), "it gets no standard input; for loops that read their own"),
            Option(("-T", "--timeout"), "end it after this long", "SECONDS"),
            *oci.EXEC,
        ),
        (
            "nexcage exec web-1 ls -l /etc",
            "tar c . | nexcage exec -w /srv web-1 tar x",
            "nexcage exec -t web-1 bash",
            "nexcage exec -l tag=web uptime",
        ),
        "id",
        verbatim=True,
    ),
    Command(
        "cp",
        "SOURCE TARGET",
        "copy a file into a container, or out of one",
        "One of both is ID:/PATH, the other a file here, or - for standard input or output. The file arrives whole or not at all: its "
        "checksum is compared at the other end before it takes its place.",
        (
            RUNTIME,
            Option(("--mode",), "permissions in octal (those of the source)", "MODE"),
            Option(("--owner",), "into a container: its owner there (root)", "USER[:GROUP]"),
        ),
        ("nexcage cp ./site.conf web-1:/etc/nginx/conf.d/", "nexcage cp web-1:/var/log/syslog - | tail"),
        "file",
        outputs=("table", "json", "jsonl", "name"),
    ),
    Command(
        "push",
        "FILE ID:/PATH",
        "copy a file into a container",
        "The same as cp in this direction.",
        (
            RUNTIME,
            Option(("--mode",), "permissions in octal (those of the source)", "MODE"),
            Option(("--owner",), "its owner there (root)", "USER[:GROUP]"),
        ),
        ("nexcage push ./site.conf web-1:/etc/nginx/conf.d/site.conf --owner root:root",),
        "file",
        outputs=("table", "json", "jsonl", "name"),
    ),
    Command(
        "logs",
        "ID [--lines N] [--follow]",
        "what a container's console has shown",
        "The console's log file, where the container's config names one (lxc.console.logfile); else its journal or syslog.",
        (
            NAME,
            RUNTIME,
            Option(("-n", "--lines"), "how many of the newest lines (100)", "N"),
            Option(("-f", "--follow"), "go on with what comes from now on"),
        ),
        ("nexcage logs web-1 -n 20", "nexcage logs -f web-1"),
        "id",
    ),
    Command(
        "ps",
        "ID",
        "the processes of a container, as its node sees them",
        "",
        (
            RUNTIME,
            Option(
                ("-f", "--format"), "table or json, as the OCI runtimes take it", "FORMAT", choices=("table", "json")
            ),
        ),
        ("nexcage ps web-1", "nexcage ps web-1 --output json"),
        "id",
        outputs=OUTPUTS,
        verbatim_oci=True,
    ),
    Command(
        "stats",
        "[ID...] [-l SELECTOR] [--interval SECONDS]",
        "memory, CPU and disk use of running containers",
        "From the cgroups of the nodes, one command for each node. CPU is the time used since the start; with --interval the share of one "
        "core between two looks.",
        (SELECT, Option(("--interval",), "look twice, this long apart", "SECONDS")),
        (
            "nexcage stats",
            "nexcage stats web-1",
            "nexcage stats -l tag=web --interval 2",
            "nexcage stats --output jsonl",
        ),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "wait",
        "ID [--network] [--port N] [--state STATE] [--timeout SECONDS] [-- COMMAND...]",
        "wait until a container is ready, or in a state",
        "Ready is: it has an address, something listens on the port, and the command inside exits with 0, as far as asked for; an "
        "address if nothing is. The command is repeated until then, so it should only look. Prints the addresses. Exit status 1 after "
        "the timeout.",
        (
            NAME,
            RUNTIME,
            Option(("--network",), "until it has an address"),
            Option(("--port",), "until something listens on this TCP port", "N"),
            Option(
                ("--state",),
                "until it is in this state",
                "STATE",
                choices=("created", "running", "paused", "stopped", "absent"),
            ),
            Option(("-T", "--timeout"), "give up after this long (60)", "SECONDS"),
        ),
        ("nexcage wait web-1 --port 80", "nexcage wait web-1 -- pg_isready", "nexcage wait web-1 --state stopped"),
        "id",
    ),
)

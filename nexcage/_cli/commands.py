"""Every command and option as a table. The parser, the help texts, the completion scripts and the man page are made from it."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["COMMANDS", "GLOBAL", "GROUPS", "OUTPUTS", "Command", "Option", "options_of"]

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
    stands behind the first word belongs to a program that it runs.
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
    Option(("--systemd-cgroup",), "OCI: accepted; on PVE the node's systemd has the cgroups anyway"),
)

_NAME = Option(("--name",), "the container's id, when it is not the positional", "ID", complete="id")
_RUNTIME = Option(
    ("--runtime", "--backend"),
    "the backend: lxc (also proxmox-lxc, pct), or vm (qemu, proxmox-vm)",
    "NAME",
    choices=("lxc", "proxmox-lxc", "pct", "vm", "qemu", "proxmox-vm"),
    open=True,
)
_ALL = Option(("-a", "--all"), "every container of the fleet")
_SELECT = Option(
    ("-l", "--selector"), "those that match: 'tag=web node=pve-0* state=stopped id~^web-'", "SELECTOR", many=True
)
_OP_ID = Option(("--op-id",), "idempotency key: the same key again gives the same outcome, no second effect", "KEY")
_NO_WAIT = Option(("--no-wait",), "do not wait for another operation on the container, say who holds it")
_DRY = Option(("-n", "--dry-run"), "only print the commands that would be run on the nodes")
_TARGETS = (_NAME, _RUNTIME, _ALL, _SELECT, _OP_ID, _NO_WAIT, _DRY)
_SELECTORS = (
    "Selectors: KEY=GLOB, KEY!=GLOB or KEY~REGEX with the keys id, tag, node, state, backend, vmid and image; blanks mean 'and'. "
    "They may stand without -l."
)
_SELECTOR_TEXT = f"Each ID is a container id or its VMID; an exact id wins. {_SELECTORS}"

# What a journal has; a test keeps it equal to the operations that are driven.
_RECORDED = tuple(
    "create start stop kill pause resume delete update snapshot delsnapshot rollback resize move-volume template migrate adopt "
    "backup exec push".split()
)

_CREATE = (
    Option(
        ("--image",),
        "template (STORAGE:vztmpl/NAME or a file), bundle directory, or an alias; of a VM STORAGE:import/NAME, "
        "STORAGE:iso/NAME or vm:template/VMID",
        "IMAGE",
        complete="file",
    ),
    _NAME,
    _RUNTIME,
    Option(("--from",), "as a copy of this container, on the same node", "ID", complete="id"),
    Option(("--linked",), "a copy that shares the disks of a template"),
    Option(("--snapshot",), "a copy as it was at this snapshot", "NAME"),
    Option(("--memory",), "memory in MiB, or with M or G (512)", "MIB"),
    Option(("--swap",), "swap in MiB, or with M or G (512)", "MIB"),
    Option(("--cores",), "whole cores (all of the node)", "N"),
    Option(("--hostname",), "host name (the id, where it is a valid one)", "NAME"),
    Option(("--storage",), "storage of the root file system", "STORAGE"),
    Option(("--size",), "size of the root file system in GiB", "GIB"),
    Option(("--net",), "interface in PVE's spelling: name=eth0,bridge=vmbr0,ip=dhcp; or none", "NET", many=True),
    Option(("--ssh-public-keys",), "authorized_keys lines from FILE, - for stdin", "FILE", complete="file"),
    Option(("--unprivileged",), "in a user namespace (the default)"),
    Option(("--privileged",), "not in a user namespace"),
    Option(("--ci-user",), "VM: whom cloud-init gives the keys to (the image's own user)", "USER"),
    Option(("--cpu",), "VM: the CPU type, such as host", "TYPE"),
    Option(("--ostype",), "what runs in it: debian, alpine, ...; VM: l26, win11", "TYPE"),
    Option(("--agent",), "VM: the QEMU guest agent runs in it"),
    Option(("--onboot",), "start it when its node boots"),
    Option(("--tag",), "tag it; several times for several", "TAG", many=True),
    Option(("--description",), "notes shown by PVE", "TEXT"),
    Option(("--mount",), "a mount point: mp0=local-zfs:8,mp=/data", "KEY=MOUNT", many=True),
    Option(("--dev",), "a device of the node: dev0=/dev/fuse,mode=0660", "KEY=DEV", many=True, brief=True),
    Option(("--cpulimit",), "cores' worth of time, such as 1.5; 0 for no limit", "N", brief=True),
    Option(("--cpuunits",), "weight against other containers", "N", brief=True),
    Option(("--features",), "nesting=1,keyctl=1,fuse=1,mknod=1,mount=nfs;cifs", "LIST", brief=True),
    Option(("--startup",), "when its node boots: order=2,up=30,down=60", "LIST", brief=True),
    Option(("--nameserver",), "IP address of a name server; several times for several", "IP", many=True, brief=True),
    Option(("--searchdomain",), "domain to look names up in; several times for several", "NAME", many=True, brief=True),
    Option(("--timezone",), "host, or a zone such as Europe/Berlin", "ZONE", brief=True),
    Option(("--pool",), "PVE's resource pool that it belongs to", "POOL", brief=True),
    Option(("--hookscript",), "a script of the node: local:snippets/NAME", "VOLUME", brief=True),
    Option(("--arch",), "the architecture of its programs (the template's own)", "ARCH", brief=True),
    Option(("--protection",), "let PVE refuse to destroy it or change its disks", brief=True),
    Option(("--node",), "on this node", "NODE", complete="node"),
    Option(("--pull",), "download the image when the node does not have it"),
    Option(("-b", "--bundle"), "OCI bundle directory", "DIR", complete="dir"),
    Option(("--pid-file",), "write init's host pid there (no newline)", "FILE", complete="file"),
    _OP_ID,
    _DRY,
    Option(("--console-socket",), "not supported", "PATH", hidden=True),
    Option(("--preserve-fds",), "not supported", "N", hidden=True),
    Option(("--no-pivot",), "accepted", hidden=True),
    Option(("--no-new-keyring",), "accepted", hidden=True),
)

_UPDATE = (
    *_TARGETS,
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
)

_DIR = Option(("--dir",), "directory of the simulated cluster", "DIR", complete="dir")
_SIM_NODE = Option(("--node",), "name of the simulated node, such as pve-01", "NODE")

_ON_NODES = Option(("--node",), "on this node; several times for several (all)", "NODE", many=True, complete="node")
_PLACE = Option(("--storage",), "the storage that has it (defaults.image_storage)", "STORAGE")

_LIST: tuple[Command, ...] = (
    Command(
        "create",
        "ID --image IMAGE [OPTION...]",
        "make a container; it does not run yet",
        "Also: create --name ID IMAGE, and the OCI runtime's create --bundle DIR --pid-file FILE ID.",
        _CREATE,
        (
            "nexcage create web-1 --image local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst --memory 1024",
            "nexcage create web-1 --image debian:12 --runtime lxc --net name=eth0,bridge=vmbr0,ip=10.0.0.5/24,gw=10.0.0.1",
            "nexcage create --name web-1 --runtime lxc --node pve-02 debian-12.tar.zst",
        ),
        outputs=OUTPUTS,
    ),
    Command(
        "run",
        "ID --image IMAGE [OPTION...]",
        "create and start",
        "Takes the options of create. If the start fails the container stays, unless --rm is given.",
        (
            *_CREATE,
            Option(("--rm",), "delete the container again if its start fails"),
            Option(("-d", "--detach"), "accepted: it always runs in the background", hidden=True),
        ),
        ("nexcage run web-1 --image debian:12 --runtime lxc --memory 1024 --rm",),
        outputs=OUTPUTS,
    ),
    Command(
        "start",
        "ID... | --all | -l SELECTOR",
        "run created or stopped containers",
        _SELECTOR_TEXT,
        _TARGETS,
        ("nexcage start web-1", "nexcage start -l 'tag=web state=stopped'"),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "stop",
        "ID... | --all | -l SELECTOR [--timeout N | --force]",
        "ask containers to shut down, then force them",
        _SELECTOR_TEXT,
        (
            *_TARGETS,
            Option(("-t", "--timeout"), "seconds to wait before forcing (60)", "SECONDS"),
            Option(("-f", "--force"), "do not ask, stop at once"),
        ),
        ("nexcage stop web-1 --timeout 30", "nexcage stop --all --force"),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "kill",
        "ID [SIGNAL] | -s SIGNAL ID...",
        "send a signal to init, from the host (TERM)",
        "SIGNAL is a name in any case, with or without SIG, or a number: TERM, sighup, 9, RTMIN+3. " + _SELECTOR_TEXT,
        (
            *_TARGETS,
            Option(("-s", "--signal"), "the signal; every positional is an ID then", "SIGNAL", complete="signal"),
        ),
        ("nexcage kill web-1 HUP", "nexcage kill -s KILL web-1 web-2"),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "pause",
        "ID... | --all | -l SELECTOR",
        "freeze every process of running containers",
        _SELECTOR_TEXT,
        _TARGETS,
        ("nexcage pause web-1",),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "resume",
        "ID... | --all | -l SELECTOR",
        "thaw paused containers",
        _SELECTOR_TEXT,
        _TARGETS,
        ("nexcage resume web-1",),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "delete",
        "ID... | --all | -l SELECTOR [--force] [--purge]",
        "destroy containers with their volumes",
        _SELECTOR_TEXT,
        (
            *_TARGETS,
            Option(("-f", "--force"), "stop running ones first; no error for an unknown ID"),
            Option(("--purge",), "drop it from backup jobs, replication and HA too"),
        ),
        ("nexcage delete web-1", "nexcage delete --force -l tag=scratch"),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "snapshot",
        "ID... NAME | --all NAME | -l SELECTOR NAME",
        "keep the disks and settings of containers as they are now",
        f"A running container is frozen for a moment. {_SELECTOR_TEXT}",
        (*_TARGETS, Option(("--description",), "what it is for", "TEXT")),
        ("nexcage snapshot web-1 before-upgrade", "nexcage snapshot -l tag=web nightly"),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "snapshots",
        "ID",
        "the snapshots of a container, oldest first",
        options=(_NAME,),
        examples=("nexcage snapshots web-1", "nexcage snapshots web-1 --output json"),
        words="id",
        outputs=OUTPUTS,
    ),
    Command(
        "delsnapshot",
        "ID... NAME | --all NAME | -l SELECTOR NAME",
        "forget a snapshot of containers",
        _SELECTOR_TEXT,
        _TARGETS,
        ("nexcage delsnapshot web-1 before-upgrade",),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "rollback",
        "ID... NAME [--start] | -l SELECTOR NAME",
        "make disks and settings as they were at a snapshot",
        "What was written since is lost. A running container is killed for it and stays stopped, unless --start. ZFS takes the newest "
        f"snapshot only. Never repeated by itself. {_SELECTOR_TEXT}",
        (*_TARGETS, Option(("--start",), "start it afterwards")),
        ("nexcage rollback web-1 before-upgrade --start",),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "update",
        "ID... | --all | -l SELECTOR OPTION...",
        "change settings of containers",
        "What a running container cannot take on waits for its next start; --dry-run says which. Nothing is changed when somebody else "
        f"has changed the config meanwhile. {_SELECTOR_TEXT}",
        _UPDATE,
        ("nexcage update web-1 --memory 2G --tag web --dry-run", "nexcage update -l tag=web --cpulimit 1.5"),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "resize",
        "ID... DISK SIZE",
        "let a disk of containers grow",
        f"DISK is rootfs or mpN, SIZE is 10G, or +2G to grow by it. {_SELECTOR_TEXT}",
        _TARGETS,
        ("nexcage resize web-1 rootfs +2G", "nexcage resize web-1 mp0 20G"),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "move-volume",
        "ID... DISK STORAGE [--delete]",
        "move a disk of containers at rest to another storage",
        _SELECTOR_TEXT,
        (*_TARGETS, Option(("--delete",), "remove the old volume; else it stays as unusedN")),
        ("nexcage move-volume web-1 rootfs local-zfs --delete",),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "backup",
        "ID... [--storage STORAGE] [--mode MODE]",
        "save containers as archives, by vzdump",
        _SELECTOR_TEXT,
        (
            *_TARGETS,
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
            _OP_ID,
            _DRY,
        ),
        ("nexcage restore web-2 local:backup/vzdump-lxc-104-2025_11_24-16_00_05.tar.zst --storage local-zfs",),
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
            _OP_ID,
            _DRY,
        ),
        ("nexcage adopt 104 --id db-1", "nexcage adopt 104 --id db-1 --node pve-02 --dry-run"),
        outputs=OUTPUTS,
    ),
    Command(
        "migrate",
        "ID... NODE [--restart]",
        "move containers to another node of their cluster",
        _SELECTOR_TEXT,
        (
            *_TARGETS,
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
            _OP_ID,
            _DRY,
        ),
        ("nexcage clone base web-1 --linked", "nexcage clone web-1 web-2 --snapshot before-upgrade"),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "template",
        "ID...",
        "turn containers at rest into templates for clones, for good",
        _SELECTOR_TEXT,
        _TARGETS,
        ("nexcage template base",),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "list",
        "[-l SELECTOR] [--all-guests]",
        "containers, what the journal knows joined with a look at the nodes",
        _SELECTORS,
        (
            _RUNTIME,
            _SELECT,
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
        (_NAME, _RUNTIME, _ALL, _SELECT),
        ("nexcage state web-1", "nexcage state 104 --output table", "nexcage state --all --output jsonl"),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "exec",
        "ID COMMAND [ARGUMENT...] | -l SELECTOR COMMAND [ARGUMENT...]",
        "run a program inside a container",
        "Its standard streams are this command's, byte for byte, and so is its exit status; 255 when it could not be run. What stands "
        "behind the ID is the program's. With a selector it runs in each container at once, every line behind the container's id.",
        (
            _NAME,
            _RUNTIME,
            _ALL,
            _SELECT,
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
            _RUNTIME,
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
            _RUNTIME,
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
            _NAME,
            _RUNTIME,
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
            _RUNTIME,
            Option(
                ("-f", "--format"), "table or json, as the OCI runtimes take it", "FORMAT", choices=("table", "json")
            ),
        ),
        ("nexcage ps web-1", "nexcage ps web-1 --output json"),
        "id",
        outputs=OUTPUTS,
    ),
    Command(
        "stats",
        "[ID...] [-l SELECTOR] [--interval SECONDS]",
        "memory, CPU and disk use of running containers",
        "From the cgroups of the nodes, one command for each node. CPU is the time used since the start; with --interval the share of one "
        "core between two looks.",
        (_SELECT, Option(("--interval",), "look twice, this long apart", "SECONDS")),
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
            _NAME,
            _RUNTIME,
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
        (_ON_NODES,),
        ("nexcage watch", "nexcage watch --node pve-01 --output jsonl"),
        outputs=("jsonl", "text"),
    ),
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
        "reconcile",
        "[ID... | --all | -l SELECTOR] [--dry-run]",
        "make the journal and the nodes agree, and say what differed",
        "Finds out what became of lost operations, records what somebody else changed, and does about it what on_drift in the "
        "configuration says: report, adopt or revert. Without an ID: every container. Exit status: 0 nothing differs or all of it "
        f"was dealt with, 1 something is left, 3 a node is away. {_SELECTORS}",
        (
            _NAME,
            _RUNTIME,
            _ALL,
            _SELECT,
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
    Command(
        "images",
        "[--node NODE]... [--available]",
        "the images on the nodes: templates, ISO images, disks to import",
        options=(_ON_NODES, Option(("--available",), "the templates that Proxmox VE offers for download instead")),
        examples=("nexcage images", "nexcage images --available --node pve-01", "nexcage images --output name"),
        outputs=OUTPUTS,
    ),
    Command(
        "pull",
        "IMAGE [--node NODE]... [--storage STORAGE]",
        "see to it that nodes have an image",
        "IMAGE is a template of Proxmox VE's index, an alias of [images], or NAME:TAG of a registry (Proxmox VE 9.1). What is there "
        "already is not fetched again.",
        (_ON_NODES, _PLACE),
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
        (_ON_NODES, _PLACE, Option(("-f", "--force"), "no error for one that no node has")),
        ("nexcage rmi local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst --node pve-01",),
        outputs=OUTPUTS,
    ),
    Command(
        "route",
        "ID [--image IMAGE]",
        "explain which backend and node a create would take",
        options=(
            Option(("--image",), "the image, for rules that look at it", "IMAGE", complete="file"),
            _NAME,
            _RUNTIME,
            Option(("--tag",), "a tag, for rules that look at it", "TAG", many=True),
            Option(("--node",), "pinned to this node", "NODE", complete="node"),
        ),
        examples=("nexcage route web-1 --image debian:12 --runtime lxc",),
        words="id",
        outputs=("table", "json", "jsonl"),
    ),
    Command(
        "config show",
        "[--origin]",
        "the configuration as it is after all files, variables and options",
        options=(Option(("--origin",), "say where each value came from"),),
        examples=("nexcage config show --origin",),
        outputs=("table", "json"),
    ),
    Command(
        "config check",
        "[FILE]",
        "read the configuration and say whether it is valid",
        examples=("nexcage config check ./config.toml",),
        words="file",
    ),
    Command(
        "config convert",
        "OLD.json",
        "NexCage's config.json (or the older proxmox-lxcri.json) as TOML; on stderr what has no counterpart",
        examples=("nexcage config convert /etc/nexcage/config.json > /etc/nexcage/config.toml",),
        words="file",
    ),
    Command(
        "config schema",
        "",
        "the JSON schema of the configuration, for editors",
        examples=("nexcage config schema > config.schema.json",),
    ),
    Command(
        "sim up",
        "--dir DIR [--nodes N] [--seed N] [--detach]",
        "start a simulated cluster behind SSH servers on loopback",
        "Prints one line when it is ready, the path of its config.toml: use it with --config.",
        (
            _DIR,
            Option(("--nodes",), "how many nodes (3)", "N"),
            Option(("--seed",), "seed of everything left to chance (0)", "N"),
            Option(("-d", "--detach"), "run in the background until 'nexcage sim down'"),
        ),
        ("nexcage sim up --nodes 8 --dir /tmp/sim --detach", "nexcage --config /tmp/sim/config.toml list"),
    ),
    Command(
        "sim down",
        "--dir DIR",
        "stop a simulated cluster",
        options=(_DIR,),
        examples=("nexcage sim down --dir /tmp/sim",),
    ),
    Command(
        "sim effects",
        "--dir DIR",
        "what the commands changed in a simulated cluster, in order",
        options=(_DIR,),
        examples=("nexcage sim effects --dir /tmp/sim --output jsonl",),
        outputs=("jsonl", "json"),
    ),
    Command(
        "sim path",
        "--dir DIR --node NODE",
        "the directory to put on PATH so that this shell is that node",
        options=(_DIR, _SIM_NODE),
        examples=('PATH="$(nexcage sim path --dir /tmp/sim --node pve-01):$PATH" pct list',),
    ),
    Command(
        "sim fault",
        "--dir DIR --node NODE KIND [--on COMMAND] [--times N]",
        "make a simulated node misbehave",
        "KIND: crash restart partition heal drop-open drop-before drop-during drop-after half-open kill-worker kill-supervisor "
        "stall slow wrong-exit garbage endless non-utf8 lock-held host-key busy rival swap migrate ha-delay no-quorum quorum "
        "storage-full storage-free clock-jump.",
        (
            _DIR,
            _SIM_NODE,
            Option(("--on",), "only for commands that begin like this: 'pct create'", "COMMAND"),
            Option(("--times",), "how often (1)", "N"),
        ),
        ("nexcage sim fault --dir /tmp/sim --node pve-02 crash",),
        choices=tuple(
            "crash restart partition heal drop-open drop-before drop-during drop-after half-open kill-worker kill-supervisor "
            "stall slow wrong-exit garbage endless non-utf8 lock-held host-key busy rival swap migrate ha-delay no-quorum quorum "
            "storage-full storage-free clock-jump".split()
        ),
    ),
    Command(
        "plugins",
        "",
        "installed plugins with their packages and versions, and whether they are on",
        "A plugin is on unless [plugins.NAME] in the configuration says enabled = false. Exit status: 1 when one cannot be used.",
        examples=("nexcage plugins", "nexcage plugins --output json"),
        outputs=OUTPUTS,
    ),
    Command(
        "version",
        "[--hosts HOSTS]",
        "print the version; as JSON also those of Python, the libraries and the nodes' tools",
        "The nodes are asked only when --hosts names them.",
        outputs=("table", "json"),
        examples=("nexcage version --output json", "nexcage version --output json --hosts 'pve-[01-03].lan'"),
    ),
    Command(
        "help", "[COMMAND|all]", "show the help of a command", examples=("nexcage help create", "nexcage help all")
    ),
    Command(
        "completion",
        "bash|zsh|fish",
        "print a completion script",
        examples=("nexcage completion bash > ~/.local/share/bash-completion/completions/nexcage",),
        choices=("bash", "zsh", "fish"),
    ),
    Command("man", "", "print the man page", examples=("nexcage man | man -l -",)),
)

COMMANDS: dict[str, Command] = {command.name: command for command in _LIST}
"""By name; those of a group have two words, ``sim up``."""

GROUPS: dict[str, tuple[str, ...]] = {
    group: tuple(name.split()[1] for name in COMMANDS if name.startswith(f"{group} "))
    for group in dict.fromkeys(name.split()[0] for name in COMMANDS if " " in name)
}
"""The words that take another word, and which."""


def options_of(command: Command, *, hidden: bool = True) -> tuple[Option, ...]:
    """The command's own options and the global ones; no flag is in both."""
    return tuple(option for option in (*command.options, *GLOBAL) if hidden or not option.hidden)

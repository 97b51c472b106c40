"""The program itself, and the simulated cluster."""

from __future__ import annotations

from nexcage._cli.commands.table import OUTPUTS, Command, Option

__all__ = ["COMMANDS"]

_DIR = Option(("--dir",), "directory of the simulated cluster", "DIR", complete="dir")

_SIM_NODE = Option(("--node",), "name of the simulated node, such as pve-01", "NODE")

COMMANDS: tuple[Command, ...] = (
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
)

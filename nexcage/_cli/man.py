"""The man page, made from the table of commands."""

from __future__ import annotations

from nexcage._cli.commands import COMMANDS, GLOBAL, Option

__all__ = ["page"]

_EXIT = (
    ("0", "done, also when it was so already"),
    ("1", "refused or failed; standard error says what is so (reconcile, doctor: something is left wrong)"),
    ("2", "usage, or input that was refused before anything ran"),
    ("3", "a node cannot be used: out of reach, silent, login or host key refused"),
    ("130", "interrupted; the operation is recorded and its outcome looked up when the container is used next"),
)
_FILES = (
    (
        "/etc/nexcage/config.toml, ~/.config/nexcage/config.toml",
        "the configuration; the later one wins, then --config, NEXCAGE_*, options",
    ),
    ("STATE_DIR/journal/", "what happened, JSON lines (/var/lib/nexcage, or $XDG_STATE_HOME/nexcage)"),
    ("RUN_DIR/ID/state.json", "the OCI state of each container (/run/nexcage, or $XDG_RUNTIME_DIR/nexcage)"),
)
_VARIABLES = (
    ("NEXCAGE_LOG_LEVEL", "debug, info, warning or error: log lines on standard error"),
    ("NEXCAGE_LOG_FILE", "as --log-file"),
    ("NO_COLOR", "no colours and no moving progress bar"),
)


def page(version: str) -> str:
    """The page in roff, section 1."""
    lines = [
        f'.TH NEXCAGE 1 "" "nexcage {_roff(version)}" "User Commands"',
        ".SH NAME",
        "nexcage \\- OCI\\-style containers on Proxmox VE",
        ".SH SYNOPSIS",
        ".B nexcage",
        "[\\fIOPTION\\fR...] \\fICOMMAND\\fR [\\fIARGUMENT\\fR...]",
        ".SH DESCRIPTION",
        _roff(
            "Drives containers on this machine or on many Proxmox VE nodes over SSH. Each container is a state machine; every "
            "step is written to a journal before it has an effect, and shown as an OCI state.json. Results go to standard "
            "output, everything else to standard error."
        ),
        ".SH OPTIONS",
        "Before or after the command.",
        *(line for option in GLOBAL for line in _item(option)),
        ".SH COMMANDS",
    ]
    for command in COMMANDS.values():
        lines += [f'.SS "nexcage {_roff(command.name)} {_roff(command.usage)}"', _roff(_sentence(command.summary))]
        if command.text:
            lines += [".PP", _roff(command.text)]
        if command.outputs:
            lines += [".PP", f"Output formats: {_roff(', '.join(command.outputs))}."]
        lines += [line for option in command.options if not option.hidden for line in _item(option)]
        for example in command.examples:
            lines += [".PP", ".nf", ".RS", _roff(example), ".RE", ".fi"]
    lines += _section("EXIT STATUS", _EXIT) + _section("FILES", _FILES) + _section("ENVIRONMENT", _VARIABLES)
    return "\n".join(lines) + "\n"


def _item(option: Option) -> list[str]:
    flags = ", ".join(f"\\fB{_roff(flag)}\\fR" for flag in option.flags)
    value = f" \\fI{_roff(option.value)}\\fR" if option.value else ""
    return [".TP", flags + value, _roff(option.help)]


def _section(title: str, rows: tuple[tuple[str, str], ...]) -> list[str]:
    return [f".SH {title}", *(line for left, right in rows for line in (".TP", f"\\fB{_roff(left)}\\fR", _roff(right)))]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _roff(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return f"\\&{text}" if text.startswith((".", "'")) else text

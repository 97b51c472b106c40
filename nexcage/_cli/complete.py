"""Completion scripts for bash, zsh and fish, made from the table of commands.

Container ids come from ``nexcage completion ids``, which lists the run directory and opens nothing.
"""

from __future__ import annotations

from nexcage._cli.commands import COMMANDS, GLOBAL, GROUPS, Command, Option

__all__ = ["SHELLS", "script"]

SIGNALS = "HUP INT QUIT KILL USR1 USR2 TERM CONT STOP WINCH PWR RTMIN+3"

# A dozen lines of bash that know the grammar; the words come in as case branches.
_BASH = r"""# bash completion for nexcage; made by 'nexcage completion bash'
_nexcage() {
    local cur prev command="" sub="" i word config=()
    cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}"
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${COMP_WORDS[i]}"
        case "$word" in
            @GLOBAL_WITH_VALUE@)
                case "$word" in --config|--state-dir|--run-dir|--root) config+=("$word" "${COMP_WORDS[i+1]}") ;; esac
                ((i++)) ;;
            -*) ;;
            *)
                if [[ -z "$command" ]]; then command="$word"
                elif [[ -z "$sub" ]]; then case "$command" in @GROUPS@) sub="$word"; command="$command $word" ;; *) sub=- ;; esac
                fi ;;
        esac
    done
    local options="@GLOBAL@" words="" values=""
    case "$command" in
        "") words="@COMMANDS@" ;;
@BRANCHES@
    esac
    case "$command|$prev" in
@VALUES@
    esac
    case "$values" in
        "") ;;
        @ids) values="$(nexcage "${config[@]}" completion ids 2>/dev/null)" ;;
        @file) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$cur")); return ;;
        @dir) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -d -- "$cur")); return ;;
        @none) return ;;
    esac
    if [[ -n "$values" ]]; then COMPREPLY=($(compgen -W "$values" -- "$cur")); return; fi
    if [[ "$cur" == -* ]]; then COMPREPLY=($(compgen -W "$options" -- "$cur")); return; fi
    case "$words" in
        @ids) words="$(nexcage "${config[@]}" completion ids 2>/dev/null)" ;;
        @file) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$cur")); return ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -F _nexcage nexcage
"""


def script(shell: str) -> str:
    """The completion script for ``shell``."""
    return SHELLS[shell]()


def _bash() -> str:
    branches = [f'        "{group}") words="{" ".join(subs)}" ;;' for group, subs in GROUPS.items()]
    values: list[str] = []
    for command in COMMANDS.values():
        flags = " ".join(flag for option in command.options if not option.hidden for flag in option.flags)
        words = _words(command)
        branches.append(f'        "{command.name}") options="$options {flags}" words="{words}" ;;')
        values += [
            _value_branch(command.name, option.flags, _offers(option))
            for option in command.options
            if option.value and not option.hidden
        ]
        if command.outputs:
            values.append(_value_branch(command.name, ("-o", "--output"), " ".join(command.outputs)))
    values += [_value_branch("", option.flags, _offers(option)) for option in GLOBAL if option.value]
    return (
        _BASH.replace(
            "@GLOBAL_WITH_VALUE@", "|".join(flag for option in GLOBAL if option.value for flag in option.flags)
        )
        .replace("@GROUPS@", "|".join(GROUPS))
        .replace("@GLOBAL@", " ".join(flag for option in GLOBAL for flag in option.flags))
        .replace("@COMMANDS@", " ".join(_top()))
        .replace("@BRANCHES@", "\n".join(branches))
        .replace("@VALUES@", "\n".join(values))
    )


def _zsh() -> str:
    # zsh runs bash's function faithfully; its own dialect would be a second grammar to keep in step.
    start = (
        "# zsh completion for nexcage; made by 'nexcage completion zsh'\nautoload -U +X bashcompinit && bashcompinit\n"
    )
    return start + _bash()


def _fish() -> str:
    lines = ["# fish completion for nexcage; made by 'nexcage completion fish'", "complete -c nexcage -f"]
    none = "not __fish_seen_subcommand_from " + " ".join(_top())
    lines += [_fish_option("", option) for option in GLOBAL]
    for name, summary in _top().items():
        lines.append(f"complete -c nexcage -n '{none}' -a {name} -d '{_fish_text(summary)}'")
    for group, subs in GROUPS.items():
        for sub in subs:
            seen = f"__fish_seen_subcommand_from {group}; and not __fish_seen_subcommand_from {' '.join(subs)}"
            lines.append(
                f"complete -c nexcage -n '{seen}' -a {sub} -d '{_fish_text(COMMANDS[f'{group} {sub}'].summary)}'"
            )
    for command in COMMANDS.values():
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in command.name.split())
        words = _words(command)
        if words == "@ids":
            lines.append(f"complete -c nexcage -n '{seen}' -a '(nexcage completion ids 2>/dev/null)'")
        elif words == "@file":
            lines.append(f"complete -c nexcage -n '{seen}' -F")
        elif words:
            lines.append(f"complete -c nexcage -n '{seen}' -a '{words}'")
        lines += [_fish_option(seen, option) for option in command.options if not option.hidden]
    return "\n".join(lines) + "\n"


def _fish_option(condition: str, option: Option) -> str:
    parts = ["complete -c nexcage"]
    if condition:
        parts.append(f"-n '{condition}'")
    parts += [f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags]
    if option.value:
        offers = _offers(option)
        special = {
            "@ids": "-x -a '(nexcage completion ids 2>/dev/null)'",
            "@file": "-r -F",
            "@dir": "-x -a '(__fish_complete_directories)'",
            "@none": "-x",
        }
        parts.append(special.get(offers, f"-x -a '{offers}'"))
    return f"{' '.join(parts)} -d '{_fish_text(option.help)}'"


def _fish_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _top() -> dict[str, str]:
    single = {name: command.summary for name, command in COMMANDS.items() if " " not in name}
    return single | {group: ", ".join(subs) for group, subs in GROUPS.items()}


def _words(command: Command) -> str:
    if command.name == "help":
        return " ".join(_top())
    if command.choices:
        return " ".join(command.choices)
    return {"id": "@ids", "file": "@file"}.get(command.words, "")


def _offers(option: Option) -> str:
    if option.choices:
        return " ".join(option.choices)
    return {"id": "@ids", "file": "@file", "dir": "@dir", "signal": SIGNALS}.get(option.complete, "@none")


def _value_branch(command: str, flags: tuple[str, ...], offers: str) -> str:
    """The case branch for the value of an option; of any command when ``command`` is empty."""
    before = f'"{command}"' if command else "*"
    patterns = "|".join(f'{before}"|{flag}"' for flag in flags)
    return f'        {patterns}) values="{offers}" ;;'


SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}

"""Every command and option as a table, a module for each chapter of the help. The parser, the help texts, the completion scripts
and the man page are made from it.
"""

from __future__ import annotations

from nexcage._cli.commands import bundles, care, change, images, inside, keep, life, look, oci, program
from nexcage._cli.commands.table import GLOBAL, OUTPUTS, Command, Option, options_of

__all__ = ["COMMANDS", "GLOBAL", "GROUPS", "OUTPUTS", "Command", "Option", "options_of"]

COMMANDS: dict[str, Command] = {
    command.name: command
    for chapter in (life, keep, change, look, inside, care, images, bundles, oci, program)
    for command in chapter.COMMANDS
}
"""By name; those of a group have two words, ``sim up``."""

GROUPS: dict[str, tuple[str, ...]] = {
    group: tuple(name.split()[1] for name in COMMANDS if name.startswith(f"{group} "))
    for group in dict.fromkeys(name.split()[0] for name in COMMANDS if " " in name)
}
"""The words that take another word, and which."""

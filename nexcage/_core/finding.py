"""What the doctor found: one thing that is as it should be, or is not, and what mends it."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

__all__ = ["Finding", "Severity", "wrong"]

Severity: TypeAlias = Literal["ok", "note", "warning", "error"]


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One finding. ``what`` names it, ``where`` is a path, a node or a container, ``why`` says what was seen, ``fix`` what to do.

    ``note``: worth knowing, nothing is wrong. ``repairable``: a repair mends it by itself. ``mended``: it just did.
    """

    severity: Severity
    what: str
    where: str
    why: str
    fix: str = ""
    repairable: bool = False
    mended: bool = False
    id: str = ""
    node: str = ""

    def __str__(self) -> str:
        then = "; mended" if self.mended else f"; {self.fix}" if self.fix else ""
        return f"{self.severity}: {self.what}: {self.where}: {self.why}{then}"


def wrong(finding: Finding) -> bool:
    """Whether something is still wrong there."""
    return finding.severity in ("warning", "error") and not finding.mended

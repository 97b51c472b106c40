"""What the doctor found: one thing that is as it should be, or is not, and what mends it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

__all__ = ["Finding", "Severity", "confirmed", "doubtful", "wrong"]

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


def doubtful(findings: Sequence[Finding]) -> bool:
    """Whether a container seems not to fit the journal, which may be no more than a driver that changed it between two readings."""
    return any(wrong(finding) and finding.id for finding in findings)


def confirmed(first: Sequence[Finding], second: Sequence[Finding]) -> list[Finding]:
    """``second``, without what is wrong with a container only there: what is really so is seen twice."""
    before = {(finding.what, finding.where) for finding in first}
    return [one for one in second if not (wrong(one) and one.id) or (one.what, one.where) in before]

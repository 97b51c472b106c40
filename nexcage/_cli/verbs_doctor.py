"""``nexcage doctor``: the state directory is read before a fleet is opened, because opening one mends things already.

Only looking: the nodes are asked through a fleet of the same id with a state directory of its own that is thrown away, so that
nothing changes here and nothing is recovered there.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import msgspec

import nexcage
from nexcage import Config, Examination, Finding, Fleet, InvalidInput, LeaseConfig, NexcageError
from nexcage._cli.parser import Call
from nexcage._cli.render import print_rows
from nexcage._cli.settings import settings
from nexcage._cli.streams import Streams
from nexcage._cli.verbs_fleet import until_interrupted

__all__ = ["doctor"]

_COLUMNS = ("verdict", "what", "where", "why", "fix")
_ORDER = ("error", "warning", "mended", "note", "ok")


def doctor(call: Call, streams: Streams) -> int:
    """Every finding as a row, what is wrong first."""
    if call.words:
        raise call.usage(f"does not take the word {call.words[0]!a}", f"nexcage reconcile {ascii(call.words[0])[1:-1]}")
    if call.given("fleet") and not call.flag("rebuild"):
        raise call.usage("--fleet goes with --rebuild")
    config, fleet = settings(call), call.text("fleet") or ""
    if fleet and config.fleet and fleet != config.fleet:
        raise call.usage(f"--fleet {fleet} and the configuration, which says {config.fleet}, contradict each other")
    config.logins()
    visit = _Visit(config)

    async def work() -> int:
        if call.flag("rebuild"):
            await visit.rebuild(fleet)
        if call.flag("repair"):
            await visit.repair()
        elif not call.flag("rebuild"):
            await visit.look()
        rows = sorted(map(_row, visit.findings), key=lambda row: _ORDER.index(row["verdict"]))
        output = call.text("output") or "table"
        shown = rows if output != "name" else [row for row in rows if row["verdict"] in ("error", "warning")]
        print_rows(streams, shown, output, _COLUMNS, name="where")
        return _status(visit.findings)

    return anyio.run(until_interrupted, partial(work), call, streams)


class _Visit:
    """One run of the doctor: what was found so far."""

    def __init__(self, config: Config) -> None:
        self.config: Config = config
        self.state: str = os.fspath(nexcage.state_dir_of(config))
        self.run: str = os.fspath(nexcage.run_dir_of(config))
        self.findings: list[Finding] = []

    async def look(self) -> None:
        """Both sides, without changing anything."""
        found = nexcage.examine(self.state, self.run, fleet=self.config.fleet)
        self.findings += found.findings
        await self._nodes(found)

    async def repair(self) -> None:
        """Both sides, and mend what is safe; what was mended is gone when one looks again."""
        found = nexcage.repair(self.state, self.run, fleet=self.config.fleet)
        if not found.fleet or not found.readable or _lost(found):
            self.findings += found.findings
            await self._nodes(found)
            return
        alone = not any(finding.what == "driver" and finding.severity == "ok" for finding in found.findings)
        on_nodes: list[Finding] = []
        async with nexcage.open_fleet(config=self.config) as fleet:
            if found.aside and alone:
                on_nodes += await fleet.rebuild(*found.aside, aside=found.aside)
            elif found.aside:
                on_nodes += [_waiting(id) for id in found.aside]
            left = {id: why for id, why in found.aside.items() if id not in {one.id for one in on_nodes if one.mended}}
            on_nodes += await fleet.doctor(repair=True, aside=left)
        nexcage.repair(self.state, self.run, fleet=self.config.fleet)  # what is of no use now that the rest is mended
        after = nexcage.examine(self.state, self.run, fleet=self.config.fleet)
        self.findings += [*_gone(found.findings, after.findings), *after.findings, *on_nodes]

    async def rebuild(self, wanted: str) -> None:
        """Write down again what the marks say, under the id that they carry."""
        found = nexcage.examine(self.state, self.run)
        id = wanted or self.config.fleet or await self._fleet_on_nodes(found)
        nexcage.give_fleet(self.state, self.run, id)
        self.config = msgspec.structs.replace(self.config, fleet=id)
        async with nexcage.open_fleet(config=self.config) as fleet:
            rebuilt = await fleet.rebuild()
            left = await fleet.doctor()
        after = nexcage.examine(self.state, self.run, fleet=id)
        self.findings += [*rebuilt, *after.findings, *_others(left, rebuilt)]

    async def _fleet_on_nodes(self, found: Examination) -> str:
        """The one fleet whose marks the nodes carry; raises InvalidInput that lists them when there is none or more than one."""
        counts: Counter[str] = Counter()
        async with self._aside("") as fleet:
            for look in (await fleet.look()).values():
                if isinstance(look, NexcageError):
                    raise look.noted("which fleet to rebuild is not known until every node answers; or give --fleet ID")
                counts.update(g.mark.fleet for g in look.guests.values() if g.mark is not None and not g.copy)
        if len(counts) == 1 or found.fleet in counts:
            return found.fleet if found.fleet in counts else next(iter(counts))
        there = ", ".join(f"{id} ({count} containers)" for id, count in counts.most_common())
        why = f"give --fleet ID, one of those on the nodes: {there}" if there else "no node has a container with a mark"
        raise InvalidInput("fleet", "", why)

    async def _nodes(self, found: Examination) -> None:
        async with self._aside(found.fleet or self.config.fleet) as fleet:
            first = await fleet.doctor(machines=found.machines, aside=found.aside)
            if not any(finding.id for finding in first):
                self.findings += first
                return
            # Another driver may have changed a container between the two readings: what is really so is seen twice.
            again = nexcage.examine(self.state, self.run, fleet=self.config.fleet)
            second = await fleet.doctor(machines=again.machines, aside=again.aside)
            seen = set(map(_key, first))
            self.findings += [one for one in second if not one.id or _key(one) in seen]

    @asynccontextmanager
    async def _aside(self, id: str) -> AsyncGenerator[Fleet]:
        """A fleet of the same nodes that keeps nothing and takes no lease."""
        with tempfile.TemporaryDirectory(prefix="nexcage-doctor-") as scratch:
            places = {"state_dir": os.path.join(scratch, "state"), "run_dir": os.path.join(scratch, "run")}
            config = msgspec.structs.replace(self.config, fleet=id, lease=LeaseConfig(), **places)
            async with nexcage.open_fleet(config=config) as fleet:
                yield fleet


def _key(finding: Finding) -> tuple[str, str]:
    return finding.what, finding.where


def _lost(found: Examination) -> bool:
    return any(finding.what == "fleet id" and finding.severity == "error" for finding in found.findings)


def _gone(before: Sequence[Finding], after: Sequence[Finding]) -> list[Finding]:
    """What was wrong before and is not any more, as mended."""
    left = {_key(finding) for finding in after}
    return [
        msgspec.structs.replace(finding, mended=True)
        for finding in before
        if finding.mended or (finding.severity in ("warning", "error") and _key(finding) not in left)
    ]


def _others(found: Sequence[Finding], known: Sequence[Finding]) -> list[Finding]:
    told = {finding.id for finding in known if finding.id and not finding.mended}
    away = {finding.node for finding in known if finding.what == "node"}
    return [one for one in found if one.id not in told and not (one.what == "node" and one.node in away)]


def _waiting(id: str) -> Finding:
    why = "it is not lifted while another driver runs"
    return Finding(severity="error", what="rebuild", where=f"container '{id}'", why=why, fix="end that driver", id=id)


def _row(finding: Finding) -> Mapping[str, Any]:  # Any: whatever JSON can say
    return {
        "verdict": "mended" if finding.mended else finding.severity,
        "what": finding.what,
        "where": finding.where,
        "why": finding.why,
        "fix": "" if finding.mended else finding.fix,
        "repairable": finding.repairable,
        "id": finding.id,
        "node": finding.node,
    }


def _status(findings: Sequence[Finding]) -> int:
    """3 when a node could not be asked, 1 when something is left wrong, else 0."""
    wrong = [finding for finding in findings if finding.severity in ("warning", "error") and not finding.mended]
    return 3 if any(finding.what == "node" for finding in wrong) else 1 if wrong else 0

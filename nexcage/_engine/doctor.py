"""The doctor on the nodes: containers that do not fit the journal, claims that nobody asks for any more.

Looking costs two commands per node: one look, one list of the claims. What is mended is done by those who do it anyway: recovery
finds out what became of an operation, a look records what is so, nodes sweep their claims.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from functools import partial

import anyio
import msgspec

from nexcage._core.census import REPAIR, census, twice
from nexcage._core.finding import Finding, confirmed, doubtful
from nexcage._core.machine import Machine
from nexcage._core.seen import Look
from nexcage._engine.node import FleetNode, Lost, by_family, in_use
from nexcage.abc import Journal
from nexcage.errors import NexcageError, NodeUnreachable
from nexcage.tools import claims, kept
from nexcage.tools.kept import Kept

__all__ = ["Doctor", "Survey", "away", "survey"]

YOUNG = 60.0
"""Seconds: a command that began so short ago may belong to an operation that was not yet read from the journal."""


class Survey(msgspec.Struct, frozen=True):
    """All nodes at one moment: their looks (by family of backends and node) and claims, or why a node could not be asked."""

    looks: dict[str, dict[str, Look]]
    claims: dict[str, tuple[Kept, ...]]
    errors: dict[str, NexcageError]

    @property
    def nodes(self) -> dict[str, Look]:
        """The nodes that were seen, each by one of its looks."""
        return {key: look for looks in reversed(self.looks.values()) for key, look in looks.items()}

    def all(self) -> Iterator[tuple[str, Look]]:
        """Every look, with its node."""
        return (one for looks in self.looks.values() for one in looks.items())


async def survey(
    fleet: str, nodes: Mapping[str, FleetNode], machines: Iterable[Machine], *, also: Collection[str] = ()
) -> Survey:
    """Ask every node for its claims, then for its containers: by the families of ``machines``, and of the backends ``also``, which a
    node need not have.
    """
    needed = in_use(nodes, machines)
    optional = {key: [node.of(""), *map(node.of, also)] for key, node in nodes.items()}
    families = dict.fromkeys(view.family for key in nodes for view in (*optional[key], *needed[key]))
    by_node: dict[str, dict[str, Look]] = {}
    seen = Survey({}, {}, {})

    async def one(node: FleetNode) -> None:
        try:
            seen.claims[node.key] = await node.run(kept.listing(fleet))
            by_node[node.key] = await by_family(needed[node.key], optional[node.key])
        except NexcageError as error:
            seen.errors[node.key] = error
        except Lost as lost:
            seen.errors[node.key] = NodeUnreachable(node.key, str(lost))

    async with anyio.create_task_group() as tasks:
        for node in nodes.values():
            tasks.start_soon(one, node)
    for family in families:
        seen.looks[family] = {key: by_node[key][family] for key in nodes if family in by_node.get(key, ())}
    return seen


class Doctor:
    """Examines the nodes of one fleet. ``observe`` records what is so of one container, and what became of its operation."""

    def __init__(
        self,
        fleet: str,
        journal: Journal,
        nodes: Mapping[str, FleetNode],
        observe: Callable[[str], Awaitable[Machine]],
        family: Callable[[str], str],
    ) -> None:
        self._fleet = fleet
        self._journal = journal
        self._nodes = nodes
        self._observe = observe
        self._family = family

    # ---- looking -----------------------------------------------------------------------------------------------------------

    async def examine(self, machines: Mapping[str, Machine] | None, aside: Collection[str]) -> list[Finding]:
        """What is wrong between ``machines`` (the journal's own when None) and the nodes; changes nothing."""
        found = await self._once(machines, aside)
        if machines is None and doubtful(found):
            found = confirmed(found, await self._once(None, aside))
        return found

    async def _once(self, machines: Mapping[str, Machine] | None, aside: Collection[str]) -> list[Finding]:
        known = self._journal.machines if machines is None else machines
        seen = await survey(self._fleet, self._nodes, known.values())
        if machines is None:
            await self._journal.refresh()
            machines = self._journal.machines
        return list(self._findings(seen, machines, aside))

    def _findings(self, seen: Survey, machines: Mapping[str, Machine], aside: Collection[str]) -> Iterator[Finding]:
        for key, error in sorted(seen.errors.items()):
            yield away(key, error)
        for key, look in seen.nodes.items():
            if not look.quorate:
                fix = "see `pvecm status`; bring the other nodes back"
                yield Finding(
                    severity="warning", what="quorum", where=key, why="it can be read, not changed", fix=fix, node=key
                )
        for family, looks in seen.looks.items():
            theirs = partial(self._is_of, family)
            yield from census(self._fleet, machines, looks, away=seen.errors, aside=aside, shown=theirs)
        open_ = _open(machines)
        doubled = twice(seen.nodes)
        for key in seen.nodes:
            if key not in doubled:
                yield from _about_claims(key, seen.claims[key], open_)

    def _is_of(self, family: str, machine: Machine) -> bool:
        return self._family(machine.backend) == family

    # ---- mending -----------------------------------------------------------------------------------------------------------

    async def repair(self, aside: Collection[str]) -> list[Finding]:
        """`examine`, with what is safe mended: what a look or recovery can tell is recorded, old claims are swept."""
        before = await self.examine(None, aside)
        ids = {finding.id for finding in before if finding.repairable and finding.id}
        nodes = {finding.node for finding in before if finding.repairable and finding.what == "claims"}
        refused: dict[str, str] = {}

        async def container(id: str) -> None:
            try:
                await self._observe(id)
            except NexcageError as error:
                refused[id] = str(error)

        async def sweep(node: FleetNode) -> None:
            try:
                await node.run(claims.sweep(self._fleet))
                held = await node.run(kept.listing(self._fleet))
                open_ = _open(self._journal.machines)
                left = [claim.name for claim in held if _over(claim, open_)]
                if left:
                    await node.run(kept.drop(self._fleet, left))
            except (NexcageError, Lost) as error:
                refused[node.key] = str(error)

        async with anyio.create_task_group() as tasks:
            for id in sorted(ids):
                tasks.start_soon(container, id)
            for key in sorted(nodes):
                tasks.start_soon(sweep, self._nodes[key])
        after = await self.examine(None, aside)
        left = {(finding.what, finding.where) for finding in after}
        mended = [
            msgspec.structs.replace(finding, mended=True)
            for finding in before
            if finding.repairable and (finding.what, finding.where) not in left
        ]
        return mended + [_refused(finding, refused) for finding in after]


def _open(machines: Mapping[str, Machine]) -> dict[str, str]:
    """Operations that are under way or whose end nobody knows, and of what."""
    return {began.op_id: m.id for m in machines.values() if (began := m.running or m.unresolved) is not None}


def _over(claim: Kept, open_: Mapping[str, str]) -> bool:
    """Whether nobody will ask for it: its operation is not under way in the journal."""
    return claim.op not in open_ and (claim.kind == "lost" or (claim.kind == "empty" and claim.age is None))


def away(key: str, error: NexcageError) -> Finding:
    why = "; ".join([str(error), *getattr(error, "__notes__", ())])
    fix = "bring it back, then run the doctor again: what it has was not judged"
    return Finding(severity="error", what="node", where=key, why=why, fix=fix, node=key)


def _refused(finding: Finding, refused: Mapping[str, str]) -> Finding:
    why = refused.get(finding.id or finding.node if finding.repairable else "")
    return finding if why is None else msgspec.structs.replace(finding, why=f"{finding.why}; not mended: {why}")


def _about_claims(key: str, held: tuple[Kept, ...], open_: Mapping[str, str]) -> Iterator[Finding]:
    """What a node keeps that it need not, or that somebody should know of. ``open_``: operations under way, and of what."""
    old = [claim for claim in held if claim.kind in ("ended", "void") and (claim.age or 0.0) > claims.KEPT]
    lost = [claim for claim in held if claim.kind == "lost" and claim.op not in open_]
    gone = [claim for claim in lost if (claim.age or 0.0) > claims.KEPT]
    empty = [claim for claim in held if claim.kind == "empty" and claim.op not in open_]
    if old or gone or empty:
        why = f"{len(old)} that ended more than 6 h ago, {len(gone)} lost ones, {len(empty)} empty ones"
        yield Finding(severity="note", what="claims", where=key, why=why, fix=REPAIR, repairable=True, node=key)
    for claim in held:
        where = f"{claim.name} on {key}"
        if claim.kind == "lost" and claim.op in open_:
            id, why = open_[claim.op], f"the command of '{open_[claim.op]}' was killed half-way"
            yield Finding(
                severity="warning", what="lost claim", where=where, why=why, fix=REPAIR, repairable=True, id=id
            )
        elif claim.kind == "running" and claim.op not in open_ and (claim.age or 0.0) > YOUNG:
            why = "a command of an operation that the journal does not have under way still runs"
            yield Finding(
                severity="warning", what="running claim", where=where, why=why, fix="wait for its end", node=key
            )
    young = len(lost) - len(gone)
    if young:
        why = f"{young} commands were killed half-way; what became of them is in the journal"
        yield Finding(severity="note", what="lost claims", where=key, why=why, fix="they go after 6 h", node=key)

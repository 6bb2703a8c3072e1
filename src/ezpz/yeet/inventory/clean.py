"""Clean: which versions and what staging go from which nodes, and removing them. `choose` is pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ezpz import __version__
from ezpz.agent.destination.removal import STALE
from ezpz.errors import DestinationBusy, EzpzError, NodesFailed, UsageError, by_code
from ezpz.remote.query import NodeQuery
from ezpz.runtime.signals import run_async
from ezpz.yeet.inventory.status import CopyState, collect, question, run_in_words, survey
from ezpz.yeet.model.results import Failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ezpz.cluster.allocation import Node
    from ezpz.yeet.inventory.status import Destination, NodeStatus

SCHEMA = "ezpz/yeet-clean/1"


@dataclass(frozen=True, slots=True)
class Removal:
    """What goes from one destination on one node: its version (or not), and the staging of these dead runs.

    freed, removed, failure: how it went; None, (), None before
    """

    standing: NodeStatus
    version: bool
    staging: tuple[Mapping[str, Any], ...]
    freed: int | None = None
    removed: tuple[str, ...] = ()
    failure: Failure | None = None

    @property
    def node(self) -> Node:
        return self.standing.node

    @property
    def frees(self) -> int:
        """Bytes of disk, as far as can be told before."""
        own = int(self.standing.found.get("disk", 0)) if self.version else 0
        return own + sum(int(each["disk"]) for each in self.staging)


@dataclass(frozen=True, slots=True)
class CleanSelection:
    """What goes from one destination; busy: by whom it is held, "" when nothing hinders; kept: nodes that keep theirs.

    foreign: nodes where something stands that is not proven to be ours
    barred: what would go, but must not; each has its failure
    """

    destination: Destination
    removals: tuple[Removal, ...]
    kept: tuple[NodeStatus, ...]
    foreign: tuple[NodeStatus, ...]
    busy: str = ""
    barred: tuple[Removal, ...] = ()


@dataclass(frozen=True, slots=True)
class CleanReport:
    """What goes, or went; named: a destination was named; agreed: somebody said yes; asked: the nodes, with failures.

    dry: it was not to be done
    """

    chosen: tuple[CleanSelection, ...]
    asked: Mapping[Node, Failure | None]
    named: bool
    agreed: bool = False
    dry: bool = False

    @property
    def removals(self) -> tuple[Removal, ...]:
        return tuple(removal for each in self.chosen for removal in each.removals)

    @property
    def frees(self) -> int:
        return sum(removal.frees for removal in self.removals)

    @property
    def freed(self) -> int:
        return sum(removal.freed or 0 for removal in self.removals)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Everything that kept something from being removed."""
        found = [failure for failure in self.asked.values() if failure is not None]
        found += [removal.failure for removal in self.removals if removal.failure is not None]
        found += [removal.failure for each in self.chosen for removal in each.barred if removal.failure is not None]
        found += [Failure(DestinationBusy.code, each.busy) for each in self.chosen if each.busy]
        if self.named:
            found += [
                Failure("destination-not-ours", standing.why) for each in self.chosen for standing in each.foreign
            ]
        return tuple(found)

    @property
    def exit_code(self) -> int:
        """0 when all that should go is gone; 2 when nobody said yes; 1, or that of the cause, when something failed."""
        if self.removals and not self.agreed and not self.dry:
            return UsageError.exit_code
        codes = {failure.code for failure in self.failures}
        if codes:
            return by_code(codes.pop()).exit_code if len(codes) == 1 else NodesFailed.exit_code
        return 0

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON; schema in docs/reference/json.md."""
        return {
            "schema": SCHEMA,
            "ezpz": __version__,
            "exit_code": self.exit_code,
            "done": self.agreed,
            "frees": self.frees,
            "freed": self.freed,
            "nodes": [{"node": node.given, "failure": _failure(failure)} for node, failure in self.asked.items()],
            "destinations": [
                {
                    "destination": each.destination.path,
                    "busy": each.busy or None,
                    "kept": [standing.node.given for standing in each.kept],
                    "foreign": [standing.node.given for standing in each.foreign],
                    "removals": [_removal(removal) for removal in (*each.removals, *each.barred)],
                }
                for each in self.chosen
            ],
        }


def _removal(removal: Removal) -> dict[str, Any]:
    receipt = removal.standing.receipt if removal.version else {}
    return {
        "node": removal.node.given,
        **{name: receipt.get(name) for name in ("version", "files", "bytes", "created", "source", "run")},
        "modified": removal.version and removal.standing.found.get("state") == "modified",
        "staging": [str(each["path"]) for each in removal.staging],
        "frees": removal.frees,
        "freed": removal.freed,
        "removed": list(removal.removed),
        "failure": _failure(removal.failure),
    }


def _failure(failure: Failure | None) -> dict[str, str] | None:
    return None if failure is None else {"code": failure.code, "message": failure.message, "hint": failure.hint}


def choose(destinations: tuple[Destination, ...], keep: int, *, by_source: bool) -> tuple[CleanSelection, ...]:
    """What goes: every version of ours but the `keep` newest, and the staging of dead runs. Pure.

    by_source: versions are compared with those of the same source, wherever they stand; else with those of the same
    destination. A destination that a run holds on any node is left alone on all.
    """
    kept = kept_versions(destinations, keep, by_source=by_source)
    return tuple(_chosen(each, kept, by_source=by_source, keep=keep) for each in destinations)


def kept_versions(destinations: Iterable[Destination], keep: int, *, by_source: bool) -> frozenset[tuple[str, str]]:
    """The `keep` newest versions of each family, as (family, version); one is as new as where it was made last."""
    made: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for destination in destinations:
        for standing in destination.standings:
            if standing.receipt:
                versions = made[_family(destination, standing, by_source=by_source)]
                created = int(standing.receipt["created"])
                versions[standing.version] = max(created, versions.get(standing.version, 0))
    return frozenset(
        (family, version)
        for family, versions in made.items()
        for version in sorted(versions, key=lambda each: (-versions[each], each))[:keep]
    )


def _family(destination: Destination, standing: NodeStatus, *, by_source: bool) -> str:
    return str(standing.receipt.get("source", "")) if by_source else destination.path


def _chosen(
    destination: Destination, kept: frozenset[tuple[str, str]], *, by_source: bool, keep: int
) -> CleanSelection:
    foreign = tuple(each for each in destination.standings if each.state is CopyState.FOREIGN)
    if destination.holders:
        holder = destination.holders[0]
        busy = f"'{destination.path}' is held: {run_in_words(holder)}"
        return CleanSelection(destination, (), (), foreign, busy=busy)
    removals: list[Removal] = []
    barred: list[Removal] = []
    keeping = []
    for standing in destination.standings:
        stays = (_family(destination, standing, by_source=by_source), standing.version) in kept
        staging = tuple(each for each in standing.found.get("staging", ()) if _is_dead(each, keep))
        version = bool(standing.receipt) and not stays
        if version or staging:
            why = _barred(standing, staging, version=version)
            (removals if why is None else barred).append(Removal(standing, version, staging, failure=why))
        if standing.receipt and stays:
            keeping.append(standing)
    return CleanSelection(destination, tuple(removals), tuple(keeping), foreign, barred=tuple(barred))


def _barred(standing: NodeStatus, staging: Iterable[Mapping[str, Any]], *, version: bool) -> Failure | None:
    """What forbids a removal, as the node tells: something is mounted there."""
    going = [standing.found, *staging] if version else [*staging]
    told = next((each["barred"] for each in going if each.get("barred")), None)
    return None if told is None else Failure(told["code"], told["message"], told["hint"])


def _is_dead(staging: Mapping[str, Any], keep: int) -> bool:
    """Whether staging may go: nobody writes it, and it is old, or holds only what was being removed."""
    rescued = staging["rescue"] and keep  # the version that stood there: the next yeet puts it back
    return not staging["live"] and not rescued and (staging["spent"] or staging["age"] >= STALE)


def find_removable(
    nodes: tuple[Node, ...], destination: str, environ: Mapping[str, str], transport: str, keep: int
) -> CleanReport:
    """What would go from the nodes; destination: "" for all that is found. A node's failure is in the report."""
    return run_async(_look(nodes, question(destination, environ, weigh=True), transport, keep))


async def _look(nodes: tuple[Node, ...], asked: dict[str, Any], transport: str, keep: int) -> CleanReport:
    async with NodeQuery(nodes, transport, keep=not asked["wanted"]) as asking:
        answers = await survey(asking, asked)
    named = "".join(asked["wanted"])
    chosen = choose(collect(answers, named), keep, by_source=not named)
    lost = {node: Failure.of(answer) if isinstance(answer, EzpzError) else None for node, answer in answers.items()}
    return CleanReport(chosen, lost, bool(named))


def remove(report: CleanReport, run: str, transport: str) -> CleanReport:
    """Remove what was chosen, on all nodes at once; run: names what is moved aside meanwhile."""
    return run_async(_remove(report, run, transport))


async def _remove(report: CleanReport, run: str, transport: str) -> CleanReport:
    nodes = tuple(dict.fromkeys(removal.node for removal in report.removals))
    chosen = []
    async with NodeQuery(nodes, transport, keep=True) as asking:
        for each in report.chosen:
            requests = {removal.node: _request(each.destination, removal, run) for removal in each.removals}
            answers = await asking.ask(requests)
            done = tuple(_done(removal, answers[removal.node]) for removal in each.removals)
            chosen.append(replace(each, removals=done))
    return replace(report, chosen=tuple(chosen), agreed=True)


def _request(destination: Destination, removal: Removal, run: str) -> dict[str, Any]:
    receipt = removal.standing.receipt
    version = {name: receipt.get(name) for name in ("run", "version", "created")} if removal.version else None
    staging = [each["run"] for each in removal.staging]
    return {"op": "clear", "dst": destination.path, "run": run, "version": version, "staging": staging}


def _done(removal: Removal, answer: dict[str, Any] | EzpzError) -> Removal:
    if isinstance(answer, EzpzError):
        return replace(removal, failure=Failure.of(answer))
    return replace(removal, freed=int(answer["freed"]), removed=tuple(answer["removed"]))

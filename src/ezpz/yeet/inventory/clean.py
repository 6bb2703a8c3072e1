"""Select the versions and the staging that `ezpz yeet clean` removes, and remove them. The selection is pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from ezpz.agent.common.messages.queries import ClearRequest, VersionKey
from ezpz.agent.destination.removal import STALE
from ezpz.errors import EzpzError
from ezpz.remote.query import NodeQuery
from ezpz.runtime.signals import run_async
from ezpz.yeet.inventory.clean_report import CleanReport, CleanSelection, Removal
from ezpz.yeet.inventory.status import describe_run, failures_in, group_by_destination, query_copies, survey_request
from ezpz.yeet.inventory.status_report import CopyState
from ezpz.yeet.model.results import Failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ezpz.agent.common.messages.queries import ClearAnswer, StagingState
    from ezpz.cluster.allocation import Node
    from ezpz.yeet.inventory.status_report import Destination, NodeStatus


def find_removable(
    nodes: tuple[Node, ...], destination: str, environ: Mapping[str, str], transport: str, keep: int
) -> CleanReport:
    """Query the nodes and select what to remove. The report contains the failures of nodes.

    Args:
        nodes: the nodes
        destination: the destination, "" for all that are found
        environ: the variables of the job
        transport: the name of one
        keep: how many of the newest versions to keep
    """

    async def find_all() -> CleanReport:
        async with NodeQuery(nodes, transport, keep=not destination) as query:
            answers = await query_copies(query, survey_request(destination, environ, weigh=True))
        found = group_by_destination(answers, destination)
        selections = select_removals(found, keep, by_source=not destination)
        return CleanReport(selections, failures_in(answers), bool(destination))

    return run_async(find_all())


def select_removals(destinations: tuple[Destination, ...], keep: int, *, by_source: bool) -> tuple[CleanSelection, ...]:
    """Select every version that ezpz created except the newest, and the staging of dead runs.

    A destination that a run holds on any node is left alone on all nodes.

    Args:
        destinations: the destinations on all nodes
        keep: how many of the newest versions to keep
        by_source: compare versions of the same source at all destinations, else those at the same destination
    """
    kept = newest_versions(destinations, keep, by_source=by_source)
    return tuple(_select(each, kept, by_source=by_source, keep=keep) for each in destinations)


def newest_versions(destinations: Iterable[Destination], count: int, *, by_source: bool) -> frozenset[tuple[str, str]]:
    """Return the newest versions of each source, or at each destination.

    Args:
        destinations: the destinations on all nodes
        count: how many of each
        by_source: as in `select_removals`

    Returns:
        Pairs of a source or a destination, and a version. The most recent copy of a version decides how new it is.
    """
    made: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for destination in destinations:
        for status in destination.statuses:
            if status.receipt is not None:
                versions = made[_family(destination, status, by_source=by_source)]
                versions[status.version] = max(status.receipt.created, versions.get(status.version, 0))
    return frozenset(
        (family, version)
        for family, versions in made.items()
        for version in sorted(versions, key=lambda each: (-versions[each], each))[:count]
    )


def remove(report: CleanReport, run: str, transport: str) -> CleanReport:
    """Remove what was selected from all nodes in parallel, and return the report with the results.

    Args:
        report: the selection
        run: the identifier of this run, which names what is moved aside
        transport: the name of one
    """

    async def remove_all() -> CleanReport:
        nodes = tuple(dict.fromkeys(removal.node for removal in report.removals))
        selections = []
        async with NodeQuery(nodes, transport, keep=True) as query:
            for each in report.selections:
                requests = {removal.node: _removal_request(each.destination, removal, run) for removal in each.removals}
                answers = await query.ask(requests)
                removals = tuple(_record_answer(removal, answers[removal.node]) for removal in each.removals)
                selections.append(replace(each, removals=removals))
        return replace(report, selections=tuple(selections), confirmed=True)

    return run_async(remove_all())


def _family(destination: Destination, status: NodeStatus, *, by_source: bool) -> str:
    """Return what versions are compared by: their source, or their destination."""
    if not by_source:
        return destination.path
    return "" if status.receipt is None else status.receipt.source


def _select(
    destination: Destination, kept: frozenset[tuple[str, str]], *, by_source: bool, keep: int
) -> CleanSelection:
    """Select what is removed from one destination."""
    unowned = tuple(each for each in destination.statuses if each.state is CopyState.FOREIGN)
    if destination.held_locks:
        busy = f"'{destination.path}' is held: {describe_run(destination.held_locks[0])}"
        return CleanSelection(destination, (), (), unowned, busy=busy)
    removals: list[Removal] = []
    refused: list[Removal] = []
    keeping = []
    for status in destination.statuses:
        is_kept = (_family(destination, status, by_source=by_source), status.version) in kept
        staging = tuple(each for each in status.staging if _is_removable(each, keep))
        version = status.receipt is not None and not is_kept
        if version or staging:
            failure = _refusal(status, staging, version=version)
            (removals if failure is None else refused).append(Removal(status, version, staging, failure=failure))
        if status.receipt is not None and is_kept:
            keeping.append(status)
    return CleanSelection(destination, tuple(removals), tuple(keeping), unowned, refused=tuple(refused))


def _refusal(status: NodeStatus, staging: Iterable[StagingState], *, version: bool) -> Failure | None:
    """Return why the node forbids a removal, such as a mount below the destination."""
    refusals = [each.barred for each in staging]
    if version and status.found is not None:
        refusals.insert(0, status.found.barred)
    return next((Failure(each.code, each.message, each.hint) for each in refusals if each is not None), None)


def _is_removable(staging: StagingState, keep: int) -> bool:
    """Return whether no run writes to a staging directory, and it is old or holds only what was being removed."""
    holds_version = staging.rescue and keep  # the previous version: the next run puts it back
    return not staging.live and not holds_version and (staging.spent or staging.age >= STALE)


def _removal_request(destination: Destination, removal: Removal, run: str) -> ClearRequest:
    receipt = removal.status.receipt if removal.version else None
    version = None
    if receipt is not None:
        version = VersionKey(run=receipt.run, version=receipt.version, created=receipt.created)
    return ClearRequest(dst=destination.path, run=run, version=version, staging=[each.run for each in removal.staging])


def _record_answer(removal: Removal, answer: ClearAnswer | EzpzError) -> Removal:
    """Return the removal with the node's answer."""
    if isinstance(answer, EzpzError):
        return replace(removal, failure=Failure.of(answer))
    return replace(removal, freed=answer.freed, removed=tuple(answer.removed))

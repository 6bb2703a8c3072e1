"""Query nodes for their copies, and classify the answers. All functions are pure except those that take a query."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from ezpz.agent.common.cancel import CancelToken
from ezpz.agent.common.messages.queries import InventoryRequest
from ezpz.agent.common.text import printable_path
from ezpz.agent.destination.places import VARIABLES
from ezpz.errors import EzpzError
from ezpz.remote.query import NodeQuery
from ezpz.runtime.async_process import run_in_thread
from ezpz.runtime.signals import run_async
from ezpz.yeet.inventory.source_changes import CHECK_TIMEOUT, SourceChange, check_source
from ezpz.yeet.inventory.status_report import CopyState, Destination, NodeStatus, StatusReport
from ezpz.yeet.model.results import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.agent.common.messages.queries import CopyOnNode, InventoryAnswer, LockHolder
    from ezpz.cluster.allocation import Node

ANSWER_TIMEOUT = 300.0  # seconds for a node to report all its copies without reading their files

Answers: TypeAlias = "Mapping[Node, InventoryAnswer | EzpzError]"


def query_status(
    nodes: tuple[Node, ...], destination: str, environ: Mapping[str, str], transport: str, *, verify: bool
) -> StatusReport:
    """Query all nodes in parallel. An unreachable node is part of the report, and no error.

    Args:
        nodes: the nodes
        destination: the destination, "" for all that are found
        environ: the variables of the job
        transport: the name of one
        verify: read every file, on the nodes and in the source
    """

    async def query_all() -> StatusReport:
        async with NodeQuery(nodes, transport, keep=not destination) as query:
            return await report_status(query, destination, environ, verify=verify)

    return run_async(query_all())


async def report_status(
    query: NodeQuery, destination: str, environ: Mapping[str, str], *, verify: bool = False
) -> StatusReport:
    """Query all nodes and check the sources; the arguments are those of `query_status`."""
    request = survey_request(destination, environ, contents=verify)
    answers = await query_copies(query, request, timeout=None if verify else ANSWER_TIMEOUT)
    found = group_by_destination(answers, destination)
    return make_report(await check_sources(found, verify=verify), answers)


def survey_request(destination: str, environ: Mapping[str, str], **options: bool) -> InventoryRequest:
    """Return the request for copies on a node.

    Args:
        destination: the destination, "" for all that are found
        environ: the variables of the job, some of which name directories to search
        options: `contents`, `quick`, and `weigh` of the request
    """
    places = [environ[name] for name in VARIABLES if environ.get(name)]
    return InventoryRequest(wanted=[destination] if destination else [], places=places, **options)


async def query_copies(
    query: NodeQuery, request: InventoryRequest, timeout: float | None = ANSWER_TIMEOUT
) -> dict[Node, InventoryAnswer | EzpzError]:
    """Query all nodes for their copies.

    A node may search fewer directories than others. So it is queried again for the destinations that only others
    reported.

    Args:
        query: the connection to the nodes
        request: as `survey_request` makes it
        timeout: seconds for each answer, None for no limit
    """
    answers = await query.ask(dict.fromkeys(query.nodes, request), within=timeout)
    missing = missing_places(answers) if not request.wanted else {}
    requests = {node: request.updated(wanted=places) for node, places in missing.items()}
    more = await query.ask(requests, within=timeout)
    for node, answer in more.items():
        first = answers[node]
        answers[node] = (
            answer
            if isinstance(answer, EzpzError) or isinstance(first, EzpzError)
            else answer.updated(found=[*first.found, *answer.found])
        )
    return answers


def missing_places(answers: Answers) -> dict[Node, list[str]]:
    """Return the destinations that other nodes reported, for every node that did not report them."""
    reported = {
        node: {found.place for found in answer.found}
        for node, answer in answers.items()
        if not isinstance(answer, EzpzError)
    }
    everywhere = {place for places in reported.values() for place in places}
    return {node: sorted(everywhere - places) for node, places in reported.items() if everywhere - places}


async def check_sources(found: tuple[Destination, ...], *, verify: bool = False) -> tuple[Destination, ...]:
    """Return the destinations with the states of their sources, and with the copies that are stale because of them.

    Args:
        found: the destinations
        verify: check all of each source, however long it takes
    """
    cancel = CancelToken()

    def check_all() -> tuple[Destination, ...]:
        timeout = None if verify else CHECK_TIMEOUT
        return tuple(
            replace(
                each, source=check_source(each.newest_receipt, each.path, cancel.raise_if_cancelled, timeout=timeout)
            )
            for each in found
        )

    return tuple(map(mark_stale, await run_in_thread(check_all, cancel.cancel)))


def group_by_destination(answers: Answers, destination: str) -> tuple[Destination, ...]:
    """Return the destinations in the answers, ABSENT on every node that did not report them.

    Args:
        answers: the answers of the nodes
        destination: the destination that was named, "" for all
    """
    by_place: dict[str, dict[Node, CopyOnNode]] = {destination: {}} if destination else {}
    for node, answer in answers.items():
        for found in () if isinstance(answer, EzpzError) else answer.found:
            by_place.setdefault(found.place, {})[node] = found
    return tuple(
        Destination(place, tuple(_node_status(node, answer, copies.get(node)) for node, answer in answers.items()))
        for place, copies in sorted(by_place.items())
    )


def mark_stale(destination: Destination) -> Destination:
    """Return the destination with copies as STALE that are not the newest version, or whose source changed."""
    newest, source = destination.newest_receipt, destination.source

    def mark(status: NodeStatus) -> NodeStatus:
        if status.state is not CopyState.CURRENT:
            return status
        if newest is not None and status.version != newest.version:
            return replace(status, state=CopyState.STALE, why=f"version {newest.version[:12]} is newer")
        if source.change is SourceChange.CHANGED:
            what = f": {printable_path(source.path)}" if source.path else ""
            return replace(status, state=CopyState.STALE, why=f"its source has changed since{what}")
        return status

    return replace(destination, statuses=tuple(map(mark, destination.statuses)))


def make_report(destinations: tuple[Destination, ...], answers: Answers) -> StatusReport:
    """Return the report, with the current time."""
    return StatusReport(destinations, failures_in(answers), time.time())


def failures_in(answers: Answers) -> dict[Node, Failure | None]:
    """Return why nodes did not answer, None for those that did."""
    return {node: Failure.of(answer) if isinstance(answer, EzpzError) else None for node, answer in answers.items()}


def describe_run(lock: LockHolder) -> str:
    """Describe the run that holds a lock, without what differs between nodes."""
    return printable_path(f"run {lock.run or '(not told)'} of {lock.user or '(not told)'} is under way".encode())


def _node_status(node: Node, answer: InventoryAnswer | EzpzError, found: CopyOnNode | None) -> NodeStatus:
    """Return the status of one node from its answer and from what is in it about the destination."""
    if isinstance(answer, EzpzError):
        return NodeStatus(node, CopyState.UNREACHABLE, failure=Failure.of(answer))
    if found is None:
        return NodeStatus(node, CopyState.ABSENT)
    state = CopyState.CURRENT if found.state == "whole" else CopyState(found.state)
    return NodeStatus(node, state, found, why=_explain(found))


def _explain(found: CopyOnNode) -> str:
    """Return an explanation of a node's own state, equal for nodes on which the same happened."""
    if found.state == "partial":
        return describe_run(found.lock) if found.lock else "left by a run that died"
    if found.differences is None:
        return found.why
    counts = {
        "changed": found.differences.changed,
        "missing": found.differences.missing,
        "added": found.differences.extra,
    }
    return ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)

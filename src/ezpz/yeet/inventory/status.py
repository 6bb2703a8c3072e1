"""Status: the state of every destination on every node, from what each node tells of itself; pure but for `ask`."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

from ezpz import __version__
from ezpz.agent.common.cancel import CancelToken
from ezpz.agent.common.text import printable_path
from ezpz.agent.destination.places import VARIABLES
from ezpz.errors import EzpzError, NodesFailed
from ezpz.remote.query import NodeQuery
from ezpz.runtime.async_process import run_in_thread
from ezpz.runtime.signals import run_async
from ezpz.yeet.inventory.source_changes import WITHIN, SourceChange, SourceState, check_source
from ezpz.yeet.model.results import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.cluster.allocation import Node

SCHEMA = "ezpz/yeet-status/2"
NOT_LOOKED_AT = SourceState(SourceChange.UNKNOWN)
ANSWER_WITHIN = 300.0  # seconds for a node to look at all that it has, without reading files

Answers: TypeAlias = "Mapping[Node, dict[str, Any] | EzpzError]"


class CopyState(Enum):
    """Of one destination on one node."""

    CURRENT = "current"
    STALE = "stale"
    MODIFIED = "modified"
    PARTIAL = "partial"
    ABSENT = "absent"
    FOREIGN = "foreign"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What stands at a destination on one node; why: in words, what the state alone does not tell.

    found: what the node told, as `agent.estate.judge` has it, {} for one that told nothing
    """

    node: Node
    state: CopyState
    found: Mapping[str, Any]
    why: str = ""
    failure: Failure | None = None

    @property
    def receipt(self) -> dict[str, Any]:
        return self.found.get("receipt") or {}

    @property
    def version(self) -> str:
        return str(self.receipt.get("version", ""))

    def to_dict(self, now: float) -> dict[str, Any]:
        receipt, failure = self.receipt, self.failure
        names = ("version", "files", "bytes", "created", "source", "run", "kind")
        created = receipt.get("created")
        return {
            "node": self.node.given,
            "state": self.state.value,
            "why": self.why,
            **{name: receipt.get(name) for name in names},
            "age": None if created is None else max(0, int(now - created)),
            "contents_compared": bool(self.found.get("contents")),
            "differences": self.found.get("differences"),
            "lock": self.found.get("lock"),
            "staging": [
                {name: each[name] for name in ("path", "run", "files", "bytes", "age", "live")}
                for each in self.found.get("staging", ())
            ],
            "failure": None
            if failure is None
            else {"code": failure.code, "message": failure.message, "hint": failure.hint},
        }


@dataclass(frozen=True, slots=True)
class Destination:
    """One destination on every node that was asked; source: what has become of what its newest version was made of."""

    path: str
    standings: tuple[NodeStatus, ...]
    source: SourceState = NOT_LOOKED_AT

    @property
    def newest(self) -> Mapping[str, Any]:
        """The receipt that was made last, {} when there is none."""
        return max((each.receipt for each in self.standings), key=lambda each: each.get("created", -1), default={})

    @property
    def holders(self) -> tuple[Mapping[str, Any], ...]:
        """The locks that are held."""
        return tuple(each.found["lock"] for each in self.standings if each.found.get("lock"))


@dataclass(frozen=True, slots=True)
class StatusReport:
    """Every destination that was found or named; asked: the nodes, with why one did not answer."""

    destinations: tuple[Destination, ...]
    asked: Mapping[Node, Failure | None]
    now: float

    @property
    def exit_code(self) -> int:
        """0 only if there is a destination, and every node is current at each."""
        states = {each.state for destination in self.destinations for each in destination.standings}
        return 0 if states == {CopyState.CURRENT} else NodesFailed.exit_code

    def to_dict(self) -> dict[str, Any]:
        """The status as JSON; schema in docs/reference/json.md."""
        return {
            "schema": SCHEMA,
            "ezpz": __version__,
            "exit_code": self.exit_code,
            "nodes": [node.given for node in self.asked],
            "destinations": [
                {
                    "destination": each.path,
                    "source": {
                        "path": each.newest.get("source"),
                        "state": each.source.change.value,
                        "changed": each.source.path or None,
                    },
                    "nodes": [standing.to_dict(self.now) for standing in each.standings],
                }
                for each in self.destinations
            ],
        }


def question(destination: str, environ: Mapping[str, str], **how: Any) -> dict[str, Any]:
    """What every node is asked; destination: "" for all that is found; how: see `agent.estate.survey`."""
    told = [environ[name] for name in VARIABLES if environ.get(name)]
    return {"op": "inventory", "wanted": [destination] if destination else [], "places": told, **how}


def ask(
    nodes: tuple[Node, ...], destination: str, environ: Mapping[str, str], transport: str, *, verify: bool
) -> StatusReport:
    """Ask every node at once what stands at a destination, or with "" at every one that is found.

    verify: every file is read, there and of the source. A node that cannot be reached is an answer, not an error.
    """
    return run_async(_ask(nodes, question(destination, environ, contents=verify), transport, verify=verify))


async def _ask(nodes: tuple[Node, ...], asked: dict[str, Any], transport: str, *, verify: bool) -> StatusReport:
    async with NodeQuery(nodes, transport, keep=not asked["wanted"]) as asking:
        return await inquire(asking, asked, verify=verify)


async def inquire(asking: NodeQuery, asked: dict[str, Any], *, verify: bool = False) -> StatusReport:
    """Ask every node what stands there, and look at the sources."""
    answers = await survey(asking, asked, within=None if verify else ANSWER_WITHIN)
    found = collect(answers, "".join(asked["wanted"]))
    return report_of(await look_at_sources(found, verify=verify), answers)


async def survey(
    asking: NodeQuery, asked: dict[str, Any], within: float | None = ANSWER_WITHIN
) -> dict[Node, dict[str, Any] | EzpzError]:
    """Ask every node, and those that told of less than others a second time: a node's own usual places may be fewer."""
    answers = await asking.ask(dict.fromkeys(asking.nodes, asked), within=within)
    missing = places_missing(answers) if not asked["wanted"] else {}
    more = await asking.ask({node: {**asked, "wanted": places} for node, places in missing.items()}, within=within)
    for node, answer in more.items():
        first = answers[node]
        answers[node] = (
            answer
            if isinstance(answer, EzpzError) or isinstance(first, EzpzError)
            else {"found": [*first["found"], *answer["found"]]}
        )
    return answers


def places_missing(answers: Answers) -> dict[Node, list[str]]:
    """Where others have something, and a node did not say what it has. Pure."""
    told = {
        node: {str(found["place"]) for found in answer["found"]}
        for node, answer in answers.items()
        if not isinstance(answer, EzpzError)
    }
    everywhere = {place for places in told.values() for place in places}
    return {node: sorted(everywhere - places) for node, places in told.items() if everywhere - places}


async def look_at_sources(found: tuple[Destination, ...], *, verify: bool = False) -> tuple[Destination, ...]:
    """The same, with what has become of the sources. Cancelled, it ends soon."""
    cancel = CancelToken()

    def look() -> tuple[Destination, ...]:
        within = None if verify else WITHIN
        return tuple(
            replace(each, source=check_source(each.newest, each.path, cancel.raise_if_cancelled, within=within))
            for each in found
        )

    try:
        return tuple(map(mark_stale, await run_in_thread(look)))
    finally:
        cancel.cancel()


def collect(answers: Answers, destination: str) -> tuple[Destination, ...]:
    """The destinations in what the nodes told; a node that has nothing where others have something is ABSENT there.

    destination: the one that was asked for, "" for all
    """
    by_place: dict[str, dict[Node, dict[str, Any]]] = {destination: {}} if destination else {}
    for node, answer in answers.items():
        for found in () if isinstance(answer, EzpzError) else answer["found"]:
            by_place.setdefault(found["place"], {})[node] = found
    return tuple(
        Destination(place, tuple(_standing(node, answer, there.get(node)) for node, answer in answers.items()))
        for place, there in sorted(by_place.items())
    )


def _standing(node: Node, answer: dict[str, Any] | EzpzError, found: dict[str, Any] | None) -> NodeStatus:
    if isinstance(answer, EzpzError):
        return NodeStatus(node, CopyState.UNREACHABLE, {}, failure=Failure.of(answer))
    if found is None:
        return NodeStatus(node, CopyState.ABSENT, {})
    state = CopyState.CURRENT if found["state"] == "whole" else CopyState(found["state"])
    return NodeStatus(node, state, found, why=_why(found))


def _why(found: Mapping[str, Any]) -> str:
    """What a node's own state does not tell, in words that are alike where the same is true."""
    if found["state"] == "partial":
        return run_in_words(found["lock"]) if found["lock"] else "left by a run that died"
    differences = found["differences"]
    if not differences:
        return str(found["why"])
    words = {"changed": "changed", "missing": "missing", "extra": "added"}
    return ", ".join(f"{differences[name]:,} {word}" for name, word in words.items() if differences[name])


def run_in_words(lock: Mapping[str, Any]) -> str:
    """Whose run holds a lock; without what is different on every node."""
    return printable_path(f"run {lock['run'] or '(not told)'} of {lock['user'] or '(not told)'} is under way".encode())


def mark_stale(destination: Destination) -> Destination:
    """The same, with versions that are not the newest, or whose source has changed, as STALE. Pure."""
    newest = destination.newest
    version, source = newest.get("version"), destination.source

    def settled(standing: NodeStatus) -> NodeStatus:
        if standing.state is not CopyState.CURRENT:
            return standing
        if standing.version != version:
            return replace(standing, state=CopyState.STALE, why=f"version {str(version)[:12]} is newer")
        if source.change is SourceChange.CHANGED:
            what = f": {printable_path(source.path)}" if source.path else ""
            return replace(standing, state=CopyState.STALE, why=f"its source has changed since{what}")
        return standing

    return replace(destination, standings=tuple(map(settled, destination.standings)))


def report_of(destinations: tuple[Destination, ...], answers: Answers) -> StatusReport:
    """What all of it comes to, now."""
    asked = {node: Failure.of(answer) if isinstance(answer, EzpzError) else None for node, answer in answers.items()}
    return StatusReport(destinations, asked, time.time())

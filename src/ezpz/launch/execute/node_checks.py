"""Checks of `--check`: the request to every node, and the evaluation of the replies. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ezpz.agent.common.messages.queries import HealthCheckRequest
from ezpz.errors import EzpzError, ToolMissing
from ezpz.remote.health_check import Reply

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ezpz.remote.health_check import ReplyOrError

MAX_CLOCK_SKEW = 5.0  # seconds
TIMEOUT = 5.0  # seconds for each check
MIN_FREE_BYTES = 100_000_000  # in /tmp


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What a node must have.

    Attributes:
        programs: Absolute paths that must be executable.
        paths: Other absolute paths that must exist and be readable.
        shared: Directories whose filesystem must answer.
        tmp: The directory that must have `room` bytes free.
        timeout: Seconds for each check.
    """

    programs: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    tmp: str = "/tmp"  # noqa: S108 - every node has its own
    room: int = MIN_FREE_BYTES
    timeout: float = TIMEOUT

    def to_request(self) -> HealthCheckRequest:
        """Return the request for the agent on a node."""
        return HealthCheckRequest(
            programs=self.programs, paths=self.paths, shared=self.shared, tmp=self.tmp, room=self.room,
            seconds=self.timeout, links=True, devices=True,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class NodeFault:
    """A failed check of a node: "reached", "path", "shared", "tmp", "clock", "link", "devices", or "version"."""

    node: str
    check: str
    why: str


@dataclass(frozen=True, slots=True)
class CheckResults:
    """The faults of all nodes in the order of the nodes, and remarks about nodes that could not be checked."""

    faults: tuple[NodeFault, ...]
    remarks: tuple[str, ...] = ()

    @property
    def failed_nodes(self) -> tuple[str, ...]:
        """The nodes that failed a check, each once."""
        return tuple(dict.fromkeys(fault.node for fault in self.faults))


def evaluate_replies(answers: Mapping[str, ReplyOrError]) -> CheckResults:
    """Return which nodes failed which checks. Links, devices, and versions are compared with those of most nodes.

    A node without Python can still run ranks, and passes. A node that does not answer fails.
    """
    replies = {name: answer for name, answer in answers.items() if isinstance(answer, Reply)}
    lost = {name: e for name, e in answers.items() if isinstance(e, EzpzError) and not isinstance(e, ToolMissing)}
    faults = [NodeFault(name, "reached", e.message) for name, e in lost.items()]
    remarks = [f"{name} is not checked: {e.message}" for name, e in answers.items() if isinstance(e, ToolMissing)]
    for name, answer in replies.items():
        faults += _own_faults(name, answer)
    faults += _link_faults(replies)
    faults += _device_faults(replies)
    faults += _version_faults(replies)
    order = {name: index for index, name in enumerate(answers)}
    return CheckResults(tuple(sorted(faults, key=lambda fault: order[fault.node])), tuple(remarks))


def _own_faults(name: str, reply: Reply) -> Iterable[NodeFault]:
    """Yield the faults of a node that need no comparison with others."""
    for title, found in reply.answer.checks.items():
        if not found.ok:
            check, _, where = title.partition(" ")
            why = found.why or "it failed"
            named = f"{where}: {why}" if where and where not in why else why
            yield NodeFault(name, check.removesuffix("s") if check == "links" else check, named)
    clock = float(reply.answer.time)
    early, late = reply.asked - clock, clock - reply.heard
    if max(early, late) > MAX_CLOCK_SKEW:
        yield NodeFault(name, "clock", f"{max(early, late):.0f} s {'slow' if early > late else 'fast'}")


def _facts(replies: Mapping[str, Reply], check: str, fact: str) -> dict[str, Any]:
    """Return a fact that a check found on each node that has it."""
    found = {name: getattr(reply.answer.checks.get(check), fact, None) for name, reply in replies.items()}
    return {name: value for name, value in found.items() if value is not None}


def _link_faults(replies: Mapping[str, Reply]) -> Iterable[NodeFault]:
    """Yield each network link that is down on a node and up on most nodes. An unused link is down on all of them."""
    states: dict[str, dict[str, str]] = {}
    for name, links in _facts(replies, "links", "links").items():
        for link, state in links.items():
            states.setdefault(link, {})[name] = state
    for link, by_node in states.items():
        down = [name for name, state in by_node.items() if state == "down"]
        if 2 * sum(state == "up" for state in by_node.values()) >= len(by_node):
            yield from (NodeFault(name, "link", f"{link} is down") for name in down)


def _device_faults(replies: Mapping[str, Reply]) -> Iterable[NodeFault]:
    """Yield each node with fewer devices than most nodes."""
    for check in dict.fromkeys(check for answer in replies.values() for check in answer.answer.checks):
        if check.startswith("devices "):
            counts = _facts(replies, check, "devices")
            usual = _most_common(counts.values())
            for name, count in counts.items():
                if usual is not None and count < usual:
                    yield NodeFault(name, "devices", f"{check.partition(' ')[2]} lists {count}, on most nodes {usual}")


def _version_faults(replies: Mapping[str, Reply]) -> Iterable[NodeFault]:
    """Yield each node whose copy has another version than on most nodes, or that has no copy."""
    checks = dict.fromkeys(check for answer in replies.values() for check in answer.answer.checks)
    told: set[tuple[str, str]] = set()
    for check in checks:
        versions = _facts(replies, check, "version") if check.startswith("version ") else {}
        usual = _most_common(versions.values())
        if usual is None:
            continue
        where = str(next(iter(_facts(replies, check, "dst").values())))
        for name in replies:
            have = versions.get(name)
            if have != usual and (name, where) not in told:
                told.add((name, where))
                version = f"version {have[:12]}" if have else "no yeet"
                yield NodeFault(name, "version", f"{version} at {where}, on most nodes {usual[:12]}")


def _most_common(values: Iterable[Any]) -> Any:
    """Return the most frequent value, the first of equals, None for no values."""
    counted = Counter(values).most_common(1)
    return counted[0][0] if counted else None


def format_table(findings: CheckResults, count: int) -> tuple[str, ...]:
    """Return the lines of a table of failed checks."""
    if not findings.faults:
        return (f"all {count} nodes passed the checks",) if count != 1 else ("the node passed the checks",)
    rows = [("node", "check", "why"), *((fault.node, fault.check, fault.why) for fault in findings.faults)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return tuple(f"{node:<{widths[0]}}  {check:<{widths[1]}}  {why}" for node, check, why in rows)


def absolute_paths(paths: Sequence[str | None]) -> tuple[str, ...]:
    """Return the absolute ones of these paths, each once."""
    return tuple(dict.fromkeys(path for path in paths if path and path.startswith("/")))

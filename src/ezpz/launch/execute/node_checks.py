"""What `--check` wants to know of every node, and what the answers mean: who is left out, and why. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ezpz.errors import EzpzError, ToolMissing
from ezpz.remote.health_check import Reply

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ezpz.remote.health_check import ReplyOrError

SKEW = 5.0  # seconds that a clock may differ
TIMEOUT = 5.0  # seconds that one check may take
ROOM = 100_000_000  # bytes that have to be free in /tmp


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What a node must have.

    programs: absolute paths that must be executable; paths: others that must exist and be readable
    shared: directories whose filesystem must answer; room: bytes free in `tmp`; timeout: seconds for each of these
    """

    programs: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    tmp: str = "/tmp"  # noqa: S108 - every node has its own
    room: int = ROOM
    timeout: float = TIMEOUT

    def to_request(self) -> dict[str, Any]:
        """As the program on a node takes it."""
        lists = {"programs": list(self.programs), "paths": list(self.paths), "shared": list(self.shared)}
        return {**lists, "tmp": self.tmp, "room": self.room, "seconds": self.timeout, "links": True, "devices": True}


@dataclass(frozen=True, slots=True)
class Fault:
    """A node fails a check: "reached", "path", "shared", "tmp", "clock", "link", "devices" or "version"."""

    node: str
    check: str
    why: str


@dataclass(frozen=True, slots=True)
class Findings:
    """Of all nodes: the faults, in the order of the nodes, and lines about what could not be checked."""

    faults: tuple[Fault, ...]
    remarks: tuple[str, ...] = ()

    @property
    def bad(self) -> tuple[str, ...]:
        """The nodes that failed something, each once."""
        return tuple(dict.fromkeys(fault.node for fault in self.faults))


def judge(heard: Mapping[str, ReplyOrError]) -> Findings:
    """What the answers mean. What can only be judged by comparison is held against what most nodes say.

    A node without python may still be fit for work, and passes; one that does not answer is not.
    """
    said = {name: answer for name, answer in heard.items() if isinstance(answer, Reply)}
    lost = {name: e for name, e in heard.items() if isinstance(e, EzpzError) and not isinstance(e, ToolMissing)}
    faults = [Fault(name, "reached", e.message) for name, e in lost.items()]
    remarks = [f"{name} is not checked: {e.message}" for name, e in heard.items() if isinstance(e, ToolMissing)]
    for name, answer in said.items():
        faults += _own(name, answer)
    faults += _links(said)
    faults += _devices(said)
    faults += _versions(said)
    order = {name: place for place, name in enumerate(heard)}
    return Findings(tuple(sorted(faults, key=lambda fault: order[fault.node])), tuple(remarks))


def _own(name: str, said: Reply) -> Iterable[Fault]:
    """What needs no comparison."""
    checks: Mapping[str, Mapping[str, Any]] = said.answer.get("checks", {})
    for title, found in checks.items():
        if not found.get("ok"):
            check, _, where = title.partition(" ")
            why = str(found.get("why", "it failed"))
            named = f"{where}: {why}" if where and where not in why else why
            yield Fault(name, check.removesuffix("s") if check == "links" else check, named)
    theirs = float(said.answer.get("time", said.asked))
    early, late = said.asked - theirs, theirs - said.heard
    if max(early, late) > SKEW:
        yield Fault(name, "clock", f"{max(early, late):.0f} s {'slow' if early > late else 'fast'}")


def _facts(said: Mapping[str, Reply], check: str, fact: str) -> dict[str, Any]:
    """Of each node that knows it: a fact that a check found."""
    found = {name: answer.answer.get("checks", {}).get(check, {}).get(fact) for name, answer in said.items()}
    return {name: value for name, value in found.items() if value is not None}


def _links(said: Mapping[str, Reply]) -> Iterable[Fault]:
    """A link that is down here and up on most nodes that have it. One that nobody uses is down everywhere."""
    states: dict[str, dict[str, str]] = {}
    for name, links in _facts(said, "links", "links").items():
        for link, state in links.items():
            states.setdefault(link, {})[name] = str(state)
    for link, by_node in states.items():
        down = [name for name, state in by_node.items() if state == "down"]
        if 2 * sum(state == "up" for state in by_node.values()) >= len(by_node):
            yield from (Fault(name, "link", f"{link} is down") for name in down)


def _devices(said: Mapping[str, Reply]) -> Iterable[Fault]:
    """Fewer devices than most nodes have."""
    for check in dict.fromkeys(check for answer in said.values() for check in answer.answer.get("checks", {})):
        if check.startswith("devices "):
            counts = _facts(said, check, "devices")
            usual = _most(counts.values())
            for name, count in counts.items():
                if usual is not None and count < usual:
                    yield Fault(name, "devices", f"{check.partition(' ')[2]} lists {count}, on most nodes {usual}")


def _versions(said: Mapping[str, Reply]) -> Iterable[Fault]:
    """Another version of what was yeeted, or none, than most nodes have."""
    checks = dict.fromkeys(check for answer in said.values() for check in answer.answer.get("checks", {}))
    told: set[tuple[str, str]] = set()
    for check in checks:
        versions = _facts(said, check, "version") if check.startswith("version ") else {}
        usual = _most(versions.values())
        if usual is None:
            continue
        where = str(next(iter(_facts(said, check, "dst").values())))
        for name in said:
            have = versions.get(name)
            if have != usual and (name, where) not in told:
                told.add((name, where))
                version = f"version {have[:12]}" if have else "no yeet"
                yield Fault(name, "version", f"{version} at {where}, on most nodes {usual[:12]}")


def _most(values: Iterable[Any]) -> Any:
    """The value that is there most often; of equals, the one that comes first; None for none."""
    counted = Counter(values).most_common(1)
    return counted[0][0] if counted else None


def table(findings: Findings, count: int) -> tuple[str, ...]:
    """Which node failed what, for people."""
    if not findings.faults:
        return (f"all {count} nodes passed the checks",) if count != 1 else ("the node passed the checks",)
    rows = [("node", "check", "why"), *((fault.node, fault.check, fault.why) for fault in findings.faults)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return tuple(f"{node:<{widths[0]}}  {check:<{widths[1]}}  {why}" for node, check, why in rows)


def absolute(paths: Sequence[str | None]) -> tuple[str, ...]:
    """Those that are absolute paths, each once."""
    return tuple(dict.fromkeys(path for path in paths if path and path.startswith("/")))

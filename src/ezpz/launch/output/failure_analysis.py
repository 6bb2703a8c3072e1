"""Who is to blame: hears every line of an attempt, and at its end names the cause. Pure.

The earliest of the weightiest findings is the cause. Ranks that the launcher ended, or that only noticed the end of
another, are victims. Where most ranks failed alike on several nodes, it is the program, and no node is to blame.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ezpz.cluster.hostnames import short
from ezpz.launch.launchers.failure_lines import EXIT, FAULT, NODE, SIGNAL, TIME, WHERE, FailurePattern
from ezpz.launch.output import failure_patterns
from ezpz.launch.output.rank_sets import parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ezpz.cluster.allocation import Node
    from ezpz.launch.sites.site import FailureRule

MAX_FINDINGS = 1000
_ANCHORED = re.compile(r"[\^$]|\\[AZ]|\(\?<[=!]")  # what matches a line need not match where it stands among others
MAX_LINE_CHARS = 2000  # characters of a line that are looked at


@dataclass(frozen=True, slots=True)
class RankPlacement:
    """Which rank runs where: `ppn` ranks a node, one node after the other, as every launcher is told."""

    nodes: tuple[Node, ...]
    ppn: int

    def node_of(self, rank: int | None) -> str | None:
        """The canonical name of the rank's node."""
        if rank is None or not 0 <= rank // self.ppn < len(self.nodes):
            return None
        return self.nodes[rank // self.ppn].name

    def ranks_of(self, name: str | None) -> tuple[int, ...]:
        """The ranks that a node has, if it is full."""
        places = [place for place, node in enumerate(self.nodes) if node.name == name]
        return tuple(rank for place in places for rank in range(place * self.ppn, (place + 1) * self.ppn))

    def canonical_name(self, name: str | None) -> str | None:
        """The canonical name of a node, by whatever name a launcher calls it; None for a stranger."""
        if not name:
            return None
        wanted = short(name)
        return next((node.name for node in self.nodes if wanted in (node.name, short(node.address))), None)

    def node_at(self, index: int) -> str | None:
        """The canonical name of the node that Slurm numbers so: it sorts them."""
        names = sorted(node.name for node in self.nodes)
        return names[index] if index < len(names) else None


@dataclass(frozen=True, slots=True)
class Finding:
    """One failure: what kind, whose, how; `line` says so, `cause` in words, `weight` is what it is worth as a cause."""

    kind: str
    line: str
    rank: int | None = None
    node: str | None = None
    status: int | None = None
    signal: int | None = None
    weight: int = 0
    cause: str = ""

    @property
    def is_node(self) -> bool:
        """The node itself has gone, and not only a rank on it."""
        return self.kind == NODE

    def __str__(self) -> str:
        if self.kind == NODE:
            return f"{self.node or 'a node'} was lost: {self.line}"
        who = f"rank {self.rank}" if self.rank is not None else "a rank"
        where = f" on {self.node}" if self.node else ""
        if self.kind == FAULT:
            return f"{who}{where} says: {self.line}{f' ({self.cause})' if self.cause else ''}"
        how = f"died from signal {self.signal}" if self.signal is not None else f"exited with {self.status}"
        return f"{who}{where} {how}"


@dataclass(frozen=True, slots=True)
class FailureCause:
    """What an attempt's output tells about its end.

    finding: the cause, or None; its `node` is the culprit, if that is known
    failed: the ranks that failed by themselves, as far as they were named
    time_over: the scheduler has ended the job
    """

    finding: Finding | None = None
    failed: frozenset[int] = frozenset()
    time_over: bool = False


class FailureAnalyzer:
    """Hears one attempt.

    failures: what is a sign on this site, of a culprit or of a victim
    """

    def __init__(self, placement: RankPlacement, ranks: int, failures: Sequence[FailureRule] = ()) -> None:
        self.placement = placement
        self.ranks = ranks
        own = (FailurePattern(FAULT, "", each.pattern, cause=each.cause) for each in failures if each.is_cause)
        self.patterns = tuple((sign, re.compile(sign.pattern)) for sign in (*own, *failure_patterns.all_patterns()))
        self.victim_patterns = tuple(re.compile(each.pattern) for each in failures if not each.is_cause)
        self._site_patterns = tuple(re.compile(each.pattern) for each in failures)
        self._anchored = any(_ANCHORED.search(each.pattern) for each in failures)
        self.node_lost = False
        self.end_requested = False  # the run was asked to end: only that the time is over still counts
        self._findings: list[Finding] = []
        self._victims: set[int] = set()
        self._where = Finding(WHERE, "")
        self._time_over = False

    def may_match(self, text: str) -> bool:
        """Whether a pattern of the site may match some line of this output, labels included: False is certain."""
        return self._anchored or any(pattern.search(text) for pattern in self._site_patterns)

    def feed(self, line: str, rank: int | None = None, node: str | None = None) -> None:
        """A line, and who said it, if that is known."""
        line = line[:MAX_LINE_CHARS]
        if rank is not None and self._is_from_victim(line):
            self._victims.add(rank)
            return
        if len(self._findings) >= MAX_FINDINGS:
            return
        for sign, pattern in [(sign, pattern) for sign, pattern in self.patterns if sign.hint in line]:
            match = pattern.search(line)
            if match is not None and self._record(sign, match.groupdict(), line.strip(), rank, node):
                return

    def _is_from_victim(self, line: str) -> bool:
        return any(said in line for said in failure_patterns.VICTIM_LINES) or any(
            sign.search(line) for sign in self.victim_patterns
        )

    def _record(
        self, sign: FailurePattern, groups: dict[str, str | None], line: str, rank: int | None, node: str | None
    ) -> bool:
        """Keep what the sign tells; False if that is nothing.

        A fault is one of a node; and only the launcher knows which nodes are lost: a rank may speak of any other host.
        """
        if sign.kind == NODE and rank is not None:
            return False
        if sign.kind == TIME:
            self._time_over = True
            return True
        if self.end_requested:
            return False
        told = False
        for found in self._locate(sign, groups, line, rank, node):
            if sign.kind == WHERE:
                self._where = found
                told = True
            elif found.node or sign.kind not in (NODE, FAULT):
                self.node_lost = self.node_lost or found.is_node
                self._findings.append(found)
                told = True
        return told

    def _locate(
        self, sign: FailurePattern, groups: dict[str, str | None], line: str, rank: int | None, node: str | None
    ) -> list[Finding]:
        said = {name: value for name, value in groups.items() if value is not None}
        signal = int(said["signal"]) if "signal" in said else sign.ended
        status = int(said["status"]) if "status" in said else None
        base = Finding(sign.kind, line, rank, self.placement.canonical_name(node), status, signal, cause=sign.cause)
        if "nodes" in said:
            return [
                replace(base, rank=None, node=self.placement.canonical_name(name)) for name in _nodeset(said["nodes"])
            ]
        if "index" in said:
            return [replace(base, rank=None, node=self.placement.node_at(int(said["index"])))]
        ranks = sorted(parse(said.get("ranks") or said.get("rank") or "", below=self.ranks))
        canonical_name = self.placement.canonical_name(said.get("node") or said.get("host"))
        if ranks:
            return [replace(base, rank=each, node=canonical_name or self.placement.node_of(each)) for each in ranks]
        if canonical_name or sign.kind == NODE:
            return [replace(base, node=canonical_name)]
        if sign.kind in (SIGNAL, EXIT) and self._where.line:
            where, self._where = self._where, Finding(WHERE, "")
            return [replace(base, rank=where.rank, node=where.node)]
        return [replace(base, node=base.node or self.placement.node_of(rank))]

    def record_exit(self, rank: int, status: int) -> None:
        """A rank that this host started itself has ended with this status, as a shell tells it."""
        signal = status - 128 if status > 128 else None
        node = self.placement.node_of(rank)
        kind = EXIT if signal is None else SIGNAL
        self._findings.append(Finding(kind, "", rank, node, None if signal else status, signal))

    def cause(self) -> FailureCause:
        """The cause, once the attempt has ended."""
        weighed = [replace(finding, weight=self._weight(finding)) for finding in self._findings]
        best = max(weighed, key=lambda finding: finding.weight, default=None)  # of equals, the earliest
        failed = frozenset(each.rank for each in weighed if each.rank is not None and each.weight >= 3)
        if best is not None and best.weight <= 3 and self._is_program_failure(failed):
            best = replace(best, node=None)
        return FailureCause(best if best and best.weight else None, failed, self._time_over)

    def _is_program_failure(self, failed: frozenset[int]) -> bool:
        nodes = {self.placement.node_of(rank) for rank in failed}
        return len(nodes) > 1 and 2 * len(failed) > self.ranks

    def _weight(self, finding: Finding) -> int:
        if finding.kind == NODE:
            return 5 if finding.node else 0
        if finding.kind == FAULT:
            return 4
        if (
            finding.signal in failure_patterns.CLEANUP_SIGNALS
            or finding.status in failure_patterns.CLEANUP_STATUSES
            or finding.status == 0
        ):
            return 0
        return 1 if finding.rank in self._victims else 3


def _nodeset(text: str) -> tuple[str, ...]:
    from ezpz.cluster.hostnames import expand
    from ezpz.errors import EzpzError

    try:
        return expand(text.rstrip(".,;"), "the launcher")
    except EzpzError:
        return ()

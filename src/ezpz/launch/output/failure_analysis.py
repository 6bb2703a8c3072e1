"""Cause of a failed attempt, from the lines that its launcher and its ranks print. Pure.

Each line that matches a pattern is a finding with a weight. The earliest of the findings with the highest weight is the
cause. Ranks that the launcher ended, or that only noticed the end of another rank, have less weight. If more than half
of the ranks failed, on several nodes, the program is the cause and not a node.
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
MAX_LINE_CHARS = 2000  # of a line that are searched
NODE_WEIGHT, FAULT_WEIGHT, RANK_WEIGHT, VICTIM_WEIGHT = 5, 4, 3, 1
_ANCHORED = re.compile(r"[\^$]|\\[AZ]|\(\?<[=!]")  # such a pattern can match a line, and not the text around it


@dataclass(frozen=True, slots=True)
class RankPlacement:
    """Which rank runs on which node: `ppn` ranks per node, one node after the other, for every launcher."""

    nodes: tuple[Node, ...]
    ppn: int

    def node_of(self, rank: int | None) -> str | None:
        """Return the canonical name of a rank's node."""
        if rank is None or not 0 <= rank // self.ppn < len(self.nodes):
            return None
        return self.nodes[rank // self.ppn].name

    def ranks_of(self, name: str | None) -> tuple[int, ...]:
        """Return the ranks of a node, if it is full."""
        places = [place for place, node in enumerate(self.nodes) if node.name == name]
        return tuple(rank for place in places for rank in range(place * self.ppn, (place + 1) * self.ppn))

    def canonical_name(self, name: str | None) -> str | None:
        """Return the canonical name of a node from any of its names; None for another host."""
        if not name:
            return None
        wanted = short(name)
        return next((node.name for node in self.nodes if wanted in (node.name, short(node.address))), None)

    def node_at(self, index: int) -> str | None:
        """Return the canonical name of the node with this number in Slurm, which sorts the nodes by name."""
        names = sorted(node.name for node in self.nodes)
        return names[index] if index < len(names) else None


@dataclass(frozen=True, slots=True)
class Finding:
    """One failure: its kind, its rank and node, how it ended, the line that reports it, and its weight as a cause."""

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
        """Whether the node itself is lost, and not only a rank on it."""
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
    """What the output of an attempt tells about its end.

    Attributes:
        finding: The cause, or None. Its `node` is the node that failed, if that is known.
        failed: The ranks that failed by themselves, as far as they were named.
        time_over: Whether the scheduler has ended the job.
    """

    finding: Finding | None = None
    failed: frozenset[int] = frozenset()
    time_over: bool = False


@dataclass(frozen=True, slots=True)
class _Line:
    """A line that matches a pattern, and the groups of the match. `rank` and `node` printed it, if that is known."""

    text: str
    rank: int | None
    node: str | None
    groups: dict[str, str]


class FailureAnalyzer:
    """Collects findings from the lines of one attempt.

    Attributes:
        end_requested: Set when the run is asked to end. Only the end of the job's time counts after that.
        node_lost: Whether a lost node was reported.
    """

    def __init__(self, placement: RankPlacement, ranks: int, failures: Sequence[FailureRule] = ()) -> None:
        """Compile the patterns; `failures` are those of the site."""
        self.placement = placement
        self.ranks = ranks
        own = (FailurePattern(FAULT, "", each.pattern, cause=each.cause) for each in failures if each.is_cause)
        self._patterns = tuple((each, re.compile(each.regex)) for each in (*own, *failure_patterns.all_patterns()))
        self._victim_patterns = tuple(re.compile(each.pattern) for each in failures if not each.is_cause)
        self._site_patterns = tuple(re.compile(each.pattern) for each in failures)
        self._anchored = any(_ANCHORED.search(each.pattern) for each in failures)
        self.node_lost = False
        self.end_requested = False
        self._findings: list[Finding] = []
        self._victims: set[int] = set()
        self._where = Finding(WHERE, "")
        self._time_over = False

    def may_match(self, text: str) -> bool:
        """Return False if certainly no pattern of the site matches a line of this output, which can have labels."""
        return self._anchored or any(pattern.search(text) for pattern in self._site_patterns)

    def feed(self, line: str, rank: int | None = None, node: str | None = None) -> None:
        """Take a line, with the rank and node that printed it if they are known."""
        line = line[:MAX_LINE_CHARS]
        if rank is not None and self._is_from_victim(line):
            self._victims.add(rank)
            return
        if len(self._findings) >= MAX_FINDINGS:
            return
        for kind, regex in [(kind, regex) for kind, regex in self._patterns if kind.hint in line]:
            match = regex.search(line)
            if match is not None:
                groups = {name: value for name, value in match.groupdict().items() if value is not None}
                if self._record(kind, _Line(line.strip(), rank, node, groups)):
                    return

    def _is_from_victim(self, line: str) -> bool:
        return any(text in line for text in failure_patterns.VICTIM_LINES) or any(
            pattern.search(line) for pattern in self._victim_patterns
        )

    def _record(self, pattern: FailurePattern, line: _Line) -> bool:
        """Keep the findings of a line. Return False if it has none.

        A rank cannot report a lost node: it may mean any other host. A fault without a node is no finding.
        """
        if pattern.kind == NODE and line.rank is not None:
            return False
        if pattern.kind == TIME:
            self._time_over = True
            return True
        if self.end_requested:
            return False
        recorded = False
        for found in self._findings_of(pattern, line):
            if pattern.kind == WHERE:
                self._where = found
                recorded = True
            elif found.node or pattern.kind not in (NODE, FAULT):
                self.node_lost = self.node_lost or found.is_node
                self._findings.append(found)
                recorded = True
        return recorded

    def _findings_of(self, pattern: FailurePattern, line: _Line) -> list[Finding]:
        """Return one finding for each rank or node that a line names."""
        groups, placement = line.groups, self.placement
        signal = int(groups["signal"]) if "signal" in groups else pattern.signal
        status = int(groups["status"]) if "status" in groups else None
        speaker = placement.canonical_name(line.node)
        base = Finding(pattern.kind, line.text, line.rank, speaker, status, signal, cause=pattern.cause)
        if "nodes" in groups:
            names = map(placement.canonical_name, _nodeset(groups["nodes"]))
            return [replace(base, rank=None, node=name) for name in names]
        if "index" in groups:
            return [replace(base, rank=None, node=placement.node_at(int(groups["index"])))]
        ranks = sorted(parse(groups.get("ranks") or groups.get("rank") or "", below=self.ranks))
        node = placement.canonical_name(groups.get("node") or groups.get("host"))
        if ranks:
            return [replace(base, rank=each, node=node or placement.node_of(each)) for each in ranks]
        if node or pattern.kind == NODE:
            return [replace(base, node=node)]
        if pattern.kind in (SIGNAL, EXIT) and self._where.line:
            where, self._where = self._where, Finding(WHERE, "")
            return [replace(base, rank=where.rank, node=where.node)]
        return [replace(base, node=base.node or placement.node_of(line.rank))]

    def record_exit(self, rank: int, status: int) -> None:
        """Take the exit status, as a shell reports it, of a rank that this host started itself."""
        signal = status - 128 if status > 128 else None
        node = self.placement.node_of(rank)
        kind = EXIT if signal is None else SIGNAL
        self._findings.append(Finding(kind, "", rank, node, None if signal else status, signal))

    def cause(self) -> FailureCause:
        """Return the cause after the end of the attempt."""
        weighed = [replace(finding, weight=self._weight(finding)) for finding in self._findings]
        best = max(weighed, key=lambda finding: finding.weight, default=None)  # the earliest of equals
        failed = frozenset(each.rank for each in weighed if each.rank is not None and each.weight >= RANK_WEIGHT)
        if best is not None and best.weight <= RANK_WEIGHT and self._is_program_failure(failed):
            best = replace(best, node=None)
        return FailureCause(best if best and best.weight else None, failed, self._time_over)

    def _is_program_failure(self, failed: frozenset[int]) -> bool:
        nodes = {self.placement.node_of(rank) for rank in failed}
        return len(nodes) > 1 and 2 * len(failed) > self.ranks

    def _weight(self, finding: Finding) -> int:
        if finding.kind == NODE:
            return NODE_WEIGHT if finding.node else 0
        if finding.kind == FAULT:
            return FAULT_WEIGHT
        if (
            finding.signal in failure_patterns.CLEANUP_SIGNALS
            or finding.status in failure_patterns.CLEANUP_STATUSES
            or finding.status == 0
        ):
            return 0
        return VICTIM_WEIGHT if finding.rank in self._victims else RANK_WEIGHT


def _nodeset(text: str) -> tuple[str, ...]:
    from ezpz.cluster.hostnames import expand
    from ezpz.errors import EzpzError

    try:
        return expand(text.rstrip(".,;"), "the launcher")
    except EzpzError:
        return ()

"""Record of one attempt, for the JSON document and for the summary in a log directory."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ezpz.cluster.hostnames import fold
from ezpz.launch.output import rank_sets

if TYPE_CHECKING:
    from ezpz.errors import EzpzError
    from ezpz.launch.execute.monitor import ProcessEnd
    from ezpz.launch.output.failure_analysis import FailureCause


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """What happened in an attempt.

    Attributes:
        started: Seconds since 1970.
        hidden_lines: How many lines were not shown.
        error: The rank and the lines of the first error of the first failed rank that printed one.
        write_error: Why the log is incomplete, "" if it is complete.
        lost: The nodes that did not answer after the attempt.
        failure: The failure, if COMMAND is not the cause.
        without_command: The nodes that do not have COMMAND or its environment.
    """

    number: int
    nodes: tuple[str, ...]
    size: int
    launcher: str
    started: float
    seconds: float
    end: ProcessEnd
    cause: FailureCause
    made_progress: bool
    hidden_lines: int = 0
    error: tuple[int | None, tuple[str, ...]] | None = None
    log: str = ""
    write_error: str = ""
    lost: tuple[str, ...] = ()
    failure: EzpzError | None = None
    without_command: tuple[str, ...] = ()

    @property
    def why(self) -> str:
        """The cause in words, "" if it is not known."""
        if self.failure and (self.without_command or not self.cause.finding):
            return self.failure.message
        return str(self.cause.finding or "")

    def to_dict(self) -> dict[str, Any]:
        """Return a part of a JSON document."""
        finding = self.cause.finding
        return {
            "attempt": self.number,
            "nodes": list(self.nodes),
            "ranks": self.size,
            "exit_code": self.end.status,
            "seconds": round(self.seconds, 3),
            "idle": self.end.idle,
            "signals": list(self.end.signals),
            "progress": self.made_progress,
            "cause": self.why or None,
            "culprit": finding.node if finding else None,
            "lost": list(self.lost),
            "failed_ranks": rank_sets.fold(self.cause.failed),
            "first_error": {"rank": self.error[0], "lines": list(self.error[1])} if self.error else None,
            "log": self.log or None,
        }

    def to_lines(self) -> tuple[str, ...]:
        """Return the lines for the summary in a log directory."""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.started))
        how = "silent, so it was ended" if self.end.idle else f"status {self.end.status}"
        where = f"{fold(self.nodes)} ({len(self.nodes)})"
        lines = [
            f"attempt {self.number}, {when}: {self.size} ranks on {where}, by {self.launcher}",
            f"  ended   {how}, after {self.seconds:.1f} s{'' if self.made_progress else ', without a progress marker'}",
            *((f"  cause   {self.why}",) if self.why else ()),
            *((f"  lost    {fold(self.lost)}",) if self.lost else ()),
            *((f"  failed  {rank_sets.describe(self.cause.failed)}",) if self.cause.failed else ()),
            *((f"  log     {self.log}",) if self.log else ()),
            *((f"  not shown, but in the log: {self.hidden_lines} lines",) if self.hidden_lines else ()),
        ]
        if self.error and self.end.status:
            rank, text = self.error
            lines.append(f"  first error, {'of the launcher, or nobody knows' if rank is None else f'rank {rank}'}:")
            lines += [f"    {line}" for line in text]
        return tuple(lines)

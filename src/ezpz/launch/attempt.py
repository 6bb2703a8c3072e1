"""One attempt: the plan's command runs while it is watched; what became of it, and why."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ezpz.cluster.hostnames import fold
from ezpz.errors import EzpzError
from ezpz.launch import ranks
from ezpz.launch.culprit import Cause, Placement, Witness
from ezpz.launch.labels import LABELS, with_labels
from ezpz.launch.run import execute
from ezpz.launch.terminal import with_colour
from ezpz.launch.transcript import Manner, Transcript
from ezpz.launch.watch import Ended, Rules, watch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ezpz.launch.journal import AttemptLog
    from ezpz.launch.plan import LaunchPlan
    from ezpz.launch.wish import Watching
    from ezpz.process import Running

LOCAL = "local"  # the launcher whose processes are the ranks themselves
FAILED_TO_LAUNCH = "launcher-failed"
MARK = "EZPZ_LAUNCH_ID"  # in the environment of the ranks: what is left of a run can be told from everything else


@dataclass(frozen=True, slots=True)
class Record:
    """What became of an attempt.

    error: the rank and the lines of the first error of the first rank that failed, if any said one
    lost: the nodes that did not answer after it
    """

    number: int
    nodes: tuple[str, ...]
    size: int
    launcher: str
    began: float
    seconds: float
    ended: Ended
    cause: Cause
    progressed: bool
    left_out: int = 0
    error: tuple[int | None, tuple[str, ...]] | None = None
    log: str = ""
    complaint: str = ""
    lost: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As a part of a JSON document."""
        finding = self.cause.finding
        return {
            "attempt": self.number,
            "nodes": list(self.nodes),
            "ranks": self.size,
            "exit_code": self.ended.status,
            "seconds": round(self.seconds, 3),
            "idle": self.ended.idle,
            "signals": list(self.ended.signals),
            "progress": self.progressed,
            "cause": str(finding) if finding else None,
            "culprit": finding.node if finding else None,
            "lost": list(self.lost),
            "failed_ranks": ranks.fold(self.cause.failed),
            "first_error": {"rank": self.error[0], "lines": list(self.error[1])} if self.error else None,
            "log": self.log or None,
        }

    def to_lines(self) -> tuple[str, ...]:
        """For the summary in a log directory."""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.began))
        how = "silent, so it was ended" if self.ended.idle else f"status {self.ended.status}"
        where = f"{fold(self.nodes)} ({len(self.nodes)})"
        lines = [
            f"attempt {self.number}, {when}: {self.size} ranks on {where}, by {self.launcher}",
            f"  ended   {how}, after {self.seconds:.1f} s{'' if self.progressed else ', without a progress marker'}",
            *((f"  cause   {self.cause.finding}",) if self.cause.finding else ()),
            *((f"  lost    {fold(self.lost)}",) if self.lost else ()),
            *((f"  failed  {ranks.shown(self.cause.failed)}",) if self.cause.failed else ()),
            *((f"  log     {self.log}",) if self.log else ()),
            *((f"  not shown, but in the log: {self.left_out} lines",) if self.left_out else ()),
        ]
        if self.error and self.ended.status:
            rank, said = self.error
            lines.append(f"  first error, {'of the launcher, or nobody knows' if rank is None else f'rank {rank}'}:")
            lines += [f"    {line}" for line in said]
        return tuple(lines)


@dataclass
class Attempt:
    """Runs one plan once. `run_id` marks the environment of its ranks."""

    plan: LaunchPlan
    watching: Watching
    number: int
    run_id: str
    log: AttemptLog | None = None
    ended: Ended = field(default_factory=lambda: Ended(0))

    def run(self, *, environ: Mapping[str, str], stdout: int | None) -> Record:
        """Raises as `execute` does, and BrokenPipeError."""
        job = self.plan.job
        placement = Placement(job.allocation.nodes, job.ppn)
        site = {"more": self.watching.culprits, "victims": self.watching.victims}
        self.witness = Witness(placement, job.ranks, **site)
        self.transcript = Transcript(self._manner(), self.witness, *((self.log.write,) if self.log else ()))
        began, start = time.time(), time.monotonic()
        marked = {**environ, MARK: self.run_id}
        try:
            execute(
                self.plan,
                environ=with_colour(marked) if self.watching.pty else marked,
                stdout=stdout,
                grace=self.watching.grace,
                through=self._through,
            )
        except EzpzError as e:
            if e.code != FAILED_TO_LAUNCH or not self.watching.end_when_lost:
                raise  # a launcher that fails may be a node's fault: that is an attempt like another
        return self._record(began, time.monotonic() - start)

    def _manner(self) -> Manner:
        launcher = self.plan.launcher
        return Manner(
            label=LABELS.get(launcher) if self.watching.labels else None,
            ours=launcher == LOCAL,
            noise=tuple(re.compile(pattern.encode()) for pattern in self.watching.noise),
            progress=re.compile(self.watching.progress.encode()),
            end_when_lost=self.watching.end_when_lost,
        )

    def _through(
        self,
        argv: Sequence[str],
        *,
        envs: Sequence[Mapping[str, str]],
        grace: float,
        stdout: int | None,
        stderr: int | None = None,
        pass_on: Callable[[Running, int], None],
    ) -> int:
        """In the place of `process.foreground`."""
        line = with_labels(self.plan.launcher, argv) if self.watching.labels else argv
        rules = Rules(grace, self.watching.idle, self.watching.pty, pass_on)
        self.ended = watch(line, envs=envs, ear=self.transcript, rules=rules, stdout=stdout, stderr=stderr)
        return self.ended.status

    def _record(self, began: float, seconds: float) -> Record:
        if self.plan.launcher == LOCAL and self.ended.first is not None:
            self.witness.saw(self.ended.first, self.ended.status)
        cause = self.witness.cause()
        first = [cause.finding.rank] if cause.finding and cause.finding.rank is not None else []
        return Record(
            self.number,
            tuple(node.name for node in self.plan.job.allocation.nodes),
            self.plan.job.ranks,
            self.plan.launcher,
            began,
            seconds,
            self.ended,
            cause,
            self.transcript.progressed,
            self.transcript.left_out,
            self.transcript.complaints.first_of([*first, *sorted(cause.failed)]),
            self.log.path if self.log else "",
            self.log.complaint if self.log else "",
        )

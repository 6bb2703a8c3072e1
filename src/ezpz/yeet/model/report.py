"""The report of a run: results of all nodes, and the status that decides the exit code."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from ezpz import __version__
from ezpz.errors import NodesFailed, by_code
from ezpz.yeet.model.results import NodeResult, Outcome

if TYPE_CHECKING:
    from ezpz.yeet.model.events import WarningRaised
    from ezpz.yeet.model.plan import Plan

SCHEMA = "ezpz/yeet-report/1"


class RunStatus(Enum):
    """Status of a run."""

    SUCCESS = "success"
    PARTIAL = "partial"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class RelocationSummary:
    """What relocation changed, and what it added to the source's own entries.

    Attributes:
        files_patched: Files whose content changed.
        paths_replaced: Paths that were replaced in them.
        links_rewritten: Links whose target changed.
        links_followed: Links out of the source that were replaced by files.
        followed_bytes: Content of these files.
        base: "embedded", "kept", or "none".
        base_reason: Why the base Python was not embedded.
        base_path: Path of the base Python.
        base_bytes: Bytes that the base Python added.
        base_site_packages: Bytes of its own packages among them.
        python: Version of the interpreter, as it prints it.
        editables: Paths of editable installs whose code was added.
        bytecode_compiled: Files that were compiled.
        bytecode_failed: Files that could not be compiled.
        warnings: Warnings by case.
    """

    files_patched: int = 0
    paths_replaced: int = 0
    links_rewritten: int = 0
    links_followed: int = 0
    followed_bytes: int = 0
    base: str = "none"
    base_reason: str = ""
    base_path: str = ""
    base_bytes: int = 0
    base_site_packages: int = 0
    python: str = ""
    editables: tuple[str, ...] = ()
    bytecode_compiled: int = 0
    bytecode_failed: int = 0
    warnings: tuple[WarningRaised, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "files_patched": self.files_patched,
            "paths_replaced": self.paths_replaced,
            "links_rewritten": self.links_rewritten,
            "links_followed": self.links_followed,
            "followed_bytes": self.followed_bytes,
            "python": self.python,
            "base": {
                "mode": self.base,
                "reason": self.base_reason,
                "path": self.base_path,
                "bytes": self.base_bytes,
                "site_packages_bytes": self.base_site_packages,
            },
            "editables": list(self.editables),
            "bytecode": {"compiled": self.bytecode_compiled, "failed": self.bytecode_failed},
            "warnings": [
                {"case": each.case, "count": each.count, "paths": list(each.paths), "text": each.text}
                for each in self.warnings
            ],
        }


@dataclass(frozen=True, slots=True)
class RunReport:
    """A finished run.

    Attributes:
        plan: Plan of the run.
        results: Results by node.
        version: Version of the copy, "" if nothing was sent.
        files: Number of its files.
        bytes: Its content.
        kind: Its kind.
        phases: Seconds by name of the phase.
        seconds: Duration of the run.
        failed_list: Path of the list of failed nodes, "" for none.
        interrupted: Signal that ended the run, or 0.
        relocation: What relocation did.
        leaks: Number of paths of the copy that still read a shared filesystem, None if they were not counted.
    """

    plan: Plan
    results: tuple[NodeResult, ...]
    version: str = ""
    files: int = 0
    bytes: int = 0
    kind: str = ""
    phases: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    failed_list: str = ""
    interrupted: int = 0
    relocation: RelocationSummary = field(default_factory=RelocationSummary)
    leaks: int | None = None

    @property
    def succeeded(self) -> tuple[NodeResult, ...]:
        return tuple(result for result in self.results if result.outcome is Outcome.OK)

    @property
    def failed(self) -> tuple[NodeResult, ...]:
        return tuple(result for result in self.results if result.outcome is not Outcome.OK)

    @property
    def failed_with_cause(self) -> tuple[NodeResult, ...]:
        """The nodes that failed, without those that were not tried."""
        return tuple(result for result in self.failed if result.failure is not None)

    @property
    def status(self) -> RunStatus:
        """Success if all nodes have the copy, partial if enough have it, failure otherwise and if interrupted."""
        if self.interrupted:
            return RunStatus.FAILURE
        return run_status(len(self.succeeded), len(self.results), self.plan.threshold)

    @property
    def exit_code(self) -> int:
        """0 for success and partial; without a threshold, the code of the only cause of all failures; else 1."""
        if self.interrupted:
            return 128 + self.interrupted
        if self.status is not RunStatus.FAILURE:
            return 0
        causes = Counter(result.failure.code for result in self.failed if result.failure is not None)
        if self.plan.threshold is None and len(causes) == 1:
            return by_code(next(iter(causes))).exit_code
        return NodesFailed.exit_code

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of the run; docs/reference/json.md has its schema."""
        return {
            "schema": SCHEMA,
            "ezpz": __version__,
            "status": self.status.value,
            "exit_code": self.exit_code,
            "plan": self.plan.to_dict(),
            "version": self.version,
            "kind": self.kind,
            "files": self.files,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "phases": {name: round(seconds, 3) for name, seconds in self.phases.items()},
            "nodes": [result.to_dict() for result in self.results],
            "succeeded": len(self.succeeded),
            "failed": len(self.failed),
            "failed_list": self.failed_list,
            "interrupted": self.interrupted,
            "relocation": self.relocation.to_dict(),
            "leaks": self.leaks,
        }


def run_status(succeeded: int, nodes: int, threshold: int | None) -> RunStatus:
    """Return the status. All nodes must have the copy, or with a threshold at least so many."""
    needed = nodes if threshold is None else threshold
    if succeeded < needed or succeeded == 0:
        return RunStatus.FAILURE
    return RunStatus.SUCCESS if succeeded == nodes else RunStatus.PARTIAL

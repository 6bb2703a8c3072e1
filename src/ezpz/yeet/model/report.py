"""Report: what happened on every node, and the verdict that decides the exit code."""

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
    """How it ended for the run."""

    SUCCESS = "success"
    PARTIAL = "partial"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class RelocationSummary:
    """What relocation did, and what came along besides the source's own entries.

    files_patched: files whose content changed; paths_replaced: in them; links_rewritten: their targets changed
    links_followed, followed_bytes: files that were put in place of links that lead out, and their content
    base: "embedded", "kept" or "none"; base_bytes: what it added, base_site_packages: of it its own packages
    editables: paths whose code came along
    bytecode_compiled, bytecode_failed: files; warnings: by case
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
    """A finished yeet.

    version: the digest of what was sent; files, bytes: what it holds; phases: seconds by name; failed_list: where the
    failed nodes were written, "" for nowhere; interrupted: the signal that ended the run, or 0
    leaks: how much of the environment still leads to a shared filesystem, None when that was not asked
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
    carried: RelocationSummary = field(default_factory=RelocationSummary)
    leaks: int | None = None

    @property
    def succeeded(self) -> tuple[NodeResult, ...]:
        return tuple(result for result in self.results if result.outcome is Outcome.OK)

    @property
    def failed(self) -> tuple[NodeResult, ...]:
        return tuple(result for result in self.results if result.outcome is not Outcome.OK)

    @property
    def failed_with_cause(self) -> tuple[NodeResult, ...]:
        """The nodes that failed themselves, without those that were never tried."""
        return tuple(result for result in self.failed if result.failure is not None)

    @property
    def status(self) -> RunStatus:
        """success: every node has it; partial: the threshold is met all the same; failure: neither, or interrupted."""
        if self.interrupted:
            return RunStatus.FAILURE
        return run_status(len(self.succeeded), len(self.results), self.plan.threshold)

    @property
    def exit_code(self) -> int:
        """0 for success and partial; without a threshold the code of the one cause of all failures; else 1."""
        if self.interrupted:
            return 128 + self.interrupted
        if self.status is not RunStatus.FAILURE:
            return 0
        causes = Counter(result.failure.code for result in self.failed if result.failure is not None)
        if self.plan.threshold is None and len(causes) == 1:
            return by_code(next(iter(causes))).exit_code
        return NodesFailed.exit_code

    def to_dict(self) -> dict[str, Any]:
        """The report as the one JSON document of a run; schema in docs/reference/json.md."""
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
            "relocation": self.carried.to_dict(),
            "leaks": self.leaks,
        }


def run_status(succeeded: int, nodes: int, threshold: int | None) -> RunStatus:
    """The verdict. Without a threshold all must have it; with one, at least that many, even when none failed."""
    needed = nodes if threshold is None else threshold
    if succeeded < needed or succeeded == 0:
        return RunStatus.FAILURE
    return RunStatus.SUCCESS if succeeded == nodes else RunStatus.PARTIAL

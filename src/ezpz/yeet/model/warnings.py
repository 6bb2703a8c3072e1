"""Warnings about the contents of a source, counted by case."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from ezpz.agent.common.text import printable_path
from ezpz.yeet.model.events import WarningRaised

MAX_SHOWN = 3  # paths in a line; a count follows
MAX_KEPT = 10  # paths for --json

MESSAGES = {
    "special-file": "not carried: {}, since only files, directories and links are",
    "unreadable": "not carried: {}, which cannot be read",
    "dangling-link": "{} leads to nothing, here and on the nodes",
    "link-loop": "{} leads to a directory around itself, and was not followed",
    "setuid": "{}: the setuid and setgid bits are dropped",
    "environments-left-out": "not carried: {}, the packages and other environments of a conda base environment",
    "baked-prefix": "{} holds the old path in its binary code, and was left as it is",
    "run-path-stuck": "{} loads libraries by the old path, and has no room for the new one",
    "editable-kept": "the editable install {} is read from where it is, by every rank",
    "editable-missing": "the editable install {} is not there, and cannot be carried",
    "python-path": "PYTHONPATH names {}, not on a node's own disk: every import looks there; unset it",
    "user-site": "every import looks into {} (pip install --user); set PYTHONNOUSERSITE=1",
    "working-directory": "python also looks into {}, not on a node's own disk; set PYTHONSAFEPATH=1",
    "base-kept": "the standard library stays in {}, and every rank reads it there",
    "not-compiled": "no bytecode could be made, as for {}: the first import on every rank compiles it",
    "no-interpreter": "{} is missing or does not start here, so the environment was not tried",
    "exposed": "{}: fewer may read this where it is than may read the copies (--public)",
    "env-script-taken": "the source has its own {}, so none was made",
}
"""Texts by case; docs/explanation/relocation.md explains each and what to do."""


@dataclass(slots=True)
class SourceWarnings:
    """Cases, each with its number of paths and the first few of them; safe from any thread."""

    counts: dict[str, int] = field(default_factory=dict)
    paths: dict[str, list[bytes]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def add(self, case: str, path: bytes) -> None:
        """Add a path to a case, which is a key of `MESSAGES`."""
        with self._lock:
            self.counts[case] = self.counts.get(case, 0) + 1
            kept = self.paths.setdefault(case, [])
            if len(kept) < MAX_KEPT:
                kept.append(path)

    def warnings(self) -> tuple[WarningRaised, ...]:
        """Return one warning per case, in the order of `MESSAGES`."""
        return tuple(self._warning(case) for case in MESSAGES if case in self.counts)

    def _warning(self, case: str) -> WarningRaised:
        count, paths = self.counts[case], self.paths[case]
        names = ", ".join(f"'{printable_path(path)}'" for path in paths[:MAX_SHOWN])
        more = f" and {count - MAX_SHOWN:,} more" if count > MAX_SHOWN else ""
        return WarningRaised(
            MESSAGES[case].format(names + more), case, count, tuple(printable_path(path) for path in paths)
        )

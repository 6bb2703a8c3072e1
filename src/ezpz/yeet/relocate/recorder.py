"""Ledger: what relocation did to the files of one copy, kept while many threads apply it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ezpz.yeet.model.entry import Provenance
from ezpz.yeet.model.warnings import SourceWarnings
from ezpz.yeet.relocate.bytecode.validity import HEADER

if TYPE_CHECKING:
    from ezpz.yeet.model.entry import Entry
    from ezpz.yeet.relocate.bytecode.validity import Bytecode
    from ezpz.yeet.relocate.relocation import Relocation


class RewriteResult(NamedTuple):
    """What relocation does to a file: whether it changes, how many paths in it do, and a notice's case or ""."""

    changed: bool
    replaced: int = 0
    case: str = ""


UNCHANGED = RewriteResult(changed=False)


@dataclass(slots=True)
class RelocationRecorder:
    """Applies a relocation, and counts: files patched, paths replaced in them, links rewritten; safe from any thread.

    bytecode: told of every .py and .pyc, None for what is no environment
    """

    relocation: Relocation
    bytecode: Bytecode | None = None
    files: int = 0
    replaced: int = 0
    links: int = 0
    notices: SourceWarnings = field(default_factory=SourceWarnings)
    _outcomes: dict[bytes, RewriteResult] = field(default_factory=dict, compare=False, repr=False)
    _heads: dict[bytes, bytes] = field(default_factory=dict, compare=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def entry(self, entry: Entry) -> Entry:
        """What an entry becomes, its content aside. Call it for every entry, in the order of the stream."""
        new = self.relocation.entry(entry)
        if new.target != entry.target:
            self.links += 1
        if self.bytecode is not None and new.is_regular:
            self.bytecode.expect(new)
        return new

    def content(self, path: bytes, data: bytes) -> bytes:
        """What the whole content of a regular file becomes."""
        if path.endswith(b".pyc"):
            if self.bytecode is not None:
                self._heads[path] = data[:HEADER]
                self.bytecode.check(path, data[:HEADER])
            return data
        change = self.relocation.content(path, data) if self.relocation.examines(path) else None
        if change is None:
            return data
        self.count(path, RewriteResult(change.data != data, change.replaced, change.case))
        return change.data

    def count(self, path: bytes, outcome: RewriteResult) -> None:
        """Note what was done to a file that `content` was not told of."""
        if outcome.case:
            self.notices.note(outcome.case, path)
        if outcome.changed or outcome.case:
            self._outcomes[path] = outcome
        if not outcome.changed:
            return
        with self._lock:
            self.files += 1
            self.replaced += outcome.replaced
        if self.bytecode is not None:
            self.bytecode.patched(path)

    def made(self, entry: Entry) -> Provenance:
        """How a file that was read became what it is; to be asked once."""
        outcome = self._outcomes.pop(entry.path, UNCHANGED)
        return Provenance(entry.size, *outcome, self._heads.pop(entry.path, b"").hex())

    def recall(self, path: bytes, made: Provenance) -> None:
        """Note a file that was not read, since it is known what becomes of it."""
        outcome = RewriteResult(made.changed, made.replaced, made.case)
        if outcome != UNCHANGED:
            self.count(path, outcome)
        if self.bytecode is not None and path.endswith(b".pyc"):
            self.bytecode.check(path, bytes.fromhex(made.head))

    def linked(self, path: bytes, first: bytes, staged: bytes) -> None:
        """Note a further name of a file that `content` was told of by its first name; `staged` is where it stands now.

        Raises OSError.
        """
        if self.bytecode is None:
            return
        if path.endswith(b".pyc"):
            with open(staged, "rb") as file:
                self.bytecode.check(path, file.read(HEADER))
        elif self.bytecode.is_patched(first):
            self.bytecode.patched(path)

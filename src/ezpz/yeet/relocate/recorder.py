"""Apply a relocation from many threads, and record what it did."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ezpz.yeet.model.entry import Provenance
from ezpz.yeet.model.warnings import SourceWarnings
from ezpz.yeet.relocate.bytecode.validity import HEADER_SIZE
from ezpz.yeet.relocate.layout import BYTECODE_SUFFIX

if TYPE_CHECKING:
    from ezpz.yeet.model.entry import Entry
    from ezpz.yeet.relocate.bytecode.validity import BytecodeTracker
    from ezpz.yeet.relocate.relocation import Relocation


class RewriteResult(NamedTuple):
    """What relocation does to a file.

    Attributes:
        changed: Whether its content changes.
        replaced: How many paths in it are replaced.
        case: Case of a warning, or "".
    """

    changed: bool
    replaced: int = 0
    case: str = ""


UNCHANGED = RewriteResult(changed=False)


@dataclass(slots=True)
class RelocationRecorder:
    """A relocation and what it did to one copy. All methods can be called from any thread.

    Attributes:
        relocation: The relocation to apply.
        bytecode: Gets every .py and .pyc file. None if the tree is not an environment.
        files: Number of rewritten files.
        replaced: Number of replaced paths in them.
        links: Number of rewritten links.
        notices: Warnings about files.
    """

    relocation: Relocation
    bytecode: BytecodeTracker | None = None
    files: int = 0
    replaced: int = 0
    links: int = 0
    notices: SourceWarnings = field(default_factory=SourceWarnings)
    _results: dict[bytes, RewriteResult] = field(default_factory=dict, compare=False, repr=False)
    _headers: dict[bytes, bytes] = field(default_factory=dict, compare=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def relocate_entry(self, entry: Entry) -> Entry:
        """Return an entry after relocation, except for its content.

        Call this for every entry, in the order of the stream.
        """
        new = self.relocation.relocate_entry(entry)
        if new.target != entry.target:
            self.links += 1
        if self.bytecode is not None and new.is_regular:
            self.bytecode.add_source(new)
        return new

    def relocate_content(self, path: bytes, data: bytes) -> bytes:
        """Return the complete content of a regular file after relocation."""
        if path.endswith(BYTECODE_SUFFIX):
            if self.bytecode is not None:
                self._headers[path] = data[:HEADER_SIZE]
                self.bytecode.add_bytecode(path, data[:HEADER_SIZE])
            return data
        change = self.relocation.relocate_content(path, data) if self.relocation.may_change_content(path) else None
        if change is None:
            return data
        self.record(path, RewriteResult(change.data != data, change.replaced, change.case))
        return change.data

    def record(self, path: bytes, result: RewriteResult) -> None:
        """Record the result for a file that `relocate_content` was not called for."""
        if result.case:
            self.notices.add(result.case, path)
        if result.changed or result.case:
            self._results[path] = result
        if not result.changed:
            return
        with self._lock:
            self.files += 1
            self.replaced += result.replaced
        if self.bytecode is not None:
            self.bytecode.mark_rewritten(path)

    def take_provenance(self, entry: Entry) -> Provenance:
        """Return how a file that was read became its copy. Call this once for each file."""
        result = self._results.pop(entry.path, UNCHANGED)
        return Provenance(entry.size, *result, self._headers.pop(entry.path, b"").hex())

    def record_reused(self, path: bytes, provenance: Provenance) -> None:
        """Record a file that was not read, because the result of its relocation is known."""
        result = RewriteResult(provenance.changed, provenance.replaced, provenance.case)
        if result != UNCHANGED:
            self.record(path, result)
        if self.bytecode is not None and path.endswith(BYTECODE_SUFFIX):
            self.bytecode.add_bytecode(path, bytes.fromhex(provenance.head))

    def record_hard_link(self, path: bytes, first: bytes, staged: bytes) -> None:
        """Record another name of a file that `relocate_content` was called for.

        Args:
            path: The other name.
            first: The name that was relocated.
            staged: Path of the file on disk.

        Raises:
            OSError: The file cannot be read.
        """
        if self.bytecode is None:
            return
        if path.endswith(BYTECODE_SUFFIX):
            with open(staged, "rb") as file:
                self.bytecode.add_bytecode(path, file.read(HEADER_SIZE))
        elif self.bytecode.is_rewritten(first):
            self.bytecode.mark_rewritten(path)

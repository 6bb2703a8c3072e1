"""A digest of everything that a version is made of. If it is equal, the version is, and nothing has to be read."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ezpz.agent.common.tree_version import version_of
from ezpz.errors import SourceUnreadable
from ezpz.yeet.model.entry import Entry

if TYPE_CHECKING:
    from ezpz.agent.common.messages.receipt import Receipt
    from ezpz.yeet.model.plan import Plan
    from ezpz.yeet.relocate.inspect.interpreter import Interpreter
    from ezpz.yeet.source.scan import Scan

REREAD = "reread"  # `inputs` that no receipt has
FACTS = Entry._fields.index("identity")  # of an entry; its identity is useful within one run only


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What identifies a version before it is made: fields of its receipt.

    Attributes:
        source: The path of the source.
        ezpz: The version of ezpz.
        public: Whether the top has the permissions of the source.
        inputs: See `inputs_of` and `inputs_of_archive`.
        kind: The kind of the source, None for an archive, which is known only once it is unpacked.
        relocation: How it is relocated, None for an archive.
    """

    source: str
    ezpz: str
    public: bool
    inputs: str
    kind: str | None = None
    relocation: str | None = None

    def is_of(self, receipt: Receipt) -> bool:
        """Return whether a receipt is that of this very version."""
        return (receipt.inputs, receipt.public) == (self.inputs, self.public) and self.has_rules_of(receipt)

    def has_rules_of(self, receipt: Receipt) -> bool:
        """Return whether a version was made of the same source by the same rules, whatever the source held then."""
        rules = {"source": self.source, "ezpz": self.ezpz, "kind": self.kind, "relocation": self.relocation}
        return all(value in (None, getattr(receipt, name)) for name, value in rules.items())


def inputs_of(scanned: Scan, python: Interpreter | None) -> str:
    """Return the digest of a directory: the facts of every entry, and the interpreter that compiles it.

    Content is represented by size and time, except for files that were made for this run. Which name of a file with
    hard links was found first depends on the threads, and does not change the digest.
    """
    total = 0
    groups: dict[bytes, list[bytes]] = {}
    for batch in scanned.batches():
        for entry in batch:
            if entry.link:
                groups.setdefault(entry.link, [entry.link]).append(entry.path)
            total += _digest(repr(tuple(entry._replace(link=b""))[:FACTS]))
    total += sum(_digest(repr(sorted(names))) for names in groups.values())
    return version_of(total + (_digest(repr((python.version, python.tag, python.magic))) if python is not None else 0))


def inputs_of_archive(plan: Plan) -> str:
    """Return the digest of an archive: its size, its time, and the options that matter. Raise SourceUnreadable."""
    try:
        status = os.stat(plan.source.real)
    except OSError as e:
        raise SourceUnreadable(f"cannot read '{plan.source.real}': {e.strerror}") from e
    request = plan.request
    rules = (request.base, request.editable, request.compile, request.orig_prefix)
    return version_of(_digest(repr((status.st_size, status.st_mtime_ns, *rules))))


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")

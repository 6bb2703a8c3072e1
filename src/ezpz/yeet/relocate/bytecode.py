"""Bytecode: which `.pyc` of an environment are valid for their source, which are missing, and which go stale."""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ezpz.yeet.entry import Entry

HEADER = 16  # bytes before the code in a .pyc (PEP 552): magic, flags, then mtime and size, or a hash of the source
IMPORTED = re.compile(rb"(?:lib[^/]*/python\d+\.\d+t?|\.python|\.editable)/(?!(?:.*/)?__pycache__/)", re.DOTALL)
CACHED = re.compile(rb"((?:.*/)?)__pycache__/([^/]+?)\.([^./]+)(?:\.opt-[^./]+)?\.pyc", re.DOTALL)
SECOND = 10**9  # nanoseconds
HASHED = (1, 3)  # flags: never compared with the source, or with its hash
VALID, INVALID = -1, -2  # of a source whose bytecode was seen; before that, what its header has to say


@dataclass(frozen=True, slots=True)
class Flavour:
    """Which bytecode an interpreter reads: the tag in its name, the magic number (4 bytes) that it begins with."""

    tag: bytes
    magic: bytes

    def name(self, source: bytes) -> bytes:
        """What the bytecode of `x.py` is called: `x.cpython-311.pyc`."""
        return b"%b.%b.pyc" % (source.removesuffix(b".py"), self.tag)

    def header(self, mtime_ns: int, size: int) -> bytes:
        """How bytecode begins that is valid for a source of this time and size."""
        return self.magic + bytes(4) + _facts(mtime_ns, size).to_bytes(8, "little")


@dataclass(frozen=True, slots=True)
class Stale:
    """Sources (`.py`, sorted) for which there is something to do.

    missing: import would compile them, and they have no bytecode
    renew: bytecode that was copied with them, if any, is of other content: `drop` it, and compile them
    """

    missing: tuple[bytes, ...]
    renew: tuple[bytes, ...]


class Bytecode:
    """The ledger of one copy; threads may tell it what they see in any order.

    It takes about 200 bytes for each source.
    """

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour
        self._lock = threading.Lock()
        self._sources: dict[bytes, int] = {}  # what the header has to say, or VALID or INVALID
        self._early: dict[bytes, int] = {}  # what the header says of a source that is not expected yet
        self._elsewhere: set[bytes] = set()  # sources with bytecode that import would not have compiled
        self._patched: set[bytes] = set()

    def expect(self, entry: Entry) -> None:
        """Note a regular file of the source."""
        if entry.path.endswith(b".py") and IMPORTED.match(entry.path):
            facts = _facts(entry.mtime_ns, entry.size)
            with self._lock:
                said = self._early.pop(entry.path, None)
                self._sources[entry.path] = facts if said is None else _verdict(said, facts)

    def check(self, path: bytes, header: bytes) -> None:
        """Note a `.pyc` that was copied, by its first 16 bytes; that of -O or another interpreter stays as it is."""
        cached = CACHED.fullmatch(path)
        if cached is None:
            return
        source = b"%b%b.py" % cached.group(1, 2)
        if IMPORTED.match(source) is None:
            with self._lock:
                self._elsewhere.add(source)
        elif os.path.basename(path) == self.flavour.name(os.path.basename(source)):
            said = self._read(header)
            with self._lock:
                facts = self._sources.get(source)
                if facts is None:
                    self._early[source] = said
                else:
                    self._sources[source] = _verdict(said, facts)

    def patched(self, path: bytes) -> None:
        """Note a file whose content is not the source's; its bytecode may look valid and is not."""
        if path.endswith(b".py"):
            with self._lock:
                self._patched.add(path)

    def is_patched(self, path: bytes) -> bool:
        """Whether `patched` was told of this source."""
        return path in self._patched

    def stale(self) -> Stale:
        """What there is to do once everything was copied."""
        invalid = {path for path, facts in self._sources.items() if facts == INVALID}
        renew = invalid | {path for path in self._patched if path in self._sources or path in self._elsewhere}
        missing = (path for path, facts in self._sources.items() if facts >= 0 and path not in renew)
        return Stale(tuple(sorted(missing)), tuple(sorted(renew)))

    def _read(self, header: bytes) -> int:
        """What a header says of its source: the facts, or VALID when it says none, or INVALID."""
        if len(header) < HEADER or header[:4] != self.flavour.magic:
            return INVALID
        flags = int.from_bytes(header[4:8], "little")
        if flags in HASHED:
            return VALID
        return INVALID if flags else int.from_bytes(header[8:HEADER], "little")


def source_of(name: bytes) -> bytes | None:
    """The name of the `.py` that a file of a `__pycache__` was compiled from, whoever by; None for any other file."""
    cached = CACHED.fullmatch(b"__pycache__/" + name)
    return None if cached is None else cached.group(2) + b".py"


def _verdict(said: int, facts: int) -> int:
    return VALID if said in (VALID, facts) else INVALID


def _facts(mtime_ns: int, size: int) -> int:
    """A source's time and size as bytecode has them: two numbers of 32 bits, the first one low."""
    seconds = int(
        mtime_ns // SECOND + 1e-9 * (mtime_ns % SECOND)
    )  # rounded as os.stat does: .9999999 is the next second
    return seconds & 0xFFFFFFFF | (size & 0xFFFFFFFF) << 32

"""Scan: what a source directory holds, counted and spooled in one parallel pass.

A shared filesystem answers slowly but in parallel, so threads are added for as long as it is slow. One that answers
from memory gets few: more of them would only wait for each other's interpreter lock.
"""

from __future__ import annotations

import errno
import fnmatch
import marshal
import os
import re
import stat
import tempfile
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ezpz.errors import SourceChanged, SourceUnreadable
from ezpz.process import Stopped
from ezpz.yeet.agent.refusal import shown
from ezpz.yeet.agent.tree import OWN_FILES
from ezpz.yeet.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 4096  # bytes; what a file takes on a disk is a multiple of this
BATCH = 256  # entries handed from thread to thread at once
SPOOL_HEADER = 4  # bytes before a batch in the spool that tell its length
SPOOL_MEMORY = 32 << 20  # bytes of entries kept in memory, beyond that in a temporary file
SLOW = 100e-6  # seconds for one metadata call: a filesystem that answers over a network
BUSY = 60e-6  # seconds of the interpreter that reading and writing one small file takes
FEW, MANY = 4, 32  # threads for a filesystem that answers from memory, and for a slow one
SKIPPED_KINDS = {stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An entry that is not carried, and why: "FIFO", "socket", "device", "excluded", or "ours" (an earlier receipt)."""

    path: bytes
    why: str


@dataclass(slots=True)
class Scan:
    """The entries of a directory, parents before children, and their totals.

    files: everything but directories; size: bytes of content, each hard-linked file once; linked: bytes that its
    further names show; allocated: bytes on a disk with 4 KiB blocks; latency: mean seconds of one metadata call
    """

    root: bytes
    files: int = 0
    directories: int = 0
    size: int = 0
    allocated: int = 0
    linked: int = 0
    latency: float = 0.0
    left_out: list[LeftOut] = field(default_factory=list)
    _spool: tempfile.SpooledTemporaryFile[bytes] = field(
        default_factory=lambda: tempfile.SpooledTemporaryFile(SPOOL_MEMORY)  # noqa: SIM115 - closed by close()
    )

    @property
    def threads(self) -> int:
        """How many threads should read this source: as many as can wait while one of them computes."""
        return max(FEW, min(MANY, round(self.latency / BUSY)))

    def batches(self) -> Iterator[list[Entry]]:
        """The entries, a list of at most 256 at a time, in the order they were found."""
        self._spool.seek(0)
        while header := self._spool.read(SPOOL_HEADER):
            batch = self._spool.read(int.from_bytes(header, "little"))
            yield [Entry(*facts) for facts in marshal.loads(batch)]  # noqa: S302 - our own file, which never had a name

    def add(self, found: list[Entry]) -> None:
        """Count and spool some entries."""
        for entry in found:
            if entry.is_directory:
                self.directories += 1
            else:
                self.files += 1
                self.linked += entry.size if entry.link else 0
                self.size += 0 if entry.link else entry.size
            if not entry.link:
                self.allocated += max(1, -(-entry.size // BLOCK)) * BLOCK
        batch = marshal.dumps([tuple(entry) for entry in found])
        self._spool.write(len(batch).to_bytes(SPOOL_HEADER, "little") + batch)

    def close(self) -> None:
        """Forget the entries; the totals stay."""
        self._spool.close()


def scan(root: bytes, *, exclude: tuple[str, ...] = (), stop: threading.Event | None = None) -> Scan:
    """Walk `root` with as many threads as pay and return its Scan.

    Raises SourceUnreadable, which names the first folder or file that cannot be looked at, or Stopped.
    """
    return _Walk(root, exclude, stop or threading.Event()).walk()


class _Walk:
    """The shared state of the threads of one scan."""

    def __init__(self, root: bytes, exclude: tuple[str, ...], stop: threading.Event) -> None:
        self.result = Scan(root)
        self.root = root
        self.excluded = Exclusion(exclude)
        self.stop = stop
        self.lock = threading.Condition()
        self.tasks: list[tuple[bytes, list[os.DirEntry[bytes]] | None]] = [(b"", None)]
        self.busy = 0
        self.threads: list[threading.Thread] = []
        self.failure: OSError | None = None
        self.inodes: dict[tuple[int, int], bytes] = {}
        self.calls, self.seconds = 0, 0.0

    def walk(self) -> Scan:
        self._grow(FEW)
        with self.lock:
            while (self.tasks or self.busy) and self.failure is None and not self.stop.is_set():
                self.lock.wait(0.1)
            interrupted = self.stop.is_set()
            if interrupted and self.failure is None:
                self.failure = OSError(errno.EINTR, "stopped")
            self.lock.notify_all()
        for thread in self.threads:
            thread.join()
        if interrupted:
            raise Stopped
        if isinstance(self.failure, FileNotFoundError) and os.path.isdir(self.root):
            where = shown(os.fsencode(self.failure.filename or self.root))
            raise SourceChanged(
                f"'{where}' went away while it was counted", hint="run it again when nothing writes there"
            )
        if self.failure is not None:
            where = shown(os.fsencode(self.failure.filename or self.root))
            raise SourceUnreadable(
                f"cannot read '{where}': {self.failure.strerror}", hint="are you allowed to read it?"
            )
        self.result.latency = self.seconds / max(1, self.calls)
        return self.result

    def _grow(self, count: int) -> None:
        while len(self.threads) < count:
            thread = threading.Thread(target=self._work, daemon=True)
            self.threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while (task := self._take()) is not None:
            try:
                self._do(*task)
            except OSError as e:
                with self.lock:
                    self.failure = self.failure or e
            with self.lock:
                self.busy -= 1
                self.lock.notify_all()

    def _take(self) -> tuple[bytes, list[os.DirEntry[bytes]] | None] | None:
        with self.lock:
            while not self.tasks:
                if not self.busy or self.failure is not None:
                    return None
                self.lock.wait()
            if self.failure is not None:
                return None
            self.busy += 1
            return self.tasks.pop()

    def _do(self, folder: bytes, listed: list[os.DirEntry[bytes]] | None) -> None:
        if listed is None:
            with os.scandir(os.path.join(self.root, folder)) as found:
                listed = list(found)
        if len(listed) > BATCH:  # others can look at the rest of a large folder meanwhile
            rest = [(folder, listed[i : i + BATCH]) for i in range(BATCH, len(listed), BATCH)]
            listed = listed[:BATCH]
            with self.lock:
                self.tasks.extend(rest)
                self.lock.notify_all()
        started = time.perf_counter()
        looked = [(os.path.join(folder, e.name), e.stat(follow_symlinks=False)) for e in listed]
        elapsed = time.perf_counter() - started
        targets = {
            path: os.readlink(os.path.join(self.root, path)) for path, status in looked if stat.S_ISLNK(status.st_mode)
        }
        self._keep(looked, targets, elapsed)

    def _keep(self, looked: list[tuple[bytes, os.stat_result]], targets: dict[bytes, bytes], elapsed: float) -> None:
        with self.lock:
            self.calls += len(looked)
            self.seconds += elapsed
            entries = [entry for path, status in looked if (entry := self._entry(path, status, targets)) is not None]
            if entries:
                self.result.add(entries)
            self.tasks.extend((entry.path, None) for entry in entries if entry.is_directory)
            self.lock.notify_all()
            if self.tasks and self.seconds > SLOW * self.calls:
                self._grow(min(MANY, len(self.threads) + len(self.tasks)))

    def _entry(self, path: bytes, status: os.stat_result, targets: dict[bytes, bytes]) -> Entry | None:
        why = SKIPPED_KINDS.get(stat.S_IFMT(status.st_mode)) or ("excluded" if self.excluded.matches(path) else None)
        if path in OWN_FILES:
            why = "ours"
        if why is not None:
            self.result.left_out.append(LeftOut(path, why))
            return None
        regular = stat.S_ISREG(status.st_mode)
        first = b""
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            first = self.inodes.setdefault((status.st_dev, status.st_ino), path)
        link = first if first != path else b""
        return Entry(
            path, status.st_mode, status.st_mtime_ns, status.st_size if regular else 0, targets.get(path, b""), link
        )


class Exclusion:
    """Which relative paths `--exclude` leaves out.

    A pattern without a slash matches a name anywhere, one with a slash the path from the root; both as in fnmatch(3),
    and `*` also matches a slash. An excluded folder takes all that is below it along.
    """

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._names = [_compiled(p.rstrip("/")) for p in patterns if "/" not in p.rstrip("/")]
        self._paths = [_compiled(p.strip("/")) for p in patterns if "/" in p.rstrip("/")]

    def matches(self, path: bytes) -> bool:
        """Whether this path itself is named by a pattern."""
        if not self._names and not self._paths:
            return False
        text = os.fsdecode(path)
        name = os.path.basename(text)
        return any(p.match(name) for p in self._names) or any(p.match(text) for p in self._paths)


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(pattern))

"""Relocation of a tree that stands on disk, because another tool has filled it or an archive was unpacked there."""

from __future__ import annotations

import contextlib
import os
import stat
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from ezpz.agent.common import tree
from ezpz.agent.destination.swap import writable
from ezpz.runtime.threads import ordered_map
from ezpz.yeet.model.entry import Entry
from ezpz.yeet.relocate.bytecode.validity import HEADER
from ezpz.yeet.relocate.large_file import WHOLE, LargeFileRewriter, write_at
from ezpz.yeet.relocate.relocation import BYTECODE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.relocate.recorder import RelocationRecorder

THREADS = 4
AHEAD = 4  # parts that may wait for a thread, or to be written
TOGETHER = 64  # files of a part
SPARE = b".new"  # beside the tree, where it meets no name of the tree's

Change: TypeAlias = "tuple[bytes, os.stat_result, Callable[[int], None]]"


def relocate_folder(root: bytes, ledger: RelocationRecorder, cancel: CancelToken) -> None:
    """Rewrite what has to change in a staged tree, each file as a new one. Raises OSError, PrefixTooLong, Cancelled.

    Modes and times stay, so that the version of a relocated tree does not depend on when it was relocated.
    """
    _Folder(root, ledger, cancel).run()


class _Folder:
    def __init__(self, root: bytes, ledger: RelocationRecorder, cancel: CancelToken) -> None:
        self.root = root
        self.ledger = ledger
        self.cancel = cancel
        self.spare = root.rstrip(b"/") + SPARE
        self.first: dict[int, bytes] = {}  # the first name of a hard-linked file, by inode

    def run(self) -> None:
        """Read in threads, write in this one: few files change, and folders are made writable one at a time."""
        further: list[tuple[bytes, bytes]] = []
        found = ordered_map(self._all_changed, self._parts(further), threads=THREADS, ahead=AHEAD, cancel=self.cancel)
        with contextlib.closing(found):
            for part in found:
                for path, status, write in part:
                    self._rewrite(path, write, status)
        for path, first in further:
            self._link_again(path, first)
            self.ledger.linked(path, first, os.path.join(self.root, path))

    def _parts(self, further: list[tuple[bytes, bytes]]) -> Iterator[list[tuple[bytes, os.stat_result]]]:
        """The regular files, some at a time; further names of a file go to `further`."""
        files: list[tuple[bytes, os.stat_result]] = []
        for path, status in tree.walk(self.root):
            entry = self._look(path, status)
            if entry.is_regular and status.st_nlink > 1 and self.first.setdefault(status.st_ino, path) != path:
                further.append((path, self.first[status.st_ino]))
            elif entry.is_regular:
                files.append((path, status))
            if len(files) == TOGETHER:
                yield files
                files = []
        yield files

    def _look(self, path: bytes, status: os.stat_result) -> Entry:
        """The entry at a path after relocation; a link that changes is replaced."""
        full = os.path.join(self.root, path)
        target = os.readlink(full) if stat.S_ISLNK(status.st_mode) else b""
        size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        old = Entry(path, status.st_mode, status.st_mtime_ns, size, target)
        new = self.ledger.entry(old)
        if new.target != old.target:
            with writable(os.path.dirname(full)), _kept_time(os.path.dirname(full)):
                os.symlink(new.target, self.spare)
                os.utime(self.spare, ns=(new.mtime_ns, new.mtime_ns), follow_symlinks=False)
                os.replace(self.spare, full)
        return new

    def _all_changed(self, files: list[tuple[bytes, os.stat_result]]) -> list[Change]:
        """The files that change, each with what writes its new content."""
        return [(*file, write) for file in files if (write := self._changed(file)) is not None]

    def _changed(self, file: tuple[bytes, os.stat_result]) -> Callable[[int], None] | None:
        """What writes the new content of a file, or None when it stays."""
        self._go_on()
        path, status = file
        relocation = self.ledger.relocation
        whole = relocation.examines(path)
        if not whole and not path.endswith(BYTECODE):
            return None
        with open(os.path.join(self.root, path), "rb", buffering=0) as source:
            if whole and status.st_size > WHOLE and not relocation.needs_whole(path):
                outcome = LargeFileRewriter(source.fileno(), status, path, relocation, self._go_on).relocate(None)
                if outcome.changed:
                    return partial(self._write_large, path, status)
                self.ledger.count(path, outcome)
                return None
            old = source.read() if whole else source.read(HEADER)
        new = self.ledger.content(path, old)
        return None if new == old else partial(write_at, data=new, offset=0)

    def _write_large(self, path: bytes, status: os.stat_result, sink: int) -> None:
        with open(os.path.join(self.root, path), "rb") as source:
            outcome = LargeFileRewriter(source.fileno(), status, path, self.ledger.relocation, self._go_on).relocate(
                sink
            )
        self.ledger.count(path, outcome)

    def _go_on(self) -> None:
        self.cancel.raise_if_cancelled()

    def _rewrite(self, path: bytes, write: Callable[[int], None], status: os.stat_result) -> None:
        full = os.path.join(self.root, path)
        with writable(os.path.dirname(full)), _kept_time(os.path.dirname(full)):
            fd = os.open(self.spare, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                write(fd)
                os.fchmod(fd, stat.S_IMODE(status.st_mode))
            finally:
                os.close(fd)
            os.utime(self.spare, ns=(status.st_atime_ns, status.st_mtime_ns))
            os.replace(self.spare, full)

    def _link_again(self, path: bytes, first: bytes) -> None:
        """Let a further name of a file lead to what its first name leads to now."""
        full, to = os.path.join(self.root, path), os.path.join(self.root, first)
        if not os.path.samefile(full, to):
            with writable(os.path.dirname(full)), _kept_time(os.path.dirname(full)):
                os.link(to, self.spare)
                os.replace(self.spare, full)


class _kept_time:  # noqa: N801 - reads as a function
    """Within it something in a folder may change; its modification time is the same afterwards."""

    def __init__(self, folder: bytes) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        self.status = os.stat(self.folder)

    def __exit__(self, *_: object) -> None:
        os.utime(self.folder, ns=(self.status.st_atime_ns, self.status.st_mtime_ns))

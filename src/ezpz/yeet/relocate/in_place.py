"""Relocate a tree on disk, after an archive was unpacked or another tool copied it."""

from __future__ import annotations

import contextlib
import os
import stat
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from ezpz.agent.common import tree_version
from ezpz.agent.destination.swap import writable
from ezpz.runtime.threads import ordered_map
from ezpz.yeet.model.entry import Entry
from ezpz.yeet.relocate.bytecode.validity import HEADER_SIZE
from ezpz.yeet.relocate.large_file import MAX_WHOLE_FILE, LargeFileRewriter, write_at
from ezpz.yeet.relocate.layout import BYTECODE_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.relocate.recorder import RelocationRecorder

THREADS = 4
MAX_QUEUED = 4  # batches that wait for a thread, or to be written
BATCH_SIZE = 64  # files
TEMPORARY_SUFFIX = b".new"  # next to the tree, so that it cannot clash with a name in the tree

Change: TypeAlias = "tuple[bytes, os.stat_result, Callable[[int], None]]"


def relocate_tree(root: bytes, recorder: RelocationRecorder, cancel: CancelToken) -> None:
    """Rewrite the files of a staged tree that have to change, each as a new file.

    Modes and times stay, so that the version of a relocated tree does not depend on when it was relocated.

    Raises:
        OSError: A file cannot be read or written.
        PrefixTooLong: A compiled file has no room for the new prefix.
        `Cancelled`: The token was set.
    """
    _TreeRewriter(root, recorder, cancel).run()


class _TreeRewriter:
    """The relocation of one tree."""

    def __init__(self, root: bytes, recorder: RelocationRecorder, cancel: CancelToken) -> None:
        self.root = root
        self.recorder = recorder
        self.cancel = cancel
        self.temporary = root.rstrip(b"/") + TEMPORARY_SUFFIX
        self.first_names: dict[int, bytes] = {}  # the first name of a hard-linked file, by inode

    def run(self) -> None:
        """Read in threads and write in this one.

        Few files change, and each write makes a directory writable for a moment.
        """
        hard_links: list[tuple[bytes, bytes]] = []
        found = ordered_map(
            self._find_changes, self._batches(hard_links), threads=THREADS, ahead=MAX_QUEUED, cancel=self.cancel
        )
        with contextlib.closing(found):
            for batch in found:
                for path, status, write in batch:
                    self._rewrite(path, write, status)
        for path, first in hard_links:
            self._relink(path, first)
            self.recorder.record_hard_link(path, first, os.path.join(self.root, path))

    def _batches(self, hard_links: list[tuple[bytes, bytes]]) -> Iterator[list[tuple[bytes, os.stat_result]]]:
        """Yield the regular files in batches. All but the first name of a hard-linked file go to `hard_links`."""
        files: list[tuple[bytes, os.stat_result]] = []
        for path, status in tree_version.walk(self.root):
            entry = self._relocate_entry(path, status)
            if entry.is_regular and status.st_nlink > 1 and self.first_names.setdefault(status.st_ino, path) != path:
                hard_links.append((path, self.first_names[status.st_ino]))
            elif entry.is_regular:
                files.append((path, status))
            if len(files) == BATCH_SIZE:
                yield files
                files = []
        yield files

    def _relocate_entry(self, path: bytes, status: os.stat_result) -> Entry:
        """Return the entry at a path after relocation, and replace a link that changes."""
        full = os.path.join(self.root, path)
        target = os.readlink(full) if stat.S_ISLNK(status.st_mode) else b""
        size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        old = Entry(path, status.st_mode, status.st_mtime_ns, size, target)
        new = self.recorder.relocate_entry(old)
        if new.target != old.target:
            with writable(os.path.dirname(full)), _keep_mtime(os.path.dirname(full)):
                os.symlink(new.target, self.temporary)
                os.utime(self.temporary, ns=(new.mtime_ns, new.mtime_ns), follow_symlinks=False)
                os.replace(self.temporary, full)
        return new

    def _find_changes(self, files: list[tuple[bytes, os.stat_result]]) -> list[Change]:
        """Return the files that change, each with a function that writes its new content."""
        return [(*file, write) for file in files if (write := self._find_change(file)) is not None]

    def _find_change(self, file: tuple[bytes, os.stat_result]) -> Callable[[int], None] | None:
        """Return a function that writes the new content of a file, or None if it does not change."""
        self.cancel.raise_if_cancelled()
        path, status = file
        relocation = self.recorder.relocation
        is_examined = relocation.may_change_content(path)
        if not is_examined and not path.endswith(BYTECODE_SUFFIX):
            return None
        with open(os.path.join(self.root, path), "rb", buffering=0) as source:
            if is_examined and status.st_size > MAX_WHOLE_FILE and not relocation.needs_full_content(path):
                result = LargeFileRewriter(
                    source.fileno(), status, path, relocation, self.cancel.raise_if_cancelled
                ).rewrite(None)
                if result.changed:
                    return partial(self._write_large, path, status)
                self.recorder.record(path, result)
                return None
            old = source.read() if is_examined else source.read(HEADER_SIZE)
        new = self.recorder.relocate_content(path, old)
        return None if new == old else partial(write_at, data=new, offset=0)

    def _write_large(self, path: bytes, status: os.stat_result, output: int) -> None:
        with open(os.path.join(self.root, path), "rb") as source:
            result = LargeFileRewriter(
                source.fileno(), status, path, self.recorder.relocation, self.cancel.raise_if_cancelled
            ).rewrite(output)
        self.recorder.record(path, result)

    def _rewrite(self, path: bytes, write: Callable[[int], None], status: os.stat_result) -> None:
        full = os.path.join(self.root, path)
        with writable(os.path.dirname(full)), _keep_mtime(os.path.dirname(full)):
            fd = os.open(self.temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                write(fd)
                os.fchmod(fd, stat.S_IMODE(status.st_mode))
            finally:
                os.close(fd)
            os.utime(self.temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
            os.replace(self.temporary, full)

    def _relink(self, path: bytes, first: bytes) -> None:
        """Make another name of a file a hard link to its new content."""
        full, to = os.path.join(self.root, path), os.path.join(self.root, first)
        if not os.path.samefile(full, to):
            with writable(os.path.dirname(full)), _keep_mtime(os.path.dirname(full)):
                os.link(to, self.temporary)
                os.replace(self.temporary, full)


@contextlib.contextmanager
def _keep_mtime(directory: bytes) -> Iterator[None]:
    """Restore the times of a directory after something in it was changed."""
    status = os.stat(directory)
    try:
        yield
    finally:
        os.utime(directory, ns=(status.st_atime_ns, status.st_mtime_ns))

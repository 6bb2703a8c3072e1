"""Trees on this host that are passed to sinks, or written to staging, or read again after they were sent."""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from ezpz.yeet.relocate.bytecode.compile_worker import CACHE
from ezpz.yeet.relocate.recorder import RelocationRecorder
from ezpz.yeet.relocate.relocation import Relocation
from ezpz.yeet.source.scan import Scan, entries_of
from ezpz.yeet.source.scanner import scan_directory
from ezpz.yeet.strategies.base import CopyJob
from ezpz.yeet.strategies.tree_copier import TreeCopier
from ezpz.yeet.transfer.copy_sinks import StagingSink
from ezpz.yeet.transfer.previous_version import NO_PREVIOUS_VERSION, PreviousVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.transfer.copy_sinks import CopySink


def feed_tree(
    root: bytes,
    sink: CopySink,
    cancel: CancelToken,
    scanned: Scan | None = None,
    previous: PreviousVersion = NO_PREVIOUS_VERSION,
) -> None:
    """Pass a tree to a sink without changes. Raise EzpzError or `Cancelled`.

    Args:
        root: The tree.
        sink: Where its entries go.
        cancel: Is canceled when the run is interrupted.
        scanned: The entries of the tree, if they were counted.
        previous: What an earlier run made of the tree.
    """
    found = scan_directory(root, cancel=cancel) if scanned is None else scanned
    recorder = RelocationRecorder(Relocation(b""))
    job = CopyJob(root, found, root, recorder, cancel, lambda _: None, previous, (sink,))
    copier = TreeCopier(job, entries_of(found))
    try:
        copier.run()
    finally:
        if scanned is None:
            found.close()
    copier.finish_with_top()


def materialize(job: CopyJob, paths: Iterable[bytes] | None = None) -> None:
    """Write entries of a job to its staging directory. Raise EzpzError or `Cancelled`.

    Args:
        job: A job whose entries were not written to staging.
        paths: The files to write, with the directories around them, or None for all entries.
    """
    wanted = None if paths is None else set(paths)
    directories = {b""}
    for path in wanted or ():
        directory = os.path.dirname(path)
        directories.add(os.path.join(directory, CACHE))
        while directory not in directories:
            directories.add(directory)
            directory = os.path.dirname(directory)
    entries = (
        entry._replace(link=b"") if wanted is not None else entry
        for entry in entries_of(job.scan)
        if wanted is None or entry.path in (directories if entry.is_directory else wanted)
    )
    copy = replace(
        job,
        recorder=RelocationRecorder(job.recorder.relocation),
        moved=lambda _: None,
        previous=NO_PREVIOUS_VERSION,
        sinks=(StagingSink(job.staging),),
    )
    copier = TreeCopier(copy, entries)
    copier.run()
    copier.finish()


class ReplayReader:
    """Reads content again that was passed to sinks.

    Args:
        tree: The tree that has the content.
        restore: Makes another tree if `tree` lacks a file, and returns its path or None. It is called once, after
            `ready` was set.
    """

    def __init__(self, tree: bytes, restore: Callable[[], bytes | None]) -> None:
        self._trees = [_open_directory(tree)]
        self._restore = restore
        self.ready = threading.Event()
        self._lock = threading.Lock()

    def read(self, path: bytes, offset: int, length: int) -> bytes:
        """Return a part of the content of a file. Raise OSError or EzpzError."""
        found = self._read(path, offset, length)
        if found is None:
            self.ready.wait()
            with self._lock:
                tree = self._restore() if len(self._trees) == 1 else None
                if tree is not None:
                    self._trees.append(_open_directory(tree))
            found = self._read(path, offset, length)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return found

    def _read(self, path: bytes, offset: int, length: int) -> bytes | None:
        for tree in self._trees:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=tree)
            except FileNotFoundError:
                continue
            try:
                return os.pread(fd, length, offset)
            finally:
                os.close(fd)
        return None

    def close(self) -> None:
        """Close the trees."""
        for tree in self._trees:
            os.close(tree)
        self._trees = []


def _open_directory(path: bytes) -> int:
    """Return a descriptor of a directory, which stays valid if the directory is moved."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

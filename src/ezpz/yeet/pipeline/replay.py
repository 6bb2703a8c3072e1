"""Refeed: what stands on this host goes into a stream: a whole tree, bytecode that was made, a file once more."""

from __future__ import annotations

import errno
import os
import stat
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from ezpz.yeet.model.entry import BYTECODE_DIRECTORY, Entry
from ezpz.yeet.relocate.bytecode.validity import source_of
from ezpz.yeet.relocate.recorder import RelocationRecorder
from ezpz.yeet.relocate.relocation import Relocation
from ezpz.yeet.source.scan import Scan, entries_of
from ezpz.yeet.source.scanner import scan_directory
from ezpz.yeet.strategies.base import CopyJob
from ezpz.yeet.strategies.tree_copier import TreeCopier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.relocate.bytecode.validity import BytecodeTag
    from ezpz.yeet.transfer.entry_tee import EntryTee
    from ezpz.yeet.transfer.previous_version import PreviousVersion


def feed_tree(
    root: bytes, feed: EntryTee, cancel: CancelToken, scanned: Scan | None = None, known: PreviousVersion | None = None
) -> None:
    """Feed a tree as it stands. Raises EzpzError or Cancelled.

    scanned: its entries, when they have been counted; known: what is known of it
    """
    found = scan_directory(root, cancel=cancel) if scanned is None else scanned
    job = CopyJob(
        root, found, root, RelocationRecorder(Relocation(b"")), cancel, lambda _: None, known, feed, kept=False
    )
    try:
        TreeCopier(job, entries_of(found)).run()
    finally:
        if scanned is None:
            found.close()
    top = os.stat(root)
    feed.folder(b"", top.st_mode, top.st_mtime_ns)


def materialise(job: CopyJob, paths: Iterable[bytes] | None = None) -> None:
    """Write what was only fed to staging: these files with the folders around them, or all.

    Raises EzpzError or Cancelled.
    """
    wanted = None if paths is None else set(paths)
    folders = {b""}
    for path in wanted or ():
        folder = os.path.dirname(path)
        folders.add(os.path.join(folder, BYTECODE_DIRECTORY))
        while folder not in folders:
            folders.add(folder)
            folder = os.path.dirname(folder)
    entries = (
        entry._replace(link=b"") if wanted is not None else entry
        for entry in entries_of(job.scan)
        if wanted is None or entry.path in (folders if entry.is_directory else wanted)
    )
    ledger = RelocationRecorder(job.ledger.relocation)
    copy = replace(job, ledger=ledger, moved=lambda _: None, feed=None, kept=True, known=None)
    filling = TreeCopier(copy, entries)
    filling.run()
    copy.finish_below(filling.directories)


def bytecode_in(scanned: Scan, sources: Iterable[bytes]) -> tuple[bytes, ...]:
    """The bytecode that a scan has of these sources, by any interpreter."""
    wanted = set(sources)
    return tuple(entry.path for entry in entries_of(scanned) if _source(entry.path) in wanted)


def _source(path: bytes) -> bytes | None:
    folder, name = os.path.split(path)
    above, cache = os.path.split(folder)
    source = source_of(name) if cache == BYTECODE_DIRECTORY else None
    return None if source is None else os.path.join(above, source)


def reuse_bytecode(job: CopyJob, sources: Iterable[bytes], bytecode_tag: BytecodeTag) -> tuple[bytes, ...]:
    """Have the bytecode of unchanged sources kept where all nodes have it; the sources that are left, sorted."""
    left = set(sources)
    known, feed = job.known, job.feed
    if known is None or feed is None:
        return tuple(sorted(left))
    told: set[bytes] = set()
    for entry in entries_of(job.scan):
        if entry.path not in left or known.result_of(entry) is None:
            continue
        folder, name = os.path.split(entry.path)
        cache = os.path.join(folder, BYTECODE_DIRECTORY)
        path = os.path.join(cache, bytecode_tag.file_name(name))
        made, around = known.added(path), known.cache(cache)
        if made is None or around is None or made.mtime_ns != entry.mtime_ns or not feed.has(made.size, made.digest):
            continue
        if cache not in told:
            told.add(cache)
            feed.folder(cache, *around)
        if feed.keep(Entry(path, stat.S_IFREG | made.mode, made.mtime_ns, made.size), made.size, made.digest):
            left.discard(entry.path)
    return tuple(sorted(left))


def feed_bytecode(
    feed: EntryTee,
    tree: bytes,
    sources: Iterable[bytes],
    bytecode_tag: BytecodeTag,
    known: PreviousVersion | None = None,
) -> None:
    """Feed the bytecode that a tree now has of these sources. Raises OSError.

    known: what is known of bytecode that was taken from the version in place
    """
    told: set[bytes] = set()
    for source in sorted(sources):
        folder, name = os.path.split(source)
        cache = os.path.join(folder, BYTECODE_DIRECTORY)
        path = os.path.join(cache, bytecode_tag.file_name(name))
        try:
            status = os.lstat(os.path.join(tree, path))
        except OSError:
            continue  # it could not be compiled
        if not stat.S_ISREG(status.st_mode):
            continue
        if cache not in told:
            told.add(cache)
            around = os.lstat(os.path.join(tree, cache))
            feed.folder(cache, around.st_mode, around.st_mtime_ns)
        entry = Entry(path, status.st_mode, status.st_mtime_ns, status.st_size)
        made = known.added(path) if known is not None else None
        facts = (stat.S_IMODE(status.st_mode), status.st_mtime_ns, status.st_size)
        if made is not None and made[:3] == facts and feed.keep(entry, made.size, made.digest):
            continue
        with open(os.path.join(tree, path), "rb") as file:
            feed.open_file(entry, file.fileno())


class ReplayReader:
    """What was fed can be read again: from the tree that is kept here, or from one that is made when it is needed.

    made: makes such a tree and says where, None for nowhere; called once, after `ready` was set
    """

    def __init__(self, tree: bytes, made: Callable[[], bytes | None]) -> None:
        self._trees = [_folder(tree)]
        self._made = made
        self.ready = threading.Event()
        self._lock = threading.Lock()

    def read(self, path: bytes, offset: int, length: int) -> bytes:
        """What a file holds there. Raises OSError, EzpzError."""
        found = self._read(path, offset, length)
        if found is None:
            self.ready.wait()
            with self._lock:
                tree = self._made() if len(self._trees) == 1 else None
                if tree is not None:
                    self._trees.append(_folder(tree))
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
        """Let go of the trees."""
        for tree in self._trees:
            os.close(tree)
        self._trees = []


def _folder(path: bytes) -> int:
    """A descriptor, because the tree may move meanwhile."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

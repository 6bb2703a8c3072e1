"""The version of a directory tree: what is walked, counted, and put into its digest."""

import errno
import hashlib
import operator
import os
import stat
from typing import Iterator, NamedTuple, Tuple

from .cancel import NEVER, CancelToken
from .layout import CARRIED, OWN_FILES

MISSING = (errno.ENOENT, errno.ENAMETOOLONG)  # no copy has a path that is too long

Survey = NamedTuple("Survey", [("files", int), ("bytes", int), ("entries", int), ("version", str)])
"""files: everything that is not a directory; bytes: sum of regular files' sizes; version: see `summarize`."""


def walk(root: bytes) -> Iterator[Tuple[bytes, os.stat_result]]:
    """Yield every directory, file, and link below `root` as (relative path, lstat), parents first, names sorted.

    Files of ezpz, and what is never copied (FIFOs, sockets, devices), are left out. So is what is removed meanwhile,
    or has a path that is too long to be opened.
    """
    pending = [b""]
    while pending:
        directory = pending.pop()
        try:
            with os.scandir(os.path.join(root, directory)) as found:
                entries = sorted(found, key=operator.attrgetter("name"))
        except OSError as e:
            if e.errno in MISSING:
                continue
            raise
        before = directory + b"/" if directory else b""
        for entry in entries:
            name = entry.name
            if directory or name not in OWN_FILES:
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError as e:
                    if e.errno in MISSING:
                        continue
                    raise
                kind = stat.S_IFMT(status.st_mode)
                if kind == stat.S_IFDIR:
                    pending.append(before + name)
                if kind in CARRIED:
                    yield before + name, status


def summarize(root: bytes, cancel: CancelToken = NEVER) -> Survey:
    """Count a tree and digest its entries; `cancel` is checked for each entry.

    The version is the sum of the entries' fingerprints modulo 2**256, in hex: it does not depend on their order.
    """
    total = files = size = entries = 0
    for path, status in walk(root):
        cancel.raise_if_cancelled()
        mode = status.st_mode
        target = os.readlink(os.path.join(root, path)) if stat.S_ISLNK(mode) else b""
        size += status.st_size if stat.S_ISREG(mode) else 0
        entries += 1
        files += not stat.S_ISDIR(mode)
        total += fingerprint(path, mode, status.st_size, status.st_mtime_ns, target)
    return Survey(files, size, entries, version_of(total))


def fingerprint(path: bytes, mode: int, size: int, mtime_ns: int, target: bytes) -> int:
    """Return the SHA-256 of an entry: path, type, permissions, size, modification time, link target.

    Times count in seconds, because some filesystems and tools keep no more. Times of directories and links, and
    permissions of links, do not count.
    """
    if stat.S_ISREG(mode):
        facts = b"%o %d %d" % (mode & 0o7777, size, mtime_ns // 10**9)
    else:
        facts = target if stat.S_ISLNK(mode) else b"%o" % (mode & 0o7777)
    digest = hashlib.sha256(b"%d %d %o %b%b" % (len(path), len(facts), stat.S_IFMT(mode), path, facts)).digest()
    return int.from_bytes(digest, "big")


def version_of(total: int) -> str:
    """Return the version of a tree, from the sum of its fingerprints."""
    return "%064x" % (total % (1 << 256))


def count_missing(old: bytes, new: bytes) -> int:
    """Return how many files of `old` have no counterpart in `new`, by names alone."""
    count = 0
    pending = [b""]
    while pending:
        directory = pending.pop()
        try:
            names = set(os.listdir(os.path.join(new, directory)))
        except OSError:
            names = set()
        names.update(() if directory else OWN_FILES)
        try:
            found = os.scandir(os.path.join(old, directory))
        except OSError as e:
            if e.errno in MISSING:
                continue
            raise
        with found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(os.path.join(directory, entry.name))
                elif entry.name not in names and (entry.is_symlink() or entry.is_file(follow_symlinks=False)):
                    count += 1
    return count

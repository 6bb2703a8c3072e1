"""What a directory tree holds, as one digest; and how to remove a tree."""

import hashlib
import operator
import os
import stat
from typing import Callable, Iterator, NamedTuple, Optional, Tuple

RECEIPT = b".ezpz-yeet-receipt.json"
FAILED_NODES = b".ezpz-yeet-failed-nodes.txt"
MANIFEST = b".ezpz-yeet-manifest"
OWN_FILES = (RECEIPT, FAILED_NODES, MANIFEST)
CARRIED = (stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK)

Survey = NamedTuple("Survey", [("files", int), ("bytes", int), ("entries", int), ("version", str)])
"""files: everything that is not a directory; bytes: sum of regular files' sizes; version: see `survey`."""


def walk(root: bytes) -> Iterator[Tuple[bytes, os.stat_result]]:
    """Every directory, file and link below `root` as (relative path, lstat), parents first, names sorted.

    Our own files and what no yeet carries (FIFOs, sockets, devices) are left out, and so is what goes meanwhile.
    """
    pending = [b""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as found:
                entries = sorted(found, key=operator.attrgetter("name"))
        except FileNotFoundError:
            continue
        before = folder + b"/" if folder else b""
        for entry in entries:
            name = entry.name
            if folder or name not in OWN_FILES:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                kind = stat.S_IFMT(status.st_mode)
                if kind == stat.S_IFDIR:
                    pending.append(before + name)
                if kind in CARRIED:
                    yield before + name, status


def survey(root: bytes, going_on: Optional[Callable[[], None]] = None) -> Survey:
    """Count a tree and digest its entries. `going_on` is called for each entry and may raise.

    The version is the sum of the entries' fingerprints modulo 2**256, in hex: the same in whatever order they come.
    """
    total = files = size = entries = 0
    for path, status in walk(root):
        if going_on is not None:
            going_on()
        mode = status.st_mode
        target = os.readlink(os.path.join(root, path)) if stat.S_ISLNK(mode) else b""
        size += status.st_size if stat.S_ISREG(mode) else 0
        entries += 1
        files += not stat.S_ISDIR(mode)
        total += fingerprint(path, mode, status.st_size, status.st_mtime_ns, target)
    return Survey(files, size, entries, version_of(total))


def fingerprint(path: bytes, mode: int, size: int, mtime_ns: int, target: bytes) -> int:
    """SHA-256 over an entry: path, type, permissions, size, modification time, link target.

    Times count in whole seconds, because some filesystems and tools keep no more; those of directories and links, and
    the permissions of links, do not count.
    """
    if stat.S_ISREG(mode):
        facts = b"%o %d %d" % (mode & 0o7777, size, mtime_ns // 10**9)
    else:
        facts = target if stat.S_ISLNK(mode) else b"%o" % (mode & 0o7777)
    digest = hashlib.sha256(b"%d %d %o %b%b" % (len(path), len(facts), stat.S_IFMT(mode), path, facts)).digest()
    return int.from_bytes(digest, "big")


def version_of(total: int) -> str:
    """The version of a tree, from the sum of its fingerprints."""
    return "%064x" % (total % (1 << 256))


def count_missing(old: bytes, new: bytes) -> int:
    """How many files of `old` have no counterpart in `new`; by names alone."""
    count = 0
    pending = [b""]
    while pending:
        folder = pending.pop()
        try:
            names = set(os.listdir(os.path.join(new, folder)))
        except OSError:
            names = set()
        names.update(() if folder else OWN_FILES)
        with os.scandir(os.path.join(old, folder)) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(os.path.join(folder, entry.name))
                elif entry.name not in names and (entry.is_symlink() or entry.is_file(follow_symlinks=False)):
                    count += 1
    return count


def remove(root: bytes) -> None:
    """Remove a tree, its read-only directories included; a link is removed, never followed. Raises OSError."""
    try:
        status = os.lstat(root)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(root)
        return
    import shutil  # with its compressors, which looking at a tree does not need

    open_up(root)
    shutil.rmtree(root)


def open_up(root: bytes) -> None:
    """Give the owner full access to every directory of a tree, so that it can be written to or removed."""
    pending = [root]
    while pending:
        folder = pending.pop()
        mode = os.lstat(folder).st_mode
        if mode & 0o700 != 0o700:
            os.chmod(folder, stat.S_IMODE(mode) | 0o700)
        with os.scandir(folder) as found:
            pending.extend(entry.path for entry in found if entry.is_dir(follow_symlinks=False))

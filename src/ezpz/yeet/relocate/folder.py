"""Relocation of a tree that stands on disk: find its aliases, and rewrite what another tool has filled."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ezpz.yeet.agent import tree
from ezpz.yeet.relocate.environment import TEXT_LIMIT, Relocation, relocation_of

if TYPE_CHECKING:
    from ezpz.yeet.source import Kind


def relocation_of_folder(root: bytes, kind: Kind, known: tuple[bytes, ...], destination: bytes) -> Relocation:
    """The Relocation of the tree at `root`, which is only read. Raises OSError.

    known: the prefixes that it is known by; none for one that was just unpacked and stands nowhere
    """
    folder = os.path.join(root, b"bin")
    scripts = tuple(sorted(b"bin/" + name for name in os.listdir(folder))) if os.path.isdir(folder) else ()

    def read(path: bytes) -> bytes | None:
        full = os.path.join(root, path)
        if not os.path.isfile(full) or os.path.islink(full) or os.path.getsize(full) > TEXT_LIMIT:
            return None
        with open(full, "rb") as file:
            return file.read()

    return relocation_of(kind, known, destination, read=read, scripts=scripts, root=root if known else None)


def relocate_folder(root: bytes, relocation: Relocation) -> int:
    """Rewrite a staged tree in place, each file as a new one, and return how many changed. Raises OSError.

    Modes and times stay, so that the version of a relocated tree does not depend on when it was relocated.
    """
    if not relocation.is_needed:
        return 0
    changed = 0
    rewritten: dict[int, bytes] = {}
    spare = root.rstrip(b"/") + b".new"  # beside the tree, where it meets no name of the tree's
    for path, status in tree.walk(root):
        full = os.path.join(root, path)
        if stat.S_ISLNK(status.st_mode):
            changed += _rewrite_link(full, path, status, relocation, spare)
        elif stat.S_ISREG(status.st_mode) and relocation.wants(path, status.st_size):
            if status.st_ino in rewritten:  # another name of a file that has been rewritten stays one
                with _writable_parent(full):
                    os.unlink(full)
                    os.link(rewritten[status.st_ino], full)
            elif _rewrite_file(full, status, relocation, spare):
                changed += 1
                rewritten[status.st_ino] = full
    return changed


def _rewrite_link(full: bytes, path: bytes, status: os.stat_result, relocation: Relocation, spare: bytes) -> bool:
    target = os.readlink(full)
    new = relocation.link(path, target)
    if new == target:
        return False
    with _writable_parent(full):
        os.symlink(new, spare)
        os.utime(spare, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
        os.replace(spare, full)
    return True


def _rewrite_file(full: bytes, status: os.stat_result, relocation: Relocation, spare: bytes) -> bool:
    with open(full, "rb") as file:
        old = file.read()
    new = relocation.content(old)
    if new == old:
        return False
    with _writable_parent(full):
        fd = os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(new)
            os.fchmod(fd, stat.S_IMODE(status.st_mode))
        os.utime(spare, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.replace(spare, full)
    return True


class _writable_parent:  # noqa: N801 - reads as a function
    """Within it the folder of a file can be written to; afterwards its mode and times are as they were."""

    def __init__(self, path: bytes) -> None:
        self.folder = os.path.dirname(path)

    def __enter__(self) -> None:
        self.status = os.stat(self.folder)
        os.chmod(self.folder, stat.S_IMODE(self.status.st_mode) | 0o700)

    def __exit__(self, *_: object) -> None:
        os.utime(self.folder, ns=(self.status.st_atime_ns, self.status.st_mtime_ns))
        os.chmod(self.folder, stat.S_IMODE(self.status.st_mode))

"""Is the copy the same? In content, type, mode, time, link target and hard links."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
}
LEFT_OUT = ("FIFO", "socket")


@dataclass(frozen=True)
class Seen:
    """What one name of a tree leads to; ``content`` is a digest, or the target of a link."""

    type: str
    mode: int
    mtime_ns: int
    content: str
    inode: tuple[int, int]


def compare_trees(
    a: Path, b: Path, *, mtime_ns: bool = True, but: Collection[bytes] = (), private: bool = False
) -> list[str]:
    """List in words how the copy ``b`` differs from ``a``; empty when it does not.

    FIFOs and sockets of ``a`` have to be missing in ``b``. A link's mode means nothing and is not compared.
    ``but`` names what ``b`` may have besides, at its top. ``private``: the top of ``b`` must be closed to others.
    """
    ours = {path: seen for path, seen in _walk(os.fsencode(a)) if seen.type not in LEFT_OUT}
    if private:
        ours[b"."] = replace(ours[b"."], mode=ours[b"."].mode & 0o700)
    theirs = {path: seen for path, seen in _walk(os.fsencode(b)) if path not in but}
    found = [f"{_show(path)}: missing" for path in sorted(ours.keys() - theirs.keys())]
    found += [f"{_show(path)}: unexpected {theirs[path].type}" for path in sorted(theirs.keys() - ours.keys())]
    for path in sorted(ours.keys() & theirs.keys()):
        found += [f"{_show(path)}: {text}" for text in _differences(ours[path], theirs[path], mtime_ns=mtime_ns)]
    return found + _group_differences(_groups(ours), _groups(theirs))


def _show(path: bytes) -> str:
    return ascii(path)[1:]


def _walk(root: bytes) -> Iterator[tuple[bytes, Seen]]:
    yield b".", _look(root)
    pending = [b""]
    while pending:
        directory = pending.pop()
        with os.scandir(os.path.join(root, directory)) as entries:
            for entry in entries:
                path = os.path.join(directory, entry.name)
                yield path, _look(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)


def _look(path: bytes) -> Seen:
    info = os.lstat(path)
    kind = TYPES.get(stat.S_IFMT(info.st_mode), "device")
    content = ""
    if kind == "file":
        with open(path, "rb") as file:
            digest = hashlib.blake2b()
            while block := file.read(1 << 20):
                digest.update(block)
        content = f"{info.st_size} bytes, {digest.hexdigest()[:16]}"
    elif kind == "link":
        content = _show(os.readlink(path))
    return Seen(kind, stat.S_IMODE(info.st_mode), info.st_mtime_ns, content, (info.st_dev, info.st_ino))


def _differences(a: Seen, b: Seen, *, mtime_ns: bool) -> Iterator[str]:
    if a.type != b.type:
        yield f"{b.type} instead of {a.type}"
        return
    if a.content != b.content:
        yield f"content {b.content} instead of {a.content}"
    if a.mode != b.mode and a.type != "link":
        yield f"mode {b.mode:04o} instead of {a.mode:04o}"
    if mtime_ns and a.mtime_ns != b.mtime_ns:
        yield f"mtime {b.mtime_ns} instead of {a.mtime_ns}"


def _groups(tree: dict[bytes, Seen]) -> set[tuple[bytes, ...]]:
    names: defaultdict[tuple[int, int], list[bytes]] = defaultdict(list)
    for path, seen in tree.items():
        if seen.type != "directory":
            names[seen.inode].append(path)
    return {tuple(sorted(paths)) for paths in names.values() if len(paths) > 1}


def _group_differences(a: set[tuple[bytes, ...]], b: set[tuple[bytes, ...]]) -> list[str]:
    lost = [f"not hard links of one another: {', '.join(map(_show, names))}" for names in sorted(a - b)]
    return lost + [f"unexpectedly hard links: {', '.join(map(_show, names))}" for names in sorted(b - a)]

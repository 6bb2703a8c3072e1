"""Boundary: which links of a tree lead out of it, and which of those may stay links."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from ezpz.yeet.agent import place

IMAGE = tuple(b"/usr /etc /bin /sbin /lib /lib64 /opt /boot /dev /proc /sys /run /var/lib".split())
"""Where the files of an operating system's image are, which every node has."""
COMMON = (b"/", b"/usr", b"/usr/local", b"/opt", b"/bin")
"""Tops of installations that many have in common, so that a text that names one need not mean this one."""


def on_shared_filesystem(path: bytes) -> bool:
    """Whether a path exists and is on a filesystem that several hosts share, as far as its type tells."""
    try:
        return not place.is_node_local(place.filesystem(path))
    except OSError:
        return False


def below(path: bytes, folder: bytes) -> bool:
    """Whether an absolute path is `folder` or below it."""
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


class Lead(NamedTuple):
    """Where a link leads.

    real: the resolved path of what has to take its place, since it leads out; None for one that may stay a link
    target: what it says when it stays one
    status: what `real` is, when it was looked at on the way
    """

    real: bytes | None
    target: bytes
    status: os.stat_result | None = None


class Boundary:
    """What is inside a tree, and what outside of it links may still lead to.

    inside: every name of the tree's top; stay: folders outside that links into are left to (those of the interpreter,
    which has its own way); image: folders that every node has, as far as they are not on a shared filesystem
    """

    def __init__(
        self, inside: tuple[bytes, ...], stay: tuple[bytes, ...] = (), image: tuple[bytes, ...] = IMAGE
    ) -> None:
        self.inside = tuple(os.path.normpath(path) for path in inside)
        self.stay = stay
        self.image = image
        self._real: dict[bytes, bytes] = {}
        self._shared: dict[bytes, bool] = {}

    def holds(self, path: bytes) -> bool:
        """Whether an absolute path is by its name in the tree."""
        return any(below(os.path.normpath(path), top) for top in self.inside)

    def lead(self, link: bytes, target: bytes, path: bytes, trail: tuple[bytes, ...] = ()) -> Lead:
        """Where a link leads; may look at the filesystem.

        link: its absolute path; path: where it is in the tree; trail: the real folders outside that links were
        followed to on the way to it
        """
        folder = os.path.dirname(link)
        whole = os.path.join(folder, target)
        climbs = _climbs_late(target)
        place = os.path.realpath(whole) if climbs else os.path.normpath(whole)
        if trail and not target.startswith(b"/"):
            if below(place, trail[-1]):
                inner = os.path.relpath(folder, trail[-1])
                return Lead(None, os.path.relpath(place, folder) if _leaves(inner, target) else target)
            target = place  # what it says is told from where it stands now
        for top in self.inside:
            if below(place, top):
                stays = not climbs and not trail and not _leaves(os.path.dirname(path), target)
                return Lead(None, target if stays else _told_from(path, place, top))
        if any(below(place, folder) for folder in self.stay):
            return Lead(None, target)
        real, status = self._resolve(place)
        for top in self.inside:  # by a name of the tree's that nobody has told us
            if below(real, top):
                return Lead(None, _told_from(path, real, top))
        if any(below(real, folder) for folder in self.stay) or self._is_common(real):
            return Lead(None, target)
        return Lead(real, target, status)

    def _resolve(self, path: bytes) -> tuple[bytes, os.stat_result | None]:
        """The real path, and what is there if it is no link itself.

        The folders of a cache that thousands of links lead to are resolved once.
        """
        folder, name = os.path.split(path)
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        real = os.path.join(self._real[folder], name)
        try:
            status = os.lstat(real)
        except OSError:
            return real, None
        return (os.path.realpath(real), None) if stat.S_ISLNK(status.st_mode) else (real, status)

    def _is_common(self, real: bytes) -> bool:
        """Whether every node has it, as far as its place and its filesystem tell; each folder is asked once."""
        if not any(below(real, folder) for folder in self.image):
            return False
        place = real if os.path.isdir(real) else os.path.dirname(real)
        if place not in self._shared:
            self._shared[place] = on_shared_filesystem(place)
        return not self._shared[place]


def _climbs_late(target: bytes) -> bool:
    """Whether `..` follows a name, which may be a link, so that only the filesystem knows where that is."""
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    names = next((number for number, part in enumerate(parts) if part != b".."), len(parts))
    return b".." in parts[names:]


def _leaves(folder: bytes, target: bytes) -> bool:
    """Whether a relative target goes by the name of the folder that `folder` is relative to, which may change."""
    return os.path.normpath(os.path.join(folder, target)).split(b"/")[0] == b".."


def _told_from(path: bytes, place: bytes, top: bytes) -> bytes:
    """The relative target of a link at `path` in the tree for a place below its top."""
    return os.path.relpath(place, os.path.join(top, os.path.dirname(path)))

"""Boundary: which links of a tree lead out of it, and which of those may stay links."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from ezpz.agent.common import filesystem

if TYPE_CHECKING:
    from ezpz.yeet.model.warnings import SourceWarnings
    from ezpz.yeet.source.exclude import ExcludeFilter

IMAGE = tuple(b"/usr /etc /bin /sbin /lib /lib64 /opt /boot /dev /proc /sys /run /var/lib".split())
"""Where the files of an operating system's image are, which every node has."""
COMMON = (b"/", b"/usr", b"/usr/local", b"/opt", b"/bin")
"""Tops of installations that many have in common, so that a text that names one need not mean this one."""


def on_shared_filesystem(path: bytes) -> bool:
    """Whether a path exists and is on a filesystem that several hosts share, as far as its type tells."""
    try:
        return not filesystem.is_node_local(filesystem.filesystem(path))
    except OSError:
        return False


def below(path: bytes, folder: bytes) -> bool:
    """Whether an absolute path is `folder` or below it."""
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


class LinkDecision(NamedTuple):
    """Where a link leads.

    real: the resolved path of what has to take its place, since it leads out; None for one that may stay a link
    target: what it says when it stays one
    status: what `real` is, when it was looked at on the way
    """

    real: bytes | None
    target: bytes
    status: os.stat_result | None = None


class LinkPolicy:
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

    def lead(self, link: bytes, target: bytes, path: bytes, trail: tuple[bytes, ...] = ()) -> LinkDecision:
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
                return LinkDecision(None, os.path.relpath(place, folder) if _leaves(inner, target) else target)
            target = place  # what it says is told from where it stands now
        for top in self.inside:
            if below(place, top):
                stays = not climbs and not trail and not _leaves(os.path.dirname(path), target)
                return LinkDecision(None, target if stays else _told_from(path, place, top))
        if any(below(place, folder) for folder in self.stay):
            return LinkDecision(None, target)
        real, status = self._resolve(place)
        for top in self.inside:  # by a name of the tree's that nobody has told us
            if below(real, top):
                return LinkDecision(None, _told_from(path, real, top))
        if any(below(real, folder) for folder in self.stay) or self._is_common(real):
            return LinkDecision(None, target)
        return LinkDecision(real, target, status)

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


class ScannedItem(NamedTuple):
    """One name that was looked at.

    origin: where it stands when a link was followed to it; content: b"" for a link that says something else now
    barred: a link to what this user may not look at
    trail: the real directories that links were followed to on the way here
    """

    path: bytes
    status: os.stat_result
    target: bytes = b""
    origin: bytes = b""
    content: bytes | None = None
    barred: bool = False
    trail: tuple[bytes, ...] = ()


class LinkFollower:
    """Looks behind the links of the tree at `root`; with no boundary, each is carried as it is."""

    def __init__(
        self, root: bytes, boundary: LinkPolicy | None, excluded: ExcludeFilter, notices: SourceWarnings
    ) -> None:
        self.root = root
        self.boundary = boundary
        self.excluded = excluded
        self.notices = notices

    def link(self, found: ScannedItem, folder: bytes) -> ScannedItem:
        """A link as it is, or what it leads to when that is outside and does not stay there. Raises OSError.

        folder: where the link stands
        """
        place = os.path.join(folder, os.path.basename(found.path))
        said = os.readlink(place)
        link = found._replace(target=said)
        if self.boundary is None or self.excluded.matches(found.path):
            return link
        real, target, status = self.boundary.lead(place, said, found.path, found.trail)
        if target != said:
            link = link._replace(target=target, content=b"")
        try:
            status = status or os.stat(real or place)
        except PermissionError:
            return link._replace(barred=real is not None)
        except OSError:
            self.notices.note("dangling-link", found.path)
            return link
        if real is None or stat.S_IFMT(status.st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            return link
        if stat.S_ISDIR(status.st_mode):
            around = (self.root, *found.trail, os.path.realpath(folder))
            if any(below(each, real) for each in around):
                self.notices.note("link-loop", found.path)
                return link
            return ScannedItem(found.path, status, origin=real, trail=(*found.trail, real))
        return ScannedItem(found.path, status, origin=real)

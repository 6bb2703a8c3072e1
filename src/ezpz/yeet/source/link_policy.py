"""Decide which links lead out of a tree, and which of these stay links."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from ezpz.agent.common import filesystem

if TYPE_CHECKING:
    from ezpz.yeet.model.warnings import SourceWarnings
    from ezpz.yeet.source.exclude import ExcludeFilter

IMAGE_DIRECTORIES = tuple(b"/usr /etc /bin /sbin /lib /lib64 /opt /boot /dev /proc /sys /run /var/lib".split())
"""Directories of the operating system's image, which every node has."""
SHARED_PREFIXES = (b"/", b"/usr", b"/usr/local", b"/opt", b"/bin")
"""Prefixes that many installations share. A text that contains one need not mean a particular installation."""


def on_shared_filesystem(path: bytes) -> bool:
    """Return whether a path exists and is on a filesystem that several hosts share, by its type."""
    try:
        return not filesystem.is_node_local(filesystem.filesystem(path))
    except OSError:
        return False


def is_below(path: bytes, directory: bytes) -> bool:
    """Return whether an absolute path is `directory` or below it."""
    return path == directory or path.startswith(directory.rstrip(b"/") + b"/")


class LinkDecision(NamedTuple):
    """What becomes of a link.

    Attributes:
        real: Resolved path of what replaces the link. None if it stays a link.
        target: Its target if it stays a link.
        status: Status of `real`, if it was read on the way.
    """

    real: bytes | None
    target: bytes
    status: os.stat_result | None = None


class LinkPolicy:
    """The top of a tree, and what links may point to outside of it.

    Attributes:
        inside: All names of the top of the tree.
        keep_outside: Directories outside. Links to them stay links, because relocation handles them otherwise.
        image: Directories that every node has, unless they are on a shared filesystem.
    """

    def __init__(
        self,
        inside: tuple[bytes, ...],
        keep_outside: tuple[bytes, ...] = (),
        image: tuple[bytes, ...] = IMAGE_DIRECTORIES,
    ) -> None:
        self.inside = tuple(os.path.normpath(path) for path in inside)
        self.keep_outside = keep_outside
        self.image = image
        self._real_directories: dict[bytes, bytes] = {}
        self._is_shared: dict[bytes, bool] = {}

    def holds(self, path: bytes) -> bool:
        """Return whether an absolute path is in the tree, by its name."""
        return any(is_below(os.path.normpath(path), top) for top in self.inside)

    def resolve(self, link: bytes, target: bytes, path: bytes, trail: tuple[bytes, ...] = ()) -> LinkDecision:
        """Decide what becomes of a link. May read the filesystem.

        Args:
            link: Absolute path of the link.
            target: Target as it is written in the link.
            path: Path of the link in the tree.
            trail: The real directories outside of the tree that links were followed to on the way to this link.
        """
        directory = os.path.dirname(link)
        full = os.path.join(directory, target)
        climbs = _climbs_after_name(target)
        path_named = os.path.realpath(full) if climbs else os.path.normpath(full)
        if trail and not target.startswith(b"/"):
            if is_below(path_named, trail[-1]):
                inner = os.path.relpath(directory, trail[-1])
                leaves = _leaves(inner, target)
                return LinkDecision(None, os.path.relpath(path_named, directory) if leaves else target)
            target = path_named  # its relative target is valid only where the link is now
        for top in self.inside:
            if is_below(path_named, top):
                stays = not climbs and not trail and not _leaves(os.path.dirname(path), target)
                return LinkDecision(None, target if stays else _relative_target(path, path_named, top))
        if self._is_kept(path_named):
            return LinkDecision(None, target)
        real, status = self._real_path(path_named)
        for top in self.inside:  # by a name of the tree that is not in `inside`
            if is_below(real, top):
                return LinkDecision(None, _relative_target(path, real, top))
        if self._is_kept(real) or self._is_in_image(real):
            return LinkDecision(None, target)
        return LinkDecision(real, target, status)

    def _is_kept(self, path: bytes) -> bool:
        return any(is_below(path, directory) for directory in self.keep_outside)

    def _real_path(self, path: bytes) -> tuple[bytes, os.stat_result | None]:
        """Return the real path, and its status if it is not a link itself.

        Each directory is resolved once: thousands of links can point into the same cache.
        """
        directory, name = os.path.split(path)
        if directory not in self._real_directories:
            self._real_directories[directory] = os.path.realpath(directory)
        real = os.path.join(self._real_directories[directory], name)
        try:
            status = os.lstat(real)
        except OSError:
            return real, None
        return (os.path.realpath(real), None) if stat.S_ISLNK(status.st_mode) else (real, status)

    def _is_in_image(self, real: bytes) -> bool:
        """Return whether every node has a path, by its name and its filesystem. Each directory is checked once."""
        if not any(is_below(real, directory) for directory in self.image):
            return False
        directory = real if os.path.isdir(real) else os.path.dirname(real)
        if directory not in self._is_shared:
            self._is_shared[directory] = on_shared_filesystem(directory)
        return not self._is_shared[directory]


def _climbs_after_name(target: bytes) -> bool:
    """Return whether `..` follows a name. The name may be a link, so that only the filesystem can resolve it."""
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    names = next((number for number, part in enumerate(parts) if part != b".."), len(parts))
    return b".." in parts[names:]


def _leaves(directory: bytes, target: bytes) -> bool:
    """Return whether a relative target leaves the directory that `directory` is relative to, whose name may change."""
    return os.path.normpath(os.path.join(directory, target)).split(b"/")[0] == b".."


def _relative_target(path: bytes, destination: bytes, top: bytes) -> bytes:
    """Return the relative target of a link at `path` in the tree for a destination below the top."""
    return os.path.relpath(destination, os.path.join(top, os.path.dirname(path)))


class ScannedItem(NamedTuple):
    """One name that was read.

    Attributes:
        path: Path in the tree.
        status: Its status, or that of what a link was followed to.
        target: Target of a link.
        origin: Path on disk of what a link was followed to.
        content: b"" for a link whose target is changed.
        barred: Whether this is a link to something that this user may not read.
        trail: The real directories that links were followed to on the way here.
    """

    path: bytes
    status: os.stat_result
    target: bytes = b""
    origin: bytes = b""
    content: bytes | None = None
    barred: bool = False
    trail: tuple[bytes, ...] = ()


class LinkFollower:
    """Replaces links of the tree at `root` by what they point to. Without a policy, every link stays."""

    def __init__(
        self, root: bytes, link_policy: LinkPolicy | None, excluded: ExcludeFilter, notices: SourceWarnings
    ) -> None:
        self.root = root
        self.link_policy = link_policy
        self.excluded = excluded
        self.notices = notices

    def follow(self, item: ScannedItem, directory: bytes) -> ScannedItem:
        """Return a link as it is, or what it points to if that must replace it. Raises OSError.

        Args:
            item: The link.
            directory: Path on disk of the directory that the link is in.
        """
        location = os.path.join(directory, os.path.basename(item.path))
        written = os.readlink(location)
        link = item._replace(target=written)
        if self.link_policy is None or self.excluded.matches(item.path):
            return link
        real, target, status = self.link_policy.resolve(location, written, item.path, item.trail)
        if target != written:
            link = link._replace(target=target, content=b"")
        try:
            status = status or os.stat(real or location)
        except PermissionError:
            return link._replace(barred=real is not None)
        except OSError:
            self.notices.add("dangling-link", item.path)
            return link
        if real is None or stat.S_IFMT(status.st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            return link
        if stat.S_ISDIR(status.st_mode):
            around = (self.root, *item.trail, os.path.realpath(directory))
            if any(is_below(each, real) for each in around):
                self.notices.add("link-loop", item.path)
                return link
            return ScannedItem(item.path, status, origin=real, trail=(*item.trail, real))
        return ScannedItem(item.path, status, origin=real)

"""Boundary: which links of a tree lead out of it, and which of those may stay links."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ezpz.yeet.agent import place

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE = tuple(b"/usr /etc /bin /sbin /lib /lib64 /opt /boot /dev /proc /sys /run /var".split())
"""Where the files of an operating system's image are, which every node has."""
COMMON = (b"/", b"/usr", b"/usr/local", b"/opt", b"/bin")
"""Tops of installations that many have in common, so that a text that names one need not mean this one."""


def in_image(real: bytes) -> bool:
    """Whether a resolved path is part of the image of every node, as far as its place and its filesystem tell."""
    return any(below(real, folder) for folder in IMAGE) and not on_shared_filesystem(real)


def on_shared_filesystem(path: bytes) -> bool:
    """Whether a path exists and is on a filesystem that several hosts share, as far as its type tells."""
    try:
        return not place.is_node_local(place.filesystem(path))
    except OSError:
        return False


def below(path: bytes, folder: bytes) -> bool:
    """Whether an absolute path is `folder` or below it."""
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


class Boundary:
    """What is inside a tree, and what outside of it links may still lead to.

    inside: every name of the tree's top; stay: folders outside that links into are left to (those of the interpreter,
    which has its own way); common: whether a resolved path is on every node anyway
    """

    def __init__(
        self, inside: tuple[bytes, ...], stay: tuple[bytes, ...] = (), common: Callable[[bytes], bool] = in_image
    ) -> None:
        self.inside = tuple(os.path.normpath(path) for path in inside)
        self.stay = stay
        self.common = common
        self._real: dict[bytes, bytes] = {}
        self._common: dict[bytes, bool] = {}

    def follows(self, link: bytes, target: bytes, trail: tuple[bytes, ...] = ()) -> bytes | None:
        """The resolved path that a link stands for when it leads out and must be replaced by that; else None.

        link: its absolute path; trail: the real folders outside that links were followed to on the way to it. May
        look at the filesystem.
        """
        path = os.path.normpath(os.path.join(os.path.dirname(link), target))
        near = trail[-1:] if trail and not target.startswith(b"/") else ()
        if any(below(path, folder) for folder in (*near, *self.inside, *self.stay)):
            return None
        real = self._resolve(path)
        if any(below(real, folder) for folder in (*self.inside, *self.stay)) or self._is_common(real):
            return None
        return real

    def _resolve(self, path: bytes) -> bytes:
        """The real path; the folders of a cache that thousands of links lead to are resolved once."""
        folder, name = os.path.split(path)
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        real = os.path.join(self._real[folder], name)
        return os.path.realpath(real) if os.path.islink(real) else real

    def _is_common(self, real: bytes) -> bool:
        folder = os.path.dirname(real)
        if folder not in self._common:
            self._common[folder] = self.common(real)
        return self._common[folder]

"""Follow: what a scan sees at a name, and what comes in place of a link that leads out of the tree."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from ezpz.yeet.boundary import below

if TYPE_CHECKING:
    from ezpz.yeet.boundary import Boundary
    from ezpz.yeet.naming import Exclusion
    from ezpz.yeet.notices import Notices


class Seen(NamedTuple):
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


class Follow:
    """Looks behind the links of the tree at `root`; with no boundary, each is carried as it is."""

    def __init__(self, root: bytes, boundary: Boundary | None, excluded: Exclusion, notices: Notices) -> None:
        self.root = root
        self.boundary = boundary
        self.excluded = excluded
        self.notices = notices

    def link(self, found: Seen, folder: bytes) -> Seen:
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
            return Seen(found.path, status, origin=real, trail=(*found.trail, real))
        return Seen(found.path, status, origin=real)

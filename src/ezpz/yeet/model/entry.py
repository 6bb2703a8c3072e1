"""Entry: one directory, file or link of a source, as every reader and sink speaks of it."""

from __future__ import annotations

import stat
from typing import NamedTuple


class Entry(NamedTuple):
    """One entry of a tree (a NamedTuple, because a source has millions and they are spooled in batches).

    path: relative to the source's root, bytes as the filesystem has them
    mode: st_mode, type included
    mtime_ns: modification time, nanoseconds since the epoch
    size: bytes of content; 0 for what is not a regular file
    target: what a symbolic link points at, else b""
    link: the path of the earlier entry that this one is a hard link to, else b""
    origin: where it stands when that is not `path` below the root, an absolute path, else b""
    content: what a regular file holds that stands nowhere yet (b"" for a folder or link that does not), else None
    identity: of a file or link that was counted, see `counted.identity_of`; 0 for all else
    """

    path: bytes
    mode: int
    mtime_ns: int
    size: int
    target: bytes = b""
    link: bytes = b""
    origin: bytes = b""
    content: bytes | None = None
    identity: int = 0

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def is_regular(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_foreign(self) -> bool:
        """Whether it stands elsewhere than below the source's root, or nowhere yet."""
        return bool(self.origin) or self.content is not None

    @property
    def permissions(self) -> int:
        return stat.S_IMODE(self.mode)


class Provenance(NamedTuple):
    """How a file of the source became what it is.

    size: what it had in the source, in bytes; changed, replaced, case: see `relocate.ledger.Outcome`
    head: how bytecode begins, in hex, "" for what is none
    """

    size: int
    changed: bool = False
    replaced: int = 0
    case: str = ""
    head: str = ""


BYTECODE_DIRECTORY = b"__pycache__"

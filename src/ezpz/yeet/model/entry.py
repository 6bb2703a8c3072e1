"""One directory, file, or link of a source, as all readers and sinks exchange it."""

from __future__ import annotations

import stat
from typing import NamedTuple


class Entry(NamedTuple):
    """One entry of a tree. A NamedTuple, because a source has millions and they are spooled in batches.

    Attributes:
        path: Path relative to the source's root, in the bytes of the filesystem.
        mode: st_mode, with the type.
        mtime_ns: Modification time in nanoseconds since the epoch.
        size: Bytes of content, 0 unless it is a regular file.
        target: Target of a symbolic link, else b"".
        link: Path of the earlier entry that this one is a hard link to, else b"".
        origin: Absolute path of the original if that is not `path` below the root, else b"".
        content: Content of a regular file that is on no disk yet (b"" for such a directory or link), else None.
        identity: Identity of a file or link at the time of the scan (see `source.identity`), 0 for other entries.
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
        """Whether the original is not below the source's root, or on no disk yet."""
        return bool(self.origin) or self.content is not None

    @property
    def permissions(self) -> int:
        return stat.S_IMODE(self.mode)


class Provenance(NamedTuple):
    """How the content of a file in the copy was made from the source.

    Attributes:
        size: Bytes in the source.
        changed: See `relocate.recorder.RewriteResult`.
        replaced: See there.
        case: See there.
        head: The first bytes of bytecode in hex, "" for other files.
    """

    size: int
    changed: bool = False
    replaced: int = 0
    case: str = ""
    head: str = ""


BYTECODE_DIRECTORY = b"__pycache__"

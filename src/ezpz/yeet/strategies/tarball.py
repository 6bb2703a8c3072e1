"""Strategy `tarball`: the members of an archive are checked and unpacked to staging.

A directory around all members is removed.
"""

from __future__ import annotations

import os
import stat
from contextlib import closing
from typing import TYPE_CHECKING, ClassVar

from ezpz.agent.common.layout import OWN_FILES
from ezpz.agent.common.manifest import BLOCK
from ezpz.agent.common.text import format_bytes, printable_path
from ezpz.errors import ArchiveCorrupt, ArchiveUnsafe, NoSpace, SourceEmpty
from ezpz.yeet.archive.decompress import Prefetcher, decompress
from ezpz.yeet.archive.tar_reader import MemberType, TarMember, TarReader
from ezpz.yeet.archive.zstd import Damaged
from ezpz.yeet.model.entry import Entry
from ezpz.yeet.source.archive_formats import MAGIC_BYTES, TAR, format_of
from ezpz.yeet.source.errors import local_failure
from ezpz.yeet.source.io import open_source, write_all
from ezpz.yeet.source.sparse_blocks import data_extents
from ezpz.yeet.transfer.unpack_feed import UNPACKED

if TYPE_CHECKING:
    from ezpz.yeet.strategies.base import CopyJob

STANDARD_DIRECTORIES = (b"bin", b"lib", b"lib64", b"include", b"share", b"etc", b"man", b"conda-meta")
SET_ID = stat.S_ISUID | stat.S_ISGID
DEFAULT_TOP_MODE = 0o755  # of a top that is no member of the archive, as with conda-pack
CHECK_SPACE_AFTER = 32 * BLOCK  # bytes of a file; an archive with a wrong size of a file is damaged before that


class Tarball:
    """Reads a tar archive once, in order, while it is decompressed."""

    name: ClassVar[str] = "tarball"
    reads_archives: ClassVar[bool] = True
    feeds: ClassVar[bool] = True
    tools: ClassVar[tuple[str, ...]] = ()

    def fill(self, job: CopyJob) -> None:
        """Unpack the archive to `job.staging`. Raise EzpzError or `Cancelled`."""
        _TarExtractor(job).run()


class _TarExtractor:
    """Unpacks one archive."""

    def __init__(self, job: CopyJob) -> None:
        self.job = job
        self.feeds = job.unpack_feeds
        self.label = printable_path(job.root)
        self.format = TAR
        self.directories: list[tuple[bytes, int, int]] = []  # members: path, mode, time in ns
        self.created = {b""}  # directories
        self.top: bytes | None = None  # the directory around all members, which is removed; b"" for none

    def run(self) -> None:
        """Unpack the archive. Raise EzpzError or `Cancelled`."""
        try:
            self._unpack_all()
        finally:
            for feed in self.feeds:
                feed.unpacked()

    def _unpack_all(self) -> None:
        count = 0
        with os.fdopen(open_source(self.job.root, identity=self.job.scan.archive)[0], "rb") as file:
            self.format = format_of(os.pread(file.fileno(), MAGIC_BYTES, 0), self.job.root)
            try:
                with closing(Prefetcher(decompress(file, self.format))) as pieces:
                    members = TarReader(pieces)
                    for member in members:
                        self.job.cancel.raise_if_cancelled()
                        count += self._unpack(members, member)
                if all(relative for relative, _, _ in self.directories):
                    os.chmod(self.job.staging, DEFAULT_TOP_MODE)
                for relative, mode, mtime in reversed(self.directories):
                    path = self._at(relative)
                    os.utime(path, ns=(mtime, mtime))
                    os.chmod(path, mode)
            except (Damaged, OverflowError, ValueError) as e:
                raise self._corrupt(str(e)) from e
            except OSError as e:
                raise local_failure(e) from e
        if count == 0:
            raise SourceEmpty(f"the archive '{self.label}' is empty")

    def _corrupt(self, why: str) -> ArchiveCorrupt:
        return ArchiveCorrupt(
            f"the archive '{self.label}' is damaged or cut short: {why}",
            hint=f"copy or make the archive again; `{self.format.check_command} FILE` tells the same",
        )

    def _unpack(self, members: TarReader, member: TarMember) -> int:
        """Unpack one member and return the number of entries that it makes: 0 for the root."""
        named = self._checked(member.name, member)
        if named in OWN_FILES:
            return 0
        relative = self._below_top(named, is_directory=member.type is MemberType.DIRECTORY)
        if relative in OWN_FILES:  # of a copy that was packed on a node
            return 0
        if member.type is MemberType.DIRECTORY:
            self._make_directories(relative)
            self.directories.append((relative, member.mode, member.mtime_ns))
            return int(bool(named))
        if not relative:
            raise self._type_conflict(named)
        self._make_directories(os.path.dirname(relative))
        try:
            self._make(members, member, relative)
        except FileExistsError:
            self._clear_path(relative, named)
            self._make(members, member, relative)
        return 1

    def _clear_path(self, relative: bytes, named: bytes) -> None:
        """Remove an earlier member of the same name: the last one counts, as with tar(1)."""
        path = self._at(relative)
        if os.path.isdir(path) and not os.path.islink(path):
            raise self._type_conflict(named)
        for feed in self.feeds:
            feed.defer(relative)
        os.unlink(path)

    def _type_conflict(self, named: bytes) -> ArchiveCorrupt:
        return self._corrupt(f"'{printable_path(named)}' is a folder and a file")

    def _below_top(self, named: bytes, *, is_directory: bool) -> bytes:
        """Return the path of a member below staging, given its path in the archive.

        The content of a directory around all members is the tree. `tar czf env.tgz env` makes such a directory and
        conda-pack does not. A `bin` or `lib` is content even if it is alone, and an archive with a member `.` has no
        such directory. The first member decides, until another member is not in that directory.
        """
        top, slash, rest = named.partition(b"/")
        if self.top is None:
            lone = (slash or is_directory) and top not in STANDARD_DIRECTORIES
            self.top = top if lone else b""
        if not self.top:
            return named
        if top == self.top:
            return rest
        self._restore_top()
        return named

    def _restore_top(self) -> None:
        """Move what was unpacked to the top directory, which turned out to be content."""
        top, self.top = self.top or b"", b""
        inner = self.job.staging + b".top"
        os.mkdir(inner, UNPACKED)
        for name in os.listdir(self.job.staging):
            os.rename(self._at(name), os.path.join(inner, name))
        os.rename(inner, self._at(top))
        self.directories = [(os.path.join(top, path) if path else top, mode, at) for path, mode, at in self.directories]
        self.created = {b"", top, *(os.path.join(top, path) for path in self.created if path)}
        for feed in self.feeds:
            feed.moved_into(top)

    def _make(self, members: TarReader, member: TarMember, relative: bytes) -> None:
        path, mtime = self._at(relative), member.mtime_ns
        if member.type is MemberType.SYMLINK:
            os.symlink(member.target, path)
            os.utime(path, ns=(mtime, mtime), follow_symlinks=False)
            for feed in self.feeds:
                feed.symlink(Entry(relative, stat.S_IFLNK | 0o777, mtime, 0, member.target))
        elif member.type is MemberType.HARD_LINK:
            self._link(member, relative)
        elif member.type is MemberType.FILE:
            self._write(members, member, relative)
        else:
            raise ArchiveUnsafe(
                f"the archive '{self.label}' holds '{printable_path(member.name)}', a device or FIFO",
                hint="unpack it by hand and look at it",
            )

    def _link(self, member: TarMember, relative: bytes) -> None:
        named = self._checked(member.target, member)
        earlier = self._below_top(named, is_directory=False)
        self._make_directories(os.path.dirname(earlier))
        try:
            os.link(self._at(earlier), self._at(relative), follow_symlinks=False)
        except (FileNotFoundError, PermissionError) as e:
            raise self._corrupt(f"'{printable_path(named)}' is linked to, and is no file in it") from e
        for feed in self.feeds:
            feed.defer(relative)

    def _checked(self, raw: bytes, member: TarMember) -> bytes:
        """Return the path of a member, checked. Raise ArchiveUnsafe if it is not below staging."""
        parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
        if raw.startswith(b"/") or b".." in parts:
            raise ArchiveUnsafe(
                f"the archive '{self.label}' holds '{printable_path(member.name)}', which would land elsewhere",
                hint="nothing was written there; unpack it by hand and look at it",
            )
        return b"/".join(parts)

    def _make_directories(self, relative: bytes) -> None:
        """Create a directory and its parents. None of them may be a link, which could point out of staging.

        A directory is never replaced by a later member.
        """
        if relative in self.created:
            return
        below = b""
        for part in relative.split(b"/"):
            below = os.path.join(below, part)
            if below in self.created:
                continue
            path = self._at(below)
            try:
                os.mkdir(path, UNPACKED)
                for feed in self.feeds:
                    feed.directory(below)
            except FileExistsError:
                if not stat.S_ISDIR(os.lstat(path).st_mode):
                    message = (
                        f"the archive '{self.label}' writes through '{printable_path(relative)}', "
                        "which is a link or file in it"
                    )
                    raise ArchiveUnsafe(message, hint="unpack it by hand and look at it") from None
            self.created.add(below)

    def _write(self, members: TarReader, member: TarMember, relative: bytes) -> None:
        mtime = member.mtime_ns
        entry = Entry(relative, stat.S_IFREG | (member.mode & 0o777), mtime, member.size)
        if member.mode & SET_ID:
            self.job.recorder.notices.add("setuid", relative)
        fd = os.open(self._at(relative), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if member.size <= BLOCK:
                self._write_small(members.read(member), entry, fd)
            else:
                self._write_blocks(members, member, entry, fd)
            os.fchmod(fd, entry.permissions)
            os.utime(fd, ns=(mtime, mtime))
        finally:
            os.close(fd)
        self.job.moved(member.size)

    def _refuse_full(self, entry: Entry) -> None:
        """Raise NoSpace for a file larger than the free space, although a file of zeros would fit."""
        room = os.statvfs(self.job.staging)
        free = room.f_bavail * room.f_frsize
        if entry.size > free:
            raise NoSpace(
                f"the archive '{self.label}' holds '{printable_path(entry.path)}' of {format_bytes(entry.size)}, "
                f"and {format_bytes(free)} are free here",
                hint="free some space, or choose another place with --dst",
            )

    def _write_small(self, data: bytes, entry: Entry, fd: int) -> None:
        write_all(fd, data)
        for feed in self.feeds:
            feed.file(entry, data)

    def _write_blocks(self, members: TarReader, member: TarMember, entry: Entry, fd: int) -> None:
        """Write a large file, with holes in place of zeros: an archive may contain the zeros of a sparse file."""
        for feed in self.feeds:
            feed.defer_if_present(entry)
        read = 0
        for block in members.read_blocks(member):
            self.job.cancel.raise_if_cancelled()
            if read == CHECK_SPACE_AFTER:
                self._refuse_full(entry)
            for start, data in data_extents(block):
                os.lseek(fd, read + start, os.SEEK_SET)
                write_all(fd, data)
            for feed in self.feeds:
                feed.block(entry, read, block)
            read += len(block)
        os.ftruncate(fd, entry.size)

    def _at(self, relative: bytes) -> bytes:
        return os.path.join(self.job.staging, relative) if relative else self.job.staging

"""tarball: the source is an archive; its members are judged, unpacked to staging, and a lone top folder is stripped."""

from __future__ import annotations

import os
import stat
from contextlib import closing
from typing import TYPE_CHECKING, ClassVar

from ezpz.agent.common.layout import OWN_FILES
from ezpz.agent.common.manifest import BLOCK
from ezpz.agent.common.text import format_bytes, printable_path
from ezpz.errors import ArchiveCorrupt, ArchiveUnsafe, NoSpace, SourceEmpty
from ezpz.yeet.archive.decompress import Prefetcher, pieces_of
from ezpz.yeet.archive.tar_reader import TarMember, TarReader, Type
from ezpz.yeet.archive.zstd import Damaged
from ezpz.yeet.model.entry import Entry
from ezpz.yeet.source.archive_formats import MAGIC_BYTES, TAR, format_of
from ezpz.yeet.source.errors import local_failure
from ezpz.yeet.source.io import open_source, write_all
from ezpz.yeet.source.sparse_blocks import data_extents
from ezpz.yeet.transfer.unpack_feed import UNPACKED

if TYPE_CHECKING:
    from ezpz.yeet.strategies.base import CopyJob

STANDARD_FOLDERS = (b"bin", b"lib", b"lib64", b"include", b"share", b"etc", b"man", b"conda-meta")
SET_ID = stat.S_ISUID | stat.S_ISGID
UNTOLD = 0o755  # of a top that the archive does not tell of, as that of conda-pack does not
BELIEVED = 32 * BLOCK  # bytes of a file, after which an archive has not just lied about its size


class Tarball:
    """Reads a tar archive once, in order, while it is decompressed."""

    name: ClassVar[str] = "tarball"
    reads_archives: ClassVar[bool] = True
    feeds: ClassVar[bool] = True
    tools: ClassVar[tuple[str, ...]] = ()

    def fill(self, job: CopyJob) -> None:
        _TarExtractor(job).run()


class _TarExtractor:
    """top: the lone folder around all of it, which is left out; None until the first member tells, b"" for none

    standing: the folders that were made
    """

    def __init__(self, job: CopyJob) -> None:
        self.job = job
        self.label = printable_path(job.root)
        self.format = TAR
        self.folders: list[tuple[bytes, int, int]] = []
        self.standing = {b""}
        self.top: bytes | None = None

    def run(self) -> None:
        try:
            self._unpack_all()
        finally:
            if self.job.trail is not None:
                self.job.trail.unpacked()

    def _unpack_all(self) -> None:
        count = 0
        with os.fdopen(open_source(self.job.root, identity=self.job.scan.archive)[0], "rb") as file:
            self.format = format_of(os.pread(file.fileno(), MAGIC_BYTES, 0), self.job.root)
            try:
                with closing(Prefetcher(pieces_of(file, self.format))) as pieces:
                    members = TarReader(pieces)
                    for member in members:
                        self.job.cancel.raise_if_cancelled()
                        count += self._unpack(members, member)
                if all(relative for relative, _, _ in self.folders):
                    os.chmod(self.job.staging, UNTOLD)
                for relative, mode, mtime in reversed(self.folders):
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
        """Unpack one member and return how many entries it made; the root itself counts none."""
        named = self._checked(member.name, member)
        if named in OWN_FILES:
            return 0
        relative = self._below_top(named, is_folder=member.type is Type.FOLDER)
        if relative in OWN_FILES:  # of what stood on a node, packed by hand
            return 0
        if member.type is Type.FOLDER:
            self._make_folders(relative)
            self.folders.append((relative, member.mode, member.mtime_ns))
            return int(bool(named))
        if not relative:
            raise self._folder_and_file(named)
        self._make_folders(os.path.dirname(relative))
        try:
            self._make(members, member, relative)
        except FileExistsError:
            self._make_way(relative, named)
            self._make(members, member, relative)
        return 1

    def _make_way(self, relative: bytes, named: bytes) -> None:
        """Remove an earlier member of the same name: the later one counts, as for tar(1)."""
        path = self._at(relative)
        if os.path.isdir(path) and not os.path.islink(path):
            raise self._folder_and_file(named)
        if self.job.trail is not None:
            self.job.trail.wait(relative)
        os.unlink(path)

    def _folder_and_file(self, named: bytes) -> ArchiveCorrupt:
        return self._corrupt(f"'{printable_path(named)}' is a folder and a file")

    def _below_top(self, named: bytes, *, is_folder: bool) -> bytes:
        """Where below staging a member goes, given its path in the archive.

        If all of an archive is one folder that is itself the tree, its content is the tree. A conda-pack archive has no
        top folder and `tar czf env.tgz env` has one; a lone `bin` or `lib` is content. (An archive that names its root,
        `.`, has no top folder either.) The first member tells, until another one proves it wrong.
        """
        top, slash, rest = named.partition(b"/")
        if self.top is None:
            lone = (slash or is_folder) and top not in STANDARD_FOLDERS
            self.top = top if lone else b""
        if not self.top:
            return named
        if top == self.top:
            return rest
        self._put_back()
        return named

    def _put_back(self) -> None:
        """The top folder is not alone: it is content too."""
        top, self.top = self.top or b"", b""
        inner = self.job.staging + b".top"
        os.mkdir(inner, UNPACKED)
        for name in os.listdir(self.job.staging):
            os.rename(self._at(name), os.path.join(inner, name))
        os.rename(inner, self._at(top))
        self.folders = [(os.path.join(top, path) if path else top, mode, at) for path, mode, at in self.folders]
        self.standing = {b"", top, *(os.path.join(top, path) for path in self.standing if path)}
        if self.job.trail is not None:
            self.job.trail.moved_into(top)

    def _make(self, members: TarReader, member: TarMember, relative: bytes) -> None:
        path, trail, mtime = self._at(relative), self.job.trail, member.mtime_ns
        if member.type is Type.SYMLINK:
            os.symlink(member.target, path)
            os.utime(path, ns=(mtime, mtime), follow_symlinks=False)
            if trail is not None:
                trail.symlink(Entry(relative, stat.S_IFLNK | 0o777, mtime, 0, member.target))
        elif member.type is Type.HARD_LINK:
            self._link(member, relative)
        elif member.type is Type.FILE:
            self._write(members, member, relative)
        else:
            raise ArchiveUnsafe(
                f"the archive '{self.label}' holds '{printable_path(member.name)}', a device or FIFO",
                hint="unpack it by hand and look at it",
            )

    def _link(self, member: TarMember, relative: bytes) -> None:
        named = self._checked(member.target, member)
        earlier = self._below_top(named, is_folder=False)
        self._make_folders(os.path.dirname(earlier))
        try:
            os.link(self._at(earlier), self._at(relative), follow_symlinks=False)
        except (FileNotFoundError, PermissionError) as e:
            raise self._corrupt(f"'{printable_path(named)}' is linked to, and is no file in it") from e
        if self.job.trail is not None:
            self.job.trail.wait(relative)

    def _checked(self, raw: bytes, member: TarMember) -> bytes:
        """The member's path below staging. Raises ArchiveUnsafe when it would land elsewhere."""
        parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
        if raw.startswith(b"/") or b".." in parts:
            raise ArchiveUnsafe(
                f"the archive '{self.label}' holds '{printable_path(member.name)}', which would land elsewhere",
                hint="nothing was written there; unpack it by hand and look at it",
            )
        return b"/".join(parts)

    def _make_folders(self, relative: bytes) -> None:
        """Make a folder and those above it; none of them may be a link, which could lead out.

        What is a folder once stays one: nothing that comes later takes its place.
        """
        if relative in self.standing:
            return
        below = b""
        for part in relative.split(b"/"):
            below = os.path.join(below, part)
            if below in self.standing:
                continue
            path = self._at(below)
            try:
                os.mkdir(path, UNPACKED)
                if self.job.trail is not None:
                    self.job.trail.folder(below)
            except FileExistsError:
                if not stat.S_ISDIR(os.lstat(path).st_mode):
                    message = (
                        f"the archive '{self.label}' writes through '{printable_path(relative)}', "
                        "which is a link or file in it"
                    )
                    raise ArchiveUnsafe(message, hint="unpack it by hand and look at it") from None
            self.standing.add(below)

    def _write(self, members: TarReader, member: TarMember, relative: bytes) -> None:
        mtime = member.mtime_ns
        entry = Entry(relative, stat.S_IFREG | (member.mode & 0o777), mtime, member.size)
        if member.mode & SET_ID:
            self.job.ledger.notices.note("setuid", relative)
        fd = os.open(self._at(relative), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if member.size <= BLOCK:
                self._write_small(members.whole(member), entry, fd)
            else:
                self._write_blocks(members, member, entry, fd)
            os.fchmod(fd, entry.permissions)
            os.utime(fd, ns=(mtime, mtime))
        finally:
            os.close(fd)
        self.job.moved(member.size)

    def _refuse_full(self, entry: Entry) -> None:
        """Raise NoSpace for a file that there is no room for, although it can be made of zeros that take none."""
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
        if self.job.trail is not None:
            self.job.trail.file(entry, data)

    def _write_blocks(self, members: TarReader, member: TarMember, entry: Entry, fd: int) -> None:
        """Write a file with holes where it has but zeros: an archive spells out what was none in a sparse file."""
        trail = self.job.trail
        if trail is not None and trail.feed.may_have(entry.size):
            trail.wait(entry.path)  # until it is known what it is
        read = 0
        for block in members.blocks(member):
            self.job.cancel.raise_if_cancelled()
            if read == BELIEVED:
                self._refuse_full(entry)
            for start, data in data_extents(block):
                os.lseek(fd, read + start, os.SEEK_SET)
                write_all(fd, data)
            if trail is not None:
                trail.block(entry, read, block)
            read += len(block)
        os.ftruncate(fd, entry.size)

    def _at(self, relative: bytes) -> bytes:
        return os.path.join(self.job.staging, relative) if relative else self.job.staging

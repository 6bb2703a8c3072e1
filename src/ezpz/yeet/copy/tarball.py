"""tarball: the source is an archive; its members are judged, unpacked to staging, and a lone top folder is stripped."""

from __future__ import annotations

import gzip
import os
import re
import stat
import tarfile
import zlib
from typing import IO, TYPE_CHECKING, ClassVar

from ezpz.errors import ArchiveCorrupt, ArchiveUnsafe, SourceEmpty, SourceUnreadable
from ezpz.process import Stopped
from ezpz.yeet.agent.manifest import BLOCK
from ezpz.yeet.agent.refusal import shown
from ezpz.yeet.agent.tree import OWN_FILES
from ezpz.yeet.blocks import filled
from ezpz.yeet.copy.base import local_failure, open_source
from ezpz.yeet.copy.fill import write_all
from ezpz.yeet.entry import Entry
from ezpz.yeet.trail import UNPACKED

if TYPE_CHECKING:
    from typing_extensions import Self

    from ezpz.yeet.copy.base import Job

CHUNK = 1 << 20  # bytes
GZIP_OVERHEAD = 1024  # bytes by which what cannot be compressed may grow, besides a thousandth
STANDARD_FOLDERS = (b"bin", b"lib", b"lib64", b"include", b"share", b"etc", b"man", b"conda-meta")
TIME = re.compile(r"-?\d{1,11}(\.\d*)?")
CORRUPT_HINT = "copy or make the archive again; `gzip -t FILE` tells the same"


class Tarball:
    """Reads .tar.gz and .tgz once, in order, with the standard library's reader."""

    name: ClassVar[str] = "tarball"
    reads_archives: ClassVar[bool] = True
    feeds: ClassVar[bool] = True
    tools: ClassVar[tuple[str, ...]] = ()

    def fill(self, job: Job) -> None:
        _Unpack(job).run()


class _Unpack:
    """top: the lone folder around all of it, which is left out; None until the first member tells, b"" for none."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.label = shown(job.root)
        self.folders: list[tuple[bytes, int, int]] = []
        self.top: bytes | None = None

    def run(self) -> None:
        try:
            self._unpack_all()
        finally:
            if self.job.trail is not None:
                self.job.trail.unpacked()

    def _unpack_all(self) -> None:
        count = 0
        with os.fdopen(open_source(self.job.root)[0], "rb") as file:
            try:
                with gzip.GzipFile(fileobj=file) as stream, _open(stream) as archive:
                    while (member := archive.next()) is not None:
                        if self.job.stop.is_set():
                            raise Stopped
                        count += self._unpack(archive, member)
                        archive.members = []  # type: ignore[attr-defined]  # the reader keeps every member otherwise
                    while stream.read(CHUNK):  # the checksum is at the very end, and tarfile stops before it
                        pass
                for relative, mode, mtime in reversed(self.folders):
                    path = self._at(relative)
                    os.utime(path, ns=(mtime, mtime))
                    os.chmod(path, mode)
            except (tarfile.TarError, EOFError, zlib.error, OverflowError, ValueError) as e:
                raise self._corrupt(str(e)) from e
            except OSError as e:
                raise self._corrupt(str(e)) if isinstance(e, gzip.BadGzipFile) else local_failure(e) from e
        if count == 0:
            raise SourceEmpty(f"the archive '{self.label}' is empty")

    def _corrupt(self, why: str) -> ArchiveCorrupt:
        return ArchiveCorrupt(f"the archive '{self.label}' is damaged or cut short: {why}", hint=CORRUPT_HINT)

    def _unpack(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> int:
        """Unpack one member and return how many entries it made; the root itself counts none."""
        named = self._checked(member.name, member)
        if named in OWN_FILES:
            return 0
        relative = self._below_top(named, is_folder=member.isdir())
        if relative in OWN_FILES:  # of what stood on a node, packed by hand
            return 0
        mtime = _nanoseconds(member.pax_headers.get("mtime") or str(int(member.mtime)))
        if member.isdir():
            self._make_folders(relative)
            self.folders.append((relative, stat.S_IMODE(member.mode), mtime))
            return int(bool(named))
        self._make_folders(os.path.dirname(relative))
        path = self._at(relative)
        if not relative or (os.path.isdir(path) and not os.path.islink(path)):
            raise self._corrupt(f"'{shown(named)}' is a folder and a file")
        if os.path.lexists(path):  # tar(1): of two members with one name the later counts
            if self.job.trail is not None:
                self.job.trail.wait(relative)
            os.unlink(path)
        self._make(archive, member, relative, mtime)
        return 1

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
        if self.job.trail is not None:
            self.job.trail.moved_into(top)

    def _make(self, archive: tarfile.TarFile, member: tarfile.TarInfo, relative: bytes, mtime: int) -> None:
        path, trail = self._at(relative), self.job.trail
        if member.issym():
            target = os.fsencode(member.linkname)
            os.symlink(target, path)
            os.utime(path, ns=(mtime, mtime), follow_symlinks=False)
            if trail is not None:
                trail.symlink(Entry(relative, stat.S_IFLNK | 0o777, mtime, 0, target))
        elif member.islnk():
            self._link(member, relative)
        elif member.isreg():
            self._write(archive, member, relative, mtime)
        else:
            raise ArchiveUnsafe(
                f"the archive '{self.label}' holds '{shown(os.fsencode(member.name))}', a device or FIFO",
                hint="unpack it by hand and look at it",
            )

    def _link(self, member: tarfile.TarInfo, relative: bytes) -> None:
        named = self._checked(member.linkname, member)
        earlier = self._below_top(named, is_folder=False)
        self._make_folders(os.path.dirname(earlier))
        try:
            os.link(self._at(earlier), self._at(relative), follow_symlinks=False)
        except (FileNotFoundError, PermissionError) as e:
            raise self._corrupt(f"'{shown(named)}' is linked to, and is no file in it") from e
        if self.job.trail is not None:
            self.job.trail.wait(relative)

    def _checked(self, name: str, member: tarfile.TarInfo) -> bytes:
        """The member's path below staging. Raises ArchiveUnsafe when it would land elsewhere."""
        raw = os.fsencode(name)
        parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
        if raw.startswith(b"/") or b".." in parts:
            raise ArchiveUnsafe(
                f"the archive '{self.label}' holds '{shown(os.fsencode(member.name))}', which would land elsewhere",
                hint="nothing was written there; unpack it by hand and look at it",
            )
        return b"/".join(parts)

    def _make_folders(self, relative: bytes) -> None:
        """Make a folder and those above it; none of them may be a link, which could lead out."""
        below = b""
        for part in relative.split(b"/") if relative else ():
            below = os.path.join(below, part)
            path = self._at(below)
            try:
                os.mkdir(path, UNPACKED)
                if self.job.trail is not None:
                    self.job.trail.folder(below)
            except FileExistsError:
                if not stat.S_ISDIR(os.lstat(path).st_mode):
                    message = (
                        f"the archive '{self.label}' writes through '{shown(relative)}', which is a link or file in it"
                    )
                    raise ArchiveUnsafe(message, hint="unpack it by hand and look at it") from None

    def _write(self, archive: tarfile.TarFile, member: tarfile.TarInfo, relative: bytes, mtime: int) -> None:
        source = archive.extractfile(member)
        assert source is not None
        entry = Entry(relative, stat.S_IFREG | (member.mode & 0o777), mtime, member.size)
        fd = os.open(self._at(relative), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if member.size <= BLOCK:
                self._write_small(source.read(), entry, fd)
            else:
                self._write_blocks(source, entry, fd)
            os.fchmod(fd, entry.permissions)
            os.utime(fd, ns=(mtime, mtime))
        finally:
            os.close(fd)
        self.job.moved(member.size)

    def _write_small(self, data: bytes, entry: Entry, fd: int) -> None:
        if len(data) != entry.size:
            raise self._cut_short(entry)
        write_all(fd, data)
        if self.job.trail is not None:
            self.job.trail.file(entry, data)

    def _write_blocks(self, source: IO[bytes], entry: Entry, fd: int) -> None:
        """Write a file with holes where it has but zeros: an archive spells out what was none in a sparse file."""
        trail = self.job.trail
        if trail is not None and trail.feed.may_have(entry.size):
            trail.wait(entry.path)  # until it is known what it is
        read = 0
        while block := source.read(BLOCK):
            for start, data in filled(block):
                os.lseek(fd, read + start, os.SEEK_SET)
                write_all(fd, data)
            if trail is not None:
                trail.block(entry, read, block)
            read += len(block)
        if read != entry.size:
            raise self._cut_short(entry)
        os.ftruncate(fd, entry.size)

    def _cut_short(self, entry: Entry) -> ArchiveCorrupt:
        return ArchiveCorrupt(f"the archive '{self.label}' is cut short in '{shown(entry.path)}'", hint=CORRUPT_HINT)

    def _at(self, relative: bytes) -> bytes:
        return os.path.join(self.job.staging, relative) if relative else self.job.staging


class _Member(tarfile.TarInfo):
    """A header; tarfile takes one that is damaged or missing for the end of the archive, and says nothing."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as e:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # a block of zeros is the end
            raise ValueError(f"a member's header: {e}") from e


def _open(stream: gzip.GzipFile) -> tarfile.TarFile:
    settings = {"bufsize": CHUNK, "encoding": "utf-8", "errors": "surrogateescape", "tarinfo": _Member}
    return tarfile.open(fileobj=stream, mode="r|", **settings)  # type: ignore[call-overload, no-any-return]


def _nanoseconds(text: str) -> int:
    """A PAX time ("1700000000.123456789") in whole nanoseconds, without the rounding of a float."""
    if not TIME.fullmatch(text):
        raise ValueError(f"'{text[:40]}' is no time")
    seconds, _, fraction = text.partition(".")
    return int(seconds) * 10**9 + (-1 if text.startswith("-") else 1) * int(fraction[:9].ljust(9, "0") or 0)


def estimated_size(path: str) -> int:
    """About how many bytes a gzip file holds: its last four bytes are the size modulo 4 GiB (RFC 1952).

    Raises SourceUnreadable.
    """
    try:
        packed = os.path.getsize(path)
        with open(path, "rb") as file:
            file.seek(max(0, packed - 4))
            size = int.from_bytes(file.read(4), "little")
    except OSError as e:
        raise SourceUnreadable(f"cannot read '{path}': {e.strerror}", hint="are you allowed to read it?") from e
    while size + size // 1000 + GZIP_OVERHEAD < packed:
        size += 1 << 32
    return size

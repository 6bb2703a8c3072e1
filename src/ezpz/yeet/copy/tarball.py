"""tarball: the source is an archive; its members are judged, unpacked to staging, and a lone top folder is stripped."""

from __future__ import annotations

import gzip
import os
import re
import stat
import tarfile
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

from ezpz.errors import ArchiveCorrupt, ArchiveUnsafe, SourceEmpty, SourceUnreadable
from ezpz.process import Stopped
from ezpz.yeet.agent.refusal import shown
from ezpz.yeet.agent.tree import OWN_FILES
from ezpz.yeet.copy.base import local_failure, open_source

if TYPE_CHECKING:
    from typing_extensions import Self

    from ezpz.yeet.copy.base import Job

CHUNK = 1 << 20  # bytes
HOLE = bytes(1 << 16)
GZIP_OVERHEAD = 1024  # bytes by which what cannot be compressed may grow, besides a thousandth
STANDARD_FOLDERS = (b"bin", b"lib", b"lib64", b"include", b"share", b"etc", b"man", b"conda-meta")
TIME = re.compile(r"-?\d{1,11}(\.\d*)?")
CORRUPT_HINT = "copy or make the archive again; `gzip -t FILE` tells the same"


class Tarball:
    """Reads .tar.gz and .tgz once, in order, with the standard library's reader."""

    name: ClassVar[str] = "tarball"
    reads_archives: ClassVar[bool] = True
    feeds: ClassVar[bool] = False
    tools: ClassVar[tuple[str, ...]] = ()

    def fill(self, job: Job) -> None:
        _Unpack(job).run()


class _Unpack:
    def __init__(self, job: Job) -> None:
        self.job = job
        self.label = shown(job.root)
        self.folders: list[tuple[bytes, int, int]] = []
        self.has_root = False

    def run(self) -> None:
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
                for path, mode, mtime in reversed(self.folders):
                    os.utime(path, ns=(mtime, mtime))
                    os.chmod(path, mode)
            except (tarfile.TarError, EOFError, zlib.error, OverflowError, ValueError) as e:
                raise self._corrupt(str(e)) from e
            except OSError as e:
                raise self._corrupt(str(e)) if isinstance(e, gzip.BadGzipFile) else local_failure(e) from e
        if count == 0:
            raise SourceEmpty(f"the archive '{self.label}' is empty")
        if not self.has_root:
            strip_lone_folder(self.job.staging)

    def _corrupt(self, why: str) -> ArchiveCorrupt:
        return ArchiveCorrupt(f"the archive '{self.label}' is damaged or cut short: {why}", hint=CORRUPT_HINT)

    def _unpack(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> int:
        """Unpack one member and return how many entries it made; the top itself counts none."""
        relative = self._checked(member.name, member)
        if relative in OWN_FILES:
            return 0
        path = os.path.join(self.job.staging, relative) if relative else self.job.staging
        mtime = _nanoseconds(member.pax_headers.get("mtime") or str(int(member.mtime)))
        if member.isdir():
            self.has_root = self.has_root or not relative
            self._make_folders(relative)
            self.folders.append((path, stat.S_IMODE(member.mode), mtime))
            return int(bool(relative))
        self._make_folders(os.path.dirname(relative))
        if not relative or (os.path.isdir(path) and not os.path.islink(path)):
            raise self._corrupt(f"'{shown(relative)}' is a folder and a file")
        if os.path.lexists(path):  # tar(1): of two members with one name the later counts
            os.unlink(path)
        self._make(archive, member, path, mtime)
        return 1

    def _make(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: bytes, mtime: int) -> None:
        if member.issym():
            os.symlink(os.fsencode(member.linkname), path)
            os.utime(path, ns=(mtime, mtime), follow_symlinks=False)
        elif member.islnk():
            earlier = self._checked(member.linkname, member)
            self._make_folders(os.path.dirname(earlier))
            try:
                os.link(os.path.join(self.job.staging, earlier), path, follow_symlinks=False)
            except (FileNotFoundError, PermissionError) as e:
                raise self._corrupt(f"'{shown(earlier)}' is linked to, and is no file in it") from e
        elif member.isreg():
            self._write(archive, member, path, mtime)
        else:
            raise ArchiveUnsafe(
                f"the archive '{self.label}' holds '{shown(os.fsencode(member.name))}', a device or FIFO",
                hint="unpack it by hand and look at it",
            )

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
        path = self.job.staging
        for part in relative.split(b"/") if relative else ():
            path = os.path.join(path, part)
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                if not stat.S_ISDIR(os.lstat(path).st_mode):
                    message = (
                        f"the archive '{self.label}' writes through '{shown(relative)}', which is a link or file in it"
                    )
                    raise ArchiveUnsafe(message, hint="unpack it by hand and look at it") from None

    def _write(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: bytes, mtime: int) -> None:
        source = archive.extractfile(member)
        assert source is not None
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as sink:
            while piece := source.read(len(HOLE)):
                if HOLE.startswith(piece):  # an archive spells out what was none in a sparse file
                    sink.seek(len(piece), os.SEEK_CUR)
                else:
                    sink.write(piece)
            sink.truncate()
            if sink.tell() != member.size:
                raise ArchiveCorrupt(
                    f"the archive '{self.label}' is cut short in '{shown(os.fsencode(member.name))}'", hint=CORRUPT_HINT
                )
            sink.flush()
            os.fchmod(fd, stat.S_IMODE(member.mode) & 0o777)
            os.utime(fd, ns=(mtime, mtime))
        self.job.moved(member.size)


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


def strip_lone_folder(staging: bytes) -> None:
    """If all that was unpacked is one folder that is itself the tree, make its content the content of staging.

    A conda-pack archive has no top folder and `tar czf env.tgz env` has one; a lone `bin` or `lib` is content. (An
    archive that names its root, `.`, has no top folder either, and is not asked.)
    """
    names = os.listdir(staging)
    if len(names) != 1 or names[0] in STANDARD_FOLDERS:
        return
    lone = os.path.join(staging, names[0])
    status = os.lstat(lone)
    if not stat.S_ISDIR(status.st_mode):
        return
    os.chmod(lone, 0o700)
    for name in OWN_FILES:  # of what stood on a node, packed by hand
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(lone, name))
    aside = staging + b".lone"
    os.rename(lone, aside)
    os.rmdir(staging)
    os.rename(aside, staging)
    os.utime(staging, ns=(status.st_mtime_ns, status.st_mtime_ns))
    os.chmod(staging, stat.S_IMODE(status.st_mode))


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

"""Archive: one source directory as a .tar.gz that `ezpz yeet FILE` and plain tar read; never half there."""

from __future__ import annotations

import gzip
import os
import tarfile
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

from ezpz.errors import DestinationRefused, UsageError
from ezpz.yeet.copy.base import changed, local_failure, open_source
from ezpz.yeet.entry import Entry
from ezpz.yeet.source import ARCHIVE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Callable

    from ezpz.yeet.scan import Scan
    from ezpz.yeet.source import Source

SCHEMA = "ezpz/archive/1"
LEVEL = 6  # gzip's own default


def archive_path(source: Source, output: str | None) -> str:
    """Where the archive goes: `output`, or `<name>.tar.gz` beside the source. Raises UsageError, DestinationRefused."""
    path = os.path.abspath(output or os.path.join(os.path.dirname(source.path), source.name + ARCHIVE_SUFFIXES[0]))
    if not path.lower().endswith(ARCHIVE_SUFFIXES):
        raise UsageError(f"--output '{output}' does not end in {' or '.join(ARCHIVE_SUFFIXES)}")
    folder = os.path.realpath(os.path.dirname(path))
    if os.path.commonpath([folder, source.real]) == source.real:
        raise DestinationRefused(
            f"the archive '{path}' would lie inside the source '{source.path}'", hint="choose another place with -o"
        )
    if not os.path.isdir(folder):
        raise DestinationRefused(
            f"the folder '{folder}' does not exist", hint="make it, or choose another place with -o"
        )
    return path


def write_archive(scanned: Scan, path: str, moved: Callable[[int], None]) -> int:
    """Write the entries of a scan to `path` and return its size in bytes; `moved` is told the content bytes as they go.

    PAX format: nanosecond times, long names, names that are not UTF-8. The same tree gives the same bytes in the same
    order of entries. Written beside `path`, synced, renamed. Raises EzpzError.
    """
    part = ""
    try:
        fd, part = tempfile.mkstemp(prefix=".ezpz-", suffix=".part", dir=os.path.dirname(path))
        with os.fdopen(fd, "wb") as file:
            with gzip.GzipFile("", "wb", LEVEL, file, mtime=0) as stream, _open(stream) as archive:
                _add_all(archive, scanned, moved)
            file.flush()
            os.fsync(fd)
            os.fchmod(fd, 0o666 & ~_umask())
        os.replace(part, path)
    except OSError as e:
        raise local_failure(e) from e
    finally:
        with suppress(OSError):
            os.unlink(part)
    return os.path.getsize(path)


def _open(stream: gzip.GzipFile) -> tarfile.TarFile:
    return tarfile.open(
        fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
    )


def _add_all(archive: tarfile.TarFile, scanned: Scan, moved: Callable[[int], None]) -> None:
    """Add the top, then every entry, a folder's content right behind it, since plain tar closes what it leaves."""
    top = os.stat(scanned.root)
    _add(archive, scanned.root, Entry(b"", top.st_mode, top.st_mtime_ns, 0))
    entries = [entry for batch in scanned.batches() for entry in batch]
    entries.sort(key=lambda entry: entry.path.replace(b"/", b"\0"))
    linked = {entry.link for entry in entries if entry.link}
    first: dict[bytes, bytes] = {}
    for entry in entries:
        group = entry.link or entry.path
        link = first.setdefault(group, entry.path) if group in linked else entry.path
        _add(archive, scanned.root, entry._replace(link=b"" if link == entry.path else link))
        moved(0 if link != entry.path else entry.size)
        archive.members = []  # type: ignore[attr-defined]  # the writer keeps every member otherwise


def _add(archive: tarfile.TarFile, root: bytes, entry: Entry) -> None:
    member = tarfile.TarInfo(os.fsdecode(os.path.join(b".", entry.path)).rstrip("/"))
    member.mode = entry.permissions
    member.mtime = entry.mtime_ns // 10**9
    seconds, nanoseconds = divmod(abs(entry.mtime_ns), 10**9)
    member.pax_headers = {"mtime": f"{'-' if entry.mtime_ns < 0 else ''}{seconds}.{nanoseconds:09d}"}
    if entry.is_directory:
        member.type = tarfile.DIRTYPE
    elif entry.link:
        member.type, member.linkname = tarfile.LNKTYPE, "./" + os.fsdecode(entry.link)
    elif entry.is_symlink:
        member.type, member.linkname = tarfile.SYMTYPE, os.fsdecode(entry.target)
    else:
        _add_file(archive, root, member, entry)
        return
    archive.addfile(member)


def _add_file(archive: tarfile.TarFile, root: bytes, member: tarfile.TarInfo, entry: Entry) -> None:
    fd, status = open_source(entry.origin) if entry.origin else open_source(root, entry.path)
    with os.fdopen(fd, "rb") as file:
        if status.st_size != entry.size:
            raise changed(entry.path)
        member.size = entry.size
        try:
            archive.addfile(member, file)
        except OSError as e:
            if e.errno is None:  # tarfile's own: it wanted more bytes than there were
                raise changed(entry.path) from e
            raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask

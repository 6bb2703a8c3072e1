"""Archive: one source directory as a .tar.gz that `ezpz yeet FILE` and plain tar read; never half there."""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

from ezpz.errors import DestinationRefused, SourceChanged, UsageError
from ezpz.yeet.agent.refusal import shown
from ezpz.yeet.copy.base import local_failure
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
    top = os.stat(scanned.root)
    _add(archive, scanned.root, Entry(b"", top.st_mode, top.st_mtime_ns, 0))
    for batch in scanned.batches():
        for entry in batch:
            _add(archive, scanned.root, entry)
        moved(sum(entry.size for entry in batch if not entry.link))
        archive.members = []  # type: ignore[attr-defined]  # the writer keeps every member otherwise


def _add(archive: tarfile.TarFile, root: bytes, entry: Entry) -> None:
    member = tarfile.TarInfo(os.fsdecode(os.path.join(b".", entry.path)).rstrip("/"))
    member.mode = entry.permissions
    member.mtime = entry.mtime_ns // 10**9
    member.pax_headers = {"mtime": f"{entry.mtime_ns // 10**9}.{entry.mtime_ns % 10**9:09d}"}
    if entry.is_directory:
        member.type = tarfile.DIRTYPE
    elif entry.is_symlink:
        member.type, member.linkname = tarfile.SYMTYPE, os.fsdecode(entry.target)
    elif entry.link:
        member.type, member.linkname = tarfile.LNKTYPE, "./" + os.fsdecode(entry.link)
    else:
        _add_file(archive, os.path.join(root, entry.path), member, entry)
        return
    archive.addfile(member)


def _add_file(archive: tarfile.TarFile, path: bytes, member: tarfile.TarInfo, entry: Entry) -> None:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size != entry.size or not stat.S_ISREG(entry.mode):
            raise SourceChanged(
                f"'{shown(entry.path)}' changed during the run", hint="run it again when nothing writes there"
            )
        member.size = size
        archive.addfile(member, file)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask

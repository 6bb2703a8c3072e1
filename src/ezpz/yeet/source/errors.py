"""Errors for what can go wrong while a source is read or a copy is staged."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from ezpz.agent.common.text import printable_path
from ezpz.errors import (
    CopyFailed,
    DestinationRefused,
    DestinationUnwritable,
    EzpzError,
    NoSpace,
    SourceChanged,
    SourceUnreadable,
)
from ezpz.runtime.text import shorten

if TYPE_CHECKING:
    from ezpz.runtime.process import Completed


def check_exit(done: Completed, tool: str) -> None:
    """Raise the EzpzError that explains why a tool that copies or packs failed."""
    if done.returncode == 0:
        return
    output = done.err or f"exit status {done.returncode}"
    full = [line for line in output.splitlines() if "No space left on device" in line or "Disk quota exceeded" in line]
    if full:
        raise NoSpace(
            f"{tool}: the local disk is full: {full[-1]}",
            hint="free some space, or choose another place with --dst",
        )
    if "Read-only file system" in output:
        raise DestinationUnwritable(f"{tool}: {output.splitlines()[-1]}", hint="choose another place with --dst")
    if "Permission denied" in output:
        raise SourceUnreadable(f"{tool}: {output.splitlines()[0]}", hint="are you allowed to read all of the source?")
    raise CopyFailed(f"{tool} failed: {output}")


def source_unreadable(path: bytes, error: OSError) -> SourceUnreadable:
    """Return the error for a file or directory of the source that cannot be opened or read."""
    denied = error.errno in (errno.EACCES, errno.EPERM)
    hint = "are you allowed to read it?" if denied else "is its filesystem well? look at it with `stat`, then try again"
    return SourceUnreadable(f"cannot read '{printable_path(path)}': {error.strerror}", hint=hint)


def source_changed(path: bytes) -> SourceChanged:
    """Return the error for a file of the source that is not the one that was scanned."""
    return SourceChanged(
        f"'{printable_path(path)}' changed during the run",
        hint="is something still being installed there? run it again when that is done",
    )


def local_failure(error: OSError) -> EzpzError:
    """Return the error for an operation that failed while the copy was staged on this host."""
    named = isinstance(error.filename, (str, bytes)) and error.filename
    where = f"'{printable_path(os.fsencode(error.filename))}'" if named else "the local disk"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(
            f"the local disk is full: {where}: {error.strerror}",
            hint="free some space, or choose another place with --dst",
        )
    if error.errno == errno.ENAMETOOLONG:
        return DestinationRefused(f"a path is too long: {shorten(where)}", hint="choose a shorter --dst")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DestinationUnwritable(f"cannot write {where}: {error.strerror}", hint="choose another place with --dst")
    return CopyFailed(f"cannot copy {where}: {error.strerror}")

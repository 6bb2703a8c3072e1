"""The file of `--report`: refused before anything moves, and then written whole or not at all."""

from __future__ import annotations

import os
import stat

from ezpz.errors import EzpzError, UsageError
from ezpz.yeet.access import EVERYBODY
from ezpz.yeet.archive.part_file import part_file


def check(path: str) -> str:
    """Return where the page will be written, absolute, with the links of its directory resolved.

    The name itself is not resolved: a link there is replaced. Raises UsageError when the page cannot be written.
    """
    folder, name = os.path.split(os.path.abspath(path))
    folder = os.path.realpath(folder)
    real = os.path.join(folder, name)
    if not os.path.basename(path) or os.path.isdir(real):
        raise UsageError(f"--report '{path}' is a directory", hint="name a file, as in --report run.html")
    if not os.path.isdir(folder):
        raise UsageError(f"--report '{path}': there is no directory '{folder}'", hint="make it first")
    if os.path.exists(real) and not os.path.isfile(real):
        raise UsageError(f"--report '{path}' is no ordinary file", hint="name a file, as in --report run.html")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"--report '{path}': you may not write to '{folder}'", hint="choose another directory")
    if _is_kept_by_another(folder, real):
        raise UsageError(
            f"--report '{path}' belongs to another user", hint="choose another name, or your own directory"
        )
    return real


def _is_kept_by_another(folder: str, path: str) -> bool:
    """Return whether something of another user is there, in a sticky directory, so that it cannot be replaced."""
    above = os.stat(folder)
    if not os.path.lexists(path) or not above.st_mode & stat.S_ISVTX:
        return False
    return os.geteuid() not in (0, above.st_uid, os.lstat(path).st_uid)


def write(path: str, text: str) -> None:
    """Put `text` at a path that `check` gave. Raises EzpzError, and then whatever was there is there still."""
    try:
        with part_file(path, EVERYBODY) as file:
            file.write(text.encode())
    except OSError as e:
        raise EzpzError(
            f"the report '{path}' cannot be written: {e.strerror}", hint="only the report is missing"
        ) from e

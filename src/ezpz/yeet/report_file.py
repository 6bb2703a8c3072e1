"""The file of `--report`: refused before anything moves, and then written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets

from ezpz.errors import EzpzError, UsageError


def check(path: str) -> str:
    """Where the page will be written, absolute and with links followed. Raises UsageError when it cannot be."""
    real = os.path.realpath(path)
    folder = os.path.dirname(real)
    if not os.path.basename(path) or os.path.isdir(real):
        raise UsageError(f"--report '{path}' is a directory", hint="name a file, as in --report run.html")
    if not os.path.isdir(folder):
        raise UsageError(f"--report '{path}': there is no directory '{folder}'", hint="make it first")
    if os.path.lexists(real) and not os.path.isfile(real):
        raise UsageError(f"--report '{path}' is no ordinary file", hint="name a file, as in --report run.html")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"--report '{path}': you may not write to '{folder}'", hint="choose another directory")
    return real


def write(path: str, text: str) -> None:
    """Put `text` at a path that `check` gave. Raises EzpzError, and then whatever was there is there still."""
    temporary = os.path.join(os.path.dirname(path), f".ezpz-report-{secrets.token_hex(8)}")
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError as e:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise EzpzError(
            f"the report '{path}' cannot be written: {e.strerror}", hint="only the report is missing"
        ) from e

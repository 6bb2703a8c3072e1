"""Naming: which names are left out, and which are the same where case is ignored."""

from __future__ import annotations

import fnmatch
import os
import re
import unicodedata


class ExcludeFilter:
    """Which relative paths `--exclude` leaves out.

    A pattern without a slash matches a name anywhere, one with a slash the path from the root; both as in fnmatch(3),
    and `*` also matches a slash. An excluded folder takes all that is below it along.
    """

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._names = [_compiled(p.rstrip("/")) for p in patterns if "/" not in p.rstrip("/")]
        self._paths = [_compiled(p.strip("/")) for p in patterns if "/" in p.rstrip("/")]

    def matches(self, path: bytes) -> bool:
        """Whether this path itself is named by a pattern."""
        if not self._names and not self._paths:
            return False
        text = os.fsdecode(path)
        name = os.path.basename(text)
        return any(p.match(name) for p in self._names) or any(p.match(text) for p in self._paths)


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(pattern))


def casefold_name(name: bytes) -> bytes:
    """What names have in common that a filesystem which ignores case takes for the same (ext4(5), casefold)."""
    if name.isascii():
        return name.lower()
    return os.fsencode(unicodedata.normalize("NFD", unicodedata.normalize("NFD", os.fsdecode(name)).casefold()))

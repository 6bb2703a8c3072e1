"""Exclude paths by pattern, and compare names as a filesystem that ignores case does."""

from __future__ import annotations

import fnmatch
import os
import re
import unicodedata


class ExcludeFilter:
    """The paths that `--exclude` leaves out.

    A pattern without a slash matches a name anywhere. A pattern with a slash matches a path from the root. Both follow
    fnmatch(3), and `*` matches a slash as well. An excluded directory excludes everything below it.
    """

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._names = [_compile(p.rstrip("/")) for p in patterns if "/" not in p.rstrip("/")]
        self._paths = [_compile(p.strip("/")) for p in patterns if "/" in p.rstrip("/")]

    def matches(self, path: bytes) -> bool:
        """Return whether a pattern matches this path itself."""
        if not self._names and not self._paths:
            return False
        text = os.fsdecode(path)
        name = os.path.basename(text)
        return any(p.match(name) for p in self._names) or any(p.match(text) for p in self._paths)


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(pattern))


def casefold_name(name: bytes) -> bytes:
    """Return a key that is equal for names that a filesystem which ignores case does not tell apart.

    See ext4(5), casefold.
    """
    if name.isascii():
        return name.lower()
    return os.fsencode(unicodedata.normalize("NFD", unicodedata.normalize("NFD", os.fsdecode(name)).casefold()))

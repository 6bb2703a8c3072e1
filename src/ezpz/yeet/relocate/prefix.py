"""Replace one path by another in text, as whole paths only: bytes in, bytes out."""

from __future__ import annotations

import re

AFTER = rb"(?![\w.+@~\x80-\xff-])"  # a path ends here: /p/venv is not in /p/venv-python, /p/venv.old or /p/venv+cuda
LEADING = re.compile(rb"[\w.~+@%$(){}/\x80-\xff-]*\Z")  # what may stand before a path without a break
FLAG = re.compile(rb"-[A-Za-z]+\Z")
OPENING = re.compile(rb"(?:.*[({])?", re.DOTALL)
LOOK_BACK = 4096  # bytes; PATH_MAX of Linux


class PrefixMap:
    """Old prefixes to one new prefix; every alias of the old place is one of `old`.

    >>> PrefixMap((b"/p/venv",), b"/tmp/venv").replace(b"#!/p/venv/bin/python")
    b'#!/tmp/venv/bin/python'
    """

    def __init__(self, old: tuple[bytes, ...], new: bytes) -> None:
        self.new = new
        self.old = tuple(sorted({p.rstrip(b"/") for p in old} - {new, b""}, key=lambda p: (-len(p), p)))
        self._pattern = re.compile(b"(?:" + b"|".join(map(re.escape, self.old)) + b")" + AFTER) if self.old else None

    def replace(self, text: bytes) -> bytes:
        """`text` with every whole old path, the longest first, replaced by the new one."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda m: self.new if _begins_here(text, m.start()) else m.group(), text)

    def below(self, path: bytes) -> bytes | None:
        """What follows an old prefix in an absolute path ("" for the prefix itself), or None when it is elsewhere."""
        for prefix in self.old:
            if path == prefix or path.startswith(prefix + b"/"):
                return path[len(prefix) + 1 :]
        return None


def _begins_here(text: bytes, start: int) -> bool:
    """Whether a path begins at `start`, and is not the rest of a longer one.

    It does after a break (white space, a quote, `=`, `:`, a comma), an opening bracket, a flag (`-I/p`), and `file://`.
    """
    before = LEADING.search(text[max(0, start - LOOK_BACK) : start])
    run = before.group() if before else b""
    if run == b"//":
        return text[:start].endswith(b"://")
    return OPENING.fullmatch(run) is not None or FLAG.fullmatch(run) is not None

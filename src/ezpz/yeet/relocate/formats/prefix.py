"""Replace paths by others in text, as whole paths only: bytes in, bytes out."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote_from_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# A path ends here: /p/venv is not in /p/venv-python, /p/venv.old or /p/venv+cuda, nor in what `sh` and JSON write as
# /p/venv\ old and /p/venv\u00e9.
AFTER = rb"(?![\w.+@~\x80-\xff-]|\\ |\\u(?!00[0-7]))"
LEADING = re.compile(rb"[\w.~+@%$(){}/\x80-\xff-]*")  # what may stand before a path without a break, from its end
FLAG = re.compile(rb"-[A-Za-z]+\Z")
OPENING = re.compile(rb"(?:.*[({])?", re.DOTALL)
LOOK_BACK = 4096  # bytes; PATH_MAX of Linux
SHELL_MARKS = re.compile(rb"([ \t!\"#$&'()*;<>?\[\\\]^`{|}~])")
URL_MARKS = "/!$&'()*+,:;=@[]|~"  # what uv leaves as it is in a file:// URL; pip leaves only the slash and the tilde


class PrefixMatch(NamedTuple):
    """A whole old path in a text, and what takes its place."""

    start: int
    end: int
    new: bytes


class _Spelling(NamedTuple):
    """What takes the place of an old path that is written in a certain way: in text, and in a URL or None."""

    text: bytes
    url: bytes | None
    is_url: bool


class PrefixMap:
    """Old prefixes, each with its new one: every alias of the old place, the base interpreter, what was snapshotted.

    moves: each old prefix and its new one, the longest old one first; those that stay where they are left out
    >>> PrefixMap({b"/p/venv": b"/tmp/venv"}).substitute(b"#!/p/venv/bin/python")
    (b'#!/tmp/venv/bin/python', 1)
    """

    def __init__(self, moves: Mapping[bytes, bytes]) -> None:
        cleaned = {old.rstrip(b"/"): new.rstrip(b"/") for old, new in moves.items()}
        kept = [(old, new) for old, new in cleaned.items() if old and old != new]
        self.moves = tuple(sorted(kept, key=lambda move: (-len(move[0]), move[0])))
        self.old = tuple(old for old, _ in self.moves)
        self._spellings: dict[bytes, _Spelling] = {}
        for old, new in self.moves:
            for spelled, spelling in _spellings(old, new):
                self._spellings.setdefault(spelled, spelling)
        longest_first = sorted(self._spellings, key=lambda spelled: (-len(spelled), spelled))
        self._pattern = re.compile(b"(?:" + b"|".join(map(re.escape, longest_first)) + b")" + AFTER)
        self._needles = _needles(longest_first)

    @property
    def is_empty(self) -> bool:
        """Whether nothing moves."""
        return not self.old

    def found_in(self, data: bytes) -> bool:
        """Whether an old prefix occurs in `data` at all, as a whole path or not: quick, and never a wrong no."""
        for needle in self._needles:  # noqa: SIM110 - half the time of any() on a small file
            if needle in data:
                return True
        return False

    def substitute(self, text: bytes) -> tuple[bytes, int]:
        """`text` with every whole old path, the longest first, replaced by its new one; and how many there were."""
        pieces, end, count = [], 0, 0
        for found in self.find(text):
            pieces += [text[end : found.start], found.new]
            end = found.end
            count += 1
        return (b"".join([*pieces, text[end:]]), count) if count else (text, 0)

    def find(self, text: bytes) -> Iterator[PrefixMatch]:
        """The whole old paths in `text`, in order; none lies in another."""
        if self.is_empty:
            return
        for match in self._pattern.finditer(text):
            start, end = match.span()
            if not _begins_here(text, start):
                continue
            spelling = self._spellings[match.group()]
            in_url = spelling.url is not None and text.endswith(b"://", 0, start)
            if (in_url or spelling.is_url) and text[end : end + 1] == b"%":
                continue  # the name goes on, with a character that a URL cannot hold
            yield PrefixMatch(start, end, spelling.url if in_url and spelling.url is not None else spelling.text)

    def moved(self, path: bytes) -> bytes | None:
        """Where an absolute path at or below an old prefix stands in the new place; None when it is elsewhere."""
        for old, new in self.moves:
            if path == old or path.startswith(old + b"/"):
                return new + path[len(old) :]
        return None


def _spellings(old: bytes, new: bytes) -> Iterator[tuple[bytes, _Spelling]]:
    """Each way in which files write `old`, with what is written for `new` in the same way.

    That is: as it is; in a URL, by pip and by uv; in a shell, with backslashes before all marks or before blanks only,
    or between quotes; and in JSON. Most paths are written alike in all of them.
    """
    url_of = {quote_from_bytes(old, safe).encode(): quote_from_bytes(new, safe).encode() for safe in (URL_MARKS, "/~")}
    yield old, _Spelling(new, url_of.get(old), is_url=False)
    for spelled, url in url_of.items():
        yield spelled, _Spelling(url, url, is_url=True)
    for pattern, by in (
        (SHELL_MARKS, rb"\\\1"),
        (re.compile(rb"( )"), rb"\\\1"),
        (re.compile(rb"'"), b"'\"'\"'"),  # within single quotes, as shlex.quote writes it: uv, venv and virtualenv do
        (re.compile(rb"'"), rb"'\\''"),  # as virtualenv does for fish
        (re.compile(rb"([\\'])"), rb"\\\1"),  # within single quotes of fish, as uv does
        (re.compile(rb'([\\"$`])'), rb"\\\1"),  # within double quotes
    ):
        yield pattern.sub(by, old), _Spelling(pattern.sub(by, new), None, is_url=False)
    yield _in_json(old), _Spelling(_in_json(new), None, is_url=False)


def _in_json(path: bytes) -> bytes:
    return json.dumps(path.decode("utf-8", "surrogateescape"))[1:-1].encode()


def _needles(spelled: list[bytes]) -> tuple[bytes, ...]:
    """As few strings as do: whatever holds one of `spelled` (the longest first) holds one of them."""
    needles: list[bytes] = []
    for one in reversed(spelled):
        if not any(needle in one for needle in needles):
            needles.append(one)
    return tuple(needles)


def _begins_here(text: bytes, start: int) -> bool:
    """Whether a path begins at `start`, and is not the rest of a longer one.

    It does after a break (white space, a quote, `=`, `:`, a comma), an opening bracket, a flag (`-I/p`), and `file://`.
    """
    before = LEADING.match(text[max(0, start - LOOK_BACK) : start][::-1])
    run = before.group()[::-1] if before else b""
    if run == b"//":
        return text.endswith(b"://", 0, start)
    return OPENING.fullmatch(run) is not None or FLAG.fullmatch(run) is not None

"""Replace paths in text, as whole paths only: bytes in, bytes out."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote_from_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# A path ends here: /p/venv is not in /p/venv-python, /p/venv.old, or /p/venv+cuda, nor in what `sh` and JSON write as
# /p/venv\ old and /p/venv\u00e9.
PATH_END = rb"(?![\w.+@~\x80-\xff-]|\\ |\\u(?!00[0-7]))"
BEFORE_PATH = re.compile(rb"[\w.~+@%$(){}/\x80-\xff-]*")  # reversed text before a path, without a break
FLAG = re.compile(rb"-[A-Za-z]+\Z")
OPEN_BRACKET = re.compile(rb"(?:.*[({])?", re.DOTALL)
MAX_PATH = 4096  # bytes; PATH_MAX of Linux
SHELL_SPECIAL = re.compile(rb"([ \t!\"#$&'()*;<>?\[\\\]^`{|}~])")
URL_SAFE = "/!$&'()*+,:;=@[]|~"  # unquoted by uv in a file:// URL; pip leaves only the slash and the tilde


class PrefixMatch(NamedTuple):
    """A whole old path in a text, and its replacement."""

    start: int
    end: int
    new: bytes


class _Spelling(NamedTuple):
    """The replacement for one way to write an old path: in text, and in a URL or None."""

    text: bytes
    url: bytes | None
    is_url: bool


class PrefixMap:
    """Old prefixes and their new ones: aliases of the source, the base interpreter, and snapshots.

    >>> PrefixMap({b"/p/venv": b"/tmp/venv"}).substitute(b"#!/p/venv/bin/python")
    (b'#!/tmp/venv/bin/python', 1)

    Attributes:
        moves: Pairs of old and new prefix, the longest old one first. Prefixes that do not change are left out.
        old: The old prefixes in the same order.
    """

    def __init__(self, moves: Mapping[bytes, bytes]) -> None:
        cleaned = {old.rstrip(b"/"): new.rstrip(b"/") for old, new in moves.items()}
        kept = [(old, new) for old, new in cleaned.items() if old and old != new]
        self.moves = tuple(sorted(kept, key=lambda move: (-len(move[0]), move[0])))
        self.old = tuple(old for old, _ in self.moves)
        self._spellings: dict[bytes, _Spelling] = {}
        for old, new in self.moves:
            for written, spelling in _spellings(old, new):
                self._spellings.setdefault(written, spelling)
        longest_first = sorted(self._spellings, key=lambda written: (-len(written), written))
        self._pattern = re.compile(b"(?:" + b"|".join(map(re.escape, longest_first)) + b")" + PATH_END)
        self._needles = _needles(longest_first)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is replaced."""
        return not self.old

    def may_occur_in(self, data: bytes) -> bool:
        """Return whether an old prefix occurs in `data`, as a whole path or not. Fast. False is always right."""
        for needle in self._needles:  # noqa: SIM110 - half the time of any() on a small file
            if needle in data:
                return True
        return False

    def substitute(self, text: bytes) -> tuple[bytes, int]:
        """Return `text` with every whole old path replaced, the longest first, and the number of replacements."""
        pieces, end, count = [], 0, 0
        for found in self.find(text):
            pieces += [text[end : found.start], found.new]
            end = found.end
            count += 1
        return (b"".join([*pieces, text[end:]]), count) if count else (text, 0)

    def find(self, text: bytes) -> Iterator[PrefixMatch]:
        """Yield the whole old paths in `text` in order, without overlaps."""
        if self.is_empty:
            return
        for match in self._pattern.finditer(text):
            start, end = match.span()
            if not _starts_path(text, start):
                continue
            spelling = self._spellings[match.group()]
            in_url = spelling.url is not None and text.endswith(b"://", 0, start)
            if (in_url or spelling.is_url) and text[end : end + 1] == b"%":
                continue  # the name continues with a character that a URL cannot contain
            yield PrefixMatch(start, end, spelling.url if in_url and spelling.url is not None else spelling.text)

    def map_path(self, path: bytes) -> bytes | None:
        """Return the new place of an absolute path at or below an old prefix, or None for other paths."""
        for old, new in self.moves:
            if path == old or path.startswith(old + b"/"):
                return new + path[len(old) :]
        return None


def _spellings(old: bytes, new: bytes) -> Iterator[tuple[bytes, _Spelling]]:
    """Yield each way in which files write `old`, with `new` written in the same way.

    A path can be unchanged, or quoted in a URL, by pip or by uv. In a shell it can have backslashes before all special
    characters or before blanks only, or be between quotes. In JSON it has escapes. Most paths look the
    same in every form.
    """
    url_of = {quote_from_bytes(old, safe).encode(): quote_from_bytes(new, safe).encode() for safe in (URL_SAFE, "/~")}
    yield old, _Spelling(new, url_of.get(old), is_url=False)
    for written, url in url_of.items():
        yield written, _Spelling(url, url, is_url=True)
    for pattern, by in (
        (SHELL_SPECIAL, rb"\\\1"),
        (re.compile(rb"( )"), rb"\\\1"),
        (re.compile(rb"'"), b"'\"'\"'"),  # within single quotes, by shlex.quote: uv, venv, and virtualenv
        (re.compile(rb"'"), rb"'\\''"),  # virtualenv for fish
        (re.compile(rb"([\\'])"), rb"\\\1"),  # within single quotes of fish: uv
        (re.compile(rb'([\\"$`])'), rb"\\\1"),  # within double quotes
    ):
        yield pattern.sub(by, old), _Spelling(pattern.sub(by, new), None, is_url=False)
    yield _escape_json(old), _Spelling(_escape_json(new), None, is_url=False)


def _escape_json(path: bytes) -> bytes:
    return json.dumps(path.decode("utf-8", "surrogateescape"))[1:-1].encode()


def _needles(written: list[bytes]) -> tuple[bytes, ...]:
    """Return as few strings as possible, so that text with any of `written` (longest first) contains one of them."""
    needles: list[bytes] = []
    for one in reversed(written):
        if not any(needle in one for needle in needles):
            needles.append(one)
    return tuple(needles)


def _starts_path(text: bytes, start: int) -> bool:
    """Return whether a path begins at `start`, and is not the rest of a longer one.

    It begins after a break (white space, a quote, `=`, `:`, a comma), an opening bracket, a flag (`-I/p`), and
    `file://`.
    """
    before = BEFORE_PATH.match(text[max(0, start - MAX_PATH) : start][::-1])
    run = before.group()[::-1] if before else b""
    if run == b"//":
        return text.endswith(b"://", 0, start)
    return OPEN_BRACKET.fullmatch(run) is not None or FLAG.fullmatch(run) is not None

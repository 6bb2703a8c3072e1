"""Replace paths in shell scripts, where a path that holds a blank has to be quoted: bytes in, bytes out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ezpz.yeet.relocate.formats.prefix import PrefixMap

NAMES = re.compile(rb"(?:.*/)?(?:(?:de)?activate|[^/]*\.(?:sh|bash|zsh|ksh|csh|fish))")
HEADER = re.compile(rb"#![ \t]*(?:/[^\s]*/env[ \t]+)?(?:/[^\s]*/)?(?:ba|da|z|k|c|tc|fi)?sh(?=\s)(?!\n'''exec')")
UNQUOTED = re.compile(rb"[\w@%+=:,./\x80-\xff-]*")  # needs no quotes in any shell
MARKS = re.compile(rb"\\.|['\"]")


def is_shell(path: bytes, data: bytes) -> bool:
    """Whether a file is a script of sh, bash, zsh, ksh, csh or fish, by its name or its first line."""
    return NAMES.fullmatch(path) is not None or HEADER.match(data) is not None


def substitute(prefixes: PrefixMap, text: bytes) -> tuple[bytes, int]:
    """PrefixMap.substitute, with each new path quoted as the place where it comes to stand demands."""
    if all(UNQUOTED.fullmatch(new) for _, new in prefixes.moves):
        return prefixes.substitute(text)
    pieces, end, count = [], 0, 0
    for found in prefixes.find(text):
        is_plain = text[found.start : found.end] in prefixes.old
        new = _quoted(found.new, _quote_at(text, found.start)) if is_plain else found.new
        pieces += [text[end : found.start], new]
        end = found.end
        count += 1
    return b"".join([*pieces, text[end:]]), count


def _quote_at(text: bytes, start: int) -> bytes:
    """The quotes that `start` stands within, as far as its own line tells; empty for none."""
    line = text[text.rfind(b"\n", 0, start) + 1 : start]
    inner = line.rpartition(b"$(")[2]
    quote = b""
    for mark in MARKS.findall(line if b")" in inner else inner):  # quotes begin anew in "$(cygpath "/p")"
        if not quote and len(mark) == 1:
            quote = mark
        elif mark == quote or (quote == b"'" and mark == b"\\'"):  # within these a backslash is a backslash
            quote = b""
    return quote


def _quoted(path: bytes, quote: bytes) -> bytes:
    """`path` for a place within these quotes, in words that all shells understand."""
    single = path.replace(b"'", b"'\\''")
    if quote == b'"':  # which are left for the while: csh knows no escapes in them
        return b"\"'" + single + b"'\"" if re.search(rb'[\\"$`!]', path) else path
    return single if quote or UNQUOTED.fullmatch(path) else b"'" + single + b"'"

"""Replace paths in shell scripts, quoting a path that contains a blank: bytes in, bytes out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ezpz.yeet.relocate.formats.prefix import PrefixMap

SHELL_NAMES = re.compile(rb"(?:.*/)?(?:(?:de)?activate|[^/]*\.(?:sh|bash|zsh|ksh|csh|fish))")
SHELL_HEADER = re.compile(rb"#![ \t]*(?:/[^\s]*/env[ \t]+)?(?:/[^\s]*/)?(?:ba|da|z|k|c|tc|fi)?sh(?=\s)(?!\n'''exec')")
UNQUOTED = re.compile(rb"[\w@%+=:,./\x80-\xff-]*")  # needs no quotes in any shell
QUOTE_MARKS = re.compile(rb"\\.|['\"]")


def is_shell(path: bytes, data: bytes) -> bool:
    """Return whether a file is a script of sh, bash, zsh, ksh, csh, or fish, by its name or its first line."""
    return SHELL_NAMES.fullmatch(path) is not None or SHELL_HEADER.match(data) is not None


def substitute(prefixes: PrefixMap, text: bytes) -> tuple[bytes, int]:
    """Replace old paths as PrefixMap.substitute does, with each new path quoted as its context demands."""
    if all(UNQUOTED.fullmatch(new) for _, new in prefixes.moves):
        return prefixes.substitute(text)
    pieces, end, count = [], 0, 0
    for found in prefixes.find(text):
        is_plain = text[found.start : found.end] in prefixes.old
        new = _quote(found.new, _quotes_around(text, found.start)) if is_plain else found.new
        pieces += [text[end : found.start], new]
        end = found.end
        count += 1
    return b"".join([*pieces, text[end:]]), count


def _quotes_around(text: bytes, start: int) -> bytes:
    """Return the quotes around `start`, as far as its own line shows. Empty if there are none."""
    line = text[text.rfind(b"\n", 0, start) + 1 : start]
    inner = line.rpartition(b"$(")[2]
    quote = b""
    for mark in QUOTE_MARKS.findall(line if b")" in inner else inner):  # quotes start again in "$(cygpath "/p")"
        if not quote and len(mark) == 1:
            quote = mark
        elif mark == quote or (quote == b"'" and mark == b"\\'"):  # a backslash is literal within single quotes
            quote = b""
    return quote


def _quote(path: bytes, quote: bytes) -> bytes:
    """Quote a path for use within these quotes, in a syntax that all shells understand."""
    single = path.replace(b"'", b"'\\''")
    if quote == b'"':  # close the quotes around the path: csh has no escapes within them
        return b"\"'" + single + b"'\"" if re.search(rb'[\\"$`!]', path) else path
    return single if quote or UNQUOTED.fullmatch(path) else b"'" + single + b"'"

"""Rewrite the header of a script, in a form that the kernel, `sh`, and python all read. Bytes in, bytes out."""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING, NamedTuple

from ezpz.yeet.relocate.formats import shell_text

if TYPE_CHECKING:
    from ezpz.yeet.relocate.formats.prefix import PrefixMap

# execve(2): "Before Linux 5.1, the limit is 127 characters", which counts the #! and not the end of the line.
PLAIN_LIMIT = 127
PLAIN = re.compile(rb"#![ \t]*(/[^ \t\r\n\0]*)[ \t]*([^\r\n\0]*)(?:\n|\Z)")
CODING = rb"[ \t]*#[^\n]{0,200}?coding[:=][ \t]*([-\w.]+)[^\n]{0,200}\n"  # PEP 263; also a comment for sh
BARE = rb"""(?:[^\s'"$`\\;&|<>()#*?~\0]|\\[^\n])"""
PRINTED = rb"""\$\(printf '[^'\n]*'\)"""
WORD = rb"""(?:'[^'\n]*'|"%b"|"(?:[^"\\$`\n]|\\[^\n])*"|%b)+""" % (PRINTED, BARE)
# pip, uv, and virtualenv end it with a separate line, micromamba and conda with a comment. The words may be quoted.
EXEC = re.compile(
    rb"""#!/bin/sh\n(?P<coding>%b)?'''exec' (?P<words>%b(?: +%b)*?) "\$0" "\$@"(?:\n' '''|[ ]\#''')[ \t]*(?:\n|\Z)"""
    % (re.sub(rb"\((?!\?)", b"(?:", CODING), WORD, WORD)
)
PYTHON = re.compile(rb"(?:python|pypy|graalpy)[\w.-]*")
QUOTABLE = re.compile(rb"[ -&(-\[\]-~]*")  # printable ASCII without the quote and the backslash
END_OF_ZIP = b"PK\x05\x06"
ZIP_TAIL_SIZE = 22 + 65535  # bytes; a comment may follow it
ENV_PYTHON = re.compile(rb"#!/usr/bin/env (python[\d.]*)(?=\s)")


class Header(NamedTuple):
    """How a script names its interpreter.

    Attributes:
        interpreter: Path of the interpreter.
        arguments: Arguments between the interpreter and the path of the script, as the interpreter gets them.
        coding: The PEP 263 line inside an exec form, or b"".
        end: Offset at which the rest of the script begins.
    """

    interpreter: bytes
    arguments: tuple[bytes, ...]
    coding: bytes
    end: int


def is_text(data: bytes) -> bool:
    """Return whether `data` contains no NUL byte."""
    return b"\0" not in data


def parse_header(data: bytes) -> Header | None:
    """Return the header of a script, plain (`#!/p/python -E`) or in the exec form that `sh` reads, or None."""
    match = EXEC.match(data)
    if match is not None:
        interpreter, *arguments = (_unquote(word.group()) for word in re.finditer(WORD, match["words"]))
        return Header(interpreter, tuple(arguments), match["coding"] or b"", match.end())
    match = PLAIN.match(data)
    if match is None:
        return None
    arguments = [match[2].rstrip(b" \t")]  # the kernel passes all of it, with its blanks, as one argument
    return Header(match[1], tuple(filter(None, arguments)), b"", match.end())


def rewrite_text(path: bytes, data: bytes, prefixes: PrefixMap) -> tuple[bytes, int]:
    """Return a text file with its header and all old paths rewritten, and the number of replacements.

    The header stays, byte for byte, if the interpreter does not move.
    """
    header, end, in_header = _relocate_header(data, prefixes)
    rest, in_rest = rewrite_lines(path, data, data[end:], prefixes)
    return header + rest, in_header + in_rest


def rewrite_lines(path: bytes, head: bytes, lines: bytes, prefixes: PrefixMap) -> tuple[bytes, int]:
    """Return rewritten lines from behind the header of the text file that begins with `head`, and the replacements."""
    return shell_text.substitute(prefixes, lines) if shell_text.is_shell(path, head) else prefixes.substitute(lines)


def pin_python(path: bytes, data: bytes, prefix: bytes) -> bytes:
    """Return a script of `bin` that finds python by PATH with the python of `prefix` instead.

    The packers conda-pack and venv-pack leave scripts so.
    """
    match = ENV_PYTHON.match(data) if path.startswith(b"bin/") else None
    return data if match is None else b"#!" + prefix + b"/bin/" + match[1] + data[match.end() :]


def rewrite_zipapp(data: bytes, prefixes: PrefixMap) -> tuple[bytes, int]:
    """Return a zip archive that begins with a header, with a rewritten header, and the number of replacements.

    A shorter first line is filled with blanks, which the kernel drops, so that the archive does not move. A longer line
    moves it: every reader of zip archives finds it from its end. Other files are returned unchanged.
    """
    header, end, count = _relocate_header(data, prefixes)
    if not count or END_OF_ZIP not in data[-ZIP_TAIL_SIZE:]:
        return data, 0
    if header.count(b"\n") == 1:
        header = header[:-1].ljust(end - 1) + b"\n"
    return header + data[end:], count


def _relocate_header(data: bytes, prefixes: PrefixMap) -> tuple[bytes, int, int]:
    """Return the new header, the end of the old one, and the number of replacements. Empty if it does not move."""
    header = parse_header(data)
    if header is None or prefixes.map_path(header.interpreter) is None:
        return b"", 0, 0
    interpreter, times_in_it = prefixes.substitute(header.interpreter)
    moved = [prefixes.substitute(argument) for argument in header.arguments]
    arguments = tuple(argument for argument, _ in moved)
    count = times_in_it + sum(times for _, times in moved)
    name = interpreter.rpartition(b"/")[2]
    rest = data[header.end :] if is_text(data) else b""
    line = re.match(CODING, header.coding or rest)
    plain = _plain_header(interpreter, arguments, b"utf-8" if line is None else line[1])
    if plain is not None:
        return plain + header.coding, header.end, count
    if PYTHON.fullmatch(name) is None:
        env = b"#!/usr/bin/env -S " if arguments else b"#!/usr/bin/env "  # without -S all of it would be the name
        return b" ".join([env + name, *arguments]) + b"\n" + header.coding, header.end, count
    words = b" ".join(map(_quote, (interpreter, *arguments)))
    coding, end = header.coding, header.end
    if not coding and line is not None and not _is_utf8(line[1]):  # python looks for it in the first two lines only
        coding, end = line.group(), end + line.end()
    return b"#!/bin/sh\n" + coding + b"'''exec' " + words + b' "$0" "$@"\n' + b"' '''\n", end, count


def _plain_header(interpreter: bytes, arguments: tuple[bytes, ...], coding: bytes) -> bytes | None:
    """Return the plain form, or None if it cannot be used.

    The kernel splits the line at blanks, and python has to decode it.
    """
    line = b" ".join([b"#!" + interpreter, *arguments])
    if len(line) > PLAIN_LIMIT or len(arguments) > 1 or re.search(rb"[ \t]", interpreter):
        return None
    if re.search(rb"[\0-\x08\x0a-\x1f\x7f]", line) or not (line.isascii() or (_is_utf8(coding) and _decodes(line))):
        return None
    return line + b"\n"


def _is_utf8(coding: bytes) -> bool:
    try:
        return codecs.lookup(coding.decode("ascii", "replace")).name in ("utf-8", "utf-8-sig")
    except LookupError:
        return False


def _decodes(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _quote(word: bytes) -> bytes:
    """Quote a word for sh, within three single quotes of python, in any encoding that is a superset of ASCII.

    A quote, a backslash, and bytes that are not ASCII become octal escapes, which mean the same to printf and python.
    """
    if QUOTABLE.fullmatch(word):
        return b"'" + word + b"'"
    safe = b"".join(
        b"%%" if byte == 0x25 else b"%c" % byte if QUOTABLE.fullmatch(b"%c" % byte) else b"\\%03o" % byte
        for byte in word
    )
    return b"\"$(printf '" + safe + b"')\""


def _unquote(word: bytes) -> bytes:
    """Return what sh makes of a word that EXEC matches."""
    piece = re.compile(rb"""'([^']*)'|"\$\(printf '([^']*)'\)"|"((?:[^"\\]|\\.)*)"|(%b+)""" % BARE)
    text = b""
    for single, printed, double, bare in piece.findall(word):
        octal = re.sub(rb"\\([0-7]{3})|%%", lambda m: bytes([int(m[1], 8)]) if m[1] else b"%", printed)
        text += single + octal + re.sub(rb'\\([\\"$`])', rb"\1", double) + re.sub(rb"\\(.)", rb"\1", bare)
    return text

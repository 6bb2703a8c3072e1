"""Find the paths that the files of an environment use for its top."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TypeAlias

from ezpz.yeet.source.link_policy import SHARED_PREFIXES

FILES_WITH_PREFIX = (
    b"bin/activate",
    b"bin/activate.csh",
    b"bin/activate.fish",
    b"bin/activate.nu",
    b"bin/activate.xsh",
    b"pyvenv.cfg",
    b"conda-meta/history",
)
ACTIVATE_PREFIX = re.compile(
    rb"""^[ \t]*(?:(?:export |set -gx |setenv |\$|let |const )?["']?VIRTUAL_ENV["']?[ \t]*[= ][ \t]*|command = .* )"""
    rb"""['"]?(/[^'"\n]+?)['"]?[ \t]*$""",
    re.MULTILINE,
)
CONDA_PREFIX = re.compile(rb"^# cmd: .* (?:-p|--prefix)[ =](/[^\s]+)", re.MULTILINE)
SHEBANG = re.compile(rb"\A#!(/[^\n]+)/bin/python[\d.]*[ \t]*$", re.MULTILINE)
EXEC_SHEBANG = re.compile(rb"\A#!/bin/sh\n'''exec' \"?(/[^\n\"]+)/bin/python[\d.]*\"? ", re.MULTILINE)
BASE_PREFIX = re.compile(rb"^(?:home|base-prefix|base-exec-prefix) = (/[^\n]+?)(?:/bin)?[ \t]*$", re.MULTILINE)
MAX_SCRIPTS = 50

ReadFile: TypeAlias = Callable[[bytes], "bytes | None"]


def find_aliases(known: tuple[bytes, ...], *, read: ReadFile, scripts: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return the paths of an environment that its callers and its own files use, without those of its base.

    Args:
        known: Paths that the caller knows, as given and resolved.
        read: Returns a file of the tree by its relative path, or None if there is none.
        scripts: The heads of its scripts, whose shebangs are used as well.
    """
    found = set(known)
    for path in FILES_WITH_PREFIX:
        text = read(path) or b""
        found.update(match.group(1) for pattern in (ACTIVATE_PREFIX, CONDA_PREFIX) for match in pattern.finditer(text))
    is_known = found != set(known)
    for prefix, count in _shebangs(scripts).most_common(1):
        if prefix not in SHARED_PREFIXES and (count > 1 or not is_known):
            found.add(prefix)
    base = {match.group(1) for match in BASE_PREFIX.finditer(read(b"pyvenv.cfg") or b"")}
    return tuple(sorted({os.path.normpath(prefix) for prefix in found - base - {b"/"}}))


def _shebangs(scripts: Iterable[bytes]) -> Counter[bytes]:
    """Count how many scripts the python of each prefix runs."""
    found = (SHEBANG.match(head) or EXEC_SHEBANG.match(head) for head in islice(scripts, MAX_SCRIPTS))
    return Counter(match.group(1) for match in found if match is not None)

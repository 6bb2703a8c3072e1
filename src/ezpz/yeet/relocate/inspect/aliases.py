"""Aliases: every path by which the files of an environment call the place where it stands."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TypeAlias

from ezpz.yeet.source.link_policy import SHARED_PREFIXES

WITNESSES = (
    b"bin/activate",
    b"bin/activate.csh",
    b"bin/activate.fish",
    b"bin/activate.nu",
    b"bin/activate.xsh",
    b"pyvenv.cfg",
    b"conda-meta/history",
)
BAKED = re.compile(
    rb"""^[ \t]*(?:(?:export |set -gx |setenv |\$|let |const )?["']?VIRTUAL_ENV["']?[ \t]*[= ][ \t]*|command = .* )"""
    rb"""['"]?(/[^'"\n]+?)['"]?[ \t]*$""",
    re.MULTILINE,
)
CONDA = re.compile(rb"^# cmd: .* (?:-p|--prefix)[ =](/[^\s]+)", re.MULTILINE)
SHEBANG = re.compile(rb"\A#!(/[^\n]+)/bin/python[\d.]*[ \t]*$", re.MULTILINE)
TRAMPOLINE = re.compile(rb"\A#!/bin/sh\n'''exec' \"?(/[^\n\"]+)/bin/python[\d.]*\"? ", re.MULTILINE)
BASE = re.compile(rb"^(?:home|base-prefix|base-exec-prefix) = (/[^\n]+?)(?:/bin)?[ \t]*$", re.MULTILINE)
SHEBANGS_READ = 50

Read: TypeAlias = Callable[[bytes], "bytes | None"]


def aliases_of(known: tuple[bytes, ...], *, read: Read, scripts: Iterable[bytes]) -> tuple[bytes, ...]:
    """What an environment is called by those who gave it and by its own files; none of them is its base's.

    known: the prefixes that it is known by (as given, resolved); read: a file of the tree by its relative path, None
    when there is none; scripts: how its scripts begin, whose shebangs are asked too
    """
    found = set(known)
    for path in WITNESSES:
        text = read(path) or b""
        found.update(match.group(1) for pattern in (BAKED, CONDA) for match in pattern.finditer(text))
    told = found != set(known)
    for prefix, scripts_of_it in _shebangs(scripts).most_common(1):
        if prefix not in SHARED_PREFIXES and (scripts_of_it > 1 or not told):
            found.add(prefix)
    base = {match.group(1) for match in BASE.finditer(read(b"pyvenv.cfg") or b"")}
    return tuple(sorted({os.path.normpath(prefix) for prefix in found - base - {b"/"}}))


def _shebangs(scripts: Iterable[bytes]) -> Counter[bytes]:
    """How many scripts are run by the python of which prefix."""
    found = (SHEBANG.match(head) or TRAMPOLINE.match(head) for head in islice(scripts, SHEBANGS_READ))
    return Counter(match.group(1) for match in found if match is not None)

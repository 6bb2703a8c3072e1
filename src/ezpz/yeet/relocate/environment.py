"""Relocation: which entries of an environment name its old place, and what they say in the new one.

It is a pure transform, entry in, entry out, and never touches the source. Activate scripts, `pyvenv.cfg`, shebangs and
links into the environment follow; everything else passes as it is.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from ezpz.yeet.relocate.prefix import PrefixMap

if TYPE_CHECKING:
    from ezpz.yeet.source import Kind

TEXT_LIMIT = 1 << 20  # bytes; a script is smaller
SCRIPT_FOLDERS = (b"bin", b"etc/profile.d", b"etc/conda/activate.d", b"etc/conda/deactivate.d", b"Scripts")
CONFIGURATION = (b"pyvenv.cfg",)
WITNESSES = (b"bin/activate", b"bin/activate.csh", b"bin/activate.fish", b"pyvenv.cfg")
BAKED = re.compile(
    rb"""^[ \t]*(?:(?:export |set -gx |setenv )?VIRTUAL_ENV[= ]|command = .* )['"]?(/[^'"\n]+?)['"]?[ \t]*$""",
    re.MULTILINE,
)
SHEBANG = re.compile(rb"\A#!(/[^\n]+)/bin/python[\d.]*[ \t]*$", re.MULTILINE)
BASE = re.compile(rb"^(?:home|base-prefix|base-exec-prefix) = (/[^\n]+?)(?:/bin)?[ \t]*$", re.MULTILINE)
SHEBANGS_READ = 50
COMMON = (b"/usr", b"/usr/local", b"/opt", b"/bin")  # where a python is everybody's

Read: TypeAlias = Callable[[bytes], bytes | None]


class Relocation:
    """From every alias of an environment's old prefix to its new one; with no aliases nothing changes.

    root: where the environment stands now, resolved; None for one that stands nowhere, as out of an archive
    """

    def __init__(self, aliases: tuple[bytes, ...], destination: bytes, root: bytes | None = None) -> None:
        self.prefixes = PrefixMap(aliases, destination)
        self.root = root

    @property
    def is_needed(self) -> bool:
        return bool(self.prefixes.old)

    def wants(self, path: bytes, size: int) -> bool:
        """Whether the content of this regular file has to pass through `content`."""
        if not self.prefixes.old or size > TEXT_LIMIT:
            return False
        return path in CONFIGURATION or os.path.dirname(path) in SCRIPT_FOLDERS

    def content(self, data: bytes) -> bytes:
        """What a file that `wants` chose says in the new place; a file that holds a NUL byte is not text."""
        return data if b"\0" in data else self.prefixes.replace(data)

    def link(self, path: bytes, target: bytes) -> bytes:
        """A link's target in the new place, when it still has to lead where it did.

        What pointed into the environment by its full path becomes relative; a relative one that leaves it, full.
        """
        if not target.startswith(b"/"):
            leaves = os.path.normpath(os.path.join(os.path.dirname(path), target)).split(b"/")[0] == b".."
            if leaves and self.root is not None and self.is_needed:
                return os.path.normpath(os.path.join(self.root, os.path.dirname(path), target))
            return target
        inside = self.prefixes.below(os.path.normpath(target))
        return target if inside is None else os.path.relpath(b"/" + inside, b"/" + os.path.dirname(path))


def relocation_of(
    kind: Kind,
    known: tuple[bytes, ...],
    destination: bytes,
    *,
    read: Read,
    scripts: tuple[bytes, ...],
    root: bytes | None = None,
) -> Relocation:
    """The Relocation of a tree of this kind.

    known: the prefixes that it is known by (as given, resolved)
    read: a file of the tree by its relative path, None when there is none
    scripts: the paths of its scripts, whose shebangs are asked too; root: see Relocation
    """
    if not kind.is_environment:
        return Relocation((), destination)
    found = set(known)
    for path in WITNESSES:
        found.update(match.group(1) for match in BAKED.finditer(read(path) or b""))
    told = found != set(known)
    for prefix, scripts_of_it in _shebangs(scripts, read).most_common(1):
        if prefix not in COMMON and (scripts_of_it > 1 or not told):
            found.add(prefix)
    base = {match.group(1) for match in BASE.finditer(read(b"pyvenv.cfg") or b"")}
    aliases = {os.path.normpath(prefix) for prefix in found - base - {b"/"}}
    return Relocation(tuple(sorted(aliases)), destination, root)


def _shebangs(scripts: tuple[bytes, ...], read: Read) -> Counter[bytes]:
    """How many scripts are run by the python of which prefix."""
    first_lines = ((read(path) or b"")[:512] for path in scripts[:SHEBANGS_READ])
    return Counter(match.group(1) for line in first_lines if (match := SHEBANG.match(line)) is not None)

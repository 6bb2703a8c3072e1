"""What of an editable install comes along, where it goes below the destination, and which cannot."""

from __future__ import annotations

import itertools
import os
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ezpz.yeet.model.entry import BYTECODE_DIRECTORY
from ezpz.yeet.relocate.layout import CONDA_META, EDITABLE_DIRECTORY, PYVENV_CFG, Move

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ezpz.yeet.relocate.inspect.editable_installs import Editable

EXCLUDED_BELOW = (
    ".git",
    ".hg",
    ".svn",
    ".venv",
    ".tox",
    ".nox",
    ".pixi",
    ".eggs",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".hypothesis",
    ".ipynb_checkpoints",
    "node_modules",
)
"""Names, as patterns of fnmatch, that are left out wherever they are met below what comes along."""

ENVIRONMENT = (PYVENV_CFG, CONDA_META)
NEVER = (BYTECODE_DIRECTORY, b"node_modules")
NO_NAMESPACES = (b"build", b"dist")  # what a build leaves, copies of the packages among it
BESIDE_PACKAGES = (b".dist-info", b".egg-info", b".libs")  # metadata, and the libraries that auditwheel puts there
IMPORTABLE = (b".py", b".so")
LOOKED_AT = 10_000  # names in a directory that may be a namespace package; one of data can have millions


def contents(editable: Editable) -> tuple[bytes, ...]:
    """The names in a `whole` editable that come along: packages, modules and their metadata. Raises OSError.

    Left out are environments, hidden directories, and directories without Python code near their top.
    """
    if not editable.whole:
        return ()
    return tuple(name for name in sorted(os.listdir(editable.path)) if _is_wanted(editable.path, name))


def destinations(editables: tuple[Editable, ...], destination: bytes) -> tuple[Move, ...]:
    """Where editables go below the environment that will be at `destination`; missing ones go nowhere. Raises OSError.

    A directory of sys.path becomes `.editable/NAME`; the single packages and modules of a project lie in it together.
    What lies in another one that comes along is not carried twice. The result does not depend on the order.
    """
    moves: list[Move] = []
    taken: dict[bytes, set[bytes] | None] = {}
    for editable in sorted((each for each in editables if not each.missing), key=lambda each: each.path):
        around = next((index for index, move in enumerate(moves) if _carries(move, editable)), None)
        if around is None:
            last = None if editable.whole else os.path.basename(editable.path)
            target = os.path.join(EDITABLE_DIRECTORY, _folder(editable.name, last, taken))
            moves.append(Move(editable.path, target, editable.whole, contents(editable), ()))
            around = len(moves) - 1
        move = moves[around]
        new = os.path.join(destination, move.target) + editable.path[len(move.source) :]
        prefixes = {*move.prefixes, *_prefixes(editable, new)}
        moves[around] = move._replace(prefixes=tuple(sorted(prefixes, key=lambda pair: (-len(pair[0]), pair))))
    return tuple(moves)


def _is_wanted(folder: bytes, name: bytes) -> bool:
    full = os.path.join(folder, name)
    if name.startswith(b".") or name in NEVER:
        return False
    if name.endswith(BESIDE_PACKAGES) or (name.endswith(IMPORTABLE) and os.path.isfile(full)):
        return True
    if not os.path.isdir(full) or _is_environment(full):
        return False
    if os.path.islink(full) and (os.path.realpath(folder) + b"/").startswith(os.path.realpath(full) + b"/"):
        return False  # it leads to the directory itself, or to one around it
    if os.path.isfile(os.path.join(full, b"__init__.py")):
        return True
    return _is_identifier(name) and name not in NO_NAMESPACES and _has_code(full, levels=2)


def _is_environment(folder: bytes) -> bool:
    return any(os.path.exists(os.path.join(folder, name)) for name in ENVIRONMENT)


def _is_identifier(name: bytes) -> bool:
    return name.decode("utf-8", "replace").isidentifier()


def _has_code(folder: bytes, levels: int) -> bool:
    """Whether a module lies in a directory, or so many levels below; what cannot be read has none."""
    below = []
    try:
        with os.scandir(folder) as entries:
            for entry in itertools.islice(entries, LOOKED_AT):
                if entry.name.endswith(IMPORTABLE):
                    return True
                if levels > 1 and _is_identifier(entry.name) and entry.name not in NEVER and entry.is_dir():
                    below.append(entry.path)
    except OSError:
        return False
    return any(_has_code(path, levels - 1) for path in below if not _is_environment(path))


def _carries(move: Move, editable: Editable) -> bool:
    """Whether what a move brings along holds all of an editable that lies below its source."""
    if not editable.path.startswith(move.source + b"/"):
        return False
    parts = editable.path[len(move.source) + 1 :].split(b"/")
    if any(fnmatchcase(os.fsdecode(part), pattern) for part in parts for pattern in EXCLUDED_BELOW):
        return False
    return not move.whole or (parts[0] in move.names and not editable.whole)


def _prefixes(editable: Editable, new: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every spelling of an editable's path, and what it becomes; a module without its suffix stays without."""
    yield editable.path, new
    last = os.path.basename(editable.path)
    for alias in editable.aliases:
        stem = os.path.basename(alias)
        yield alias, new[: len(stem) - len(last)] if stem and last.startswith(stem + b".") else new


def _folder(name: str, last: bytes | None, taken: dict[bytes, set[bytes] | None]) -> bytes:
    """The path below FOLDER for a directory of sys.path, or for a single package or module of which `last` is the name.

    taken: the folders given away: None for one that is a directory of sys.path, else what lies in it
    """
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:100].lstrip(".-") or "_"
    for number in itertools.count(1):
        folder = (plain if number == 1 else f"{plain}-{number}").encode()
        key = folder.lower()
        if last is None and key not in taken:
            taken[key] = None
            return folder
        others = taken.setdefault(key, set()) if last is not None else None
        if last is not None and others is not None and last.lower() not in others:
            others.add(last.lower())
            return os.path.join(folder, last)
    raise AssertionError

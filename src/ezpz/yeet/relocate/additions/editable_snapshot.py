"""Select the code of editable installs that is included, and its place below the destination."""

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
"""Patterns of fnmatch: such names are left out everywhere below what is included."""

ENVIRONMENT_MARKERS = (PYVENV_CFG, CONDA_META)
SKIPPED_NAMES = (BYTECODE_DIRECTORY, b"node_modules")
BUILD_OUTPUT = (b"build", b"dist")  # output of a build, which includes copies of the packages
METADATA_SUFFIXES = (b".dist-info", b".egg-info", b".libs")  # metadata, and libraries from auditwheel
MODULE_SUFFIXES = (b".py", b".so")
MAX_NAMES = 10_000  # names read in a possible namespace package; a directory of data can have millions


def list_importable(editable: Editable) -> tuple[bytes, ...]:
    """Return the names in an editable that are included: packages, modules, and their metadata. Raises OSError.

    Environments, hidden directories, and directories without Python code near their top are left out. Empty for an
    editable that is a single package or module.
    """
    if not editable.on_sys_path:
        return ()
    return tuple(name for name in sorted(os.listdir(editable.path)) if _is_included(editable.path, name))


def plan_moves(editables: tuple[Editable, ...], destination: bytes) -> tuple[Move, ...]:
    """Return where editables go below the environment at `destination`. Missing editables are skipped. Raises OSError.

    A directory of sys.path becomes `.editable/NAME`. The single packages and modules of a project share one directory.
    An editable inside another included one is not included twice. The result does not depend on the order.
    """
    moves: list[Move] = []
    assigned: dict[bytes, set[bytes] | None] = {}
    for editable in sorted((each for each in editables if not each.missing), key=lambda each: each.path):
        around = next((index for index, move in enumerate(moves) if _includes(move, editable)), None)
        if around is None:
            last = None if editable.on_sys_path else os.path.basename(editable.path)
            target = os.path.join(EDITABLE_DIRECTORY, _assign_directory(editable.name, last, assigned))
            moves.append(Move(editable.path, target, editable.on_sys_path, list_importable(editable), ()))
            around = len(moves) - 1
        move = moves[around]
        new = os.path.join(destination, move.target) + editable.path[len(move.source) :]
        prefixes = {*move.prefixes, *_spelled_moves(editable, new)}
        moves[around] = move._replace(prefixes=tuple(sorted(prefixes, key=lambda pair: (-len(pair[0]), pair))))
    return tuple(moves)


def _is_included(directory: bytes, name: bytes) -> bool:
    full = os.path.join(directory, name)
    if name.startswith(b".") or name in SKIPPED_NAMES:
        return False
    if name.endswith(METADATA_SUFFIXES) or (name.endswith(MODULE_SUFFIXES) and os.path.isfile(full)):
        return True
    if not os.path.isdir(full) or _is_environment(full):
        return False
    if os.path.islink(full) and (os.path.realpath(directory) + b"/").startswith(os.path.realpath(full) + b"/"):
        return False  # it points to the directory itself, or to one above it
    if os.path.isfile(os.path.join(full, b"__init__.py")):
        return True
    return _is_identifier(name) and name not in BUILD_OUTPUT and _has_code(full, levels=2)


def _is_environment(directory: bytes) -> bool:
    return any(os.path.exists(os.path.join(directory, name)) for name in ENVIRONMENT_MARKERS)


def _is_identifier(name: bytes) -> bool:
    return name.decode("utf-8", "replace").isidentifier()


def _has_code(directory: bytes, levels: int) -> bool:
    """Return whether a directory contains a module, up to `levels` deep. Unreadable directories contain none."""
    below = []
    try:
        with os.scandir(directory) as entries:
            for entry in itertools.islice(entries, MAX_NAMES):
                if entry.name.endswith(MODULE_SUFFIXES):
                    return True
                if levels > 1 and _is_identifier(entry.name) and entry.name not in SKIPPED_NAMES and entry.is_dir():
                    below.append(entry.path)
    except OSError:
        return False
    return any(_has_code(path, levels - 1) for path in below if not _is_environment(path))


def _includes(move: Move, editable: Editable) -> bool:
    """Return whether a move includes all of an editable that is below its source."""
    if not editable.path.startswith(move.source + b"/"):
        return False
    parts = editable.path[len(move.source) + 1 :].split(b"/")
    if any(fnmatchcase(os.fsdecode(part), pattern) for part in parts for pattern in EXCLUDED_BELOW):
        return False
    return not move.on_sys_path or (parts[0] in move.names and not editable.on_sys_path)


def _spelled_moves(editable: Editable, new: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield every spelling of an editable's path with its new path.

    A module that is spelled without suffix stays so.
    """
    yield editable.path, new
    last = os.path.basename(editable.path)
    for alias in editable.aliases:
        stem = os.path.basename(alias)
        yield alias, new[: len(stem) - len(last)] if stem and last.startswith(stem + b".") else new


def _assign_directory(name: str, last: bytes | None, assigned: dict[bytes, set[bytes] | None]) -> bytes:
    """Return an unused path below EDITABLE_DIRECTORY for an editable.

    Args:
        name: Name of the editable.
        last: Name of a single package or module. None for a directory of sys.path.
        assigned: The assigned directories: None for one of sys.path, else the names in it.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:100].lstrip(".-") or "_"
    for number in itertools.count(1):
        directory = (plain if number == 1 else f"{plain}-{number}").encode()
        key = directory.lower()
        if last is None and key not in assigned:
            assigned[key] = None
            return directory
        others = assigned.setdefault(key, set()) if last is not None else None
        if last is not None and others is not None and last.lower() not in others:
            others.add(last.lower())
            return os.path.join(directory, last)
    raise AssertionError

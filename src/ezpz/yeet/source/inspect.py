"""Inspect a source: a venv, a conda environment, a tool, plain data, or an archive."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ezpz.agent.common import filesystem
from ezpz.agent.common.text import printable_path
from ezpz.errors import SourceEmpty, SourceNotFound, SourceUnreadable, UsageError
from ezpz.yeet.model.source import Kind, Source
from ezpz.yeet.source.archive_formats import ARCHIVE_SUFFIXES, split_name

if TYPE_CHECKING:
    from collections.abc import Mapping


def active_environment(environ: Mapping[str, str]) -> str:
    """Return the path of the active venv or conda environment. Raises SourceNotFound if none is active."""
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if environ.get(variable):
            return environ[variable]
    raise SourceNotFound(
        "no source: no SRC was given, and no venv or conda environment is active",
        hint="activate one first, or name it: ezpz yeet /path/to/env",
    )


def inspect_source(path: str) -> Source:
    """Return what is at `path`.

    Raises:
        SourceNotFound: Nothing is there.
        SourceUnreadable: The user may not read it.
        SourceEmpty: The directory or file is empty.
        UsageError: It is a file, but not an archive that ezpz reads.
    """
    if not path:
        raise UsageError("SRC or --src is ''", hint="name a directory or an archive")
    absolute = os.path.join(os.getcwd(), path)
    given = os.path.normpath(absolute)
    if os.path.realpath(given) != os.path.realpath(absolute):  # `..` behind a link
        given = os.path.realpath(absolute)
    label = printable_path(os.fsencode(path))
    if not os.path.lexists(given):
        raise SourceNotFound(
            f"no source: '{label}' does not exist", hint="check the path; is the filesystem mounted here?"
        )
    if not os.path.exists(given):
        raise SourceNotFound(
            f"no source: '{label}' is a link to nothing ('{printable_path(os.fsencode(os.path.realpath(given)))}')"
        )
    real = os.path.realpath(given)
    if not os.access(real, os.R_OK | (os.X_OK if os.path.isdir(real) else 0)):
        raise SourceUnreadable(f"cannot read '{label}': permission denied", hint="are you allowed to read it?")
    local = filesystem.is_node_local(filesystem.filesystem(os.fsencode(real)))
    name = os.path.basename(given)
    if os.path.isdir(real):
        if not any(os.scandir(real)):
            raise SourceEmpty(f"the source '{label}' is an empty directory")
        return Source(given, real, name, kind_of(os.fsencode(real)), local)
    if os.path.isfile(real):
        return _inspect_file(given, real, label, local=local)
    raise UsageError(f"the source '{label}' is neither a directory nor a file")


def _inspect_file(given: str, real: str, label: str, *, local: bool) -> Source:
    if os.path.getsize(real) == 0:
        raise SourceEmpty(f"the source '{label}' is an empty file")
    found = split_name(given)
    if found is not None:
        return Source(given, real, found[0], None, local)
    raise UsageError(
        f"the source '{label}' is a file, but no archive that ezpz reads ({', '.join(ARCHIVE_SUFFIXES)})",
        hint="give a directory, or an archive made by `ezpz yeet tar`",
    )


def kind_of(root: bytes) -> Kind:
    """Return the kind of the tree at `root`, by the files that mark it (PEP 405 for pyvenv.cfg)."""
    if os.path.isfile(os.path.join(root, b"pyvenv.cfg")):
        return Kind.VENV
    if os.path.isdir(os.path.join(root, b"conda-meta")):
        return Kind.CONDA
    if os.path.isdir(os.path.join(root, b"bin")):
        return Kind.TOOL
    return Kind.DATA


def find_newer_archive(environment: str, directory: str) -> str | None:
    """Return an archive of an environment that is newer than the environment, or None.

    It has the name of the environment, and is next to it or in `directory`.
    """
    name = os.path.basename(environment)
    for parent in (os.path.dirname(environment), directory):
        for suffix in ARCHIVE_SUFFIXES:
            candidate = os.path.join(parent, name + suffix)
            try:
                if os.stat(candidate).st_mtime > os.stat(environment).st_mtime:
                    return candidate
            except OSError:
                continue
    return None

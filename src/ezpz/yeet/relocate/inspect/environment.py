"""Environment: what a tree tells about itself before it is relocated: its names, its python, what else it needs."""

from __future__ import annotations

import errno
import glob
import os
import stat
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from ezpz.agent.common.text import printable_path
from ezpz.agent.destination.smoke_test import at_final_path
from ezpz.errors import InterpreterBroken, PrefixUnknown
from ezpz.yeet.model.source import Kind
from ezpz.yeet.relocate.formats import conda_records
from ezpz.yeet.relocate.formats.pyvenv_cfg import settings
from ezpz.yeet.relocate.inspect.aliases import aliases_of
from ezpz.yeet.relocate.inspect.base_python import BasePython, base_of, prefixes_of
from ezpz.yeet.relocate.inspect.editable_errors import check_editables
from ezpz.yeet.relocate.inspect.editable_installs import Editable, find_editables
from ezpz.yeet.relocate.inspect.import_path import searched
from ezpz.yeet.relocate.inspect.interpreter import Interpreter, probe, python_of
from ezpz.yeet.relocate.layout import PYVENV_CFG
from ezpz.yeet.source.link_policy import LinkPolicy, is_below, on_shared_filesystem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.model.warnings import SourceWarnings
    from ezpz.yeet.relocate.options import RelocationOptions

WITNESS_LIMIT = 4 << 20  # bytes; what is asked where an environment stands is smaller
HEAD = 4096  # bytes; how a script begins, with what runs it
PACKER = b"bin/conda-unpack"
RELATIVE = (b"dirname", b"/usr/bin/env python")  # what the scripts of an environment say that may be moved
OPENING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EACCES)
"""No file of the tree: the fourth is a socket's; what may not be read is for the scan to refuse or to leave out."""


class TreeReader:
    """A tree that is only read, and asked for little: each question to a shared filesystem takes its time."""

    def __init__(self, root: bytes) -> None:
        self.root = root

    def read(self, path: bytes) -> bytes | None:
        """A small file of the tree by its relative path; None when there is none. Raises OSError."""
        return self.configuration if path == PYVENV_CFG else self._read(path, limit=WITNESS_LIMIT)

    def read_whole(self, path: bytes) -> bytes | None:
        """The same, whatever its size."""
        return self._read(path)

    def head(self, path: bytes, size: int) -> bytes | None:
        """The same, but only so many bytes of it, from its beginning."""
        return self._read(path, size=size)

    def _read(self, path: bytes, *, size: int = -1, limit: int | None = None) -> bytes | None:
        try:
            fd = os.open(os.path.join(self.root, path), OPENING)
        except OSError as e:
            if e.errno in ABSENT:
                return None
            raise
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or (limit is not None and status.st_size > limit):
                return None
            with open(fd, "rb", buffering=0, closefd=False) as file:
                return file.read(size)
        finally:
            os.close(fd)

    def names(self, path: bytes) -> tuple[bytes, ...]:
        """The names in a folder of the tree, sorted; none when there is no such folder."""
        try:
            return tuple(sorted(os.listdir(os.path.join(self.root, path))))
        except (FileNotFoundError, NotADirectoryError):
            return ()

    @property
    def scripts(self) -> Iterator[bytes]:
        """How the files in `bin` begin, by their names; each is looked at when it is asked for."""
        return (self.head(b"bin/" + name, HEAD) or b"" for name in self.names(b"bin"))

    @cached_property
    def configuration(self) -> bytes | None:
        """Its `pyvenv.cfg`, which is asked for again and again; None when there is none. Raises OSError."""
        return self._read(PYVENV_CFG, limit=WITNESS_LIMIT)

    @cached_property
    def settings(self) -> Mapping[bytes, bytes]:
        """What its `pyvenv.cfg` says."""
        return settings(self.configuration or b"")

    @property
    def shares_site_packages(self) -> bool:
        """Whether it imports what is installed in its base, too."""
        return self.settings.get(b"include-system-site-packages", b"").lower() == b"true"


@dataclass(frozen=True, slots=True)
class Environment:
    """What was found out about a tree; for one that is no environment, just its names.

    aliases: every name of its top
    has_base: whether its interpreter belongs to an installation elsewhere, which could be embedded; base: what that
    would bring, None when it has not been counted, since every node may have it
    own_base: where that installation is in the tree itself, relative, or None
    binaries: see Relocation; packed: the prefixes that conda-pack left in files
    is_packed: conda-pack or venv-pack made it
    """

    kind: Kind
    aliases: tuple[bytes, ...]
    interpreter: Interpreter | None = None
    has_base: bool = False
    own_base: bytes | None = None
    base: BasePython | None = None
    editables: tuple[Editable, ...] = ()
    binaries: Mapping[bytes, int] = field(default_factory=dict)
    packed: tuple[bytes, ...] = ()
    is_packed: bool = False


def link_policy_of(kind: Kind | None, known: tuple[bytes, ...]) -> LinkPolicy:
    """Which links of a tree lead out; those to the interpreter of a venv have their own way. Raises OSError."""
    stay: tuple[bytes, ...] = ()
    if kind is Kind.VENV:
        home = TreeReader(known[-1]).settings.get(b"home", b"")
        python = os.path.realpath(python_of(known[-1]) or b"/")
        stay = prefixes_of(home, os.path.dirname(os.path.dirname(python)))
    return LinkPolicy(known, stay)


def left_out_of(kind: Kind | None, root: bytes) -> tuple[bytes, ...]:
    """The folders at the top of a tree that are not its own."""
    return conda_records.base_folders(TreeReader(root).names) if kind is Kind.CONDA else ()


def inspect_environment(
    root: bytes,
    kind: Kind,
    known: tuple[bytes, ...],
    options: RelocationOptions,
    environ: Mapping[str, str],
    notices: SourceWarnings,
    cancel: CancelToken | None = None,
) -> Environment:
    """Find out all that relocation needs to know about the tree at `root`, which is only read.

    known: the prefixes that it is known by; none for one that was just unpacked and stands nowhere

    Raises PrefixUnknown, InterpreterBroken, EditableRefused, NoSpace, OSError, Cancelled.
    """
    given = (*known, os.fsencode(options.orig_prefix)) if options.orig_prefix else known
    if not kind.is_environment:
        return Environment(kind, given)
    folder = TreeReader(root)
    packed = conda_records.pack_prefixes(folder.read_whole(PACKER) or b"")
    records = (
        conda_records.prefix_records(folder.read_whole, folder.names)
        if kind is Kind.CONDA
        else conda_records.PrefixRecords()
    )
    placeholders = {*packed.text.values(), *packed.binary.values()}
    placeholders |= set(records.placeholders) if placeholders else set()
    aliases = aliases_of(given, read=folder.read, scripts=folder.scripts)
    if not aliases and not placeholders and not _is_relocatable(folder):
        raise PrefixUnknown(
            "cannot determine the original prefix: nothing in the archive tells where the environment stood",
            hint="pass it: --orig-prefix /the/path/it/had",
        )
    moved = () if known else tuple(alias.rstrip(b"/") for alias in aliases)
    interpreter = _interpreter(folder, moved, options, notices, cancel)
    _note_search_path(folder, kind, interpreter, environ, notices)
    own_base = None if interpreter is None else _own_base(interpreter, root, aliases)
    based = interpreter if kind is Kind.VENV and own_base is None else None
    return Environment(
        kind, aliases, interpreter,
        has_base=based is not None,
        own_base=own_base,
        base=_base(folder, based, environ, cancel) if based and _will_be_embedded(based, options.base) else None,
        editables=_editables(folder, aliases, interpreter, options, notices),
        binaries={**records.binary, **{path: len(old) for path, old in packed.binary.items()}},
        packed=tuple(sorted(placeholders)), is_packed=_is_packed(folder),
    )  # fmt: skip


def _is_relocatable(folder: TreeReader) -> bool:
    """Whether an environment that names no place was made so that it may be moved, by uv or venv-pack."""
    if folder.settings.get(b"relocatable", b"").lower() == b"true":
        return True
    return any(sign in head[:512] for head in folder.scripts for sign in RELATIVE)


def _is_packed(folder: TreeReader) -> bool:
    """Whether conda-pack or venv-pack has made the scripts of this environment find their python by PATH."""
    return folder.read(PACKER) is not None or b"venv_pack" in (folder.read(b"bin/activate") or b"")


def _interpreter(
    folder: TreeReader,
    moved: tuple[bytes, ...],
    options: RelocationOptions,
    notices: SourceWarnings,
    cancel: CancelToken | None,
) -> Interpreter | None:
    """What the environment's python says; None when it has none, or may not be asked since it stays as it is.

    moved: where an unpacked environment stood, so that it may be led to a base of its own that came with it
    """
    root = folder.root
    if python_of(root) is None:
        notices.note("no-interpreter", b"bin/python")
        return None
    try:
        with at_final_path(root, moved) as place:
            found = probe(python_of(place) or b"", cancel)
    except InterpreterBroken:
        if options.base != "keep":
            _refuse_damaged(folder)
            raise
        notices.note("no-interpreter", b"bin/python")
        return None
    own = tuple(path.replace(place, root, 1) for path in found.site_packages)
    return replace(found, prefix=found.prefix.replace(place, root, 1), site_packages=own)


def _refuse_damaged(folder: TreeReader) -> None:
    """Raise InterpreterBroken for a `pyvenv.cfg` that no python can read."""
    try:
        (folder.configuration or b"").decode()
    except UnicodeDecodeError as e:
        raise InterpreterBroken(
            f"'{printable_path(os.path.join(folder.root, PYVENV_CFG))}' is damaged: it is no text",
            hint="make the environment again",
        ) from e


def _own_base(interpreter: Interpreter, root: bytes, aliases: tuple[bytes, ...]) -> bytes | None:
    """Where the installation of an environment's python is in its own tree, relative; None when it is elsewhere.

    It says so by the place where the environment stood when it was copied from there.
    """
    base = os.path.normpath(interpreter.base_prefix)
    for top in (os.path.realpath(root), *aliases):
        relative = os.path.relpath(base, top)
        if is_below(base, top) and os.path.isdir(os.path.join(root, relative)):
            return relative
    return None


def _will_be_embedded(interpreter: Interpreter, mode: str) -> bool:
    """Whether that is as good as certain, so that it may be counted before the nodes are asked."""
    return mode == "embed" or (mode == "auto" and on_shared_filesystem(interpreter.base_prefix))


def base_in(
    root: bytes, interpreter: Interpreter, environ: Mapping[str, str], cancel: CancelToken | None = None
) -> BasePython:
    """Count what embedding the interpreter of the venv at `root` would bring. Raises as `base_of` does."""
    return _base(TreeReader(root), interpreter, environ, cancel)


def _base(
    folder: TreeReader, interpreter: Interpreter, environ: Mapping[str, str], cancel: CancelToken | None
) -> BasePython:
    return base_of(
        interpreter,
        folder.settings.get(b"home", b""),
        with_site_packages=folder.shares_site_packages,
        library_path=tuple(os.fsencode(path) for path in environ.get("LD_LIBRARY_PATH", "").split(":") if path),
        cancel=cancel,
    )


def _note_search_path(
    folder: TreeReader, kind: Kind, interpreter: Interpreter | None, environ: Mapping[str, str], notices: SourceWarnings
) -> None:
    """Note what of this session every import on every rank would look into, besides the environment."""
    version = ".".join(interpreter.version.split(".")[:2]) if interpreter is not None else ""
    found = searched(
        environ,
        os.getcwdb(),
        user_site_of=version if folder.shares_site_packages or kind is Kind.CONDA else "",
        is_local=lambda path: is_below(path, folder.root) or not on_shared_filesystem(path),
    )
    for each in found:
        notices.note(each.case, each.path)


def _editables(
    folder: TreeReader,
    aliases: tuple[bytes, ...],
    interpreter: Interpreter | None,
    options: RelocationOptions,
    notices: SourceWarnings,
) -> tuple[Editable, ...]:
    """The editable installs of the environment, as the options want them. Raises EditableRefused."""
    if interpreter is not None:
        places = interpreter.site_packages
    else:
        places = tuple(sorted(glob.glob(os.path.join(glob.escape(folder.root), b"lib*/python*/site-packages"))))
    own = (*aliases, os.path.realpath(folder.root))
    found = find_editables(places, lambda path: any(is_below(path, top) for top in own))
    check_editables(found, options.editable)
    for editable in found:
        if editable.missing:
            notices.note("editable-missing", editable.path)
        elif options.editable == "keep":
            notices.note("editable-kept", editable.path)
    return found

"""Inspect an environment before it is relocated: its names, its python, and what else it needs."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ezpz.agent.common.text import printable_path
from ezpz.agent.destination.smoke_test import at_final_path
from ezpz.errors import InterpreterBroken, PrefixUnknown
from ezpz.yeet.model.source import Kind
from ezpz.yeet.relocate.formats import conda_records
from ezpz.yeet.relocate.inspect.aliases import find_aliases
from ezpz.yeet.relocate.inspect.base_python import BasePython, inspect_base, installation_prefixes
from ezpz.yeet.relocate.inspect.editable_errors import check_editables
from ezpz.yeet.relocate.inspect.editable_installs import Editable, find_editables
from ezpz.yeet.relocate.inspect.import_path import extra_import_directories
from ezpz.yeet.relocate.inspect.interpreter import Interpreter, find_python, probe
from ezpz.yeet.relocate.inspect.tree_reader import TreeReader
from ezpz.yeet.relocate.layout import PYVENV_CFG
from ezpz.yeet.source.link_policy import LinkPolicy, is_below, on_shared_filesystem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.model.warnings import SourceWarnings
    from ezpz.yeet.relocate.options import RelocationOptions

CONDA_UNPACK = b"bin/conda-unpack"
RELOCATABLE_MARKERS = (b"dirname", b"/usr/bin/env python")  # text in the scripts of relocatable environments


@dataclass(frozen=True, slots=True)
class Environment:
    """What a tree tells about itself. A tree that is not an environment has only its names.

    Attributes:
        kind: Kind of the tree.
        aliases: All names of its top.
        interpreter: Its interpreter, or None.
        has_base: Whether its interpreter belongs to an installation elsewhere, which could be embedded.
        own_base: Relative path of that installation if it is in the tree itself, or None.
        base: What embedding would add. None if it was not scanned, since every node may have it.
        editables: Its editable installs.
        binaries: See Relocation.
        packed: Prefixes that conda-pack left in files.
        is_packed: Whether conda-pack or venv-pack created it.
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
    """Return which links lead out of a tree. Those to the interpreter of a venv stay. Raises OSError."""
    keep_outside: tuple[bytes, ...] = ()
    if kind is Kind.VENV:
        home = TreeReader(known[-1]).settings.get(b"home", b"")
        python = os.path.realpath(find_python(known[-1]) or b"/")
        keep_outside = installation_prefixes(home, os.path.dirname(os.path.dirname(python)))
    return LinkPolicy(known, keep_outside)


def nested_directories_of(kind: Kind | None, root: bytes) -> tuple[bytes, ...]:
    """Return the directories at the top of a tree that are not part of it."""
    return conda_records.nested_directories(TreeReader(root).names) if kind is Kind.CONDA else ()


def inspect_environment(
    root: bytes,
    kind: Kind,
    known: tuple[bytes, ...],
    options: RelocationOptions,
    environ: Mapping[str, str],
    notices: SourceWarnings,
    cancel: CancelToken | None = None,
) -> Environment:
    """Collect what relocation needs to know about the tree at `root`, which is only read.

    Args:
        root: Path of the tree.
        kind: Its kind.
        known: Paths that it is known by. Empty for a tree that was just unpacked.
        options: What the user wants to happen to the environment.
        environ: Environment variables of the session.
        notices: Gets warnings.
        cancel: Stops the inspection when it is set.

    Raises:
        PrefixUnknown: Nothing shows where the environment was created.
        InterpreterBroken: Its python does not start.
        EditableRefused: It has editable installs that may not be.
        NoSpace: The packages of its base are too large.
        OSError: A file cannot be read.
        `Cancelled`: The token was set.
    """
    given = (*known, os.fsencode(options.orig_prefix)) if options.orig_prefix else known
    if not kind.is_environment:
        return Environment(kind, given)
    tree = TreeReader(root)
    packed = conda_records.read_pack_records(tree.read_whole(CONDA_UNPACK) or b"")
    records = (
        conda_records.read_prefix_records(tree.read_whole, tree.names)
        if kind is Kind.CONDA
        else conda_records.PrefixRecords()
    )
    placeholders = {*packed.text.values(), *packed.binary.values()}
    placeholders |= set(records.placeholders) if placeholders else set()
    aliases = find_aliases(given, read=tree.read, scripts=tree.scripts)
    if not aliases and not placeholders and not _is_relocatable(tree):
        raise PrefixUnknown(
            "cannot determine the original prefix: nothing in the archive tells where the environment stood",
            hint="pass it: --orig-prefix /the/path/it/had",
        )
    moved = () if known else tuple(alias.rstrip(b"/") for alias in aliases)
    interpreter = _probe_interpreter(tree, moved, options, notices, cancel)
    _warn_about_import_path(tree, kind, interpreter, environ, notices)
    own_base = None if interpreter is None else _base_inside_tree(interpreter, root, aliases)
    based = interpreter if kind is Kind.VENV and own_base is None else None
    return Environment(
        kind, aliases, interpreter,
        has_base=based is not None,
        own_base=own_base,
        base=_inspect_base(tree, based, environ, cancel) if based and _will_be_embedded(based, options.base) else None,
        editables=_find_editables(tree, aliases, interpreter, options, notices),
        binaries={**records.binary, **{path: len(old) for path, old in packed.binary.items()}},
        packed=tuple(sorted(placeholders)), is_packed=_is_packed(tree),
    )  # fmt: skip


def _is_relocatable(tree: TreeReader) -> bool:
    """Return whether an environment without a path of its own was made relocatable, by uv or venv-pack."""
    if tree.settings.get(b"relocatable", b"").lower() == b"true":
        return True
    return any(sign in head[:512] for head in tree.scripts for sign in RELOCATABLE_MARKERS)


def _is_packed(tree: TreeReader) -> bool:
    """Return whether conda-pack or venv-pack made the scripts of this environment find python by PATH."""
    return tree.read(CONDA_UNPACK) is not None or b"venv_pack" in (tree.read(b"bin/activate") or b"")


def _probe_interpreter(
    tree: TreeReader,
    moved: tuple[bytes, ...],
    options: RelocationOptions,
    notices: SourceWarnings,
    cancel: CancelToken | None,
) -> Interpreter | None:
    """Return what the environment's python tells. None if there is none, or it does not start and need not.

    Args:
        tree: The environment.
        moved: Where an unpacked environment was created, so that it finds a base that is included in it.
        options: What the user wants to happen to the environment.
        notices: Gets warnings.
        cancel: Stops the python when it is set.
    """
    root = tree.root
    if find_python(root) is None:
        notices.add("no-interpreter", b"bin/python")
        return None
    try:
        with at_final_path(root, moved) as location:
            found = probe(find_python(location) or b"", cancel)
    except InterpreterBroken:
        if options.base != "keep":
            _check_configuration(tree)
            raise
        notices.add("no-interpreter", b"bin/python")
        return None
    own = tuple(path.replace(location, root, 1) for path in found.site_packages)
    return replace(found, prefix=found.prefix.replace(location, root, 1), site_packages=own)


def _check_configuration(tree: TreeReader) -> None:
    """Raise InterpreterBroken for a `pyvenv.cfg` that no python can read."""
    try:
        (tree.configuration or b"").decode()
    except UnicodeDecodeError as e:
        raise InterpreterBroken(
            f"'{printable_path(os.path.join(tree.root, PYVENV_CFG))}' is damaged: it is no text",
            hint="make the environment again",
        ) from e


def _base_inside_tree(interpreter: Interpreter, root: bytes, aliases: tuple[bytes, ...]) -> bytes | None:
    """Return the relative path of the base installation in the tree, or None if it is elsewhere.

    The interpreter reports the path at which the environment was when it was copied.
    """
    base = os.path.normpath(interpreter.base_prefix)
    for top in (os.path.realpath(root), *aliases):
        relative = os.path.relpath(base, top)
        if is_below(base, top) and os.path.isdir(os.path.join(root, relative)):
            return relative
    return None


def _will_be_embedded(interpreter: Interpreter, mode: str) -> bool:
    """Return whether embedding is so likely that the base is scanned before the nodes are asked."""
    return mode == "embed" or (mode == "auto" and on_shared_filesystem(interpreter.base_prefix))


def inspect_base_of(
    root: bytes, interpreter: Interpreter, environ: Mapping[str, str], cancel: CancelToken | None = None
) -> BasePython:
    """Scan what embedding the interpreter of the venv at `root` would add. Raises as `inspect_base` does."""
    return _inspect_base(TreeReader(root), interpreter, environ, cancel)


def _inspect_base(
    tree: TreeReader, interpreter: Interpreter, environ: Mapping[str, str], cancel: CancelToken | None
) -> BasePython:
    return inspect_base(
        interpreter,
        tree.settings.get(b"home", b""),
        with_site_packages=tree.shares_site_packages,
        library_path=tuple(os.fsencode(path) for path in environ.get("LD_LIBRARY_PATH", "").split(":") if path),
        cancel=cancel,
    )


def _warn_about_import_path(
    tree: TreeReader, kind: Kind, interpreter: Interpreter | None, environ: Mapping[str, str], notices: SourceWarnings
) -> None:
    """Warn about directories of this session that every import on every rank would search."""
    version = ".".join(interpreter.version.split(".")[:2]) if interpreter is not None else ""
    found = extra_import_directories(
        environ,
        os.getcwdb(),
        user_site_of=version if tree.shares_site_packages or kind is Kind.CONDA else "",
        is_local=lambda path: is_below(path, tree.root) or not on_shared_filesystem(path),
    )
    for each in found:
        notices.add(each.case, each.path)


def _find_editables(
    tree: TreeReader,
    aliases: tuple[bytes, ...],
    interpreter: Interpreter | None,
    options: RelocationOptions,
    notices: SourceWarnings,
) -> tuple[Editable, ...]:
    """Return the editable installs of the environment, as the options allow them. Raises EditableRefused."""
    if interpreter is not None:
        directories = interpreter.site_packages
    else:
        directories = tuple(sorted(glob.glob(os.path.join(glob.escape(tree.root), b"lib*/python*/site-packages"))))
    own = (*aliases, os.path.realpath(tree.root))
    found = find_editables(directories, lambda path: any(is_below(path, top) for top in own))
    check_editables(found, options.editable)
    for editable in found:
        if editable.missing:
            notices.add("editable-missing", editable.path)
        elif options.editable == "keep":
            notices.add("editable-kept", editable.path)
    return found

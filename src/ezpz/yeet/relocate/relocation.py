"""Compute what each entry of a tree becomes at its destination. Pure: the source is never touched.

Content changes only in files that contain an old path: in every text file, and in binary files whose length can stay
and whose format is known.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, NamedTuple

from ezpz.yeet.relocate.formats import conda_records, elf, shebang
from ezpz.yeet.relocate.formats.prefix import PrefixMap
from ezpz.yeet.relocate.formats.pth import rewrite_pth
from ezpz.yeet.relocate.formats.pyvenv_cfg import replace_settings
from ezpz.yeet.relocate.layout import BYTECODE_SUFFIX, CONDA_META, HOOK_FILE, PYTHON_DIRECTORY, PYVENV_CFG, Move
from ezpz.yeet.source.link_policy import is_below

if TYPE_CHECKING:
    from ezpz.yeet.model.entry import Entry
    from ezpz.yeet.relocate.formats.elf_reader import ReadAt

PYTHON_NAME = re.compile(rb"bin/python(\d(\.\d+)?)?\Z")
CONDA_RECORD = re.compile(CONDA_META + rb"/[^/]+\.json\Z")  # records placeholders, which must stay
PATH_FILES = (b".pth", b".egg-link")
NO_PREFIXES = PrefixMap({})


class EntryChange(NamedTuple):
    """The new content of a file.

    Attributes:
        data: The new bytes.
        replaced: How many paths are replaced.
        case: Case of a warning, or "".
    """

    data: bytes
    replaced: int
    case: str = ""


@dataclass(frozen=True, slots=True)
class Relocation:
    """Rules that move a tree. A relocation with a destination alone changes nothing.

    Attributes:
        destination: Path of the copy.
        text: Replacements in the content of files.
        hooks: Replacements in the modules that find editable installs.
        links: Replacements in the targets of links.
        root: Real path of the tree now. None if it has none, as in an archive.
        python: The embedded interpreter, relative to the tree, that `bin/python` becomes a link to. b"" if there is
            none.
        run_path: Run path that the embedded interpreter needs to find its libraries. b"" if it has one of its own.
        configuration: New settings of pyvenv.cfg.
        editables: The included code of editable installs, to which `.pth` files have to point.
        hook_files: Paths of modules that do not match HOOK_FILE and find editable installs.
        packed: Prefix for the scripts of an environment made by conda-pack or venv-pack, which find python by PATH, or
            b"".
        binaries: Files of conda packages with the old prefix in binary code, and the longest prefix each has room for,
            in bytes.
    """

    destination: bytes
    text: PrefixMap = NO_PREFIXES
    hooks: PrefixMap = NO_PREFIXES
    links: PrefixMap = NO_PREFIXES
    root: bytes | None = None
    python: bytes = b""
    run_path: bytes = b""
    configuration: Mapping[bytes, bytes] = field(default_factory=dict)
    editables: tuple[Move, ...] = ()
    hook_files: frozenset[bytes] = frozenset()
    packed: bytes = b""
    binaries: Mapping[bytes, int] = field(default_factory=dict)

    @property
    def is_needed(self) -> bool:
        """Whether the content of any file may change."""
        return not self.text.is_empty or bool(self.configuration)

    @property
    def digest(self) -> str:
        """Fingerprint of the rules: equal for two relocations that rewrite every file identically."""
        facts = [getattr(self, each.name) for each in fields(self) if each.name not in ("text", "hooks", "links")]
        moves = (self.text.moves, self.hooks.moves, self.links.moves)
        facts = [sorted(fact) if isinstance(fact, frozenset) else fact for fact in facts]
        facts = [sorted(fact.items()) if isinstance(fact, Mapping) else fact for fact in facts]
        return hashlib.sha256(repr((facts, moves)).encode()).hexdigest()[:16]

    def relocate_entry(self, entry: Entry) -> Entry:
        """Return an entry after relocation, except for its content.

        A link points to the same target as before. A copy of the base interpreter becomes a link to the embedded one.
        """
        if self.python and not entry.is_foreign and PYTHON_NAME.match(entry.path) and self._is_base_interpreter(entry):
            target = os.path.relpath(b"/" + self.python, b"/bin")
            return entry._replace(mode=stat.S_IFLNK | 0o777, size=0, target=target, link=b"")
        if entry.is_symlink:
            return entry._replace(target=self.relocate_link(entry.path, entry.target))
        return entry

    def _is_base_interpreter(self, entry: Entry) -> bool:
        """Return whether a name in `bin` is the base interpreter, and not a link to another name in `bin`."""
        return entry.is_regular or b"/" in entry.target

    def relocate_link(self, path: bytes, target: bytes) -> bytes:
        """Return the target of a link at the destination: relative inside the tree, absolute outside of it."""
        full = os.path.normpath(target)
        if not target.startswith(b"/"):
            inner = os.path.normpath(os.path.join(os.path.dirname(path), target))
            if inner.split(b"/")[0] != b".." or self.root is None:
                return target
            full = os.path.normpath(os.path.join(self.root, inner))
        moved = self.links.map_path(full)
        if moved is None:
            return full if not target.startswith(b"/") else target
        return os.path.relpath(moved, os.path.join(self.destination, os.path.dirname(path)))

    def may_change_content(self, path: bytes) -> bool:
        """Return whether the content of a regular file must be examined. That of bytecode never changes."""
        return self.is_needed and not path.endswith(BYTECODE_SUFFIX) and not CONDA_RECORD.match(path)

    def needs_full_content(self, path: bytes) -> bool:
        """Return whether `relocate_content` needs a file at once, whatever its size.

        These few files may change anywhere.
        """
        return path in (PYVENV_CFG, self.python) or path in self.binaries

    def prefixes_for(self, path: bytes) -> PrefixMap:
        """Return the replacements in a text file."""
        return self.hooks if self._is_hook(path) else self.text

    def may_change_without_match(self, path: bytes, head: bytes) -> bool:
        """Return whether a text file that begins with `head` may change although it contains no old path."""
        return path.endswith(PATH_FILES) or shebang.pin_python(path, head, self.packed) != head

    def relocate_content(self, path: bytes, data: bytes) -> EntryChange | None:
        """Return the new content of a file, or None if it does not change. Raises PrefixTooLong."""
        if path == PYVENV_CFG and self.configuration:
            text, replaced = self.text.substitute(data)
            new = replace_settings(text, dict(self.configuration))
            return EntryChange(new, max(1, replaced)) if new != data else None
        if path == self.python:
            return self._rewrite_interpreter(data)
        if path.endswith(PATH_FILES) and self.root is not None and shebang.is_text(data):
            return self._rewrite_path_file(path, data, self.root)
        if path in self.binaries and not shebang.is_text(data):
            return EntryChange(
                *conda_records.replace_binary(data, self.text.moves, path=path, room=self.binaries[path])
            )
        if self._is_hook(path) and self.hooks.may_occur_in(data) and shebang.is_text(data):
            return EntryChange(*self.hooks.substitute(data))
        if self.packed:
            data = shebang.pin_python(path, data, self.packed)
        if not self.text.may_occur_in(data):
            return None
        change = (
            EntryChange(*shebang.rewrite_text(path, data, self.text))
            if shebang.is_text(data)
            else self._rewrite_binary(path, data)
        )
        return change if change.data != data or change.case else None

    def relocate_block(self, path: bytes, text: bytes, head: bytes) -> EntryChange | None:
        """Return the new content of some lines of a large text file, or None if they do not change.

        Not for the first block, which `relocate_content` rewrites.

        Args:
            path: Path in the tree.
            text: Complete lines.
            head: The beginning of the file.
        """
        if path.endswith(PATH_FILES) and self.root is not None:
            return self._rewrite_path_file(path, text, self.root)
        if self._is_hook(path) and self.hooks.may_occur_in(text):
            return EntryChange(*self.hooks.substitute(text))
        return (
            EntryChange(*shebang.rewrite_lines(path, head, text, self.text)) if self.text.may_occur_in(text) else None
        )

    def relocate_zipapp_head(self, path: bytes, head: bytes, tail: bytes) -> EntryChange:
        """Return the new head of a binary file that begins with `#!` and ends with `tail`."""
        rest = b"\0" + tail  # the NUL marks it as binary
        new, replaced = shebang.rewrite_zipapp(shebang.pin_python(path, head, self.packed) + rest, self.text)
        return EntryChange(new[: -len(rest)], replaced) if replaced else EntryChange(head, 0)

    def plan_run_path_edits(self, path: bytes, read: ReadAt) -> elf.RunPathEdits:
        """Return the edits of the run paths of a compiled file."""
        return elf.plan_edits(read, lambda entry: self._run_path_options(path, entry))

    def _rewrite_binary(self, path: bytes, data: bytes) -> EntryChange:
        if data.startswith(b"#!"):
            return EntryChange(*shebang.rewrite_zipapp(data, self.text))
        done = elf.retarget(data, lambda entry: self._run_path_options(path, entry))
        named = next(self.text.find(done.data), None) is not None
        return EntryChange(done.data, done.edited, self.warning_for(path, done.stuck, named=named))

    def warning_for(self, path: bytes, stuck: tuple[bytes, ...], *, named: bool) -> str:
        """Return the case of a warning about old paths that stay in a binary file, or "".

        The embedded base gets no warning: it gets its location when it starts.

        Args:
            path: Path in the tree.
            stuck: Entries of run paths that cannot be changed.
            named: Whether the file contains a whole old path, and not only the beginning of another name.
        """
        if stuck:
            return "run-path-stuck"
        return "baked-prefix" if named and not path.startswith(PYTHON_DIRECTORY + b"/") else ""

    def _rewrite_path_file(self, path: bytes, data: bytes, root: bytes) -> EntryChange | None:
        """Rewrite a file whose lines site.py appends to sys.path.

        They point to the included code, or absolutely to code that is not included.
        """
        directory = os.path.join(root, os.path.dirname(path))
        pointed = rewrite_pth(data, directory, lambda path: is_below(path, root), self.editables)
        new, replaced = self.hooks.substitute(pointed)
        return EntryChange(new, max(1, replaced)) if new != data else None

    def _is_hook(self, path: bytes) -> bool:
        return path in self.hook_files or HOOK_FILE.match(os.path.basename(path)) is not None

    def _rewrite_interpreter(self, data: bytes) -> EntryChange | None:
        """Make the embedded python find its libraries next to it, even if LD_LIBRARY_PATH names the old ones."""
        done = elf.retarget(data, lambda entry: self._run_path_options(self.python, entry))
        new = elf.prefer_rpath(done.data)
        if self.run_path:
            new = elf.add_run_path(new, self.run_path) or new
        return EntryChange(new, max(1, done.edited), "run-path-stuck" if done.stuck else "") if new != data else None

    def _run_path_options(self, path: bytes, entry: bytes) -> tuple[bytes, ...]:
        """Return what may replace an entry of a run path: relative to the file, or absolute."""
        moved = self.text.map_path(os.path.normpath(entry)) if entry.startswith(b"/") else None
        if moved is None:
            return ()
        relative = os.path.relpath(moved, os.path.join(self.destination, os.path.dirname(path)))
        return (b"$ORIGIN" if relative == b"." else b"$ORIGIN/" + relative, moved)

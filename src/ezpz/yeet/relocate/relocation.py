"""Relocation: what each entry of a tree becomes so that it works from its new place; pure, entry in, entry out.

It never touches the source. Content changes only in files that hold an old path: texts everywhere, binaries only where
the length can stay and it is known what the bytes are for.
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
from ezpz.yeet.relocate.formats.pth import repointed
from ezpz.yeet.relocate.formats.pyvenv_cfg import with_settings
from ezpz.yeet.relocate.layout import CONDA_META, HOOK_FILE, PYTHON_DIRECTORY, PYVENV_CFG, Move
from ezpz.yeet.source.link_policy import is_below

if TYPE_CHECKING:
    from ezpz.yeet.model.entry import Entry
    from ezpz.yeet.relocate.formats.elf_reader import Reader

PYTHON_NAME = re.compile(rb"bin/python(\d(\.\d+)?)?\Z")
BYTECODE = b".pyc"
RECORD = re.compile(CONDA_META + rb"/[^/]+\.json\Z")  # tells which placeholders there are, and how much room
POINTERS = (b".pth", b".egg-link")
NOTHING = PrefixMap({})


class EntryChange(NamedTuple):
    """What becomes of a file's content: the new bytes, how many paths in it changed, and a notice's case or ""."""

    data: bytes
    replaced: int
    case: str = ""


@dataclass(frozen=True, slots=True)
class Relocation:
    """From old places to new ones; one that is made with a destination alone changes nothing.

    text: what is replaced in the content of files; links: in the targets of links
    hooks: what is replaced in the modules that find editable installs, of which hook_files are some
    root: where the tree stands now, resolved; None for one that stands nowhere, as out of an archive
    python: the embedded interpreter, relative to the tree, that `bin/python` becomes a link to; b"" for none
    run_path: what it needs to find its libraries when it has no run path of its own, else b""
    configuration: settings of pyvenv.cfg that change; editables: what .pth files lead to and comes along
    packed: an old prefix that stands for PATH in the scripts of an environment that a packer has packed, else b""
    binaries: files of conda packages that hold the old prefix in binary code, and the room for a longer one, bytes
    """

    destination: bytes
    text: PrefixMap = NOTHING
    hooks: PrefixMap = NOTHING
    links: PrefixMap = NOTHING
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
        """The same for relocations that make the same of everything."""
        facts = [getattr(self, each.name) for each in fields(self) if each.name not in ("text", "hooks", "links")]
        moves = (self.text.moves, self.hooks.moves, self.links.moves)
        facts = [sorted(fact) if isinstance(fact, frozenset) else fact for fact in facts]
        facts = [sorted(fact.items()) if isinstance(fact, Mapping) else fact for fact in facts]
        return hashlib.sha256(repr((facts, moves)).encode()).hexdigest()[:16]

    def entry(self, entry: Entry) -> Entry:
        """What an entry becomes, its content aside: a link leads where it did, a copy of the python to the embedded."""
        if self.python and not entry.is_foreign and PYTHON_NAME.match(entry.path) and self._stands_for_python(entry):
            target = os.path.relpath(b"/" + self.python, b"/bin")
            return entry._replace(mode=stat.S_IFLNK | 0o777, size=0, target=target, link=b"")
        if entry.is_symlink:
            return entry._replace(target=self.link(entry.path, entry.target))
        return entry

    def _stands_for_python(self, entry: Entry) -> bool:
        """Whether a name in `bin` is the base interpreter's, and not a link to one beside it."""
        return entry.is_regular or b"/" in entry.target

    def link(self, path: bytes, target: bytes) -> bytes:
        """A link's target in the new place: relative within the tree, by its full path out of it."""
        whole = os.path.normpath(target)
        if not target.startswith(b"/"):
            inner = os.path.normpath(os.path.join(os.path.dirname(path), target))
            if inner.split(b"/")[0] != b".." or self.root is None:
                return target
            whole = os.path.normpath(os.path.join(self.root, inner))
        moved = self.links.moved(whole)
        if moved is None:
            return whole if not target.startswith(b"/") else target
        return os.path.relpath(moved, os.path.join(self.destination, os.path.dirname(path)))

    def examines(self, path: bytes) -> bool:
        """Whether the content of this regular file has to be looked at; not that of bytecode."""
        return self.is_needed and not path.endswith(BYTECODE) and not RECORD.match(path)

    def needs_whole(self, path: bytes) -> bool:
        """Whether `content` has to be given a file whatever its size: those that may change anywhere, which are few."""
        return path in (PYVENV_CFG, self.python) or path in self.binaries

    def sought(self, path: bytes) -> PrefixMap:
        """What is replaced in a text file."""
        return self.hooks if self._is_hook(path) else self.text

    def always_changes(self, path: bytes, head: bytes) -> bool:
        """Whether a text file that begins with `head` may change although no old path is in it."""
        return path.endswith(POINTERS) or shebang.from_path(path, head, self.packed) != head

    def content(self, path: bytes, data: bytes) -> EntryChange | None:
        """What a file says in the new place, or None when it says the same. Raises PrefixTooLong."""
        if path == PYVENV_CFG and self.configuration:
            text, replaced = self.text.substitute(data)
            new = with_settings(text, dict(self.configuration))
            return EntryChange(new, max(1, replaced)) if new != data else None
        if path == self.python:
            return self._interpreter(data)
        if path.endswith(POINTERS) and self.root is not None and shebang.is_text(data):
            return self._pointer(path, data, self.root)
        if path in self.binaries and not shebang.is_text(data):
            return EntryChange(
                *conda_records.replace_binary(data, self.text.moves, path=path, room=self.binaries[path])
            )
        if self._is_hook(path) and self.hooks.found_in(data) and shebang.is_text(data):
            return EntryChange(*self.hooks.substitute(data))
        if self.packed:
            data = shebang.from_path(path, data, self.packed)
        if not self.text.found_in(data):
            return None
        change = (
            EntryChange(*shebang.rewrite_text(path, data, self.text))
            if shebang.is_text(data)
            else self._binary(path, data)
        )
        return change if change.data != data or change.case else None

    def passage(self, path: bytes, text: bytes, head: bytes) -> EntryChange | None:
        """The same for some lines of a text file that is too large for `content` and begins with `head`.

        Not for the first ones, of which `content` makes what it would of all.
        """
        if path.endswith(POINTERS) and self.root is not None:
            return self._pointer(path, text, self.root)
        if self._is_hook(path) and self.hooks.found_in(text):
            return EntryChange(*self.hooks.substitute(text))
        return EntryChange(*shebang.rewrite_lines(path, head, text, self.text)) if self.text.found_in(text) else None

    def zipapp_head(self, path: bytes, head: bytes, tail: bytes) -> EntryChange:
        """What becomes of the head of a binary file that begins with `#!`; it ends with `tail`."""
        rest = b"\0" + tail  # which tells that it is no text
        new, replaced = shebang.rewrite_zipapp(shebang.from_path(path, head, self.packed) + rest, self.text)
        return EntryChange(new[: -len(rest)], replaced) if replaced else EntryChange(head, 0)

    def run_path_edits(self, path: bytes, read: Reader) -> elf.Edits:
        """What changes in a compiled file."""
        return elf.edits(read, lambda entry: self._run_paths(path, entry))

    def _binary(self, path: bytes, data: bytes) -> EntryChange:
        if data.startswith(b"#!"):
            return EntryChange(*shebang.rewrite_zipapp(data, self.text))
        done = elf.retarget(data, lambda entry: self._run_paths(path, entry))
        named = next(self.text.find(done.data), None) is not None
        return EntryChange(done.data, done.edited, self.left_in(path, done.stuck, named=named))

    def left_in(self, path: bytes, stuck: tuple[bytes, ...], *, named: bool) -> str:
        """The case of a notice for a binary file in which old paths are left; the base is told where it is.

        stuck: entries of run paths that have to stay; named: whether a whole old path is in it, and not just the
        beginning of another name
        """
        if stuck:
            return "run-path-stuck"
        return "baked-prefix" if named and not path.startswith(PYTHON_DIRECTORY + b"/") else ""

    def _pointer(self, path: bytes, data: bytes, root: bytes) -> EntryChange | None:
        """A file whose lines site.py appends to sys.path: they lead to what came along, or in full to what did not."""
        folder = os.path.join(root, os.path.dirname(path))
        pointed = repointed(data, folder, lambda place: is_below(place, root), self.editables)
        new, replaced = self.hooks.substitute(pointed)
        return EntryChange(new, max(1, replaced)) if new != data else None

    def _is_hook(self, path: bytes) -> bool:
        return path in self.hook_files or HOOK_FILE.match(os.path.basename(path)) is not None

    def _interpreter(self, data: bytes) -> EntryChange | None:
        """The embedded python finds its libraries beside it, even when LD_LIBRARY_PATH names the old ones."""
        done = elf.retarget(data, lambda entry: self._run_paths(self.python, entry))
        new = elf.prefer_rpath(done.data)
        if self.run_path:
            new = elf.add_run_path(new, self.run_path) or new
        return EntryChange(new, max(1, done.edited), "run-path-stuck" if done.stuck else "") if new != data else None

    def _run_paths(self, path: bytes, entry: bytes) -> tuple[bytes, ...]:
        """What may stand for an entry of a run path: relative to the file, or in full."""
        moved = self.text.moved(os.path.normpath(entry)) if entry.startswith(b"/") else None
        if moved is None:
            return ()
        relative = os.path.relpath(moved, os.path.join(self.destination, os.path.dirname(path)))
        return (b"$ORIGIN" if relative == b"." else b"$ORIGIN/" + relative, moved)

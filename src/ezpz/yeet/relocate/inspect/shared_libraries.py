"""Which shared libraries a set of ELF files needs, found as ld.so(8) finds them. Files are only read, and not whole."""

from __future__ import annotations

import glob
import os
import re
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from ezpz.yeet.relocate.formats.elf import Dynamic, read_dynamic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DEFAULTS = (b"/lib64", b"/usr/lib64", b"/lib", b"/usr/lib")
LOADER = re.compile(rb"linux-vdso|linux-gate|ld-linux|ld-musl|ld64\.so|ld\.so")
ORIGIN = re.compile(rb"\$(?:ORIGIN\b|\{ORIGIN\})")


@dataclass(frozen=True)
class SharedLibrary:
    """A library that is not the system's.

    soname: the name that it is needed by
    path: its real path
    found_in: the directory as it was searched; another spelling is another library, but for `..`
    by: "rpath", "runpath", "LD_LIBRARY_PATH", or "path" for one that is needed by a path
    """

    soname: bytes
    path: bytes
    found_in: bytes
    by: str


@dataclass(frozen=True)
class LibraryClosure:
    """The libraries, in the order of loading; and (name, the file that needs it) of what is nowhere."""

    libraries: tuple[SharedLibrary, ...]
    missing: tuple[tuple[bytes, bytes], ...]


def closure(
    files: Iterable[bytes], library_path: tuple[bytes, ...] = (), system: tuple[bytes, ...] | None = None
) -> LibraryClosure:
    """What `files` load, and what that loads, without the system's libraries.

    Programs among the files are taken to load the others, so that their DT_RPATH and what they have loaded count. A
    library among the files may be one that finds its own only in the company of what loads it, as those of wheels do.
    What cannot be read, is no ELF file or is static needs nothing.

    library_path: the directories of LD_LIBRARY_PATH
    system: the directories that every node has; None for what this host's ld.so searches
    """
    search = _Search(library_path, system_directories() if system is None else system)
    roots = [(path, known) for path in dict.fromkeys(files) if (known := search.dynamic(path)) is not None]
    programs = [_File(real, known, None) for path, known in roots if known.program for real in [os.path.realpath(path)]]
    names: set[bytes] = set()
    for program in programs:
        names |= search.load(program, set())
    others = [
        _File(os.path.abspath(path), known, programs[0] if programs else None)
        for path, known in roots
        if not known.program
    ]
    for other in others:
        search.load(other, set(names))
    alone = {other.path for other in others}
    missing = (each for each in search.missing if each[1] not in alone or not search.is_met(*each))
    return LibraryClosure(tuple(search.libraries.values()), tuple(missing))


def system_directories(conf: bytes = b"/etc/ld.so.conf") -> tuple[bytes, ...]:
    """The directories that ld.so(8) searches on this host when nothing names another, those in `conf` first."""
    found = list(_configured(conf, set()))
    for directory in DEFAULTS:
        found += sorted(glob.glob(directory + b"/*-linux-*/"))
        found.append(directory)
    return tuple(dict.fromkeys(each.rstrip(b"/") for each in found if os.path.isdir(each)))


def _configured(conf: bytes, seen: set[bytes]) -> Iterator[bytes]:
    if conf in seen:
        return
    seen.add(conf)
    try:
        with open(conf, "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        words = line.partition(b"#")[0].replace(b":", b" ").replace(b",", b" ").split()
        if words[:1] == [b"include"]:
            for pattern in words[1:]:
                for other in sorted(glob.glob(os.path.join(os.path.dirname(conf), pattern))):
                    yield from _configured(other, seen)
        else:
            yield from (word.partition(b"=")[0] for word in words if word.startswith(b"/"))


class _File(NamedTuple):
    """A file in a process, and the one that loaded it."""

    path: bytes
    dynamic: Dynamic
    loader: _File | None

    def expand(self, entries: tuple[bytes, ...]) -> Iterator[bytes]:
        """Run path entries as directories, without those that need another ld.so's or the process's own knowledge."""
        for entry in entries:
            if b"$" not in ORIGIN.sub(b"", entry):
                directory = ORIGIN.sub(lambda _: os.path.dirname(self.path), entry)
                if directory.startswith(b"/"):
                    yield directory


class _Search:
    """One search for libraries, which remembers what it has read and found."""

    def __init__(self, library_path: tuple[bytes, ...], system: tuple[bytes, ...]) -> None:
        self.libraries: dict[SharedLibrary, SharedLibrary] = {}
        self.missing: dict[tuple[bytes, bytes], None] = {}
        self._library_path = tuple(each for each in library_path if each.startswith(b"/") and b"$" not in each)
        self._system = system
        self._own = tuple(os.path.realpath(each) + b"/" for each in system)
        self._known: dict[bytes, Dynamic | None] = {}
        self._met: set[tuple[bytes, bytes]] = set()

    def load(self, root: _File, names: set[bytes]) -> set[bytes]:
        """Note what `root` loads into a process that has `names`; return the names that it has then."""
        names.add(root.dynamic.soname)
        waiting = [root]
        for file in waiting:  # grows on the way: breadth first, as ld.so does it
            for name in file.dynamic.needed:
                if name not in names and not LOADER.match(os.path.basename(name)):
                    path, by = self._find(name, file)
                    known = self.dynamic(path) if path else None
                    if known is None:
                        self.missing[name, file.path] = None
                        continue
                    names |= {name, known.soname}
                    if by and not self._is_system(path):
                        one = SharedLibrary(name, os.path.realpath(path), os.path.dirname(path), by)
                        self.libraries.setdefault(replace(one, found_in=os.path.normpath(one.found_in)), one)
                        waiting.append(_File(path, known, file))
                self._met.add((name, os.path.realpath(file.path)))
        return names

    def is_met(self, name: bytes, path: bytes) -> bool:
        """Whether the file at `path` got `name` in any process."""
        return (name, os.path.realpath(path)) in self._met

    def dynamic(self, path: bytes) -> Dynamic | None:
        """What a file needs, or None; it is read once, whatever names it has."""
        real = os.path.realpath(path)
        if real not in self._known:
            self._known[real] = _read(real)
        return self._known[real]

    def _find(self, name: bytes, file: _File) -> tuple[bytes, str]:
        """The path that `name` is to `file`, b"" if it is nowhere; and how it was found, "" by the system's ways."""
        if b"/" in name:
            return next(file.expand((name,)), b""), "path"
        for directory, by in self._places(file):
            known = self.dynamic(path := os.path.join(directory, name))
            if known is not None and known.abi == file.dynamic.abi:
                return path, by
        return b"", ""

    def _places(self, file: _File) -> Iterator[tuple[bytes, str]]:
        if not file.dynamic.runpath:
            one: _File | None = file
            while one is not None:
                if not one.dynamic.runpath:
                    yield from ((directory, "rpath") for directory in one.expand(one.dynamic.rpath))
                one = one.loader
        yield from ((directory, "LD_LIBRARY_PATH") for directory in self._library_path)
        yield from ((directory, "runpath") for directory in file.expand(file.dynamic.runpath))
        yield from ((directory, "") for directory in self._system)

    def _is_system(self, path: bytes) -> bool:
        """Whether the file, or the link to it, is in or below one of the system's directories."""
        return any(each.startswith(self._own) for each in (os.path.realpath(path), _real_folder(path)))


def _real_folder(path: bytes) -> bytes:
    return os.path.realpath(os.path.dirname(path)) + b"/"


def _read(path: bytes) -> Dynamic | None:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a FIFO would have us wait
            return None
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return read_dynamic(lambda offset, size: os.pread(fd, size, offset))
    except OSError:
        return None
    finally:
        os.close(fd)

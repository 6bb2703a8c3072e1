"""Find the shared libraries that ELF files need, as ld.so(8) does. Only parts of files are read."""

from __future__ import annotations

import glob
import os
import re
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from ezpz.yeet.relocate.formats.elf import DynamicInfo, read_dynamic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DEFAULT_DIRECTORIES = (b"/lib64", b"/usr/lib64", b"/lib", b"/usr/lib")
LOADER = re.compile(rb"linux-vdso|linux-gate|ld-linux|ld-musl|ld64\.so|ld\.so")
ORIGIN = re.compile(rb"\$(?:ORIGIN\b|\{ORIGIN\})")


@dataclass(frozen=True)
class SharedLibrary:
    """A library that is not the system's.

    Attributes:
        soname: Name by which it is needed.
        path: Real path.
        found_in: Directory as it was searched. Another spelling is another library, except for `..`.
        by: "rpath", "runpath", "LD_LIBRARY_PATH", or "path" if it is needed by a path.
    """

    soname: bytes
    path: bytes
    found_in: bytes
    by: str


@dataclass(frozen=True)
class LibraryClosure:
    """The libraries that files need.

    Attributes:
        libraries: In the order of loading.
        missing: Pairs of a name that was not found and the file that needs it.
    """

    libraries: tuple[SharedLibrary, ...]
    missing: tuple[tuple[bytes, bytes], ...]


def find_libraries(
    files: Iterable[bytes], library_path: tuple[bytes, ...] = (), system: tuple[bytes, ...] | None = None
) -> LibraryClosure:
    """Return what `files` load, and what that loads, without the system's libraries.

    The programs among the files are assumed to load the others, so that their DT_RPATH and loaded libraries count. A
    library among the files may find its own only together with its loader, as in wheels. Unreadable files, static
    files, and files that are not ELF need nothing.

    Args:
        files: Paths of programs and libraries.
        library_path: Directories of LD_LIBRARY_PATH.
        system: Directories that every node has. None for those that this host's ld.so searches.
    """
    search = _LibrarySearch(library_path, system_directories() if system is None else system)
    roots = [(path, known) for path in dict.fromkeys(files) if (known := search.read_dynamic_info(path)) is not None]
    programs = [
        _LoadedFile(real, known, None) for path, known in roots if known.is_program for real in [os.path.realpath(path)]
    ]
    names: set[bytes] = set()
    for program in programs:
        names |= search.load(program, set())
    others = [
        _LoadedFile(os.path.abspath(path), known, programs[0] if programs else None)
        for path, known in roots
        if not known.is_program
    ]
    for other in others:
        search.load(other, set(names))
    alone = {other.path for other in others}
    missing = (each for each in search.missing if each[1] not in alone or not search.is_satisfied(*each))
    return LibraryClosure(tuple(search.libraries.values()), tuple(missing))


def system_directories(conf: bytes = b"/etc/ld.so.conf") -> tuple[bytes, ...]:
    """Return the directories that ld.so(8) searches by default on this host, those in `conf` first."""
    found = list(_parse_ld_so_conf(conf, set()))
    for directory in DEFAULT_DIRECTORIES:
        found += sorted(glob.glob(directory + b"/*-linux-*/"))
        found.append(directory)
    return tuple(dict.fromkeys(each.rstrip(b"/") for each in found if os.path.isdir(each)))


def _parse_ld_so_conf(conf: bytes, seen: set[bytes]) -> Iterator[bytes]:
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
                    yield from _parse_ld_so_conf(other, seen)
        else:
            yield from (word.partition(b"=")[0] for word in words if word.startswith(b"/"))


class _LoadedFile(NamedTuple):
    """A file in a process, and the file that loaded it."""

    path: bytes
    dynamic: DynamicInfo
    loader: _LoadedFile | None

    def expand(self, entries: tuple[bytes, ...]) -> Iterator[bytes]:
        """Yield run path entries as directories, without those that depend on another ld.so or on the process."""
        for entry in entries:
            if b"$" not in ORIGIN.sub(b"", entry):
                directory = ORIGIN.sub(lambda _: os.path.dirname(self.path), entry)
                if directory.startswith(b"/"):
                    yield directory


class _LibrarySearch:
    """A search for libraries, with a cache of what was read and found."""

    def __init__(self, library_path: tuple[bytes, ...], system: tuple[bytes, ...]) -> None:
        self.libraries: dict[SharedLibrary, SharedLibrary] = {}
        self.missing: dict[tuple[bytes, bytes], None] = {}
        self._library_path = tuple(each for each in library_path if each.startswith(b"/") and b"$" not in each)
        self._system = system
        self._own = tuple(os.path.realpath(each) + b"/" for each in system)
        self._known: dict[bytes, DynamicInfo | None] = {}
        self._satisfied: set[tuple[bytes, bytes]] = set()

    def load(self, root: _LoadedFile, names: set[bytes]) -> set[bytes]:
        """Record what `root` loads into a process that has `names`. Return the names that it has afterwards."""
        names.add(root.dynamic.soname)
        waiting = [root]
        for file in waiting:  # grows in the loop: breadth first, as in ld.so
            for name in file.dynamic.needed:
                if name not in names and not LOADER.match(os.path.basename(name)):
                    path, by = self._find(name, file)
                    known = self.read_dynamic_info(path) if path else None
                    if known is None:
                        self.missing[name, file.path] = None
                        continue
                    names |= {name, known.soname}
                    if by and not self._is_system_library(path):
                        one = SharedLibrary(name, os.path.realpath(path), os.path.dirname(path), by)
                        self.libraries.setdefault(replace(one, found_in=os.path.normpath(one.found_in)), one)
                        waiting.append(_LoadedFile(path, known, file))
                self._satisfied.add((name, os.path.realpath(file.path)))
        return names

    def is_satisfied(self, name: bytes, path: bytes) -> bool:
        """Return whether the file at `path` found `name` in any process."""
        return (name, os.path.realpath(path)) in self._satisfied

    def read_dynamic_info(self, path: bytes) -> DynamicInfo | None:
        """Return what a file needs, or None. Each file is read once, whatever its names."""
        real = os.path.realpath(path)
        if real not in self._known:
            self._known[real] = _read(real)
        return self._known[real]

    def _find(self, name: bytes, file: _LoadedFile) -> tuple[bytes, str]:
        """Return the path of `name` for `file`, or b"", and how it was found, "" for the system's directories."""
        if b"/" in name:
            return next(file.expand((name,)), b""), "path"
        for directory, by in self._search_directories(file):
            known = self.read_dynamic_info(path := os.path.join(directory, name))
            if known is not None and known.abi == file.dynamic.abi:
                return path, by
        return b"", ""

    def _search_directories(self, file: _LoadedFile) -> Iterator[tuple[bytes, str]]:
        if not file.dynamic.runpath:
            one: _LoadedFile | None = file
            while one is not None:
                if not one.dynamic.runpath:
                    yield from ((directory, "rpath") for directory in one.expand(one.dynamic.rpath))
                one = one.loader
        yield from ((directory, "LD_LIBRARY_PATH") for directory in self._library_path)
        yield from ((directory, "runpath") for directory in file.expand(file.dynamic.runpath))
        yield from ((directory, "") for directory in self._system)

    def _is_system_library(self, path: bytes) -> bool:
        """Return whether the file, or the link to it, is in or below one of the system's directories."""
        return any(each.startswith(self._own) for each in (os.path.realpath(path), _real_directory(path)))


def _real_directory(path: bytes) -> bytes:
    return os.path.realpath(os.path.dirname(path)) + b"/"


def _read(path: bytes) -> DynamicInfo | None:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a FIFO would block
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

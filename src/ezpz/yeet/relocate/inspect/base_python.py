"""Inspect the installation of the base interpreter, and select what is embedded as `.python`."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ezpz.agent.common.text import format_bytes, printable_path
from ezpz.errors import InterpreterBroken, NoSpace
from ezpz.yeet.relocate.extra_entries import ExtraEntries
from ezpz.yeet.relocate.inspect.shared_libraries import find_libraries
from ezpz.yeet.relocate.layout import PYTHON_DIRECTORY
from ezpz.yeet.source.link_policy import SHARED_PREFIXES, is_below

if TYPE_CHECKING:
    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.relocate.inspect.interpreter import Interpreter
    from ezpz.yeet.relocate.inspect.shared_libraries import SharedLibrary
    from ezpz.yeet.source.scan import Scan

NOT_NEEDED = ("test", "tests", "idle_test", "turtledemo", "*.a", "*.opt-1.pyc", "*.opt-2.pyc")
SITE_DIRECTORIES = ("/site-packages", "/dist-packages")
SITE_LIMIT = 2 << 30  # bytes of the base's own site-packages that are included
EXTENSION_MODULES = b"/lib-dynload/"  # the extension modules of the standard library


@dataclass(slots=True)
class BasePython:
    """What embedding adds, and where it comes from.

    Attributes:
        interpreter: The environment's interpreter.
        prefixes: All names of the top of the installation.
        executable: Name of the real python in `.python/bin`.
        scan: Its entries. Closed after use.
        libraries: Directories outside of the installation whose libraries are included, as they are searched.
        needs_library_path: Whether it finds some of its libraries only by LD_LIBRARY_PATH.
        site_packages: Bytes of its own packages that are included. 0 without `include-system-site-packages`.
    """

    interpreter: Interpreter
    prefixes: tuple[bytes, ...]
    executable: bytes
    scan: Scan = field(repr=False)
    libraries: tuple[bytes, ...] = ()
    needs_library_path: bool = False
    site_packages: int = 0

    @property
    def is_common(self) -> bool:
        """Whether other software shares the top of the installation, so that its path in a text proves nothing."""
        return any(prefix in SHARED_PREFIXES for prefix in self.prefixes)

    @property
    def python(self) -> bytes:
        """Path of the embedded python in the tree."""
        return os.path.join(PYTHON_DIRECTORY, b"bin", self.executable)

    def moves(self, destination: bytes) -> dict[bytes, bytes]:
        """Return every old directory with its new one below `destination`."""
        top = os.path.join(destination, PYTHON_DIRECTORY)
        return {**dict.fromkeys(self.libraries, os.path.join(top, b"lib")), **dict.fromkeys(self.prefixes, top)}


def installation_prefixes(home: bytes, *more: bytes) -> tuple[bytes, ...]:
    """Return all names of the top of an installation.

    The directory of the executable can be one of links to programs, as ~/.local/bin, which is not an installation's.

    Args:
        home: Directory of its executable.
        more: Other names of the top.
    """
    tops = [os.path.realpath(path) for path in more]
    directories = [os.path.dirname(path.rstrip(b"/")) for path in (home, os.path.realpath(home)) if home]
    directories = [path for path in directories if os.path.realpath(path) in tops or _has_library(path)]
    return tuple(dict.fromkeys(name for name in (*more, *tops, *directories) if name not in (b"", b"/")))


def _has_library(top: bytes) -> bool:
    return bool(glob.glob(os.path.join(glob.escape(top), b"lib*/python3*/os.py")))


def inspect_base(
    interpreter: Interpreter,
    home: bytes,
    *,
    with_site_packages: bool,
    library_path: tuple[bytes, ...],
    cancel: CancelToken | None = None,
) -> BasePython:
    """Inspect the installation of an environment's python, and scan what would be embedded.

    Args:
        interpreter: The environment's interpreter.
        home: Directory of its executable as `pyvenv.cfg` names it.
        with_site_packages: Include its own packages.
        library_path: LD_LIBRARY_PATH, which it may need.
        cancel: Stops the scan when it is set.

    Raises:
        InterpreterBroken: A library that it needs is not found.
        NoSpace: Its packages are too large.
        SourceUnreadable, SourceChanged, `Cancelled`: See `scan_directory`.
    """
    prefixes = installation_prefixes(home, interpreter.base_prefix)
    extra = ExtraEntries(cancel)
    real = interpreter.base_executable
    executable = os.path.basename(real)
    extra.add_file(os.path.join(PYTHON_DIRECTORY, b"bin", executable), real)
    for name in {b"python", b"python3"} - {executable}:
        extra.add_link(os.path.join(PYTHON_DIRECTORY, b"bin", name), executable, os.stat(real).st_mtime_ns)
    elf_files = [real]
    standard_library = tuple(dict.fromkeys((interpreter.stdlib, interpreter.platstdlib)))
    elsewhere = (
        path for path in interpreter.dynload if not any(is_below(path, directory) for directory in standard_library)
    )
    for directory in filter(os.path.isdir, (*standard_library, *elsewhere)):
        found = extra.add_directory(_embedded_path(directory, prefixes), directory, (*NOT_NEEDED, *SITE_DIRECTORIES))
        elf_files += [path for path in found if EXTENSION_MODULES in path]
    before = extra.scan.size
    for directory in interpreter.base_site_packages if with_site_packages else ():
        extra.add_directory(_embedded_path(directory, prefixes), directory)
    site_packages = extra.scan.size - before
    if site_packages > SITE_LIMIT:
        raise NoSpace(
            f"the packages of the base interpreter in '{printable_path(prefixes[0])}' hold "
            f"{format_bytes(site_packages)}",
            hint="--base keep leaves them where they are",
        )
    libraries = _find_libraries(elf_files, library_path)
    outside = _add_libraries(extra, libraries, prefixes)
    needs_library_path = any(library.by == "LD_LIBRARY_PATH" for library in libraries)
    return BasePython(interpreter, prefixes, executable, extra.scan, outside, needs_library_path, site_packages)


def _find_libraries(elf_files: list[bytes], library_path: tuple[bytes, ...]) -> tuple[SharedLibrary, ...]:
    """Return the shared libraries that python, the first of `elf_files`, and its modules need."""
    needed = find_libraries(elf_files, library_path)
    for soname, file in needed.missing:
        if file == elf_files[0]:
            raise InterpreterBroken(
                f"{os.fsdecode(soname)}, which '{printable_path(file)}' needs, is not found",
                hint="load the module that it was made with (module load ...), then run it again",
            )
    return needed.libraries


def _add_libraries(
    extra: ExtraEntries, libraries: tuple[SharedLibrary, ...], prefixes: tuple[bytes, ...]
) -> tuple[bytes, ...]:
    """Add the libraries, and return the directories of those outside of the installation."""
    outside: list[bytes] = []
    for library in libraries:
        directory = _library_directory(library, prefixes)
        if directory is None:
            outside += [library.found_in, os.path.realpath(library.found_in)]
        extra.add_file(os.path.join(PYTHON_DIRECTORY, directory or b"lib", library.soname), library.path)
    return tuple(dict.fromkeys(outside))


def _library_directory(library: SharedLibrary, prefixes: tuple[bytes, ...]) -> bytes | None:
    """Return the directory of a library relative to the installation, or None if it is outside."""
    for path in (os.path.realpath(library.found_in), library.found_in):
        for prefix in prefixes:
            if is_below(path, prefix):
                return os.path.relpath(path, prefix)
    return None


def _embedded_path(directory: bytes, prefixes: tuple[bytes, ...]) -> bytes:
    """Return the path in the tree of a directory of the installation."""
    for path in (directory, os.path.realpath(directory)):
        for prefix in sorted(prefixes, key=len, reverse=True):
            if is_below(path, prefix):
                return os.path.join(PYTHON_DIRECTORY, os.path.relpath(path, prefix))
    return os.path.join(PYTHON_DIRECTORY, b"lib", os.path.basename(directory))

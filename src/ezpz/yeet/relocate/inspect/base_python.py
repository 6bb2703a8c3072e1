"""Base: the interpreter's own installation, and what of it comes along as `.python` in the environment."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ezpz.agent.common.text import format_bytes, printable_path
from ezpz.errors import InterpreterBroken, NoSpace
from ezpz.yeet.relocate.extra_entries import ExtraEntries
from ezpz.yeet.relocate.inspect.shared_libraries import SharedLibrary, closure
from ezpz.yeet.relocate.layout import PYTHON_DIRECTORY
from ezpz.yeet.source.link_policy import SHARED_PREFIXES, is_below

if TYPE_CHECKING:
    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.relocate.inspect.interpreter import Interpreter
    from ezpz.yeet.source.scan import Scan

NOT_NEEDED = ("test", "tests", "idle_test", "turtledemo", "*.a", "*.opt-1.pyc", "*.opt-2.pyc")
SITE_FOLDERS = ("/site-packages", "/dist-packages")
SITE_LIMIT = 2 << 30  # bytes of the base's own site-packages that come along without asking
DYNLOAD = b"/lib-dynload/"  # the extension modules of the standard library


@dataclass(slots=True)
class BasePython:
    """What embedding brings, counted, and where it comes from.

    prefixes: every name of the installation's top; executable: the name of the real python in `.python/bin`
    libraries: folders outside of the installation whose libraries come along, as they are searched
    by_environment: whether it finds some of its libraries only by LD_LIBRARY_PATH
    site_packages: bytes of its own packages that come along, 0 without `include-system-site-packages`
    """

    interpreter: Interpreter
    prefixes: tuple[bytes, ...]
    executable: bytes
    scan: Scan = field(repr=False)
    libraries: tuple[bytes, ...] = ()
    by_environment: bool = False
    site_packages: int = 0

    @property
    def is_common(self) -> bool:
        """Whether the installation's top is a folder that is everybody's, so that its name in a text says nothing."""
        return any(prefix in SHARED_PREFIXES for prefix in self.prefixes)

    @property
    def python(self) -> bytes:
        """Where the embedded python is in the tree."""
        return os.path.join(PYTHON_DIRECTORY, b"bin", self.executable)

    def moves(self, destination: bytes) -> dict[bytes, bytes]:
        """Every old folder and the new one below `destination`."""
        top = os.path.join(destination, PYTHON_DIRECTORY)
        return {**dict.fromkeys(self.libraries, os.path.join(top, b"lib")), **dict.fromkeys(self.prefixes, top)}


def prefixes_of(home: bytes, *more: bytes) -> tuple[bytes, ...]:
    """Every name of an installation's top, from other names of it and the folder of its executable.

    That may be a folder of links to programs, as ~/.local/bin, which is no installation's.
    """
    tops = [os.path.realpath(path) for path in more]
    folders = [os.path.dirname(path.rstrip(b"/")) for path in (home, os.path.realpath(home)) if home]
    folders = [path for path in folders if os.path.realpath(path) in tops or _has_library(path)]
    return tuple(dict.fromkeys(name for name in (*more, *tops, *folders) if name not in (b"", b"/")))


def _has_library(top: bytes) -> bool:
    return bool(glob.glob(os.path.join(glob.escape(top), b"lib*/python3*/os.py")))


def base_of(
    interpreter: Interpreter,
    home: bytes,
    *,
    with_site_packages: bool,
    library_path: tuple[bytes, ...],
    cancel: CancelToken | None = None,
) -> BasePython:
    """Look at the installation that an environment's python belongs to, and count what would come along.

    home: the folder of its executable as `pyvenv.cfg` names it; library_path: LD_LIBRARY_PATH, which it may need

    Raises InterpreterBroken when a library that it needs cannot be found, NoSpace when its site-packages are too
    large, and what `scan` raises.
    """
    prefixes = prefixes_of(home, interpreter.base_prefix)
    grafts = ExtraEntries(cancel)
    real = interpreter.base_executable
    executable = os.path.basename(real)
    grafts.add_file(os.path.join(PYTHON_DIRECTORY, b"bin", executable), real)
    for name in {b"python", b"python3"} - {executable}:
        grafts.add_link(os.path.join(PYTHON_DIRECTORY, b"bin", name), executable, os.stat(real).st_mtime_ns)
    elves = [real]
    whole = tuple(dict.fromkeys((interpreter.stdlib, interpreter.platstdlib)))
    elsewhere = (path for path in interpreter.dynload if not any(is_below(path, folder) for folder in whole))
    for folder in filter(os.path.isdir, (*whole, *elsewhere)):
        found = grafts.add_folder(_place(folder, prefixes), folder, (*NOT_NEEDED, *SITE_FOLDERS))
        elves += [path for path in found if DYNLOAD in path]
    before = grafts.scan.size
    for folder in interpreter.base_site_packages if with_site_packages else ():
        grafts.add_folder(_place(folder, prefixes), folder)
    site_packages = grafts.scan.size - before
    if site_packages > SITE_LIMIT:
        raise NoSpace(
            f"the packages of the base interpreter in '{printable_path(prefixes[0])}' hold "
            f"{format_bytes(site_packages)}",
            hint="--base keep leaves them where they are",
        )
    libraries = _libraries(elves, library_path)
    outside = _add_libraries(grafts, libraries, prefixes)
    by_environment = any(library.by == "LD_LIBRARY_PATH" for library in libraries)
    return BasePython(interpreter, prefixes, executable, grafts.scan, outside, by_environment, site_packages)


def _libraries(elves: list[bytes], library_path: tuple[bytes, ...]) -> tuple[SharedLibrary, ...]:
    """The shared libraries that the python, which is the first of `elves`, and its modules need."""
    needed = closure(elves, library_path)
    for soname, file in needed.missing:
        if file == elves[0]:
            raise InterpreterBroken(
                f"{os.fsdecode(soname)}, which '{printable_path(file)}' needs, is not found",
                hint="load the module that it was made with (module load ...), then run it again",
            )
    return needed.libraries


def _add_libraries(
    grafts: ExtraEntries, libraries: tuple[SharedLibrary, ...], prefixes: tuple[bytes, ...]
) -> tuple[bytes, ...]:
    """Take the libraries, and return the folders of those that lie outside of the installation."""
    outside: list[bytes] = []
    for library in libraries:
        folder = _library_folder(library, prefixes)
        if folder is None:
            outside += [library.found_in, os.path.realpath(library.found_in)]
        grafts.add_file(os.path.join(PYTHON_DIRECTORY, folder or b"lib", library.soname), library.path)
    return tuple(dict.fromkeys(outside))


def _library_folder(library: SharedLibrary, prefixes: tuple[bytes, ...]) -> bytes | None:
    """The folder of a library below the installation's top, or None for one that lies outside."""
    for path in (os.path.realpath(library.found_in), library.found_in):
        for prefix in prefixes:
            if is_below(path, prefix):
                return os.path.relpath(path, prefix)
    return None


def _place(folder: bytes, prefixes: tuple[bytes, ...]) -> bytes:
    """Where a folder of the installation comes in the tree."""
    for path in (folder, os.path.realpath(folder)):
        for prefix in sorted(prefixes, key=len, reverse=True):
            if is_below(path, prefix):
                return os.path.join(PYTHON_DIRECTORY, os.path.relpath(path, prefix))
    return os.path.join(PYTHON_DIRECTORY, b"lib", os.path.basename(folder))

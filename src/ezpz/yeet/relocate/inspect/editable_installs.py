"""Find the code outside an environment that its `.pth` files and import hooks point to. Only reads."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

from ezpz.yeet.relocate.formats import pth
from ezpz.yeet.relocate.layout import HOOK_FILE
from ezpz.yeet.source.link_policy import IMAGE_DIRECTORIES, is_below

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_READ = 4 << 20  # bytes of a file that are read; the largest real one, a scikit-build-core hook, is far below
PROJECT_LOCATIONS = (b"/opt", b"/run", b"/var/lib")  # of the image, but users have projects there as well
SYSTEM_DIRECTORIES = tuple(directory for directory in IMAGE_DIRECTORIES if directory not in PROJECT_LOCATIONS)
ARCHIVE_SUFFIXES = (b".zip", b".egg", b".whl", b".pyz")  # files that can be on sys.path
PROJECT_FILES = (b"pyproject.toml", b"setup.py", b"setup.cfg")
PROJECT_DEPTH = 6  # directories; how far above its packages the configuration of a project is searched
GENERIC_DIRECTORIES = (b"src", b"lib", b"python")  # names that do not identify a project


@dataclass(frozen=True)
class Editable:
    """Code outside an environment that its imports reach.

    Attributes:
        name: Name of the distribution if it is known, else a readable name.
        path: Absolute path of a directory, or of the file of a single module.
        on_sys_path: Whether path is a directory of sys.path, of which only the packages are included. Otherwise path is
            one package or module.
        loader: What points there: "pth", "egg-link", "setuptools", "scikit-build-core", "meson-python", "editables", or
            "direct_url" if only the installer's record does.
        rebuilds: Whether every import runs the project's build.
        declared_by: Path of the file that names it, relative to the environment.
        missing: Whether it does not exist, or cannot be read.
        project: Root of the project if it is known, else path.
        aliases: Other spellings of path in such files. For a module also its path without suffix.
    """

    name: str
    path: bytes
    on_sys_path: bool
    loader: str
    rebuilds: bool
    declared_by: bytes
    missing: bool = False
    project: bytes = b""
    aliases: tuple[bytes, ...] = ()


class _Reference(NamedTuple):
    """A path as a file of site-packages spells it."""

    spelled: bytes
    on_sys_path: bool
    loader: str
    rebuilds: bool
    file: bytes  # relative to site-packages


class _Distribution(NamedTuple):
    """A distribution that records that it is editable."""

    name: str
    root: bytes
    directory: bytes  # its .dist-info
    files: frozenset[bytes] | None  # what it installed into site-packages; None without a RECORD


def find_editables(site_packages: tuple[bytes, ...], is_inside: Callable[[bytes], bool]) -> tuple[Editable, ...]:
    """Return every path outside an environment that its site-packages point to, once, sorted by name and path.

    Paths of the operating system, such as /usr, are on every node and are left out. Nested paths are all included.

    Args:
        site_packages: Absolute paths on disk.
        is_inside: Returns whether a path belongs to the environment.
    """
    found: dict[bytes, Editable] = {}
    for directory in site_packages:
        for editable in _SitePackages(directory, is_inside).editables():
            key = editable.path if editable.missing else os.path.realpath(editable.path)
            found[key] = _merge(found[key], editable) if key in found else editable
    return tuple(sorted(found.values(), key=lambda editable: (editable.name, editable.path)))


def _merge(first: Editable, second: Editable) -> Editable:
    """Return one editable for a path that two files name.

    If one of them imports it as a package, all of it is needed.
    """
    aliases = {*first.aliases, second.path, *second.aliases} - {first.path}
    return Editable(
        name=first.name,
        path=first.path,
        on_sys_path=first.on_sys_path and second.on_sys_path,
        loader=first.loader,
        rebuilds=first.rebuilds or second.rebuilds,
        declared_by=first.declared_by,
        missing=first.missing,
        project=first.project,
        aliases=tuple(sorted(aliases)),
    )


class _SitePackages:
    """One directory of site-packages."""

    def __init__(self, directory: bytes, is_inside: Callable[[bytes], bool]) -> None:
        self.directory = directory
        self.is_inside = is_inside
        try:
            self.names = tuple(sorted(os.listdir(directory)))
        except OSError:
            self.names = ()
        self.distributions = tuple(self._distributions())

    def editables(self) -> Iterator[Editable]:
        """Yield what hooks, then egg-links, then `.pth` files name, and projects that none of these explains."""
        pths = {name: pth.parse_pth(self._read(name)) for name in self.names if name.endswith(b".pth")}
        found = [*self._references_in_hooks(pths), *self._references_in_egg_links()]
        found += (_Reference(path, True, "pth", False, name) for name, read in pths.items() for path in read.paths)
        editables = [editable for each in found if (editable := self._to_editable(each)) is not None]
        yield from editables
        explained = {each.project for each in editables}
        for distribution in self.distributions:
            if distribution.root not in explained and self._is_referenced(distribution):
                file = os.path.join(distribution.directory, b"direct_url.json")
                editable = self._to_editable(_Reference(distribution.root, True, "direct_url", False, file))
                if editable is not None:
                    yield editable

    def _references_in_hooks(self, pths: dict[bytes, pth.PthFile]) -> Iterator[_Reference]:
        """Yield the paths in modules that are named like a hook, or that a `.pth` file imports."""
        imported = {module + b".py" for read in pths.values() for module in read.imports}
        for name in self.names:
            if name in imported or HOOK_FILE.match(name):
                hook = pth.parse_hook(self._read(name))
                if hook is not None:
                    yield from (_Reference(path, False, hook.loader, hook.rebuilds, name) for path in hook.modules)
                    yield from (_Reference(path, True, hook.loader, hook.rebuilds, name) for path in hook.directories)

    def _references_in_egg_links(self) -> Iterator[_Reference]:
        """Yield the first line of each: the directory of the project's packages."""
        for name in self.names:
            if name.endswith(b".egg-link"):
                path = pth.parse_pth_line((self._read(name).splitlines() or [b""])[0])
                if path is not None:
                    yield _Reference(path, True, "egg-link", False, name)

    def _to_editable(self, found: _Reference) -> Editable | None:
        """Return the editable at a path, or None if it is inside the environment or belongs to the operating system."""
        full = os.path.normpath(os.path.join(self.directory, found.spelled))
        full = full[1:] if full.startswith(b"//") else full
        path = full if found.on_sys_path else _module_file(full)
        real = os.path.realpath(path)
        if any(self.is_inside(each) or _is_system(each) for each in (path, real)):
            return None
        is_directory = os.path.isdir(path)
        missing = not is_directory and not os.path.isfile(path)
        if found.on_sys_path and not is_directory and not missing and not path.endswith(ARCHIVE_SUFFIXES):
            return None  # nothing can be imported from such a file
        owner = self._owner_of(found.file, real)
        project = owner.root if owner is not None else _project_of(path)
        aliases = {full, found.spelled} - {path} if found.spelled.startswith(b"/") else set()
        return Editable(
            name=owner.name if owner is not None else _name_of(found, project),
            path=project if found.loader == "meson-python" else path,
            on_sys_path=found.on_sys_path and (is_directory or missing),
            loader=found.loader,
            rebuilds=found.rebuilds,
            declared_by=os.path.join(self._relative_path(), found.file),
            missing=missing,
            project=project,
            aliases=tuple(sorted(aliases)),
        )

    def _owner_of(self, file: bytes, path: bytes) -> _Distribution | None:
        """Return the editable distribution that installed a file, else the one whose root contains a path."""
        owners = [each for each in self.distributions if file in (each.files or ()) or file.startswith(each.directory)]
        above = (each for each in self.distributions if is_below(path, os.path.realpath(each.root)))
        return owners[0] if owners else max(above, key=lambda each: len(each.root), default=None)

    def _is_referenced(self, distribution: _Distribution) -> bool:
        """Return whether anything that a distribution installed names its root. True without a RECORD.

        Its record alone is no proof: maturin installs the compiled module itself, and the root is not used.
        """
        if distribution.files is None:
            return True
        files = (name for name in distribution.files if name.endswith((b".pth", b".py")))
        return any(distribution.root in self._read(name) for name in files)

    def _distributions(self) -> Iterator[_Distribution]:
        """Yield the distributions whose direct_url.json says that they are editable."""
        for directory in self.names:
            if not directory.endswith(b".dist-info"):
                continue
            root = _editable_root(self._read(os.path.join(directory, b"direct_url.json")))
            if root is not None:
                record = self._read(os.path.join(directory, b"RECORD"))
                files = frozenset(line.split(b",")[0] for line in record.splitlines())
                metadata = self._read(os.path.join(directory, b"METADATA"))
                named = re.search(rb"^Name:[ \t]*([\w.-]+)", metadata, re.MULTILINE)
                name = named.group(1) if named else directory.removesuffix(b".dist-info").rsplit(b"-", 1)[0]
                yield _Distribution(_printable(name), root, directory, files if record else None)

    def _relative_path(self) -> bytes:
        """Return the path of site-packages relative to the environment: the highest directory that is inside."""
        root = self.directory
        while os.path.dirname(root) != root and self.is_inside(os.path.dirname(root)):
            root = os.path.dirname(root)
        return b"" if root == self.directory else os.path.relpath(self.directory, root)

    def _read(self, name: bytes) -> bytes:
        """Return the complete lines at the beginning of a file, or nothing if it cannot be read or does not exist."""
        full = os.path.join(self.directory, name)
        try:
            if not os.path.isfile(full):  # opening a FIFO would block
                return b""
            with open(full, "rb") as file:
                data = file.read(MAX_READ + 1)
        except OSError:
            return b""
        return data if len(data) <= MAX_READ else data[: data.rfind(b"\n", 0, MAX_READ) + 1]


def _module_file(path: bytes) -> bytes:
    """Return the file of a module that is named without its suffix, else the path itself."""
    if os.path.exists(path):
        return path
    if os.path.isfile(path + b".py"):
        return path + b".py"
    directory, stem = os.path.split(path)
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return path
    files = (os.path.join(directory, name) for name in names if name.startswith(stem + b".") and name.endswith(b".so"))
    return next(files, path)


def _editable_root(data: bytes) -> bytes | None:
    """Return the directory that a direct_url.json calls editable (PEP 610), or None."""
    try:
        record = json.loads(data)
        if record["dir_info"]["editable"] is not True:
            return None
        url = urlsplit(record["url"])
        below = record.get("subdirectory", "").encode("utf-8", "surrogateescape")
        path = unquote_to_bytes(url.path.encode("utf-8", "surrogateescape"))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    if url.scheme != "file" or not path.startswith(b"/") or b"\0" in path + below:
        return None
    return b"/" + os.path.normpath(os.path.join(path, below)).lstrip(b"/")


def _project_of(path: bytes) -> bytes:
    """Return the nearest directory at or above a path with the configuration of a project, else the path."""
    directory = path
    for _ in range(PROJECT_DEPTH):
        if any(os.path.isfile(os.path.join(directory, name)) for name in PROJECT_FILES):
            return directory
        directory = os.path.dirname(directory)
    return path


def _name_of(found: _Reference, project: bytes) -> str:
    """Return a name for what no editable distribution claims."""
    if found.loader == "egg-link":
        return _printable(found.file.removesuffix(b".egg-link"))
    directory, last = os.path.split(project)
    return _printable(os.path.basename(directory) or last if last in GENERIC_DIRECTORIES else last)


def _printable(name: bytes) -> str:
    text = name.decode("utf-8", "replace")
    return "".join(c for c in text if c.isprintable()) or "?"


def _is_system(path: bytes) -> bool:
    return path == b"/" or any(is_below(path, directory) for directory in SYSTEM_DIRECTORIES)

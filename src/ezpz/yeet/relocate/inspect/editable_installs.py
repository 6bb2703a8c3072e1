"""Editable installs: which code outside an environment its `.pth` files and import hooks lead to. Only reads."""

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

READ_LIMIT = 4 << 20  # bytes of a file that are read; the largest real one, a scikit-build-core hook, is far below
DEVELOPED_IN = (b"/opt", b"/run", b"/var/lib")  # of the image, but where people keep projects of their own as well
SYSTEM = tuple(folder for folder in IMAGE_DIRECTORIES if folder not in DEVELOPED_IN)
ZIPPED = (b".zip", b".egg", b".whl", b".pyz")  # files that may stand on sys.path
PROJECT_FILES = (b"pyproject.toml", b"setup.py", b"setup.cfg")
PROJECT_DEPTH = 6  # folders; how far above its packages a project's pyproject.toml is looked for
PLAIN_FOLDERS = (b"src", b"lib", b"python")  # which say nothing about the project


@dataclass(frozen=True)
class Editable:
    """Code outside an environment that its imports are led to.

    name: for people; the distribution's name if it can be told
    path: absolute; a directory, or the file of a single module
    whole: a directory of sys.path, of which only the packages are wanted; else path is one package or module itself
    loader: what leads there: "pth", "egg-link", "setuptools", "scikit-build-core", "meson-python", "editables",
        or "direct_url" when only the installer's record tells
    rebuilds: every import runs the project's build
    declared_by: the file that names it, relative to the environment
    missing: it is not there, or cannot be seen
    project: the project's root, as far as it can be told; else path
    aliases: other spellings of path in such files; for a module also path without its suffix
    """

    name: str
    path: bytes
    whole: bool
    loader: str
    rebuilds: bool
    declared_by: bytes
    missing: bool = False
    project: bytes = b""
    aliases: tuple[bytes, ...] = ()


class _Found(NamedTuple):
    """A path as a file of site-packages spells it."""

    spelled: bytes
    whole: bool
    loader: str
    rebuilds: bool
    file: bytes  # relative to site-packages


class _Distribution(NamedTuple):
    """A distribution that says of itself that it is editable."""

    name: str
    root: bytes
    folder: bytes  # its .dist-info
    files: frozenset[bytes] | None  # what it has put directly into site-packages; None when it has no RECORD


def find_editables(site_packages: tuple[bytes, ...], is_inside: Callable[[bytes], bool]) -> tuple[Editable, ...]:
    """Every path outside an environment that its site-packages lead to, each once, by name and path.

    site_packages: absolute paths on disk
    is_inside: whether a path belongs to the environment itself
    What the operating system has, such as /usr, is on every node and is none. Nested paths are all there.
    """
    found: dict[bytes, Editable] = {}
    for folder in site_packages:
        for editable in _Site(folder, is_inside).editables():
            key = editable.path if editable.missing else os.path.realpath(editable.path)
            found[key] = _merged(found[key], editable) if key in found else editable
    return tuple(sorted(found.values(), key=lambda editable: (editable.name, editable.path)))


def _merged(first: Editable, second: Editable) -> Editable:
    """One path that two files name: what imports it as a package needs all of it."""
    aliases = {*first.aliases, second.path, *second.aliases} - {first.path}
    return Editable(
        name=first.name,
        path=first.path,
        whole=first.whole and second.whole,
        loader=first.loader,
        rebuilds=first.rebuilds or second.rebuilds,
        declared_by=first.declared_by,
        missing=first.missing,
        project=first.project,
        aliases=tuple(sorted(aliases)),
    )


class _Site:
    """One directory of site-packages."""

    def __init__(self, folder: bytes, is_inside: Callable[[bytes], bool]) -> None:
        self.folder = folder
        self.is_inside = is_inside
        try:
            self.names = tuple(sorted(os.listdir(folder)))
        except OSError:
            self.names = ()
        self.distributions = tuple(self._distributions())

    def editables(self) -> Iterator[Editable]:
        """What hooks, then egg-links, then `.pth` files name; and projects that nothing of these explains."""
        pths = {name: pth.pth(self._read(name)) for name in self.names if name.endswith(b".pth")}
        found = [*self._by_hooks(pths), *self._by_egg_links()]
        found += (_Found(path, True, "pth", False, name) for name, read in pths.items() for path in read.paths)
        editables = [editable for each in found if (editable := self._editable(each)) is not None]
        yield from editables
        explained = {each.project for each in editables}
        for distribution in self.distributions:
            if distribution.root not in explained and self._is_led_to(distribution):
                file = os.path.join(distribution.folder, b"direct_url.json")
                editable = self._editable(_Found(distribution.root, True, "direct_url", False, file))
                if editable is not None:
                    yield editable

    def _by_hooks(self, pths: dict[bytes, pth.Pth]) -> Iterator[_Found]:
        """The paths in modules that are named like a hook, or that a `.pth` file imports."""
        imported = {module + b".py" for read in pths.values() for module in read.imports}
        for name in self.names:
            if name in imported or HOOK_FILE.match(name):
                hook = pth.hook(self._read(name))
                if hook is not None:
                    yield from (_Found(path, False, hook.loader, hook.rebuilds, name) for path in hook.singles)
                    yield from (_Found(path, True, hook.loader, hook.rebuilds, name) for path in hook.folders)

    def _by_egg_links(self) -> Iterator[_Found]:
        """The first line of each: the directory that holds the project's packages."""
        for name in self.names:
            if name.endswith(b".egg-link"):
                path = pth.pth_path((self._read(name).splitlines() or [b""])[0])
                if path is not None:
                    yield _Found(path, True, "egg-link", False, name)

    def _editable(self, found: _Found) -> Editable | None:
        """What a found path is, or None when it is not outside the environment, or is the operating system's."""
        full = os.path.normpath(os.path.join(self.folder, found.spelled))
        full = full[1:] if full.startswith(b"//") else full
        path = full if found.whole else _module(full)
        real = os.path.realpath(path)
        if any(self.is_inside(each) or _is_system(each) for each in (path, real)):
            return None
        is_folder = os.path.isdir(path)
        missing = not is_folder and not os.path.isfile(path)
        if found.whole and not is_folder and not missing and not path.endswith(ZIPPED):
            return None  # a file that nothing can be imported from
        owner = self._owner(found.file, real)
        project = owner.root if owner is not None else _project(path)
        aliases = {full, found.spelled} - {path} if found.spelled.startswith(b"/") else set()
        return Editable(
            name=owner.name if owner is not None else _name(found, project),
            path=project if found.loader == "meson-python" else path,
            whole=found.whole and (is_folder or missing),
            loader=found.loader,
            rebuilds=found.rebuilds,
            declared_by=os.path.join(self._place(), found.file),
            missing=missing,
            project=project,
            aliases=tuple(sorted(aliases)),
        )

    def _owner(self, file: bytes, path: bytes) -> _Distribution | None:
        """The editable distribution that has installed a file, else the one in whose root a path lies."""
        owners = [each for each in self.distributions if file in (each.files or ()) or file.startswith(each.folder)]
        above = (each for each in self.distributions if is_below(path, os.path.realpath(each.root)))
        return owners[0] if owners else max(above, key=lambda each: len(each.root), default=None)

    def _is_led_to(self, distribution: _Distribution) -> bool:
        """Whether anything that a distribution has installed names its root; taken for granted without a RECORD.

        Its record alone means nothing: maturin installs the compiled module itself, and nothing looks at the root.
        """
        if distribution.files is None:
            return True
        files = (name for name in distribution.files if name.endswith((b".pth", b".py")))
        return any(distribution.root in self._read(name) for name in files)

    def _distributions(self) -> Iterator[_Distribution]:
        """The distributions whose direct_url.json says that they are editable."""
        for folder in self.names:
            if not folder.endswith(b".dist-info"):
                continue
            root = _editable_root(self._read(os.path.join(folder, b"direct_url.json")))
            if root is not None:
                record = self._read(os.path.join(folder, b"RECORD"))
                files = frozenset(line.split(b",")[0] for line in record.splitlines())
                metadata = self._read(os.path.join(folder, b"METADATA"))
                named = re.search(rb"^Name:[ \t]*([\w.-]+)", metadata, re.MULTILINE)
                name = named.group(1) if named else folder.removesuffix(b".dist-info").rsplit(b"-", 1)[0]
                yield _Distribution(_printable(name), root, folder, files if record else None)

    def _place(self) -> bytes:
        """Where site-packages is, relative to the environment: the highest directory that is inside."""
        root = self.folder
        while os.path.dirname(root) != root and self.is_inside(os.path.dirname(root)):
            root = os.path.dirname(root)
        return b"" if root == self.folder else os.path.relpath(self.folder, root)

    def _read(self, name: bytes) -> bytes:
        """The whole lines at the beginning of a file, or nothing when it cannot be read or is none."""
        full = os.path.join(self.folder, name)
        try:
            if not os.path.isfile(full):  # opening a FIFO would block
                return b""
            with open(full, "rb") as file:
                data = file.read(READ_LIMIT + 1)
        except OSError:
            return b""
        return data if len(data) <= READ_LIMIT else data[: data.rfind(b"\n", 0, READ_LIMIT) + 1]


def _module(path: bytes) -> bytes:
    """The file of a module that is named without its suffix; else the path itself."""
    if os.path.exists(path):
        return path
    if os.path.isfile(path + b".py"):
        return path + b".py"
    folder, stem = os.path.split(path)
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return path
    files = (os.path.join(folder, name) for name in names if name.startswith(stem + b".") and name.endswith(b".so"))
    return next(files, path)


def _editable_root(data: bytes) -> bytes | None:
    """The directory that a direct_url.json calls editable (PEP 610), or None."""
    try:
        told = json.loads(data)
        if told["dir_info"]["editable"] is not True:
            return None
        url = urlsplit(told["url"])
        below = told.get("subdirectory", "").encode("utf-8", "surrogateescape")
        path = unquote_to_bytes(url.path.encode("utf-8", "surrogateescape"))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    if url.scheme != "file" or not path.startswith(b"/") or b"\0" in path + below:
        return None
    return b"/" + os.path.normpath(os.path.join(path, below)).lstrip(b"/")


def _project(path: bytes) -> bytes:
    """The nearest directory around a path that holds a project's configuration, else the path."""
    folder = path
    for _ in range(PROJECT_DEPTH):
        if any(os.path.isfile(os.path.join(folder, name)) for name in PROJECT_FILES):
            return folder
        folder = os.path.dirname(folder)
    return path


def _name(found: _Found, project: bytes) -> str:
    """A name for what no editable distribution claims."""
    if found.loader == "egg-link":
        return _printable(found.file.removesuffix(b".egg-link"))
    folder, last = os.path.split(project)
    return _printable(os.path.basename(folder) or last if last in PLAIN_FOLDERS else last)


def _printable(name: bytes) -> str:
    text = name.decode("utf-8", "replace")
    return "".join(c for c in text if c.isprintable()) or "?"


def _is_system(path: bytes) -> bool:
    return path == b"/" or any(is_below(path, folder) for folder in SYSTEM)

"""Parse `.pth` files and the import hooks of build backends, without executing them, and rewrite `.pth` files."""

from __future__ import annotations

import ast
import os
import re
import warnings
from typing import TYPE_CHECKING, NamedTuple

from ezpz.yeet.relocate.formats.prefix import MAX_PATH

if TYPE_CHECKING:
    from collections.abc import Callable

    from ezpz.yeet.relocate.layout import Move

BOM = b"\xef\xbb\xbf"
IMPORTED = re.compile(rb"\bimport\s+([\w.]+(?:\s*,\s*[\w.]+)*)")


class ImportHook(NamedTuple):
    """A module that redirects imports.

    Attributes:
        loader: The build backend that created it.
        modules: Paths of packages and modules as written. Setuptools omits the suffix of a module.
        directories: Directories that contain packages.
        rebuilds: Whether it runs the build again when they are imported.
    """

    loader: str
    modules: tuple[bytes, ...] = ()
    directories: tuple[bytes, ...] = ()
    rebuilds: bool = False


class PthFile(NamedTuple):
    """The content of a `.pth` file.

    Attributes:
        paths: The paths it adds to sys.path, as written.
        imports: The modules it imports.
    """

    paths: tuple[bytes, ...]
    imports: tuple[bytes, ...]


def parse_pth(data: bytes) -> PthFile:
    """Parse a `.pth` file as `site` does."""
    paths: list[bytes] = []
    imports: list[bytes] = []
    for line in data.removeprefix(BOM).splitlines():
        if line.startswith((b"import ", b"import\t")):
            imports += (name.strip() for found in IMPORTED.findall(line) for name in found.split(b","))
        elif (path := parse_pth_line(line)) is not None:
            paths.append(path)
    return PthFile(tuple(dict.fromkeys(paths)), tuple(dict.fromkeys(imports)))


def parse_pth_line(line: bytes) -> bytes | None:
    """Return the path in a line of a `.pth` file, or None."""
    path = line.rstrip()
    if not path or path.startswith((b"#", b"import ", b"import\t")):
        return None
    return path if len(path) <= MAX_PATH and min(path) >= 0x20 else None


def parse_hook(source: bytes) -> ImportHook | None:
    """Return what a module redirects imports to, or None if it is not a hook of a known build backend."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # garbage, NUL bytes, or nested too deeply
        return None
    return _setuptools(module) or _meson_python(module) or _scikit_build_core(module) or _editables(module)


def _setuptools(module: ast.Module) -> ImportHook | None:
    """Parse the hook of setuptools.

    `MAPPING = {'a': '/src/a'}`, `NAMESPACES = {'n': ['/src/n']}`. Newer versions annotate both.
    """
    values: dict[str, object] = {}
    for statement in module.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(targets[0], ast.Name):
            values.setdefault(targets[0].id, _literal(statement.value))
    if not {"MAPPING", "NAMESPACES"} <= values.keys():
        return None
    return ImportHook("setuptools", (*_paths(values["MAPPING"]), *_paths(values["NAMESPACES"])))


def _meson_python(module: ast.Module) -> ImportHook | None:
    """Parse the hook of meson-python.

    `install({'a'}, '/build', ['ninja'], False)` up to 0.15, `MesonpyMetaFinder('a', {'a'}, '/build', ...)` since.
    """
    if not any(isinstance(part, ast.ClassDef) and part.name == "MesonpyMetaFinder" for part in module.body):
        return None
    builds: list[bytes] = []
    for call in _calls(module, "install") + _calls(module, "MesonpyMetaFinder"):
        builds += (path for value in call.args if isinstance(value, ast.Constant) for path in _paths(value.value))
    return ImportHook("meson-python", directories=tuple(builds[-1:]), rebuilds=True)


def _scikit_build_core(module: ast.Module) -> ImportHook | None:
    """Parse the hook of scikit-build-core.

    `install({'a': '/src/a/__init__.py'}, {'a._c': 'a/_c.so'}, ...)`, or `install_inplace(['a'], ['/src'], ...)`.
    """
    redirected, inplace = _calls(module, "install", at_top=True), _calls(module, "install_inplace", at_top=True)
    for call in redirected + inplace:
        values = [_literal(argument) for argument in call.args]
        named = {word.arg: _literal(word.value) for word in call.keywords}
        # `rebuild` was the fourth argument up to 0.11 and is the sixth since; it has always been the first bool.
        rebuilds = named.get("rebuild", next((value for value in values if isinstance(value, bool)), False)) is True
        if call in inplace and len(values) > 1:
            return ImportHook("scikit-build-core", directories=_paths(values[1]), rebuilds=rebuilds)
        if len(values) > 1 and isinstance(values[0], dict) and isinstance(values[1], dict):
            targets = [_package_of(path) for value in values[:2] for path in _paths(value)]
            data = _paths(values[2]) if len(values) > 2 and isinstance(values[2], dict) else ()
            return ImportHook("scikit-build-core", _topmost((*targets, *data)), rebuilds=rebuilds)
    return None


def _editables(module: ast.Module) -> ImportHook | None:
    """Parse the hook of editables, the library that hatchling and pdm-backend use.

    `F.map_module('a', '/src/a/__init__.py')`.
    """
    mapped = [call.args[1] for call in _calls(module, "map_module", at_top=True) if len(call.args) == 2]
    paths = [_package_of(path) for value in mapped for path in _paths(_literal(value))]
    return ImportHook("editables", _topmost(tuple(paths))) if mapped else None


def _calls(module: ast.Module, name: str, *, at_top: bool = False) -> list[ast.Call]:
    """Return the calls of a function or method of this name."""
    top = (part.value for part in module.body if isinstance(part, ast.Expr))
    calls = [part for part in (top if at_top else ast.walk(module)) if isinstance(part, ast.Call)]
    return [call for call in calls if name in (getattr(call.func, "id", None), getattr(call.func, "attr", None))]


def _literal(node: ast.expr | None) -> object:
    """Return the value of a literal, or None for other expressions."""
    try:
        return None if node is None else ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def _paths(value: object) -> tuple[bytes, ...]:
    """Return the absolute paths in a string, in a list of them, or in the values of a dict of either."""
    if isinstance(value, str):
        try:
            path = value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return ()
        return (path,) if path.startswith(b"/") and b"\0" not in path and len(path) <= MAX_PATH else ()
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return tuple(dict.fromkeys(path for each in inner for path in _paths(each)))


def _package_of(file: bytes) -> bytes:
    """Return the package whose `__init__` a file is, else the file."""
    return os.path.dirname(file) if os.path.basename(file).startswith(b"__init__.") else file


def _topmost(paths: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return the paths that are not below another one of them."""
    kept: list[bytes] = []
    for path in sorted(set(paths), key=lambda path: path + b"/"):
        if not kept or not path.startswith(kept[-1] + b"/"):
            kept.append(path)
    return tuple(kept)


def rewrite_pth(data: bytes, directory: bytes, is_inside: Callable[[bytes], bool], moves: tuple[Move, ...]) -> bytes:
    """Return a `.pth` or `.egg-link` file for the destination. Code, comments, and other lines stay.

    Lines that point to the source of a move point to its target. A relative line that leaves the environment for
    something that does not move becomes absolute.

    Args:
        data: The file.
        directory: Path of its directory in the source.
        is_inside: Returns whether a path belongs to the environment.
        moves: The included code of editable installs.
    """
    table = {old: new for move in moves for old, new in move.prefixes}
    start = BOM if data.startswith(BOM) else b""
    lines = []
    for line in data[len(start) :].splitlines(keepends=True):
        path = parse_pth_line(line) or b""
        full = os.path.normpath(os.path.join(directory, path))
        away = full if path and not path.startswith(b"/") and not is_inside(full) else path
        lines.append(table.get(path, table.get(full, away)) + line[len(path) :])
    return start + b"".join(lines)

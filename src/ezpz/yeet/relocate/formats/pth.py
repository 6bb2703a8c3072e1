"""What `.pth` files and the import hooks of build backends say about code that lies elsewhere; nothing is executed."""

from __future__ import annotations

import ast
import os
import re
import warnings
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from ezpz.yeet.relocate.layout import Move

LONGEST = 4096  # bytes; PATH_MAX of Linux
BOM = b"\xef\xbb\xbf"
IMPORTED = re.compile(rb"\bimport\s+([\w.]+(?:\s*,\s*[\w.]+)*)")


class Hook(NamedTuple):
    """A module that redirects imports.

    loader: the build backend that made it
    singles: packages and modules, as written: setuptools leaves the suffix of a module out
    folders: directories of which it says only that packages lie in them
    rebuilds: it runs the build again when they are imported
    """

    loader: str
    singles: tuple[bytes, ...] = ()
    folders: tuple[bytes, ...] = ()
    rebuilds: bool = False


class Pth(NamedTuple):
    """A `.pth` file: the paths it adds to sys.path, as written, and the modules that it imports."""

    paths: tuple[bytes, ...]
    imports: tuple[bytes, ...]


def pth(data: bytes) -> Pth:
    """What a `.pth` file says, read as `site` reads it."""
    paths: list[bytes] = []
    imports: list[bytes] = []
    for line in data.removeprefix(BOM).splitlines():
        if line.startswith((b"import ", b"import\t")):
            imports += (name.strip() for found in IMPORTED.findall(line) for name in found.split(b","))
        elif (path := pth_path(line)) is not None:
            paths.append(path)
    return Pth(tuple(dict.fromkeys(paths)), tuple(dict.fromkeys(imports)))


def pth_path(line: bytes) -> bytes | None:
    """The path that a line of a `.pth` file holds, or None."""
    path = line.rstrip()
    if not path or path.startswith((b"#", b"import ", b"import\t")):
        return None
    return path if len(path) <= LONGEST and min(path) >= 0x20 else None


def hook(source: bytes) -> Hook | None:
    """What the source of a module redirects imports to, when it is a hook of a known build backend."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # garbage, NUL bytes, or nested too deeply
        return None
    return _setuptools(module) or _meson_python(module) or _scikit_build_core(module) or _editables(module)


def _setuptools(module: ast.Module) -> Hook | None:
    """`MAPPING = {'a': '/src/a'}`, `NAMESPACES = {'n': ['/src/n']}`; newer ones annotate both."""
    values: dict[str, object] = {}
    for statement in module.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(targets[0], ast.Name):
            values.setdefault(targets[0].id, _literal(statement.value))
    if not {"MAPPING", "NAMESPACES"} <= values.keys():
        return None
    return Hook("setuptools", (*_paths(values["MAPPING"]), *_paths(values["NAMESPACES"])))


def _meson_python(module: ast.Module) -> Hook | None:
    """`install({'a'}, '/build', ['ninja'], False)` up to 0.15, `MesonpyMetaFinder('a', {'a'}, '/build', ...)` since."""
    if not any(isinstance(part, ast.ClassDef) and part.name == "MesonpyMetaFinder" for part in module.body):
        return None
    builds: list[bytes] = []
    for call in _calls(module, "install") + _calls(module, "MesonpyMetaFinder"):
        builds += (path for value in call.args if isinstance(value, ast.Constant) for path in _paths(value.value))
    return Hook("meson-python", folders=tuple(builds[-1:]), rebuilds=True)


def _scikit_build_core(module: ast.Module) -> Hook | None:
    """`install({'a': '/src/a/__init__.py'}, {'a._c': 'a/_c.so'}, ...)`, or `install_inplace(['a'], ['/src'], ...)`."""
    redirected, inplace = _calls(module, "install", at_top=True), _calls(module, "install_inplace", at_top=True)
    for call in redirected + inplace:
        values = [_literal(argument) for argument in call.args]
        named = {word.arg: _literal(word.value) for word in call.keywords}
        # `rebuild` was the fourth argument up to 0.11 and is the sixth since; it has always been the first bool.
        rebuilds = named.get("rebuild", next((value for value in values if isinstance(value, bool)), False)) is True
        if call in inplace and len(values) > 1:
            return Hook("scikit-build-core", folders=_paths(values[1]), rebuilds=rebuilds)
        if len(values) > 1 and isinstance(values[0], dict) and isinstance(values[1], dict):
            modules = [_root(path) for value in values[:2] for path in _paths(value)]
            data = _paths(values[2]) if len(values) > 2 and isinstance(values[2], dict) else ()
            return Hook("scikit-build-core", _topmost((*modules, *data)), rebuilds=rebuilds)
    return None


def _editables(module: ast.Module) -> Hook | None:
    """`F.map_module('a', '/src/a/__init__.py')`, of the library that hatchling and pdm-backend use."""
    mapped = [call.args[1] for call in _calls(module, "map_module", at_top=True) if len(call.args) == 2]
    paths = [_root(path) for value in mapped for path in _paths(_literal(value))]
    return Hook("editables", _topmost(tuple(paths))) if mapped else None


def _calls(module: ast.Module, name: str, *, at_top: bool = False) -> list[ast.Call]:
    """Where a function or method of this name is called."""
    top = (part.value for part in module.body if isinstance(part, ast.Expr))
    calls = [part for part in (top if at_top else ast.walk(module)) if isinstance(part, ast.Call)]
    return [call for call in calls if name in (getattr(call.func, "id", None), getattr(call.func, "attr", None))]


def _literal(node: ast.expr | None) -> object:
    """The value of an expression that is a literal, else None."""
    try:
        return None if node is None else ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def _paths(value: object) -> tuple[bytes, ...]:
    """The absolute paths in a string, in a list of them, or in the values of a dict of either."""
    if isinstance(value, str):
        try:
            path = value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return ()
        return (path,) if path.startswith(b"/") and b"\0" not in path and len(path) <= LONGEST else ()
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return tuple(dict.fromkeys(path for each in inner for path in _paths(each)))


def _root(file: bytes) -> bytes:
    """The package whose `__init__` a file is, else the file."""
    return os.path.dirname(file) if os.path.basename(file).startswith(b"__init__.") else file


def _topmost(paths: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The paths that lie below no other of them."""
    kept: list[bytes] = []
    for path in sorted(set(paths), key=lambda path: path + b"/"):
        if not kept or not path.startswith(kept[-1] + b"/"):
            kept.append(path)
    return tuple(kept)


def repointed(data: bytes, folder: bytes, is_inside: Callable[[bytes], bool], moves: tuple[Move, ...]) -> bytes:
    """A `.pth` or `.egg-link` file of `folder` as it has to read at the destination.

    Lines that lead to a move's source lead to its target; a relative one that leaves the environment for something that
    does not move leads there by its full path. Lines of code, comments and everything else stay.
    """
    table = {old: new for move in moves for old, new in move.prefixes}
    start = BOM if data.startswith(BOM) else b""
    lines = []
    for line in data[len(start) :].splitlines(keepends=True):
        path = pth_path(line) or b""
        full = os.path.normpath(os.path.join(folder, path))
        away = full if path and not path.startswith(b"/") and not is_inside(full) else path
        lines.append(table.get(path, table.get(full, away)) + line[len(path) :])
    return start + b"".join(lines)

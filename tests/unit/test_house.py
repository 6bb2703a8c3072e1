"""The structure of the code: sizes of directories, names, arrows, and the page that describes them."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from tests.paths import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = REPOSITORY / "src"
PACKAGE = SOURCE / "ezpz"
MOST_MODULES = 15
MODULES = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path): path for path in MODULES}


def imports_of(path: Path) -> Iterator[str]:
    """Yield every module of ezpz that a file imports: lazily or for types only, too."""
    for node in ast.walk(MODULES[path]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in NAMES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                found = f"{node.module}.{alias.name}"
                if found in NAMES:
                    yield found
                elif node.module in NAMES:
                    yield str(node.module)


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Return what is left of a graph once everything that is in no circle has been taken away."""
    left = {name: set(to) for name, to in arrows.items()}
    while True:
        free = {name for name in left if not left[name] & left.keys()}
        unused = left.keys() - set().union(*left.values()) if left else set()
        if not free | unused:
            return [sorted(left)] if left else []
        left = {name: to - free for name, to in left.items() if name not in free | unused}


@pytest.mark.parametrize(
    "directory", sorted({path.parent for path in MODULES}), ids=lambda path: str(path.relative_to(SOURCE))
)
def test_a_directory_holds_few_modules_and_says_in_one_line_what_they_are(directory: Path) -> None:
    modules = [path for path in directory.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MOST_MODULES
    docstring = ast.get_docstring(MODULES[directory / "__init__.py"])
    assert docstring
    assert "\n" not in docstring


def test_class_names_are_unique() -> None:
    places = defaultdict(list)
    for path, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name_of(path))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_no_import_is_part_of_a_circle() -> None:
    arrows: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path in MODULES:
        one = name_of(path)
        for other in imports_of(path):
            ones, others = one.split("."), other.split(".")
            shared = next((i for i, (a, b) in enumerate(zip(ones, others, strict=False)) if a != b), None)
            if shared is not None:
                parent = ".".join(ones[:shared])
                arrows[parent][ones[shared]].add(others[shared])
                arrows[parent][others[shared]] |= set()
    assert {parent: circles(graph) for parent, graph in arrows.items() if circles(graph)} == {}


def listed(page: str) -> set[str]:
    """Return the paths in the listing of the architecture page: indentation is depth, names come first in a line."""
    block = re.search(r"```text\n(src/ezpz/\n.*?)```", page, re.DOTALL)
    assert block
    found: set[str] = set()
    directories: list[tuple[int, str]] = []
    for line in block[1].splitlines()[1:]:
        indent = len(line) - len(line.lstrip())
        while directories and directories[-1][0] >= indent:
            directories.pop()
        above = directories[-1][1] if directories else ""
        for name in re.split(r"\s{2,}", line.strip())[0].split():
            if name.endswith("/"):
                directories.append((indent, above + name))
                above += name
            else:
                found.add(f"{above}{name}.py")
    return found


def test_the_architecture_page_lists_every_module() -> None:
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    there = {str(path.relative_to(PACKAGE)) for path in MODULES if path.name not in ("__init__.py", "__main__.py")}
    assert listed(page) == there


def test_no_attribute_is_born_outside_its_class_or_init() -> None:
    late = []
    for path, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                late += [f"{name_of(path)}.{node.name}.{name}" for name in late_attributes(node)]
    assert late == []


def late_attributes(node: ast.ClassDef) -> set[str]:
    """Return the names that methods other than `__init__` assign to `self`, and the class or `__init__` does not."""
    born: set[str] = set()
    later: set[str] = set()
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            born.add(statement.target.id)
        elif isinstance(statement, ast.Assign):
            born |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
            if any(isinstance(target, ast.Name) and target.id == "__slots__" for target in statement.targets):
                born |= {
                    x.value
                    for x in ast.walk(statement.value)
                    if isinstance(x, ast.Constant) and isinstance(x.value, str)
                }
        elif isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            own = {
                x.attr
                for x in ast.walk(statement)
                if isinstance(x, ast.Attribute)
                and isinstance(x.ctx, ast.Store)
                and isinstance(x.value, ast.Name)
                and x.value.id == "self"
            }
            if statement.name in ("__init__", "__post_init__", "__new__"):
                born |= own
            else:
                later |= own
    return set() if node.bases else later - born

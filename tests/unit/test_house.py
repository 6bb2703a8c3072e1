"""The structure of the code: sizes, names, directions of imports, and the page that describes them."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from tests.paths import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SOURCE = REPOSITORY / "src"
PACKAGE = SOURCE / "ezpz"
TESTS = REPOSITORY / "tests"
DOCS = REPOSITORY / "docs"
MAX_MODULES = 15  # in a directory
MAX_FILE = 400  # lines; the aim is 300
MAX_FUNCTION = 60  # lines; the aim is 40
MODULES = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
DIRECTORIES = sorted({path.parent for path in MODULES})
ABOVE_THE_COMMANDS = ("ezpz.__main__", "ezpz.plugin_api", "ezpz.utils.yeet_env")
TERMINAL = ("click", "rich", "ezpz.cli")


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path): path for path in MODULES}


def imports_of(tree: ast.Module, module: str = "") -> Iterator[str]:
    """Yield the full name of everything that a module imports, including lazy and type-only imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            parent = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{parent}.{alias.name}" for alias in node.names)


def imported_modules(tree: ast.Module, module: str = "") -> Iterator[str]:
    """Yield the modules of ezpz that a module imports."""
    for name in imports_of(tree, module):
        found = name if name in NAMES else name.rpartition(".")[0]
        if found in NAMES:
            yield found


def is_below(name: str, packages: tuple[str, ...]) -> bool:
    """Return whether a module or attribute is one of these packages or in one of them."""
    return any(name == each or name.startswith(f"{each}.") for each in packages)


def cycles(arrows: Mapping[str, set[str]]) -> list[str]:
    """Return the nodes of a graph that are in a cycle or between two cycles."""
    left = {name: set(to) for name, to in arrows.items()}
    while True:
        leaves = {name for name in left if not left[name] & left.keys()}
        roots = left.keys() - set().union(*left.values())
        if not leaves | roots:
            return sorted(left)
        left = {name: to - leaves for name, to in left.items() if name not in leaves | roots}


# Sizes and names


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_directory_has_few_modules_and_one_line_that_describes_them(directory: Path) -> None:
    modules = [path for path in directory.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MAX_MODULES
    docstring = ast.get_docstring(MODULES[directory / "__init__.py"]) or ""
    assert len(docstring.splitlines()) == 1


def test_files_and_functions_are_small() -> None:
    long = [f"{name_of(path)}: {count}" for path in MODULES if (count := line_count(path)) > MAX_FILE]
    for path, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                long += [f"{name_of(path)}.{node.name}: {lines}"] if lines > MAX_FUNCTION else []
    assert long == []


def line_count(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_class_names_are_unique() -> None:
    places = defaultdict(list)
    for path, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name_of(path))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_the_directories_of_unit_tests_mirror_the_packages() -> None:
    directories = {path.parent.relative_to(TESTS / "unit") for path in (TESTS / "unit").rglob("test_*.py")}
    assert [str(path) for path in directories if PACKAGE / path not in DIRECTORIES] == []


# Directions of imports; the layers themselves are the contracts in pyproject.toml


def test_the_agent_and_only_the_agent_uses_relative_imports() -> None:
    """What is sent to a node can then be read from its imports alone."""
    imports = [
        (name_of(path), node)
        for path, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
    ]
    relative = {name for name, node in imports if node.level}
    absolute = {name for name, node in imports if not node.level and is_below(node.module or "", ("ezpz",))}
    assert {name for name in relative if not is_below(name, ("ezpz.agent",))} == set()
    assert {name for name in absolute if is_below(name, ("ezpz.agent",))} == set()


def test_no_import_is_part_of_a_cycle() -> None:
    arrows: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path, tree in MODULES.items():
        one = name_of(path)
        for other in imported_modules(tree, one):
            ones, others = one.split("."), other.split(".")
            shared = next((i for i, (a, b) in enumerate(zip(ones, others, strict=False)) if a != b), None)
            if shared is not None:
                parent = ".".join(ones[:shared])
                arrows[parent][ones[shared]].add(others[shared])
                arrows[parent][others[shared]] |= set()
    assert {parent: found for parent, graph in arrows.items() if (found := cycles(graph))} == {}


def test_a_cycle_is_found() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == ["b", "c"]
    assert cycles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_the_agent_imports_the_standard_library_and_itself() -> None:
    allowed = (*sys.stdlib_module_names, "ezpz.agent", "typing_extensions")  # the last for type checkers alone
    imported = {
        f"{name_of(path)}: {name}"
        for path, tree in MODULES.items()
        if is_below(name_of(path), ("ezpz.agent",))
        for name in imports_of(tree, name_of(path))
        if not is_below(name, allowed)
    }
    assert imported == set()


def test_only_the_cli_packages_import_the_terminal() -> None:
    imported = {
        f"{name_of(path)}: {name}"
        for path, tree in MODULES.items()
        if "cli" not in name_of(path).split(".") and name_of(path) not in ABOVE_THE_COMMANDS
        for name in imports_of(tree)
        if is_below(name, TERMINAL)
    }
    assert imported == set()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from ezpz.yeet import model", "ezpz.yeet.model"),
        ("from ezpz.errors import EzpzError", "ezpz.errors"),
        ("import ezpz.errors", "ezpz.errors"),
        ("def f():\n    from ezpz.errors import EzpzError", "ezpz.errors"),
        ("if TYPE_CHECKING:\n    from ezpz.errors import EzpzError", "ezpz.errors"),
    ],
)
def test_every_kind_of_import_is_seen(line: str, found: str) -> None:
    assert list(imported_modules(ast.parse(line))) == [found]


# The architecture page


def listed(page: str) -> set[str]:
    """Return the paths in the listing of the architecture page: indentation is depth, names come first in a line."""
    block = re.search(r"```text\nsrc/ezpz/\n(.*?)```", page, re.DOTALL)
    found: set[str] = set()
    directories: list[tuple[int, str]] = []
    for line in (block[1] if block else "").splitlines():
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
    page = (DOCS / "architecture.md").read_text()
    modules = {str(path.relative_to(PACKAGE)) for path in MODULES if not path.name.startswith("__")}
    assert listed(page) == modules


def test_the_architecture_page_names_only_files_that_exist() -> None:
    """Look for every path in backticks, as `yeet/pipeline/run.py`, `agent/stream/`, or `run.py`."""
    text = re.sub(r"```.*?```", "", (DOCS / "architecture.md").read_text(), flags=re.DOTALL)
    named = [name for name in re.findall(r"`([\w.]+/[\w./]*|\w+\.(?:py|toml))`", text) if "NAME" not in name]
    there = [f"/{path.relative_to(REPOSITORY)}" for root in (SOURCE, TESTS, DOCS) for path in root.rglob("*")]
    there += [f"/{path.name}" for path in REPOSITORY.iterdir()]
    assert named
    assert [name for name in named if not any(path.endswith(f"/{name.rstrip('/')}") for path in there)] == []


def test_the_architecture_page_says_where_types_are_defined() -> None:
    page = (DOCS / "architecture.md").read_text().partition("## Types")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `")]
    missing = []
    for names, places in rows:
        files = [path for place in re.findall(r"`([^`]+)`", places) for path in files_at(PACKAGE / place)]
        text = "\n".join(path.read_text() for path in files)
        defined = set(re.findall(r"^(?:class )?(\w+)", text, re.MULTILINE))
        missing += sorted(set(re.findall(r"`(\w+)`", names)) - defined)
    assert rows
    assert missing == []


def files_at(path: Path) -> list[Path]:
    return sorted(path.glob("*.py")) if path.is_dir() else [path]


# Attributes


def test_no_attribute_is_first_assigned_outside_its_class_or_init() -> None:
    nodes = [node for tree in MODULES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    classes = {node.name: node for node in nodes}
    late = [f"{node.name}: {', '.join(sorted(found))}" for node in nodes if (found := late_attributes(node, classes))]
    assert late == []


def late_attributes(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> set[str]:
    """Return the attributes that methods assign first; none for a class with an unknown base."""
    ancestors, unknown = lineage(node, classes)
    declared = set().union(*(declared_attributes(each) for each in ancestors))
    return set() if unknown else assigned_in_methods(node) - declared


STATELESS_BASES = {"ABC", "Protocol", "Generic", "NamedTuple", "Enum", "IntEnum", "Exception", "TypedDict", "OSError"}


def lineage(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> tuple[list[ast.ClassDef], bool]:
    """Return a class with its bases in this project, and whether another base may declare attributes."""
    found, unknown = [node], False
    for base in node.bases:
        name = ast.unparse(base).partition("[")[0].rpartition(".")[2]
        if name in classes and classes[name] is not node:
            above, strange = lineage(classes[name], classes)
            found, unknown = found + above, unknown or strange
        else:
            unknown = unknown or name not in STATELESS_BASES
    return found, unknown


def declared_attributes(node: ast.ClassDef) -> set[str]:
    """Return the attributes that the body of a class, its slots, or its constructor declares."""
    declared: set[str] = set()
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign):
            declared |= {ast.unparse(statement.target)}
        elif isinstance(statement, ast.Assign):
            names = {ast.unparse(target) for target in statement.targets}
            declared |= names | (set(ast.literal_eval(statement.value)) if "__slots__" in names else set())
        elif isinstance(statement, ast.FunctionDef) and statement.name in ("__init__", "__post_init__", "__new__"):
            declared |= assigned_to_self(statement)
    return declared


def assigned_in_methods(node: ast.ClassDef) -> set[str]:
    methods = (each for each in node.body if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)))
    return set().union(*(assigned_to_self(each) for each in methods))


def assigned_to_self(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    return {
        node.attr
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
    }


@pytest.mark.parametrize(
    ("methods", "late"),
    [
        ("def __init__(self): self.a = 1\n    def f(self): self.a = 2", set()),
        ("a: int\n    def f(self): self.a = 2", set()),
        ("__slots__ = ('a',)\n    def f(self): self.a = 2", set()),
        ("def f(self): self.a = 2", {"a"}),
        ("async def f(self): self.b, self.a = 1, 2", {"a", "b"}),
    ],
)
def test_a_late_attribute_is_found(methods: str, late: set[str]) -> None:
    tree = ast.parse(f"class Base:\n    {methods}\nclass Derived(Base):\n    def g(self): self.c = 1")
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    assert late_attributes(classes["Base"], classes) == late
    assert late_attributes(classes["Derived"], classes) == {"c"}

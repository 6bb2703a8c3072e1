"""Processes, threads and signals of the launching side come from `ezpz.runtime` alone; the agents have their own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import ezpz

ROOT = Path(ezpz.__file__).parent
FILES = {str(path.relative_to(ROOT)): path for path in ROOT.rglob("*.py") if "agent" not in path.parts}


def used_in(*names: str) -> set[str]:
    """The files of the launching side that use one of these dotted names."""
    return {name for name, path in FILES.items() if not names_in(ast.parse(path.read_text())).isdisjoint(names)}


def names_in(tree: ast.AST) -> set[str]:
    """Modules and names that are imported, attributes, and dotted names."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{each.name}" for each in node.names} | {str(node.module)}
        elif isinstance(node, ast.Attribute):
            found |= {node.attr, ast.unparse(node)}
    return found


@pytest.mark.parametrize(
    ("names", "places"),
    [
        (("subprocess", "create_subprocess_exec", "create_subprocess_shell", "os.fork", "os.posix_spawn"), {"process"}),
        (("signal.signal", "signal.set_wakeup_fd", "add_signal_handler"), {"signals"}),
        (("threading.Thread", "concurrent.futures.ThreadPoolExecutor", "to_thread", "run_in_executor"), {"threads"}),
    ],
)
def test_one_place(names: tuple[str, ...], places: set[str]) -> None:
    assert used_in(*names) == {f"runtime/{place}.py" for place in places}


def test_one_exception_for_cancelled_work() -> None:
    classes = {
        (name, node.name)
        for name, path in {str(path.relative_to(ROOT)): path for path in ROOT.rglob("*.py")}.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and node.name in ("Cancelled", "Stopped", "Abandoned", "Gone", "Over")
    }
    assert classes == {("agent/common/cancel.py", "Cancelled")}

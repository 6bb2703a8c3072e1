"""What makes a test fail by chance is in no test: clocks, sleeps, short limits, access times, ports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
HELPER = "tests/waiting.py"
CLOCKS = frozenset(
    ("monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time", "process_time_ns", "thread_time")
)
STATS = frozenset(("stat", "lstat", "fstat"))
WAITS = frozenset(("communicate", "wait", "join", "run", "check_output", "ezpz", "yeet", "report"))

ALLOWED = {
    ("tests/lab/base.py", "clock"): "hosts that do not come up are told with their log",
    ("tests/lab/base.py", "sleep"): "between two looks at a host that comes up",
    ("tests/lab/faults.py", "clock"): "`clean` returns what still runs instead of failing",
    ("tests/lab/faults.py", "sleep"): "between two looks at what still runs",
    ("tests/lab/procs.py", "clock"): "processes that do not stop are told with their arguments",
    ("tests/lab/procs.py", "sleep"): "between two looks at processes",
    ("tests/lab/slurm.py", "clock"): "daemons that are not ready are told with their logs",
    ("tests/lab/slurm.py", "sleep"): "between two looks at Slurm",
    ("tests/lab/demo.py", "clock"): "the demonstration tells how long it took",
    ("tests/fuzz/__main__.py", "clock"): "it fuzzes for as long as it is told to",
    (
        "tests/cluster/test_lab.py",
        "clock",
    ): "slowfs sleeps: a call takes at least its time on any machine",
    ("tests/cluster/test_lab.py", "short limit"): "a frozen host does not answer, however long one waits",
    ("tests/unit/launch/execute/test_monitor.py", "sleep"): "a reader that is slower than the idle timeout",
    ("tests/contract/test_landing.py", "sleep"): "killed at any moment",
    ("tests/cluster/test_again.py", "sleep"): "killed at any moment",
    ("tests/cluster/test_clean.py", "sleep"): "killed at any moment",
    ("tests/unit/yeet/strategies/test_squashfs_hostile.py", "timer"): "a watchdog that only a hang reaches",
    ("tests/unit/agent/stream/test_tree_writer.py", "short limit"): "a thread that has to wait still waits",
}
"""What is allowed all the same, and why: (file, kind)."""


def name_of(function: ast.expr) -> str:
    """Return the last part of what is called."""
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def is_stat(value: ast.expr) -> bool:
    """Whether this is a whole result of `stat`."""
    return isinstance(value, ast.Call) and name_of(value.func) in STATS


def kinds_in(tree: ast.AST) -> set[str]:
    """Return every kind of chance that a module depends on."""
    stats = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and is_stat(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in CLOCKS:
            found.add("clock")
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            found.add("clock")  # by its plain name nobody would find it
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(is_stat(side) or (isinstance(side, ast.Name) and side.id in stats) for side in sides):
                found.add("whole stat")
        if isinstance(node, ast.Call):
            found |= kinds_of_call(node)
    return found


def kinds_of_call(call: ast.Call) -> set[str]:
    """Return what is chancy about one call."""
    name, found = name_of(call.func), set()
    if name == "sleep" and isinstance(call.func, ast.Attribute) and name_of(call.func.value) == "time":
        found.add("sleep")
    if name == "Timer":
        found.add("timer")
    limits = [keyword.value for keyword in call.keywords if keyword.arg in ("timeout", "within")]
    if name in ("wait", "join") and len(call.args) == 1:
        limits += call.args
    is_plain_run = name == "run" and isinstance(call.func, ast.Name)  # of the product, whose time limit is tested
    if (
        name in WAITS
        and not is_plain_run
        and any(isinstance(limit, ast.Constant) and is_number(limit.value) for limit in limits)
    ):
        found.add("short limit")
    if name == "bind" and call.args and isinstance(call.args[0], ast.Tuple):
        port = call.args[0].elts[-1]
        if isinstance(port, ast.Constant) and port.value != 0:
            found.add("fixed port")
    return found


def is_number(value: object) -> bool:
    """Whether this is a number, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)


FILES = sorted(path.relative_to(TESTS.parent).as_posix() for path in TESTS.rglob("*.py"))


@pytest.mark.parametrize("file", [file for file in FILES if file != HELPER])
def test_no_test_depends_on_chance(file: str) -> None:
    """Wait with `tests.waiting.wait_until`, limit with `DEADLINE`, compare files by `unchanging`."""
    found = kinds_in(ast.parse((TESTS.parent / file).read_text()))
    assert {kind for kind in found if (file, kind) not in ALLOWED} == set()


def test_what_is_allowed_is_needed() -> None:
    for file, kind in ALLOWED:
        assert kind in kinds_in(ast.parse((TESTS.parent / file).read_text())), (file, kind)


@pytest.mark.parametrize(
    ("code", "kinds"),
    [
        ("begin = time.monotonic()\nassert time.monotonic() - begin < 5", {"clock"}),
        ("from time import monotonic", {"clock"}),
        ("time.sleep(1)", {"sleep"}),
        ("threading.Timer(0.5, act).start()", {"timer"}),
        ("assert os.stat(path) == before", {"whole stat"}),
        ("before = path.stat()\nassert before == after", {"whole stat"}),
        ("assert path.stat().st_mode == 0o644", set()),
        ("process.communicate(timeout=20)", {"short limit"}),
        ("thread.join(5)", {"short limit"}),
        ("process.wait(DEADLINE)", set()),
        ("server.bind(('', 8080))", {"fixed port"}),
        ("server.bind(('', 0))", set()),
    ],
)
def test_each_kind_is_found(code: str, kinds: set[str]) -> None:
    assert kinds_in(ast.parse(code)) == kinds

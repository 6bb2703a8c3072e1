"""No code chooses by the name of a plugin: what is special about one is a member of its port."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ezpz.remote.transports import TRANSPORTS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = REPOSITORY / "src"
OTHER_WORDS: Mapping[tuple[str, str], str] = {
    ("ezpz/launch/plan/rendezvous.py", "localhost"): "the name of a host",
    ("ezpz/agent/common/messages/events.py", "stream"): "a field of an event",
    ("ezpz/remote/startup.py", "launch"): "a word in Slurm's messages",
    ("ezpz/yeet/reporting/html/chart_data.py", "stream"): "the name of a phase",
    ("ezpz/yeet/reporting/progress_state.py", "stream"): "the name of a phase",
}


def plugins() -> dict[str, dict[str, set[str]]]:
    """Return the plugins' names by group, each with the files that are its own."""
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        groups = tomllib.load(file)["project"]["entry-points"]
    found = {
        group: {name: {value.partition(":")[0].replace(".", "/") + ".py"} for name, value in points.items()}
        for group, points in groups.items()
    }
    return {**found, "transports": {name: {"ezpz/remote/transports.py"} for name in TRANSPORTS}}


def words_of(node: ast.expr, constants: Mapping[str, ast.expr]) -> set[str]:
    """Return the texts that an operand is or holds, if it is written out, here or as a constant of the module."""
    if isinstance(node, ast.Name) and node.id in constants:
        return words_of(constants[node.id], {})
    if isinstance(node, ast.Constant):
        value = node.value.decode(errors="replace") if isinstance(node.value, bytes) else node.value
        return {value} if isinstance(value, str) else set()
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        return {word for each in node.elts for word in words_of(each, constants)}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("frozenset", "set", "tuple"):
        return {word for each in node.args for word in words_of(each, constants)}
    return set()


def is_name_of_class(node: ast.expr) -> bool:
    """Return whether it is `SomePlugin.name`."""
    if not isinstance(node, ast.Attribute) or node.attr != "name" or not isinstance(node.value, ast.Name):
        return False
    return node.value.id[0].isupper() and not node.value.id.isupper()


def chosen_by_name(source: str, groups: Mapping[str, Mapping[str, object]]) -> Iterator[tuple[int, str]]:
    """Yield the line and the word of each place that compares something with a plugin's name."""
    names = {name for group in groups.values() for name in group}
    tree = ast.parse(source)
    constants = {
        target.id: statement.value
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            operands = (node.left, *node.comparators)
            for word in {word for each in operands for word in words_of(each, constants)} & names:
                yield node.lineno, word
            for each in operands:
                if is_name_of_class(each):
                    yield node.lineno, ast.unparse(each)
        elif isinstance(node, ast.MatchValue):
            for word in words_of(node.value, constants) & names:
                yield node.value.lineno, word
        elif isinstance(node, ast.Dict):  # a table of what each plugin does
            keys = {word for key in node.keys if key is not None for word in words_of(key, constants)}
            for group in groups.values():
                yield from ((node.lineno, word) for word in keys & set(group) if len(keys & set(group)) > 1)


def test_nothing_is_chosen_by_the_name_of_a_plugin() -> None:
    groups = plugins()
    own: defaultdict[str, set[str]] = defaultdict(set)
    for group in groups.values():
        for name, files in group.items():
            own[name] |= files
    found, excused = [], set()
    for path in sorted(SOURCES.rglob("*.py")):
        place = str(path.relative_to(SOURCES))
        for line, word in chosen_by_name(path.read_text(), groups):
            if (place, word) in OTHER_WORDS:
                excused.add((place, word))
            elif place not in own[word]:
                found.append(f"{place}:{line}: {word}")
    assert not found, "give the port a member: " + "; ".join(found)
    assert excused == set(OTHER_WORDS), "an exception is not needed any more"


@pytest.mark.parametrize(
    "source",
    [
        'x = 1 if launcher == "srun" else 2',
        'x = "pbs" != scheduler',
        'x = plan.transport.name in ("ssh", "srun")',
        'x = "srun" not in able',
        'LOCAL = "local"\nx = plan.launcher == LOCAL',
        'JOBS = frozenset({"slurm", "pbs"})\nx = scheduler in JOBS',
        "x = plan.launcher == Local.name",
        'match launcher:\n    case "srun" | "pals":\n        pass',
        'LABELS = {"srun": 1, "pals": 2}',
    ],
)
def test_every_way_to_choose_by_name_is_found(source: str) -> None:
    assert list(chosen_by_name(source, plugins()))


@pytest.mark.parametrize(
    "source", ['x = shutil.which("rsync") is None', 'x = {"stream": "whole"}', "x = kind is KINDS"]
)
def test_other_uses_of_a_word_are_not(source: str) -> None:
    assert not list(chosen_by_name(source, plugins()))

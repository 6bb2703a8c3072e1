"""When the base Python is embedded, and what the nodes are asked for that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from ezpz.agent.common.cancel import CancelToken
from ezpz.yeet.model.source import Kind
from ezpz.yeet.model.warnings import SourceWarnings
from ezpz.yeet.pipeline import choose_base as module
from ezpz.yeet.pipeline.choose_base import EMBEDDED, KEPT, NONE, BaseChoice, choose_base
from ezpz.yeet.relocate.inspect.environment import Environment

if TYPE_CHECKING:
    from pathlib import Path

PYTHON = SimpleNamespace(base_executable=b"/usr/bin/python3", base_prefix=b"/usr", version="3.11.7")
BASE = SimpleNamespace(name="base")


def choice(root: Path, mode: str, missing: str = "", **facts: Any) -> tuple[BaseChoice, list[object], SourceWarnings]:
    """Decide for an environment, and record what was asked."""
    asked: list[object] = []
    notices = SourceWarnings()
    environment = Environment(Kind.VENV, (), **facts)

    def missing_on(python: object) -> str:
        asked.append(python)
        return missing

    decided = choose_base(environment, bytes(root), mode, missing_on, notices, {}, CancelToken())
    return decided, asked, notices


@pytest.mark.parametrize(
    ("mode", "missing", "expected", "asks"),
    [
        ("auto", "", (KEPT, "every node has it"), True),
        ("auto", "n1: no such file", (EMBEDDED, "n1: no such file"), True),
        ("embed", "", (EMBEDDED, "asked for"), False),
        ("keep", "", (KEPT, "asked for"), False),
    ],
)
def test_the_mode_and_the_nodes_decide(
    tmp_path: Path, mode: str, missing: str, expected: tuple[str, str], *, asks: bool
) -> None:
    facts = {"interpreter": cast("Any", PYTHON), "has_base": True, "base": cast("Any", BASE)}
    decided, asked, _ = choice(tmp_path, mode, missing, **facts)
    assert (decided.mode, decided.reason) == expected
    assert decided.embedded == (BASE if decided.mode == EMBEDDED else None)
    assert decided.interpreter == ("/usr/bin/python3: 3.11.7" if expected[1] == "every node has it" else "")
    assert asked == ([PYTHON] if asks else [])


@pytest.mark.parametrize("facts", [{}, {"interpreter": PYTHON}, {"has_base": True}])
def test_an_environment_without_a_base_elsewhere_needs_none(tmp_path: Path, facts: dict[str, Any]) -> None:
    decided, asked, _ = choice(tmp_path, "auto", "missing", **facts)
    assert decided.mode == NONE
    assert asked == []


def test_a_base_that_is_kept_on_a_shared_filesystem_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "on_shared_filesystem", lambda path: path == b"/usr")
    _, _, notices = choice(tmp_path, "keep", interpreter=cast("Any", PYTHON), has_base=True)
    assert [warning.case for warning in notices.warnings()] == ["base-kept"]

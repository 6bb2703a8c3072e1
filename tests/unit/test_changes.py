"""Tests of the lab run when the lab has changed."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests import changes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.processes


@pytest.fixture
def commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Commit a change of a file to a repository of its own."""
    monkeypatch.setattr(changes, "REPOSITORY", tmp_path)
    monkeypatch.setattr(changes, "LATELY", 3)
    monkeypatch.delenv(changes.ALWAYS, raising=False)
    changes.why_not.cache_clear()

    def git(*arguments: str) -> None:
        names = ("-c", "user.name=me", "-c", "user.email=me@example.org")
        subprocess.run(["git", "-C", tmp_path, *names, *arguments], check=True, capture_output=True)

    def change(name: str) -> None:
        with (tmp_path / name).open("a") as file:
            file.write("x")
        git("add", name)
        git("commit", "-q", "-m", name)
        changes.why_not.cache_clear()

    git("init", "-q")
    return change


def test_a_recent_change_has_the_tests_run_and_an_old_one_has_not(
    commit: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit("lab")
    assert not changes.why_not(("lab",))
    for _ in range(3):
        commit("other")
    assert changes.why_not(("lab",)).startswith("no change of lab in the last 3 commits")
    monkeypatch.setenv(changes.ALWAYS, "always")
    changes.why_not.cache_clear()
    assert not changes.why_not(("lab",))
    monkeypatch.delenv(changes.ALWAYS)
    (tmp_path / "lab").write_text("not committed")
    changes.why_not.cache_clear()
    assert not changes.why_not(("lab",))


def test_without_history_everything_runs(commit: Callable[[str], None], tmp_path: Path) -> None:
    assert not changes.why_not(("lab",))
    (tmp_path / ".git").rename(tmp_path / "no.git")
    changes.why_not.cache_clear()
    assert not changes.why_not(("lab",))

"""The cache of the lab: two runs that make the same thing at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab.cache import settle

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.broken_only_by("tests/lab")


def made(path: Path) -> Path:
    path.mkdir()
    (path / "a.whl").write_text(path.name)
    return path


def test_the_later_of_two_gives_way(tmp_path: Path) -> None:
    target = tmp_path / "wheels"
    settle(made(tmp_path / "wheels.1"), target)
    settle(made(tmp_path / "wheels.2"), target)
    assert (target / "a.whl").read_text() == "wheels.1"
    assert list(tmp_path.iterdir()) == [target]


def test_what_stands_in_the_way_otherwise_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "wheels").write_text("a file")
    with pytest.raises(NotADirectoryError):
        settle(made(tmp_path / "wheels.1"), tmp_path / "wheels")

"""The lab's own promises: what is hidden is gone for one program only, and no way to a path escapes the trace."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab.hidden import hidden, traced
from tests.lab.pythons import about, copy_python

if TYPE_CHECKING:
    import os

pytestmark = pytest.mark.broken_only_by("tests/lab")

BEGIN = "import os, sys; there, place = sys.argv[1:]; "
WAYS = {
    "open": "open(there + '/file').close()",
    "stat": "os.stat(there + '/file')",
    "what is not there": "os.path.exists(there + '/no such file')",
    "list": "os.listdir(there)",
    "readlink": "os.readlink(there + '/link')",
    "relative to an open directory": "os.stat('file', dir_fd=os.open(there, os.O_RDONLY))",
    "relative to the working directory": "os.chdir(os.path.dirname(there)); os.stat('there/file')",
    "a step up": "os.stat(place + '/../there/file')",
    "a link to it": "os.stat(place + '/link')",
    "a link through it": "os.stat(place + '/through/file')",
    "a link below a link": "os.stat(place + '/folder/file')",
    "a child": "os.system('cat \"' + there + '/file\" >/dev/null')",
    "a thread": "import threading as t; x = t.Thread(target=os.stat, args=(there + '/file',)); x.start(); x.join()",
}
SPARED = {
    "a neighbour": "os.stat(there + '-more')",
    "its parent": "os.listdir(os.path.dirname(there))",
    "its name alone": "os.readlink(place + '/link'); os.lstat(place + '/link')",
    "an argument": "os.system('true \"' + there + '/file\"')",
}


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A directory to which links lead from `place` beside it."""
    there, place = tmp_path / "a disk" / "there", tmp_path / "a disk" / "place"
    for folder in (there, place, tmp_path / "a disk" / "there-more"):
        folder.mkdir(parents=True)
    (there / "file").write_text("content")
    (place / "file").write_text("content")
    (there / "link").symlink_to("../place")
    (place / "link").symlink_to(there / "file")
    (place / "through").symlink_to(there / "link")
    (place / "folder").symlink_to("../there")
    return there


def _calls(code: str, there: Path) -> list[str]:
    return traced([sys.executable, "-IS", "-c", BEGIN + code, there, there.parent / "place"], [there])


@pytest.mark.parametrize("code", [pytest.param(code, id=way) for way, code in WAYS.items()])
def test_every_way_to_a_path_is_traced(there: Path, code: str) -> None:
    assert _calls(code, there)


@pytest.mark.parametrize("code", [pytest.param(code, id=way) for way, code in SPARED.items()])
def test_what_reaches_no_path_is_not(there: Path, code: str) -> None:
    assert _calls(code, there) == []


def test_a_program_that_fails_is_no_trace(there: Path) -> None:
    with pytest.raises(RuntimeError, match="exit 3"):
        _calls("sys.exit(3)", there)


def test_hidden_paths_are_empty_for_one_program_only(there: Path) -> None:
    look: list[str | os.PathLike[str]]
    look = ["sh", "-c", 'ls -A "$1"; cat "$2" 2>&1; echo "$2" >"$1/new"', "sh", there, there.parent / "place" / "file"]
    done = hidden(look, [there, there / "file", there.parent / "place" / "file"])
    assert done.stdout == ""
    assert "new" in done.stderr
    assert sorted(path.name for path in there.iterdir()) == ["file", "link"]
    assert hidden(look, []).stdout == "file\nlink\ncontent"
    assert hidden(["sh", "-c", "exit 7"], [there]).returncode == 7


def test_a_copied_python_needs_nothing_of_its_original(tmp_path: Path) -> None:
    copy = copy_python(sys.executable, tmp_path / "base")
    original = about(sys.executable)
    if original["prefix"] == "/usr":
        pytest.skip("the original is the system's, and cannot be hidden as a whole")
    done = hidden([copy, "-c", "import ctypes, sys; print(sys.version, sys.prefix)"], [Path(original["prefix"])])
    assert (done.returncode, done.stdout) == (0, f"{sys.version} {tmp_path / 'base'}\n"), done.stderr

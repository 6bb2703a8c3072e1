"""Who may read a file or directory, by its mode and by those of all directories above it."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ezpz.yeet.model.entry import Entry
from ezpz.yeet.source.permissions import find_exposed, reader_classes, readers, readers_of_all

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE, FOLDER, LINK = stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in /tmp that everybody may enter."""
    with tempfile.TemporaryDirectory(prefix="ezpz-access-") as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "folder").mkdir()
        (Path(folder) / "folder" / "file").touch()
        yield Path(folder)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (FILE | 0o644, 0o077),
        (FILE | 0o640, 0o070),
        (FILE | 0o604, 0o007),
        (FILE | 0o611, 0),
        (FOLDER | 0o755, 0o077),
        (FOLDER | 0o751, 0o070),
        (FOLDER | 0o744, 0),
        (FOLDER | 0o1777, 0o077),
    ],
)
def test_a_directory_must_be_listed_and_entered(mode: int, expected: int) -> None:
    assert reader_classes(mode) == expected


@pytest.mark.parametrize(
    ("above", "folder", "file", "expected"),
    [
        (0o755, 0o755, 0o644, 0o077),
        (0o700, 0o755, 0o644, 0),
        (0o755, 0o750, 0o644, 0o070),
        (0o755, 0o755, 0o600, 0),
        (0o711, 0o755, 0o644, 0),
    ],
)
def test_what_is_above_counts(place: Path, above: int, folder: int, file: int, expected: int) -> None:
    for path, mode in ((place / "folder" / "file", file), (place / "folder", folder), (place, above)):
        path.chmod(mode)
    assert readers(os.fsencode(place / "folder" / "file")) == expected


def test_a_link_counts_as_what_it_leads_to(place: Path) -> None:
    (place / "folder").chmod(0o700)
    (place / "link").symlink_to("folder")
    assert readers(os.fsencode(place / "link")) == 0


@pytest.mark.parametrize(
    ("mode", "origin", "expected"),
    [
        (FILE | 0o644, "", 0o077),
        (FILE | 0o640, "", 0o070),
        (LINK | 0o777, "", 0o077),
        (FILE | 0o644, "folder/x", 0o070),
    ],
)
def test_all_of_a_tree_counts(place: Path, mode: int, origin: str, expected: int) -> None:
    (place / "folder").chmod(0o750)
    there = os.fsencode(place / origin) if origin else b""
    assert readers_of_all(os.fsencode(place), [Entry(b"x", mode, 0, 0, origin=there)]) == expected


def test_of_what_a_link_led_to_only_the_first_is_told(place: Path) -> None:
    (place / "folder").chmod(0o700)
    home = os.fsencode(place / "folder")
    entries = [
        Entry(b"own", FILE | 0o644, 0, 0),
        Entry(b"led", FOLDER | 0o755, 0, 0, origin=home + b"/led"),
        Entry(b"led/file", FILE | 0o644, 0, 0, origin=home + b"/led/file"),
        Entry(b"open", FILE | 0o644, 0, 0, origin=os.fsencode(place / "open")),
    ]
    assert list(find_exposed(FOLDER | 0o755, entries, [home, os.fsencode(place)])) == [b"led", home]
    assert list(find_exposed(FOLDER | 0o700, entries, [home])) == []

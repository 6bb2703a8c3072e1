"""agent/own.py, standing.py, report_file.py: what counts as ours, and files where others may plant links."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from ezpz.agent.common import layout, manifest, receipt
from ezpz.agent.common.messages.answers import ManifestAnswer
from ezpz.agent.common.messages.receipt import FORMAT, Receipt
from ezpz.agent.destination import installed
from ezpz.errors import EzpzError, UsageError
from ezpz.yeet.reporting.html.page import check_report_path, write_report
from tests.contract.support import NOBODY, needs_root

if TYPE_CHECKING:
    from pathlib import Path

RECEIPT = os.fsdecode(layout.RECEIPT)
MANIFEST = os.fsdecode(layout.MANIFEST)


def copy_at(place: Path) -> Path:
    """A directory with a receipt that names it."""
    place.mkdir()
    (place / RECEIPT).write_text(json.dumps({"format": FORMAT, "destination": str(place)}))
    return place


def is_ours(place: Path) -> bool:
    found = installed.describe(os.fsencode(place))
    assert found is not None
    assert (found.receipt is not None) == (found.state == "receipt")
    return found.receipt is not None


@needs_root
@pytest.mark.parametrize("part", ["", RECEIPT])
def test_a_copy_of_another_user_is_foreign(tmp_path: Path, part: str) -> None:
    copy = copy_at(tmp_path / "torch")
    assert is_ours(copy)
    os.chown(copy / part, NOBODY, NOBODY)
    assert not is_ours(copy)


@needs_root
@pytest.mark.parametrize("cleaned", [True, False])
def test_a_hard_link_to_a_receipt_in_a_directory_of_another_user_is_foreign(
    tmp_path: Path,
    cleaned: bool,  # noqa: FBT001
) -> None:
    copy, theirs = copy_at(tmp_path / "torch"), tmp_path / "theirs"
    theirs.mkdir()
    os.link(copy / RECEIPT, theirs / RECEIPT)
    os.chown(theirs, NOBODY, NOBODY)
    copy.rename(tmp_path / "old")
    if cleaned:  # there is one name left
        (tmp_path / "old" / RECEIPT).unlink()
    theirs.rename(copy)
    assert not is_ours(copy)


def test_a_second_name_that_somebody_gave_a_receipt_takes_no_copy_away(tmp_path: Path) -> None:
    copy = copy_at(tmp_path / "torch")
    os.link(copy / RECEIPT, tmp_path / "link")
    assert is_ours(copy)


def test_a_link_to_a_copy_is_foreign(tmp_path: Path) -> None:
    copy = copy_at(tmp_path / "torch")
    copy.rename(tmp_path / "elsewhere")
    copy.symlink_to("elsewhere")
    assert not is_ours(copy)


@needs_root
def test_a_manifest_of_another_user_is_not_read(tmp_path: Path) -> None:
    copy = copy_at(tmp_path / "torch")
    (copy / MANIFEST).write_bytes(b"packed")
    assert installed.read_manifest(os.fsencode(copy), 0) == ManifestAnswer(piece="cGFja2Vk")
    os.chown(copy / MANIFEST, NOBODY, NOBODY)
    with pytest.raises(PermissionError):
        installed.read_manifest(os.fsencode(copy), 0)
    with pytest.raises(manifest.Unreadable):
        installed.read_entries(os.fsencode(copy), Receipt())


def test_a_new_file_takes_no_name_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"list.{b'guessed!'.hex()}").symlink_to(tmp_path / "victim")
    random = iter((b"guessed!", b"tooquick"))
    monkeypatch.setattr(os, "urandom", lambda _: next(random))
    fd, path = receipt.create(os.fsencode(tmp_path), b"list.")
    os.close(fd)
    assert os.path.basename(path) == b"list." + b"tooquick".hex().encode()
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert not (tmp_path / "victim").exists()


class TestReport:
    """The file of --report."""

    @pytest.mark.parametrize("exists", [True, False])
    def test_a_link_at_its_name_is_replaced_and_not_followed(self, tmp_path: Path, exists: bool) -> None:  # noqa: FBT001
        victim, page = tmp_path / "profile", tmp_path / "run.html"
        if exists:
            victim.write_text("mine")
        page.symlink_to(victim)
        path = check_report_path(str(page))
        write_report(path, "page")
        assert (path, page.read_text(), page.is_symlink()) == (str(page), "page", False)
        assert victim.exists() == exists
        assert not exists or victim.read_text() == "mine"
        assert len(os.listdir(tmp_path)) == 1 + exists

    def test_a_link_that_comes_later_is_not_followed(self, tmp_path: Path) -> None:
        victim, page = tmp_path / "profile", tmp_path / "run.html"
        victim.write_text("mine")
        path = check_report_path(str(page))
        page.symlink_to(victim)
        write_report(path, "page")
        assert (page.read_text(), victim.read_text()) == ("page", "mine")

    def test_its_directory_may_be_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        assert check_report_path(str(tmp_path / "link" / "run.html")) == str(tmp_path / "real" / "run.html")

    @needs_root
    def test_what_another_user_keeps_there_is_told_before_anything_moves(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tmp_path.chmod(0o1777)
        page = tmp_path / "run.html"
        page.symlink_to("profile")
        os.chown(page, NOBODY, NOBODY, follow_symlinks=False)
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
        with pytest.raises(UsageError, match="belongs to another user"):
            check_report_path(str(page))

    def test_a_directory_that_vanished_costs_only_the_report(self, tmp_path: Path) -> None:
        with pytest.raises(EzpzError, match="cannot be written: No such file"):
            write_report(str(tmp_path / "gone" / "run.html"), "page")

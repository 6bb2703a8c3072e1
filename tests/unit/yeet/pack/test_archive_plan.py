"""Plans of archives, and the records that pass between making an archive and printing it."""

from __future__ import annotations

import importlib
import os
import pkgutil
from dataclasses import is_dataclass
from typing import TYPE_CHECKING

import pytest

import ezpz.yeet.archive
import ezpz.yeet.cli
import ezpz.yeet.inventory
import ezpz.yeet.pack
from ezpz.agent.common.cancel import CancelToken
from ezpz.yeet.pack.archive_manifest import ArchiveManifest
from ezpz.yeet.pack.archive_plan import EXTERNAL, ArchivedBase, ArchiveDescription, plan_archive
from ezpz.yeet.pack.make import ArchiveRequest, make_archive
from ezpz.yeet.source.scanner import scan_directory

if TYPE_CHECKING:
    from pathlib import Path

PACKAGES = (ezpz.yeet.archive, ezpz.yeet.cli, ezpz.yeet.inventory, ezpz.yeet.pack)
MODULES = sorted(
    each.name for package in PACKAGES for each in pkgutil.iter_modules(package.__path__, package.__name__ + ".")
)


@pytest.mark.parametrize("name", MODULES)
def test_records_do_not_change(name: str) -> None:
    module = importlib.import_module(name)
    found = [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == name]
    records = [each for each in found if is_dataclass(each)]
    assert [each.__name__ for each in records if not each.__dataclass_params__.frozen] == []  # type: ignore[attr-defined]


def test_a_manifest_leaves_its_plan_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    plan = plan_archive(scan_directory(os.fsencode(tmp_path)))
    described = repr(plan.description)
    ArchiveManifest(plan)
    assert repr(plan.description) == described
    assert plan.description == ArchiveDescription("data", "", ArchivedBase("none", "", ""))


def test_an_environment_is_described_with_the_base_that_it_keeps(tmp_path: Path) -> None:
    source = tmp_path / "env"
    (source / "bin").mkdir(parents=True)
    (source / "pyvenv.cfg").write_text("home = /opt/python/bin\nversion = 3.12.1\n")
    (source / "bin" / "python").symlink_to("/opt/python/bin/python3")
    request = ArchiveRequest(src=str(source), format="tar", base="keep")
    made = make_archive(request, {}, lambda _: None, CancelToken())
    base = ArchivedBase(EXTERNAL, "3.12.1", "/opt/python")
    assert made.description == ArchiveDescription("venv", str(source), base)

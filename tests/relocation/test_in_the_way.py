"""Sources that have something where more would come along, and prefixes that are none: nothing is written elsewhere."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.lab.pythons import python
from tests.relocation.trees import beside, names, powerless, refusal, warnings, yeet

if TYPE_CHECKING:
    from pathlib import Path

EPOCH = 1_600_000_000 * 10**9
HISTORY = "# cmd: conda create -p /p/env\n"


def conda_tree(root: Path) -> Path:
    """A conda environment without a bin."""
    (root / "conda-meta").mkdir(parents=True)
    (root / "conda-meta" / "history").write_text(HISTORY)
    (root / "lib").mkdir()
    (root / "lib" / "x").write_text("/p/env/x\n")
    return root


def archive_of(root: Path) -> Path:
    path = root.with_suffix(".tar.gz")
    subprocess.run(["tar", "-czf", path, "-C", root, "."], check=True)
    return path


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    path = tmp_path / "shared" / "env"
    subprocess.run([python("3.11"), "-m", "venv", "--without-pip", path], check=True)
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("relative", [False, True])
def test_no_activation_is_written_through_a_bin_that_is_a_link(tmp_path: Path, *, packed: bool, relative: bool) -> None:
    """As a hostile archive has it; from a directory the link is followed, and its own copy gets nothing new either."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    root = conda_tree(tmp_path / "shared" / "env")
    (root / "bin").symlink_to("../../elsewhere" if relative else elsewhere)
    yeet(archive_of(root) if packed else root, tmp_path / "node" / "D")
    assert list(elsewhere.iterdir()) == []
    assert not [name for name in names(tmp_path / "node" / "D") if name.startswith("bin/")]


@pytest.mark.parametrize("packed", [False, True])
def test_a_conda_environment_without_bin_gets_one(tmp_path: Path, *, packed: bool) -> None:
    root = conda_tree(tmp_path / "shared" / "env")
    done = yeet(archive_of(root) if packed else root, tmp_path / "node" / "D")
    assert "no-interpreter" in warnings(done)
    assert "bin/activate" in names(tmp_path / "node" / "D")


def test_a_read_only_bin_in_an_archive_takes_its_activation_and_stays_read_only(tmp_path: Path) -> None:
    root = conda_tree(tmp_path / "shared" / "env")
    (root / "bin").mkdir()
    (root / "bin" / "tool").write_text("#!/bin/sh\n")
    os.utime(root / "bin", ns=(EPOCH, EPOCH))
    (root / "bin").chmod(0o555)
    node = tmp_path / "node"
    node.mkdir()
    yeet(archive_of(root), node / "D", under=powerless())
    assert "bin/activate" in names(node / "D")
    status = (node / "D" / "bin").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o555, EPOCH)


@pytest.mark.parametrize("prefix", ["lib", "rel/ative", "/", "", "/usr", "/usr/local", "/one", "/p/../q/env", "//"])
def test_an_original_prefix_that_is_none_is_refused(venv: Path, tmp_path: Path, prefix: str) -> None:
    code, message = refusal(yeet(venv, tmp_path / "node" / "D", "--orig-prefix", prefix, exit_code=2))
    assert code == "usage"
    assert f"--orig-prefix '{prefix}'" in message
    assert not (tmp_path / "node").exists()


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_is_in_the_way_of_the_base_interpreter_is_told_before_anything_moves(
    venv: Path, tmp_path: Path, kind: str
) -> None:
    if kind == "folder":
        (venv / ".python").mkdir()
    else:
        (venv / ".python").symlink_to(tmp_path)
    (tmp_path / "node").mkdir()
    code, message = refusal(yeet(venv, tmp_path / "node" / "D", "--base", "embed", exit_code=2))
    assert code == "usage"
    assert message == f"'{venv}/.python' is in the way of what would come along"
    assert list((tmp_path / "node").iterdir()) == []


def test_what_a_node_has_can_be_brought_back_and_yeeted_again(venv: Path, tmp_path: Path) -> None:
    """Somebody saves the environment that they changed on the node, which still stands there."""
    first, saved, again = tmp_path / "node" / "D", tmp_path / "shared" / "saved", tmp_path / "node" / "E"
    yeet(venv, first, "--base", "embed")
    shutil.copytree(first, saved, symlinks=True)
    done = yeet(saved, again, "--base", "embed")
    assert done["relocation"]["base"]["mode"] == "none"
    said = subprocess.run(
        [again / "bin" / "python", "-c", "import sys; print(sys.prefix, sys.base_prefix)"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert said == f"{again} {again}/.python\n"
    assert beside(again) == ["D"]

"""What is said of a run is what was done: the numbers of the report, and each warning with what it is about."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab import conda
from tests.lab.pythons import python
from tests.relocation.moves import Ground, naming, venv

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.relocation.support import Landed

SITE = "lib/python3.11/site-packages"
KEEP = ("--base", "keep")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    ground = Ground(tmp_path_factory.mktemp("carried"))
    yield ground
    ground.close()


@pytest.fixture(scope="module")
def source(ground: Ground) -> Path:
    """A venv with one of everything that is counted, each a known number of times."""
    source = venv(python("3.11"), ground.shared / "venv")
    outside = ground.shared / "outside"
    outside.mkdir()
    for number in range(3):
        (outside / f"{number}.bin").write_bytes(b"\1" * 1000)
        (source / "lib" / f"out-{number}").symlink_to(outside / f"{number}.bin")
    (source / "share").mkdir()
    (source / "share" / "text").write_text(f"{source}/a:{source}/b and {source}-more/c\n")
    (source / "share" / "other").write_text(f"{source}-more\n")
    (source / "bin" / "absolute").symlink_to(source / "bin" / "where")
    (source / SITE / "baked.dat").write_bytes(b"\0" + os.fsencode(source) + b"/share\0")
    (source / SITE / "good.py").write_text(f"PLACE = '{source}'\n")
    (source / SITE / "plain.py").write_text("ANSWER = 42\n")
    (source / SITE / "bad.py").write_text("this is no python\n")
    return source


@pytest.fixture(scope="module")
def moved(ground: Ground, source: Path) -> tuple[Path, dict[str, Any]]:
    place, report = ground.yeet(source, *KEEP)
    said: dict[str, Any] = report["relocation"]
    return place, said


def _files(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
    return {name: path.read_bytes() for name, path in found.items() if path.is_file() and not path.is_symlink()}


def test_files_patched_are_those_that_differ(source: Path, moved: tuple[Path, dict[str, Any]]) -> None:
    place, said = moved
    before, after = _files(source), _files(place)
    changed = {name for name in before if before[name] != after[name]}
    assert {"share/text", "bin/where", "bin/activate", f"{SITE}/good.py"} <= changed
    assert not {"share/other", f"{SITE}/baked.dat", f"{SITE}/plain.py"} & changed
    assert said["files_patched"] == len(changed)
    replaced = sum(content.count(os.fsencode(place)) for name, content in after.items() if name in changed)
    assert said["paths_replaced"] == replaced


def test_links_are_counted(source: Path, moved: tuple[Path, dict[str, Any]]) -> None:
    place, said = moved
    links = [path for path in source.rglob("*") if path.is_symlink()]
    there = {link: place / link.relative_to(source) for link in links}
    rewritten = [link for link, new in there.items() if new.is_symlink() and new.readlink() != link.readlink()]
    assert rewritten == [source / "bin" / "absolute"]
    assert said["links_rewritten"] == 1
    assert (said["links_followed"], said["followed_bytes"]) == (3, 3000)
    assert all((place / "lib" / f"out-{number}").read_bytes() == b"\1" * 1000 for number in range(3))


def test_bytecode_is_counted(moved: tuple[Path, dict[str, Any]]) -> None:
    place, said = moved
    made = sorted(path.name.split(".")[0] for path in (place / SITE).rglob("*.pyc"))
    assert made == ["good", "plain"]
    assert said["bytecode"] == {"compiled": 2, "failed": 1}


def test_the_base_and_its_python(moved: tuple[Path, dict[str, Any]]) -> None:
    _, said = moved
    top = os.path.dirname(os.path.dirname(os.path.realpath(python("3.11"))))
    expected = {"mode": "kept", "reason": "asked for", "path": top, "bytes": 0, "site_packages_bytes": 0}
    assert said["base"] == expected
    assert said["python"].startswith("Python 3.11.")
    assert said["editables"] == []


def test_case_50_a_prefix_in_binary_code_is_listed_and_left(source: Path, moved: tuple[Path, dict[str, Any]]) -> None:
    place, said = moved
    assert [(each["case"], each["count"], each["paths"]) for each in said["warnings"]] == [
        ("baked-prefix", 1, [f"{SITE}/baked.dat"])
    ]
    assert "holds the old path in its binary code" in said["warnings"][0]["text"]
    assert (place / SITE / "baked.dat").read_bytes() == (source / SITE / "baked.dat").read_bytes()


@pytest.fixture(scope="module")
def untidy(ground: Ground) -> Landed:
    """An environment of pixi in which files are missing, others were overwritten, and records are damaged."""
    target = ground.shared / "pixi" / ".pixi" / "envs" / "default"
    conda.install((conda.make_tool(ground.shared / "pkgs"),), target)
    (target / "conda-meta" / "pixi_env_prefix").write_text(str(target))
    (target / "conda-meta" / "pixi").write_text(json.dumps({"manifest_path": str(target.parents[2] / "pixi.toml")}))
    (target / "share" / "labtool" / "labtool.conf").unlink()
    (target / "lib" / "pkgconfig" / "labtool.pc").write_text("clobbered\n")
    (target / "bin" / "labtool").unlink()
    (target / "bin" / "labtool").write_text(f"#!/bin/sh\necho {target}\n")  # it is recorded as binary
    (target / "bin" / "labtool").chmod(0o755)
    (target / "conda-meta" / "broken-1.0-0.json").write_text("{no json")
    return ground.move(target)


def test_case_53_pixi_finds_its_prefix(untidy: Landed) -> None:
    assert (untidy.path / "conda-meta" / "pixi_env_prefix").read_text() == str(untidy.path)
    assert (untidy.path / "bin" / "labtool-where").read_text().startswith(f"#!{untidy.path}/bin/python\n")


def test_case_54_what_is_missing_or_clobbered_is_copied_as_it_is(untidy: Landed) -> None:
    assert not (untidy.path / "share" / "labtool" / "labtool.conf").exists()
    assert (untidy.path / "lib" / "pkgconfig" / "labtool.pc").read_text() == "clobbered\n"
    assert (untidy.path / "conda-meta" / "broken-1.0-0.json").read_text() == "{no json"
    assert untidy.says(untidy.path / "bin" / "labtool") == f"{untidy.path}\n"
    left = [name for name in naming(untidy.path, untidy.source.path) if not name.startswith("conda-meta/")]
    assert left == []

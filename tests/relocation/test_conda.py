"""A conda environment works from its new place, without conda, its package cache, or the place where it was.

Archives of conda-pack are in test_archives.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.contract.support import photograph
from tests.lab import conda
from tests.lab.slowfs import CACHE
from tests.relocation import support
from tests.relocation.moves import Ground, naming
from tests.relocation.trees import STRATEGIES, beside, refusal, warnings, yeet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.relocation.support import Landed

LONGER = "a destination/whose name is longer than that of/" + "the-source-has-ever-been/" * 3
ACTIVATE = """
. "$1/bin/activate" && echo "$CONDA_PREFIX" && echo "$LABTOOL_HOME" && command -v labtool && labtool-where &&
deactivate && echo "${CONDA_PREFIX-none} ${LABTOOL_HOME-none}"
"""
FISH = """
source "$argv[1]/bin/activate.fish"; and echo $CONDA_PREFIX; and echo $LABTOOL_HOME; and command -v labtool
and labtool-where; and deactivate; and echo (set -q CONDA_PREFIX; or echo none) (set -q LABTOOL_HOME; or echo none)
"""


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    ground = Ground(tmp_path_factory.mktemp("conda"))
    yield ground
    ground.close()


@pytest.fixture(scope="module")
def environment(ground: Ground) -> Path:
    """A real one, its package cache beside it."""
    return conda.make_conda(ground.shared / "env", cache=CACHE)


@pytest.fixture(scope="module", params=["longer", "shorter"])
def landed(request: pytest.FixtureRequest, ground: Ground, environment: Path) -> Iterator[Landed]:
    """It, put to a place with a longer or a shorter path; nothing of the source changed."""
    before = photograph(ground.shared)
    with tempfile.TemporaryDirectory(prefix="e", dir="/var/tmp") as short:
        place = Path(short, "c") if request.param == "shorter" else ground.node / LONGER / "env"
        assert (len(str(place)) < len(str(environment))) == (request.param == "shorter")
        _, report = ground.yeet(environment, "--compile", "never", place=place)
        assert photograph(ground.shared) == before
        yield support.Landed(support.Made(environment, (ground.shared,)), place, ground.home, report)
        shutil.rmtree(place)


def test_case_48_a_program_finds_its_data_by_the_prefix_in_it(landed: Landed) -> None:
    place = str(landed.path)
    said = landed.says(landed.path / "bin" / "labtool")
    assert said == f"found by the program\n{place}/lib:{place}/share:/usr/lib\n"


def test_case_48_its_length_and_everything_else_stay(landed: Landed) -> None:
    old, new = (path / "bin" / "labtool" for path in (landed.source.path, landed.path))
    before, after = old.read_bytes(), new.read_bytes()
    assert len(before) == len(after)
    assert old.stat().st_mtime_ns == new.stat().st_mtime_ns
    assert landed.report["relocation"]["files_patched"] > 3


def test_case_47_texts_name_the_new_place_only(landed: Landed) -> None:
    named = naming(landed.path, landed.source.path)
    records = {name for name in named if name.startswith("conda-meta/") and name.endswith(".json")}
    assert set(named) == records  # they are conda's own, and as they were
    configuration = (landed.path / "share" / "labtool" / "labtool.conf").read_text()
    assert configuration == f"[paths]\ndata = {landed.path}/share/labtool\n"
    assert f"--prefix {landed.path} " in (landed.path / "conda-meta" / "history").read_text()


def test_case_12_every_console_script_runs(landed: Landed) -> None:
    support.check_scripts(landed)


def test_the_interpreter_is_its_own(landed: Landed) -> None:
    support.check_interpreter(landed)
    assert landed.report["kind"] == "conda"
    assert landed.report["relocation"]["base"]["mode"] == "none"


@pytest.mark.parametrize("shell", sorted(support.SHELLS))
def test_case_52_it_is_activated_without_conda(landed: Landed, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    place = str(landed.path)
    script, name = (FISH, []) if shell == "fish" else (ACTIVATE, [shell])
    said = landed.says(*support.SHELLS[shell], script, *name, place).splitlines()
    assert said == [place, f"{place}/share/labtool", f"{place}/bin/labtool", place, "none none"]


@pytest.fixture
def packages(tmp_path: Path) -> tuple[conda.Package, ...]:
    """A package cache with one small package."""
    (tmp_path / "node").mkdir()
    return (conda.make_tool(tmp_path / "shared" / "pkgs"),)


@pytest.fixture
def small(packages: tuple[conda.Package, ...], tmp_path: Path) -> Path:
    """An environment without a Python."""
    conda.install(packages, tmp_path / "shared" / "small")
    return tmp_path / "shared" / "small"


def program_says(environment: Path) -> str:
    return subprocess.run([environment / "bin" / "labtool"], capture_output=True, text=True).stdout


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_case_38_the_package_cache_is_not_touched(small: Path, tmp_path: Path, strategy: str) -> None:
    linked = small / "share" / "labtool" / "data.txt"
    assert linked.stat().st_nlink == 2
    before = photograph(tmp_path / "shared")
    yeet(small, tmp_path / "node" / "D", "--strategy", strategy)
    assert photograph(tmp_path / "shared") == before
    assert (tmp_path / "node" / "D" / "share" / "labtool" / "data.txt").stat().st_nlink == 1


def long_place(tmp_path: Path, length: int) -> Path:
    """A path of so many bytes."""
    place = tmp_path / "node"
    while length - len(str(place)) - 1 > 200:
        place /= "d" * 100
    return place / ("e" * (length - len(str(place)) - 1))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_case_49_a_prefix_too_long_is_refused_and_leaves_nothing(small: Path, tmp_path: Path, strategy: str) -> None:
    place = long_place(tmp_path, 300)
    assert len(str(place)) == 300
    done = yeet(small, place, "--strategy", strategy, exit_code=29)
    code, message = refusal(done)
    assert code == "prefix-too-long"
    assert message.endswith("prefix too long by 45 bytes in bin/labtool")
    assert done["error"]["hint"] == "use a shorter --dst"
    assert list((tmp_path / "node").iterdir()) == []


def test_case_49_one_that_just_fits_works(small: Path, tmp_path: Path) -> None:
    place = long_place(tmp_path, 255)
    yeet(small, place)
    shutil.rmtree(tmp_path / "shared")
    assert program_says(place).startswith("found by the program\n")
    assert beside(place) == []


def test_case_49_the_version_in_place_stays_when_the_next_does_not_fit(small: Path, tmp_path: Path) -> None:
    """As when a package with less room is installed."""
    place = long_place(tmp_path, 200)
    yeet(small, place)
    record = next((small / "conda-meta").glob("labtool-*.json"))
    said = json.loads(record.read_text())
    for entry in said["paths_data"]["paths"]:
        if entry["_path"] == "bin/labtool":
            entry["prefix_placeholder"] = "/opt/placeholder"
    record.write_text(json.dumps(said))
    os.utime(small / "bin" / "labtool")
    before = photograph(place)
    assert refusal(yeet(small, place, exit_code=29))[0] == "prefix-too-long"
    assert photograph(place) == before


def test_case_50_a_binary_that_no_record_names_is_left_and_told(small: Path, tmp_path: Path) -> None:
    """As one that pip has installed."""
    baked = small / "lib" / "libbaked.so"
    baked.write_bytes(b"\x7fELF\0\0" + os.fsencode(small) + b"/share\0")
    done = yeet(small, tmp_path / "node" / "D")
    assert warnings(done)["baked-prefix"] == (1, ["lib/libbaked.so"])
    assert (tmp_path / "node" / "D" / "lib" / "libbaked.so").read_bytes() == baked.read_bytes()


@pytest.fixture
def base(small: Path) -> Path:
    """What looks like an installation of conda itself."""
    (small / "conda-meta" / "conda-24.1.2-py311_0.json").write_text("{}")
    (small / "condabin").mkdir()
    (small / "condabin" / "conda").write_text(f"#!{small}/bin/python\n")
    for name in ("pkgs/labtool-1.0-h1_0/bin", "envs/other/conda-meta", "lib/pkgs"):
        (small / name).mkdir(parents=True)
        (small / name / "file").write_text("content")
    return small


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_case_51_a_base_environment_leaves_its_cache_and_the_others(base: Path, tmp_path: Path, strategy: str) -> None:
    done = yeet(base, tmp_path / "node" / "D", "--strategy", strategy)
    place = tmp_path / "node" / "D"
    assert not (place / "pkgs").exists()
    assert not (place / "envs").exists()
    assert (place / "lib" / "pkgs" / "file").exists()
    assert warnings(done)["environments-left-out"] == (2, ["pkgs", "envs"])
    assert (place / "condabin" / "conda").read_text() == f"#!{place}/bin/python\n"


def test_case_51_any_other_environment_keeps_folders_of_that_name(small: Path, tmp_path: Path) -> None:
    (small / "pkgs").mkdir()
    (small / "pkgs" / "file").touch()
    done = yeet(small, tmp_path / "node" / "D")
    assert (tmp_path / "node" / "D" / "pkgs" / "file").exists()
    assert "environments-left-out" not in warnings(done)


def test_case_53_the_files_of_pixi_name_the_new_place(small: Path, tmp_path: Path) -> None:
    meta = small / "conda-meta"
    (meta / "pixi_env_prefix").write_text(str(small))
    (meta / "pixi").write_text(json.dumps({"manifest_path": f"{small}/pixi.toml", "environment_name": "default"}))
    yeet(small, tmp_path / "node" / "D")
    place = tmp_path / "node" / "D"
    assert (place / "conda-meta" / "pixi_env_prefix").read_text() == str(place)
    assert json.loads((place / "conda-meta" / "pixi").read_text())["manifest_path"] == f"{place}/pixi.toml"


@pytest.mark.parametrize("damage", ["cut short", "empty", "another document", "missing", "a link", "not a file"])
def test_case_54_a_damaged_record_costs_only_what_it_would_have_told(small: Path, tmp_path: Path, damage: str) -> None:
    record = next((small / "conda-meta").glob("labtool-*.json"))
    text = record.read_text()
    record.unlink()
    if damage == "not a file":
        record.mkdir()
    elif damage == "a link":
        record.symlink_to("/no/such/record")
    elif damage != "missing":
        record.write_text({"cut short": text[: len(text) // 2], "empty": "", "another document": "[1]"}[damage])
    (small / "bin" / "labtool-where").unlink()  # a file that went missing
    done = yeet(small, tmp_path / "node" / "D")
    place = tmp_path / "node" / "D"
    assert warnings(done)["baked-prefix"] == (1, ["bin/labtool"])
    assert (place / "share" / "labtool" / "labtool.conf").read_text() == f"[paths]\ndata = {place}/share/labtool\n"


@pytest.mark.parametrize(
    "path", ["../../outside", "/etc/passwd", "bin/../bin/labtool", "", "bin", "bin/\u0000x", "\ud800", "x" * 5000]
)
def test_hostile_records_reach_nothing_outside(small: Path, tmp_path: Path, path: str) -> None:
    record = next((small / "conda-meta").glob("labtool-*.json"))
    said = json.loads(record.read_text())
    entry = {"_path": path, "file_mode": "binary", "prefix_placeholder": conda.PLACEHOLDER, "path_type": "hardlink"}
    said["paths_data"]["paths"].append(entry)
    record.write_text(json.dumps(said))
    (tmp_path / "outside").write_text(str(small))
    yeet(small, tmp_path / "node" / "D")
    assert (tmp_path / "outside").read_text() == str(small)
    shutil.rmtree(tmp_path / "shared")
    assert program_says(tmp_path / "node" / "D").startswith("found by the program\n")

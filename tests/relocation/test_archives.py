"""An archive of an environment becomes what the environment itself would have become, whoever packed it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ezpz.yeet.archive.info import read_info
from tests.contract.support import REPOSITORY
from tests.lab import conda
from tests.lab.creators import tools
from tests.lab.hidden import elsewhere, hidden
from tests.lab.model import LabUnavailable
from tests.lab.pythons import python
from tests.lab.slowfs import CACHE
from tests.relocation.moves import Ground, naming
from tests.relocation.support import Landed, Made

if TYPE_CHECKING:
    from collections.abc import Iterator

KEEP = ("--base", "keep")
STDLIB = ("3.8", "3.11", "3.12", "3.13")
CREATORS = (*(f"venv of {version}" for version in STDLIB), "virtualenv", "uv", "uv --relocatable")
ACTIVATE = '. "$1/bin/activate" && echo "$VIRTUAL_ENV" && where'
PACKERS = ("conda-pack", "venv-pack")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    ground = Ground(tmp_path_factory.mktemp("archives"))
    yield ground
    ground.close()


@pytest.fixture(scope="module")
def packers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with conda-pack and venv-pack to import, which have nothing that they need."""
    folder = CACHE / "packers"
    if not folder.exists():
        partial = tmp_path_factory.mktemp("packers") / "packers"
        argv = [tools() / "pip", "install", "--quiet", "--no-deps", "--target", partial, *PACKERS]
        if subprocess.run([str(each) for each in argv]).returncode:
            raise LabUnavailable("pip could not get conda-pack and venv-pack")
        subprocess.run(["mv", "-T", partial, folder], check=True)
    return folder


@pytest.fixture(scope="module")
def wheel(ground: Ground) -> Path:
    """A package with the console script `where`, which prints its prefix."""
    path = ground.node.parent / "where-1.0-py3-none-any.whl"
    info = "where-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("where.py", "import sys\ndef main():\n    print(sys.prefix)\n")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: where\nVersion: 1.0\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/entry_points.txt", "[console_scripts]\nwhere = where:main\n")
        file.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture(scope="module")
def environments(ground: Ground, wheel: Path) -> Environments:
    return Environments(ground, wheel)


class Environments:
    """One of each creator, each made once, with the package in it."""

    def __init__(self, ground: Ground, wheel: Path) -> None:
        self.ground, self.wheel = ground, wheel
        self.uv = str(tools() / "uv")

    def made(self, creator: str) -> Path:
        target = self.ground.shared / creator.replace(" ", "-")
        if not target.exists():
            name, _, rest = creator.partition(" ")
            options = {
                "venv": [python(rest.removeprefix("of ")), "-m", "venv", "--without-pip"] if name == "venv" else [],
                "virtualenv": [str(tools() / "virtualenv"), "-q", "--no-seed", "--no-periodic-update"],
                "uv": [self.uv, "venv", "-q", "--no-project", "--python", python("3.11"), *filter(None, [rest])],
            }
            subprocess.run([*options[name], str(target)], check=True)
            install = [self.uv, "pip", "install", "-q", "--offline", "--no-deps", "--no-cache", "--python", str(target)]
            subprocess.run([*install, str(self.wheel)], check=True)
        return target


def plain(environment: Path) -> Path:
    """What `tar czf` of the folder makes."""
    archive = environment.parent / f"{environment.name}.tgz"
    subprocess.run(["tar", "-I", "gzip -1", "-cf", archive, "-C", environment.parent, environment.name], check=True)
    return archive


def ours(environment: Path, base: str, suffix: str = ".tar.zst") -> Path:
    """What `ezpz yeet tar --base` makes."""
    archive = environment.parent / f"{environment.name}-{base}{suffix}"
    argv = [sys.executable, "-m", "ezpz", "yeet", "tar", str(environment), "-o", str(archive), "--base", base]
    subprocess.run(argv, check=True, capture_output=True)
    return archive


def by_packer(packers: Path, module: str, environment: Path) -> Path:
    archive = environment.parent / f"{environment.name}-{module}.tar.gz"
    code = f"import sys; from {module}.{'cli' if module == 'conda_pack' else '__main__'} import main; sys.exit(main())"
    argv = [python("3.11"), "-c", code, "--prefix", environment, "--output", archive, "--quiet"]
    subprocess.run([str(each) for each in argv], check=True, env={**os.environ, "PYTHONPATH": str(packers)})
    return archive


def check(landed: Landed, was: Path) -> None:
    """Its script runs, activated or not, and nothing in it names the place where it was."""
    place = str(landed.path)
    assert naming(landed.path, was) == []
    assert landed.says(landed.path / "bin" / "where") == f"{place}\n"
    assert landed.says("bash", "--norc", "-ec", ACTIVATE, "bash", place) == f"{place}\n{place}\n"


@pytest.mark.parametrize("creator", CREATORS)
def test_case_19_plain_tar_of_any_creator(ground: Ground, environments: Environments, creator: str) -> None:
    environment = environments.made(creator)
    landed = ground.move(plain(environment), *KEEP)
    assert landed.report["kind"] == "venv"
    check(landed, environment)


@pytest.mark.parametrize(
    ("creator", "base"),
    [("venv of 3.12", "embed"), ("venv of 3.12", "keep"), ("virtualenv", "keep"), ("uv --relocatable", "keep")],
)
def test_an_archive_of_ours_becomes_what_the_environment_becomes(
    ground: Ground, environments: Environments, creator: str, base: str
) -> None:
    """To the bit: it has the same version."""
    environment = environments.made(creator)
    place, first = ground.yeet(environment, "--base", base, "--compile", "never")
    _, second = ground.yeet(ours(environment, base), "--base", base, "--compile", "never", "--replace", place=place)
    assert second["version"] == first["version"]
    assert second["files"] == first["files"] > 9


@pytest.mark.parametrize(
    ("creator", "suffix"),
    [("venv of 3.12", ".tar.zst"), ("venv of 3.12", ".tar"), ("virtualenv", ".tar.gz"), ("uv", ".squashfs")],
)
def test_one_with_its_base_is_unpacked_where_neither_is(
    ground: Ground, environments: Environments, creator: str, suffix: str
) -> None:
    if suffix == ".squashfs" and shutil.which("mksquashfs") is None:
        pytest.skip("mksquashfs is not here")
    environment = environments.made(creator)
    archive = ground.node / ours(environment, "embed", suffix).name
    shutil.move(environment.parent / archive.name, archive)
    base = Path(os.path.realpath(environment / "bin" / "python")).parents[1]
    place = ground.node / f"{archive.name}.d" / "env"
    place.parent.mkdir()
    argv = [sys.executable, "-m", "ezpz", "yeet", "tar", "--unpack", str(archive), str(place), "--json"]
    own = Path(os.path.realpath(sys.executable)).parents[1]
    hide = [ground.shared, *([base] if base != own else [])]  # ezpz itself needs its own
    done = hidden(argv, hide, env={**os.environ, "HOME": str(ground.home)})
    assert done.returncode == 0, done.stdout + done.stderr
    landed = Landed(Made(environment, (ground.shared, base)), place, ground.home, json.loads(done.stdout))
    check(landed, environment)
    assert landed.says(landed.python, "-c", "import sys; print(sys.base_prefix)") == f"{place}/.python\n"
    assert landed.report["relocation"]["base"]["mode"] == "none"


@pytest.mark.parametrize(("base", "mode"), [("embed", "embedded"), ("keep", "kept"), ("auto", "embedded")])
def test_it_tells_which_base_it_has(environments: Environments, base: str, mode: str) -> None:
    environment = environments.made("venv of 3.12")
    told = read_info(str(ours(environment, base, ".tar")))
    assert told is not None
    assert (told.kind, told.prefix, told.base["mode"]) == ("venv", str(environment), mode)
    assert "3.12" in told.base["python"]
    assert told.base["prefix"] == str(Path(os.path.realpath(environment / "bin" / "python")).parents[1])


def test_the_systems_own_python_stays_where_it_is_unless_it_shall_come(ground: Ground) -> None:
    environment = ground.shared / "of-the-system"
    if subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", environment]).returncode:
        pytest.skip("the system has no python with venv")
    modes = [read_info(str(ours(environment, base, ".tar"))) for base in ("auto", "keep", "embed")]
    assert [told and told.base["mode"] for told in modes] == ["kept", "kept", "embedded"]


MEND = "sed -i 's|^home = .*|home = /local/torch/.python/bin|' /local/torch/pyvenv.cfg"  # as the docs have it
NEEDS = "import sys, os, where, ssl, ctypes, sqlite3, zlib; print(sys.prefix, sys.base_prefix, os.__file__)"


@pytest.mark.parametrize("creator", ["venv of 3.12", "virtualenv", "uv"])
def test_one_with_its_base_runs_on_a_machine_that_has_no_python(
    ground: Ground, environments: Environments, creator: str
) -> None:
    """But the same C library: unpacked by us, and by tar at a place of its own."""
    assert f"{MEND}\n" in (REPOSITORY / "docs" / "how-to" / "models-and-archives.md").read_text()
    environment = environments.made(creator)
    archive = ours(environment, "embed")
    place = ground.node / f"{environment.name}-elsewhere" / "env"
    place.parent.mkdir()
    subprocess.run(
        [sys.executable, "-m", "ezpz", "yeet", "tar", "--unpack", archive, place, "-q"],
        check=True, capture_output=True, env={**os.environ, "HOME": str(ground.home)},
    )  # fmt: skip
    assert "not found" in elsewhere(["sh", "-c", "python3"], [place]).stderr
    done = elsewhere([place / "bin" / "where"], [place])
    assert (done.stdout, done.stderr) == (f"{place}\n", "")
    for script, paths, root in (
        ('exec "$0/bin/python" -c "$1"', [place], place),
        (
            f'mkdir -p "$0" && tar -xf {archive} -C "$0" && {MEND} && exec "$0/bin/python" -c "$1"',
            [archive],
            Path("/local/torch"),
        ),
    ):
        done = elsewhere(["sh", "-ec", script, root, NEEDS], paths)
        assert done.returncode == 0, done.stderr
        prefix, base, library = done.stdout.split()
        assert (prefix, base) == (str(root), f"{root}/.python")
        assert library.startswith(f"{root}/.python/lib/")


def test_plain_tar_of_one_with_its_base_starts(ground: Ground, environments: Environments) -> None:
    """At the place where it was made."""
    environment = environments.made("venv of 3.12")
    archive = ground.node / "plain.tar.zst"
    shutil.move(ours(environment, "embed"), archive)
    base = Path(os.path.realpath(environment / "bin" / "python")).parents[1]
    script = f"mkdir -p {environment} && tar -xf {archive} -C {environment} && {environment}/bin/where"
    done = hidden(["sh", "-ec", f"mount -t tmpfs x {ground.shared} && {script}"], [ground.shared, base])
    assert (done.stdout, done.returncode) == (f"{environment}\n", 0), done.stderr


def test_case_19_an_archive_brings_its_base_along(ground: Ground, environments: Environments) -> None:
    environment = environments.made("venv of 3.12")
    landed = ground.move(plain(environment), "--base", "embed")
    check(landed, environment)
    said = landed.says(landed.python, "-c", "import os, sys; print(sys.base_prefix); print(os.__file__)").split()
    assert said == [f"{landed.path}/.python", f"{landed.path}/.python/lib/python3.12/os.py"]
    assert landed.report["relocation"]["base"]["bytes"] > 10_000_000


def test_an_archive_of_what_carries_its_base(ground: Ground, environments: Environments) -> None:
    """Of a destination, that is: its base came along and is found in the archive."""
    place, _ = ground.yeet(environments.made("venv of 3.12"), "--base", "embed", "--compile", "never")
    moved = ground.shared / "of-a-node"
    subprocess.run(["mv", str(place), str(moved)], check=True)
    landed = ground.move(plain(moved))
    check(landed, place)
    assert landed.says(landed.python, "-c", "import sys; print(sys.base_prefix)") == f"{landed.path}/.python\n"
    assert landed.report["relocation"]["base"]["mode"] == "none"


def test_case_20_venv_pack(ground: Ground, environments: Environments, packers: Path) -> None:
    environment = environments.made("venv of 3.11")
    landed = ground.move(by_packer(packers, "venv_pack", environment), *KEEP)
    check(landed, environment)


@pytest.fixture(scope="module")
def of_conda(ground: Ground) -> Path:
    """An environment of conda packages."""
    target = ground.shared / "conda-env"
    conda.install(conda.make_packages(ground.shared / "pkgs"), target)
    return target


def test_case_20_conda_pack_which_has_no_top_folder(ground: Ground, of_conda: Path, packers: Path) -> None:
    landed = ground.move(by_packer(packers, "conda_pack", of_conda), *KEEP)
    assert landed.report["kind"] == "conda"
    place = str(landed.path)
    assert landed.says(landed.path / "bin" / "labtool").splitlines()[1] == f"{place}/lib:{place}/share:/usr/lib"
    script = '. "$1/bin/activate" && echo "$CONDA_PREFIX" && labtool-where && echo "$LABTOOL_HOME"'
    assert landed.says("bash", "--norc", "-ec", script, "bash", place) == f"{place}\n{place}\n{place}/share/labtool\n"
    assert landed.says(landed.path / "bin" / "labtool-where") == f"{place}\n"  # conda-pack leaves its python to PATH
    naming_it = naming(landed.path, of_conda) + naming(landed.path, ground.shared / "pkgs")
    assert [name for name in naming_it if not name.startswith("conda-meta/")] == []
    held = naming(landed.path, Path(conda.PLACEHOLDER))
    assert [name for name in held if not name.startswith(("conda-meta/", "bin/conda-unpack"))] == []


@pytest.fixture(scope="module")
def silent(ground: Ground) -> Path:
    """The archive of an environment that says in one file only where it stood, and not as one that can be asked."""
    environment = ground.shared / "silent"
    (environment / "bin").mkdir(parents=True)
    (environment / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (environment / "bin" / "tool").write_text("#!/bin/sh\nexec cat /was/here/share/data\n")
    (environment / "bin" / "tool").chmod(0o755)
    (environment / "bin" / "python").symlink_to(python("3.11"))
    return plain(environment)


def test_case_19_an_archive_that_tells_nothing_is_refused(ground: Ground, silent: Path) -> None:
    error = ground.refused(silent, code=16)
    assert error["code"] == "prefix-unknown"
    assert "cannot determine the original prefix" in error["message"]
    assert "--orig-prefix" in error["hint"]


def test_case_19_unless_it_is_told(ground: Ground, silent: Path) -> None:
    place, _ = ground.yeet(silent, *KEEP, "--orig-prefix", "/was/here")
    assert (place / "bin" / "tool").read_text() == f"#!/bin/sh\nexec cat {place}/share/data\n"


def test_case_20_what_stands_alone_in_an_archive_is_not_always_its_top(ground: Ground) -> None:
    (ground.shared / "lone" / "bin").mkdir(parents=True)
    (ground.shared / "lone" / "bin" / "tool").write_text("content")
    for name, members in (("named", ["-C", ground.shared, "lone"]), ("unnamed", ["-C", ground.shared / "lone", "bin"])):
        archive = ground.shared / f"{name}.tar.gz"
        subprocess.run(["tar", "-czf", str(archive), *map(str, members)], check=True)
        place, _ = ground.yeet(archive)
        assert (place / "bin" / "tool").read_text() == "content", name

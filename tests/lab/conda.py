"""A conda environment, installed as conda does it: packages with a placeholder in them, and records of what has one.

The packages lie beside the environment in `pkgs/`, and files without a prefix are hard links to there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.lab.creators import NEEDED, make_project, wheels
from tests.lab.model import LabUnavailable
from tests.lab.pythons import about, copy_python, python

if TYPE_CHECKING:
    from pathlib import Path

VERSION = "3.11"
PLACEHOLDER = ("/home/lab/feedstock_root/build_artifacts/lab_1700000000000/_h_env" + "_placehold" * 30)[:255]
SHEBANG_LIMIT = 127  # bytes; beyond it conda has `env` look for the interpreter
PROGRAM = """
#include <stdio.h>
const char *const data = PREFIX "/share/labtool/data.txt";
const char *const places = PREFIX "/lib:" PREFIX "/share:/usr/lib";
int main(void) {
  char line[256];
  FILE *file = fopen(data, "r");
  if (!file || !fgets(line, sizeof line, file)) { perror(data); return 1; }
  printf("%s%s\\n", line, places);
  return 0;
}
"""
FILES = {
    "bin/labtool-where": f"#!{PLACEHOLDER}/bin/python\nimport sys\nprint(sys.prefix)\n",
    "share/labtool/data.txt": "found by the program\n",
    "share/labtool/labtool.conf": f"[paths]\ndata = {PLACEHOLDER}/share/labtool\n",
    "lib/pkgconfig/labtool.pc": f"prefix={PLACEHOLDER}\nName: labtool\nDescription: lab\nVersion: 1.0\n",
    "etc/conda/activate.d/labtool.sh": f'export LABTOOL_HOME="{PLACEHOLDER}/share/labtool"\n',
    "etc/conda/activate.d/labtool.fish": f'set -gx LABTOOL_HOME "{PLACEHOLDER}/share/labtool"\n',
    "etc/conda/activate.d/labtool.csh": f'setenv LABTOOL_HOME "{PLACEHOLDER}/share/labtool"\n',
    "etc/conda/deactivate.d/labtool.sh": "unset LABTOOL_HOME\n",
    "etc/conda/deactivate.d/labtool.fish": "set -e LABTOOL_HOME\n",
    "etc/conda/deactivate.d/labtool.csh": "unsetenv LABTOOL_HOME\n",
}


@dataclass(frozen=True)
class Package:
    """An unpacked package of conda's cache."""

    name: str
    version: str
    build: str
    folder: Path

    @property
    def full_name(self) -> str:
        return f"{self.name}-{self.version}-{self.build}"


def make_conda(target: Path, *, cache: Path) -> Path:
    """Make an environment with Python, pip, numpy, an editable project, and a program with a prefix in its binary code.

    No index of conda packages can be reached from everywhere, so they are made here; wheels come from ``cache``.
    """
    packages = make_packages(target.parent / "pkgs")
    install(packages, target)
    interpreter, found = str(target / "bin" / "python"), wheels(VERSION, (*NEEDED, "numpy"), cache)
    pip = str(next(found.glob("pip-*.whl")) / "pip")
    options = ["install", "--quiet", "--no-index", f"--find-links={found}"]
    _run([interpreter, pip, *options, *NEEDED, "numpy"])
    project = str(make_project(target.parent / "project"))
    _run([interpreter, "-m", "pip", *options, "--no-build-isolation", "--no-deps", "--editable", project])
    return target


def make_packages(folder: Path) -> tuple[Package, ...]:
    """Fill a package cache with Python and with `labtool`."""
    return (_python(folder), make_tool(folder))


def install(packages: tuple[Package, ...], target: Path) -> None:
    """Install packages as conda does: records, hard links, and copies of what holds the placeholder."""
    if len(os.fsencode(target)) > len(PLACEHOLDER):
        raise LabUnavailable(f"conda cannot install into a path as long as {target}")
    meta = target / "conda-meta"
    meta.mkdir(parents=True)
    for package in packages:
        paths = json.loads((package.folder / "info" / "paths.json").read_text())["paths"]
        entries = [_link(package, entry, target) for entry in paths]
        (meta / f"{package.full_name}.json").write_text(json.dumps(_record(package, entries), indent=2))
    specs = " ".join(package.name for package in packages)
    history = [f"# cmd: /opt/conda/bin/conda create --prefix {target} {specs}", "# conda version: 24.1.2"]
    history += [f"+lab/linux-64::{package.full_name}" for package in packages]
    (meta / "history").write_text("\n".join(["==> 2024-05-06 07:08:09 <==", *history, ""]))


def make_tool(folder: Path) -> Package:
    """The package `labtool`: a compiled program, scripts and settings that all hold the placeholder."""
    package = Package("labtool", "1.0", "h1_0", folder / "labtool-1.0-h1_0")
    for name, text in FILES.items():
        path = package.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if name.startswith("bin/") else 0o644)
    if shutil.which("gcc") is None:
        raise LabUnavailable("no gcc to make a program with a prefix in it")
    program = str(package.folder / "bin" / "labtool")
    _run(["gcc", f'-DPREFIX="{PLACEHOLDER}"', "-x", "c", "-o", program, "-"], PROGRAM)
    return _finish(package)


def _python(folder: Path) -> Package:
    """A real Python as a package; the places that its texts name become the placeholder."""
    original = python(VERSION)
    version = subprocess.check_output([original, "-c", "import platform; print(platform.python_version())"], text=True)
    package = Package("python", version.strip(), "h1_0_cpython", folder / f"python-{version.strip()}-h1_0_cpython")
    copy_python(original, package.folder)
    named = {os.fsencode(package.folder), os.fsencode(about(original)["prefix"])} - {b"/usr", b"/usr/local"}
    for path in map(package.folder.joinpath, _files(package.folder)):
        data = b"" if path.is_symlink() else path.read_bytes()
        if b"\0" not in data and any(name in data for name in named):
            for name in sorted(named, key=len, reverse=True):
                data = data.replace(name, PLACEHOLDER.encode())
            path.write_bytes(data)
    return _finish(package)


def _finish(package: Package) -> Package:
    """Write what a package says of its own files, once they are there."""
    entries = [_entry(package.folder, path) for path in _files(package.folder)]
    info = package.folder / "info"
    info.mkdir()
    (info / "paths.json").write_text(json.dumps({"paths": entries, "paths_version": 1}))
    return package


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or path.is_file())


def _entry(folder: Path, name: str) -> dict[str, str | int]:
    if (folder / name).is_symlink():
        return {"_path": name, "path_type": "softlink"}
    data = (folder / name).read_bytes()
    entry: dict[str, str | int] = {"_path": name, "path_type": "hardlink"}
    entry |= {"sha256": _sha256(data), "size_in_bytes": len(data)}
    if PLACEHOLDER.encode() in data:
        entry |= {"file_mode": "binary" if b"\0" in data else "text", "prefix_placeholder": PLACEHOLDER}
    return entry


def _link(package: Package, entry: dict[str, str | int], target: Path) -> dict[str, str | int]:
    """Install one file; return what is recorded of it."""
    source, path, prefix = package.folder / str(entry["_path"]), target / str(entry["_path"]), os.fsencode(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
        path.symlink_to(source.readlink())
        return entry
    if "file_mode" not in entry:
        os.link(source, path)
        return {**entry, "sha256_in_prefix": entry["sha256"]}
    data = source.read_bytes()
    new = _in_binary(data, prefix) if entry["file_mode"] == "binary" else _in_text(data, prefix)
    path.write_bytes(new)
    shutil.copymode(source, path)
    return {**entry, "sha256_in_prefix": _sha256(new)}


def _in_binary(data: bytes, prefix: bytes) -> bytes:
    """As conda does it: up to the next NUL, and what the string lost is added to it as NULs."""
    old = PLACEHOLDER.encode()

    def replaced(match: re.Match[bytes]) -> bytes:
        return match.group().replace(old, prefix).ljust(len(match.group()), b"\0")

    return re.sub(re.escape(old) + rb"[^\0]*\0", replaced, data)


def _in_text(data: bytes, prefix: bytes) -> bytes:
    data = data.replace(PLACEHOLDER.encode(), prefix)
    first, newline, rest = data.partition(b"\n")
    if first.startswith(b"#!") and (len(first) > SHEBANG_LIMIT or b" " in prefix):
        first = b"#!/usr/bin/env " + first.rpartition(b"/")[2]
    return first + newline + rest


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _record(package: Package, entries: list[dict[str, str | int]]) -> dict[str, object]:
    """The content of conda-meta/PACKAGE.json."""
    return {
        "name": package.name, "version": package.version, "build": package.build, "build_number": 0,
        "channel": "https://conda.anaconda.org/lab/linux-64", "subdir": "linux-64", "depends": [],
        "url": f"https://conda.anaconda.org/lab/linux-64/{package.full_name}.conda",
        "fn": f"{package.full_name}.conda", "extracted_package_dir": str(package.folder),
        "package_tarball_full_path": f"{package.folder}.conda", "link": {"source": str(package.folder), "type": 1},
        "files": [entry["_path"] for entry in entries], "paths_data": {"paths": entries, "paths_version": 1},
    }  # fmt: skip


def _run(argv: list[str], given: str = "") -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_", "CONDA_"))}
    env = {
        **kept,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    done = subprocess.run(argv, env=env, input=given, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{argv}: exit {done.returncode}\n{done.stdout}{done.stderr}")

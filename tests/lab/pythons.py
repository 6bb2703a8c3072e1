"""The interpreters of this machine, where each one's library lies, and copies of one elsewhere."""

from __future__ import annotations

import functools
import glob
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.model import LabUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTALLED = os.path.expanduser("~/.pyenv/versions")  # before a test gives us another home
LEFT_OUT = ("site-packages", "dist-packages", "EXTERNALLY-MANAGED", "test", "tests", "idlelib", "*.a", "*.pyc")
SHARED_BY_ALL = ("/", "/usr", "/usr/local")
ASK = """
import json, os, sys, sysconfig, venv
names = {name: sysconfig.get_config_var(name) or "" for name in ("LIBDIR", "LDLIBRARY", "INSTSONAME")}
executable = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
print(json.dumps(dict(names, executable=executable, version="%d.%d" % sys.version_info[:2],
                      prefix=sys.base_prefix, stdlib=sysconfig.get_path("stdlib"))))
"""


@functools.cache
def pythons() -> dict[str, str]:
    """The interpreters that work here and can make a venv, by version as in ``3.11``.

    One with a prefix of its own comes before that of the system, whose prefix no test can hide.
    """
    found: dict[str, str] = {}
    for candidate in _candidates():
        try:
            version = about(candidate)["version"]
        except subprocess.CalledProcessError:  # a shim that leads nowhere, or Debian's without venv
            continue
        found.setdefault(version, candidate)
    return found


def python(version: str) -> str:
    """The interpreter of this version, or LabUnavailable."""
    if version not in pythons():
        raise LabUnavailable(f"no Python {version} with venv here")
    return pythons()[version]


def _candidates() -> Iterator[str]:
    for minor in range(8, 15):
        name = f"python3.{minor}"
        yield from sorted(glob.glob(f"{INSTALLED}/*/bin/{name}"))
        places = [f"{place}/{name}" for place in os.get_exec_path()]
        yield from (path for path in places if os.access(path, os.X_OK))


@functools.cache
def about(executable: str) -> dict[str, str]:
    """What an interpreter says of itself, that of an environment of its base: executable, version, prefix, stdlib."""
    done = subprocess.run([executable, "-c", ASK], capture_output=True, text=True, check=True)
    answer: dict[str, str] = json.loads(done.stdout)
    return answer


def belongings(executable: str) -> tuple[Path, ...]:
    """What has to be hidden so that nothing of a base interpreter is left: its prefix, unless that is the system's."""
    known = about(executable)
    if known["prefix"] in SHARED_BY_ALL:
        return (Path(known["stdlib"]), Path(known["executable"]))
    return tuple({Path(os.path.realpath(known[name])) for name in ("prefix", "stdlib")})


def copy_python(executable: str, target: Path) -> str:
    """Copy an interpreter with its library, but not its site-packages, to a prefix of its own; return its executable.

    It finds its shared library beside itself and its sysconfig says where it is, as in the builds that uv installs.
    """
    known = about(executable)
    name = f"python{known['version']}"
    library, binary = target / "lib" / name, target / "bin" / name
    ignored = shutil.ignore_patterns(*LEFT_OUT)
    shutil.copytree(known["stdlib"], library, symlinks=True, ignore=ignored)
    (library / "site-packages").mkdir()
    if known["prefix"] not in SHARED_BY_ALL:
        for variables in library.glob("_sysconfigdata*.py"):
            variables.write_text(variables.read_text().replace(known["prefix"], str(target)))
    shared = Path(known["LIBDIR"], known["INSTSONAME"] or known["LDLIBRARY"])
    if ".so" in shared.name and shared.is_file():
        shutil.copy2(shared, target / "lib" / shared.name)
    binary.parent.mkdir()
    shutil.copy2(known["executable"], binary)
    for path in (binary, *(target / "lib").glob("libpython*"), *library.glob("lib-dynload/*.so")):
        _beside_itself(path, known["LIBDIR"], target / "lib")
    for link in ("python3", "python"):
        (binary.parent / link).symlink_to(name)
    return str(binary)


def _beside_itself(path: Path, old: str, new: Path) -> None:
    """Have a program or a library look for its shared libraries relative to itself; its length stays."""
    relative = os.path.relpath(new, path.parent)
    before, after = (b"\0%b\0" % os.fsencode(text) for text in (old, os.path.join("$ORIGIN", relative)))
    data = path.read_bytes()
    if before in data and len(after) > len(before):
        raise LabUnavailable(f"{old} is too short a path to be replaced")
    path.write_bytes(data.replace(before, after.ljust(len(before), b"\0")))

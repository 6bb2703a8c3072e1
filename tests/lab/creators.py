"""Environments by every creator that people use, each with packages, pip, and an editable project of its own.

All that an environment needs besides its base interpreter lies beside it: `project/`, and uv's cache in `uv-cache/`.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.lab.cache import settle
from tests.lab.model import LabUnavailable
from tests.lab.pythons import about
from tests.lab.slowfs import CACHE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

TOOLS = ("pip", "uv", "virtualenv")
NEEDED = ("pip", "setuptools")
UNPACKED = "unpacked"
FOREIGN = ("PYTHON", "PIP_", "UV_", "VIRTUALENV_", "VIRTUAL_ENV", "CONDA_")
PROJECT = """[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "lab-project"
version = "1.0"

[project.scripts]
lab-project = "lab_project:main"
"""
MODULE = """def main():
    print("lab project")
"""


@dataclass(frozen=True)
class Order:
    """An environment that is to be made."""

    target: Path
    python: str
    packages: tuple[str, ...]
    cache: Path
    through: Path

    @functools.cached_property
    def project(self) -> Path:
        """The source tree of the project `lab-project`, beside the environment."""
        return make_project(self.target.parent / "project")

    @functools.cached_property
    def wheels(self) -> Path:
        """A directory with the wheels of the packages."""
        return wheels(about(self.python)["version"], (*NEEDED, *self.packages), self.cache)

    @property
    def all_packages(self) -> tuple[str, ...]:
        """What to install, as arguments of pip."""
        return ("pip", *self.packages, "--no-build-isolation", "--editable", str(self.project))


def make(
    creator: str,
    target: Path,
    *,
    python: str,
    packages: tuple[str, ...] = ("numpy",),
    cache: Path = CACHE,
    through: Path | None = None,
) -> Path:
    """Have a creator, a name in CREATORS, make an environment at ``target``; return it.

    Wheels and tools come from ``cache``. Packages are installed by the name ``through`` of the environment, if it has
    a second one. conda brings its own Python and packages.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    CREATORS[creator](Order(target, python, packages, cache, through or target))
    return target


def make_project(target: Path) -> Path:
    """Write the source tree of a small project in src layout with a console script, unless it is there; return it."""
    package = target / "src" / "lab_project"
    if not package.is_dir():
        package.mkdir(parents=True)
        (target / "pyproject.toml").write_text(PROJECT)
        (package / "__init__.py").write_text(MODULE)
    return target


def _venv(order: Order, *options: str) -> None:
    _run([order.python, "-m", "venv", "--without-pip", *options, str(order.target)])
    _pip(order)


def _virtualenv(order: Order, *options: str) -> None:
    argv = [str(tools(order.cache) / "virtualenv"), "--quiet", "--no-periodic-update", "--python", order.python]
    kept = {"VIRTUALENV_OVERRIDE_APP_DATA": str(order.cache / "virtualenv")}
    _run([*argv, *options, str(order.target)], **kept)
    _pip(order)


def _pip(order: Order) -> None:
    _install(str(order.through / "bin" / "python"), order.wheels, order.all_packages)


def _uv(order: Order, *options: str, link_mode: str = "hardlink") -> None:
    uv, cached = str(tools(order.cache) / "uv"), f"--cache-dir={order.target.parent}/uv-cache"
    _run([uv, "venv", "--quiet", cached, "--python", order.python, *options, str(order.target)])
    install = [uv, "pip", "install", "--quiet", cached, "--offline", "--no-index", f"--find-links={order.wheels}"]
    install += [f"--link-mode={link_mode}", "--python", str(order.through / "bin" / "python")]
    _run([*install, *order.all_packages], PYTHONPATH=str(order.wheels / UNPACKED))


def _conda(order: Order) -> None:
    from tests.lab.conda import make_conda

    make_conda(order.target, cache=order.cache)


CREATORS: Mapping[str, Callable[[Order], None]] = {
    "venv": _venv,
    "venv --copies": lambda order: _venv(order, "--copies"),
    "venv --system-site-packages": lambda order: _venv(order, "--system-site-packages"),
    "virtualenv": _virtualenv,
    "virtualenv --copies": lambda order: _virtualenv(order, "--copies"),
    "uv venv": _uv,
    "uv venv --relocatable": lambda order: _uv(order, "--relocatable"),
    "uv --link-mode=symlink": lambda order: _uv(order, link_mode="symlink"),
    "conda": _conda,
}


def install(python: str, packages: tuple[str, ...], *, cache: Path = CACHE) -> None:
    """Install packages into an interpreter that need not have pip, such as a base of one's own."""
    _install(python, wheels(about(python)["version"], (*NEEDED, *packages), cache), packages)


def _install(python: str, found: Path, packages: tuple[str, ...]) -> None:
    """Install from these wheels with the pip and setuptools among them, which need not be installed."""
    argv = [python, "-m", "pip", "install", "--quiet", "--no-index", f"--find-links={found}", "--ignore-installed"]
    _run([*argv, *packages], PYTHONPATH=str(found / UNPACKED))


def wheels(version: str, packages: tuple[str, ...], cache: Path = CACHE) -> Path:
    """A directory with wheels of these packages and what they need, for a Python such as ``3.11``.

    Those without which nothing can be installed are there unpacked as well.
    """
    key = hashlib.sha256(repr((version, sorted(packages))).encode()).hexdigest()[:16]
    target, partial = cache / f"wheels-{version}-{key}", cache / f"wheels-{version}-{key}.{os.getpid()}"
    if not target.is_dir():
        pip = [str(tools(cache) / "pip"), "--quiet", "download", "--only-binary=:all:"]
        _fetch([*pip, f"--python-version={version}", f"--dest={partial}", *packages])
        for wheel in (wheel for name in NEEDED for wheel in partial.glob(f"{name}-*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(partial / UNPACKED)
        settle(partial, target)
    return target


def tools(cache: Path = CACHE) -> Path:
    """The directory of the programs pip, uv and virtualenv; installed into ``cache`` the first time."""
    key = hashlib.sha256(repr((sys.version, sys.base_prefix)).encode()).hexdigest()[:16]
    target = cache / f"tools-{key}"
    complete = target / "complete"
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / f"tools-{key}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            _run([sys.executable, "-m", "venv", "--clear", str(target)])
            _fetch([str(target / "bin" / "pip"), "--quiet", "install", "--upgrade", *TOOLS])
            complete.touch()
    return target / "bin"


def _fetch(argv: list[str]) -> None:
    """Run pip with the user's own settings, for what only an index has."""
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise LabUnavailable(f"pip could not get {' '.join(argv[2:])}: {done.stderr.strip()[-300:]}")


def _run(argv: list[str], **variables: str) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    env = {**kept, "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **variables}
    env |= {"PIP_ROOT_USER_ACTION": "ignore", "UV_PYTHON_DOWNLOADS": "never", "UV_NO_CONFIG": "1"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{argv}: exit {done.returncode}\n{done.stdout}{done.stderr}")

"""Which environments are moved: by which creator, of which Python, from what kind of place to what kind of place."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.conftest import clean_environment
from tests.lab.creators import CREATORS, install, make
from tests.lab.pythons import belongings, copy_python, python
from tests.relocation.support import Landed, Made
from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGES = ("numpy",)
LONG = "/".join(["a-directory-with-as-long-a-name-as-some-allocations-have"] * 2)
SPACED = "my projects/the venv"


@dataclass(frozen=True)
class Shape:
    """Kinds of places. alias: what the first directory of the source is also called; base: where its own base lies."""

    source: str = "venv"
    destination: str = "venv"
    alias: str = ""
    base: str = ""


SHAPES = {
    "ordinary": Shape(),
    "long source": Shape(source=f"{LONG}/venv"),
    "long destination": Shape(destination=f"{LONG}/venv"),
    "spaced source": Shape(source=SPACED),
    "spaced destination": Shape(destination=SPACED),
    "aliased": Shape(source="real/venv", alias="alias"),
    "substring trap": Shape(base="venv-python"),
    "own base": Shape(base="base"),
}


@dataclass(frozen=True)
class Case:
    """An environment and a move."""

    creator: str
    version: str = "3.11"
    shape: str = "ordinary"

    def __str__(self) -> str:
        return f"{self.creator}, {self.version}, {self.shape}"

    @property
    def origin(self) -> tuple[object, ...]:
        """What cases have in common that differ in their destination only."""
        shape = SHAPES[self.shape]
        return (self.creator, self.version, shape.source, shape.alias, shape.base)


VERSIONS = ("3.8", "3.9", "3.10", "3.12", "3.13", "3.14")
MOVES = ("long source", "long destination", "spaced source", "spaced destination", "aliased", "substring trap")
PLAIN = (
    Case("venv"),
    Case("venv --copies", "3.8"),
    Case("virtualenv", "3.13"),
    Case("virtualenv --copies", shape="spaced destination"),
    Case("uv venv", shape="substring trap"),
    Case("uv venv --relocatable", shape="long destination"),
    Case("uv --link-mode=symlink"),
)
OTHERS = (
    Case("conda"),
    Case("venv --system-site-packages", shape="own base"),  # the site-packages of a developer's Python may be huge
)
WHOLE = (
    *(Case(creator) for creator in CREATORS if creator not in ("venv --system-site-packages", "conda")),
    *(Case(creator, version) for creator in ("venv", "uv venv") for version in VERSIONS),
    *(Case(creator, shape=shape) for creator in ("venv", "uv venv") for shape in MOVES),
)
CASES = tuple(dict.fromkeys((*PLAIN, *OTHERS, *(WHOLE if os.environ.get("EZPZ_TEST_MATRIX") == "whole" else ()))))
"""`make test` has each creator, the oldest and newest Python and the hard moves, each once; `make matrix` has all."""


class Estate:
    """Environments on one disk, each made once, and moves to another place of this host."""

    def __init__(self, folder: Path) -> None:
        """Keep all of it below ``folder``."""
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        self._made: dict[tuple[object, ...], Made] = {}
        self._left = Counter(case.origin for case in CASES)
        self._numbers: Iterator[int] = iter(range(10_000))

    def made(self, case: Case) -> Made:
        """The environment of a case."""
        if case.origin not in self._made:
            self._made[case.origin] = self._make(case, self.folder / f"shared-{next(self._numbers)}")
        return self._made[case.origin]

    def _make(self, case: Case, shared: Path) -> Made:
        shape = SHAPES[case.shape]
        interpreter = original = python(case.version)
        if shape.base:
            interpreter = copy_python(original, shared / shape.base)
        system = "--system-site-packages" in case.creator
        if system:
            install(interpreter, PACKAGES)
        path = shared / shape.source
        name = path
        if shape.alias:
            real = shape.source.split("/")[0]
            (shared / real).mkdir(parents=True)
            (shared / shape.alias).symlink_to(real)
            name = shared / shape.alias / path.relative_to(shared / real)
        make(case.creator, name, python=interpreter, packages=() if system else PACKAGES, through=path)
        return Made(path, (shared, *belongings(original)))

    def _place(self, name: str) -> Path:
        path = self.folder / f"node-{next(self._numbers)}" / name
        path.parent.mkdir(parents=True)
        return path

    def land(self, case: Case, *options: str) -> Landed:
        """Run `ezpz yeet` to a new place."""
        made, path = self.made(case), self._place(SHAPES[case.shape].destination)
        argv = [sys.executable, "-m", "ezpz", "yeet", "env", str(made.path), "--dst", str(path)]
        argv += ["--base", "embed", "--hosts", "localhost", "--json", *options]
        done = subprocess.run(argv, env=clean_environment(), capture_output=True, text=True, timeout=DEADLINE)
        assert done.returncode == 0, f"{argv} exited {done.returncode}\n{done.stdout}{done.stderr}"
        return Landed(made, path, self.home, json.loads(done.stdout))

    def copy(self, made: Made) -> Landed:
        """Copy an environment with `cp -a`, which is not enough."""
        path = self._place("venv")
        subprocess.run(["cp", "-a", str(made.path), str(path)], check=True)
        return Landed(made, path, self.home, {})

    def remove(self, landed: Landed) -> None:
        """Remove a copy, for each holds hundreds of megabytes."""
        below = landed.path.relative_to(self.folder)
        shutil.rmtree(self.folder / below.parts[0])

    def done(self, case: Case) -> None:
        """Remove the environment of a case, unless another case begins with the same one."""
        self._left[case.origin] -= 1
        if not self._left[case.origin] and case.origin in self._made:
            shutil.rmtree(self._made.pop(case.origin).hide[0])

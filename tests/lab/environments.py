"""Things to copy: real virtual environments, trees shaped like one, and the tree that breaks naive copiers."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from typing import TYPE_CHECKING

from tests.lab.cache import settle
from tests.lab.compare import compare_trees
from tests.lab.nasty import nasty_tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["compare_trees", "make_tree", "make_venv", "nasty_tree"]

LARGE_EVERY = 80
LARGE_SHARE = 0.6
PER_DIRECTORY = 24
WORDS = (
    b"import os\n", b"from __future__ import annotations\n", b"    def __init__(self, value, name=None):\n",
    b"        self.name = name\n", b"        return self._value\n", b"    if not isinstance(value, int):\n",
    b"        raise TypeError('expected an integer')\n", b"class Layer(Module):\n", b"    # see the reference\n",
    b'    """Return the sum of both arguments."""\n', b"for index, item in enumerate(items):\n", b"\n",
)  # fmt: skip


def make_venv(target: Path, *, python: str, packages: tuple[str, ...], cache: Path) -> Path:
    """Build a real virtual environment with these packages and bytecode at ``target``; return it.

    Wheels come from ``cache``, where the first call for a python and a set of packages puts them.
    """
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    _run([python, "-m", "venv", str(target)], env)
    if packages:
        wheels = _wheels(target, python, packages, cache, env)
        _pip(target, ["install", "--no-index", "--find-links", str(wheels), *packages], env)
    _run([f"{target}/bin/python", "-m", "compileall", "-q", str(target / "lib")], env)
    return target


def _wheels(venv: Path, python: str, packages: tuple[str, ...], cache: Path, env: Mapping[str, str]) -> Path:
    version = _run([python, "-c", "import sys; print(sys.version)"], env)
    key = hashlib.sha256(repr((version, sorted(packages))).encode()).hexdigest()[:16]
    wheels, partial = cache / f"wheels-{key}", cache / f"wheels-{key}.{os.getpid()}"
    if not wheels.is_dir():
        _pip(venv, ["download", "--dest", str(partial), *packages], env)
        settle(partial, wheels)
    return wheels


def _pip(venv: Path, arguments: list[str], env: Mapping[str, str]) -> None:
    _run([f"{venv}/bin/python", "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], env)


def _run(argv: list[str], env: Mapping[str, str]) -> str:
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{argv}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def make_tree(target: Path, files: int, total_bytes: int, seed: int) -> Path:
    """Write a tree shaped like an environment: exactly so many files and bytes, the same for the same seed.

    Most are small and compress like source code; one in eighty is large and compresses like a library.
    """
    dice = random.Random(seed)
    text = b"".join(dice.choices(WORDS, k=40_000))
    binary = b"".join(dice.choice((dice.randbytes(512), bytes(256), text[:256])) for _ in range(4_000))
    for number, size in enumerate(_sizes(files, total_bytes, dice)):
        large = number % LARGE_EVERY == 0
        directory = target / "lib" / f"package_{number // (PER_DIRECTORY * 8):03d}" / f"part_{number // PER_DIRECTORY}"
        directory.mkdir(parents=True, exist_ok=True)
        pool = binary if large else text
        with open(directory / (f"lib{number}.so" if large else f"module_{number}.py"), "wb") as file:
            file.writelines(_pieces(pool, size, dice))
    return target


def _sizes(files: int, total_bytes: int, dice: random.Random) -> list[int]:
    weights = [dice.lognormvariate(0, 1) for _ in range(files)]
    large = [number % LARGE_EVERY == 0 for number in range(files)]
    sums = {kind: sum(w for w, k in zip(weights, large, strict=True) if k == kind) for kind in (True, False)}
    share = {True: LARGE_SHARE if sums[False] else 1.0, False: 1 - LARGE_SHARE}
    sizes = [int(total_bytes * share[k] * w / sums[k]) for w, k in zip(weights, large, strict=True)]
    if sizes:
        sizes[0] += total_bytes - sum(sizes)
    return sizes


def _pieces(pool: bytes, size: int, dice: random.Random) -> Iterator[bytes]:
    while size > 0:
        start = dice.randrange(len(pool) // 2)
        piece = pool[start : start + size]
        yield piece
        size -= len(piece)

"""One environment put on one host, from a disk that can be hidden: for what the matrix has no row for."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tests.conftest import clean_environment
from tests.relocation.support import Landed, Made
from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FOREIGN = ("PYTHON", "LD_LIBRARY_PATH")


class Ground:
    """A `shared` disk, on which sources are made, and room on a node's own, where every move has a new place."""

    def __init__(self, folder: Path) -> None:
        """Keep all of it below ``folder``."""
        self.shared, self.node, self.home = (folder / name for name in ("shared", "node", "home"))
        for place in (self.shared, self.node, self.home):
            place.mkdir()
        self._numbers: Iterator[int] = iter(range(1000))

    def yeet(
        self,
        source: Path,
        *options: str | os.PathLike[str],
        env: Mapping[str, str] | None = None,
        place: Path | None = None,
        code: int = 0,
    ) -> tuple[Path, dict[str, Any]]:
        """Run `ezpz yeet SOURCE --dst PLACE` here, by default a new one; the place, and the document that it prints."""
        if place is None:
            place = self.node / str(next(self._numbers)) / "env"
            place.parent.mkdir()
        argv: list[str | os.PathLike[str]]
        argv = [sys.executable, "-m", "ezpz", "yeet", source, "--dst", place, "--hosts", "localhost", "--json"]
        kept = {name: value for name, value in clean_environment().items() if not name.startswith(FOREIGN)}
        done = subprocess.run(
            [*argv, *options],
            env={**kept, **(env or {})},
            cwd=self.node,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert done.returncode == code, f"exited {done.returncode}\n{done.stdout}{done.stderr}"
        document: dict[str, Any] = json.loads(done.stdout)
        return place, document

    def move(
        self,
        source: Path,
        *options: str | os.PathLike[str],
        env: Mapping[str, str] | None = None,
        hide: Path | None = None,
    ) -> Landed:
        """What `ezpz yeet` made of it; `hide` is hidden when it runs, all of the shared disk if nothing is named."""
        place, report = self.yeet(source, "--compile", "never", *options, env=env)
        return Landed(Made(source, (hide or self.shared,)), place, self.home, report)

    def refused(self, source: Path, *options: str, env: Mapping[str, str] | None = None, code: int) -> dict[str, str]:
        """The error that `ezpz yeet` ends with, by its exit code."""
        place, document = self.yeet(source, *options, env=env, code=code)
        assert not place.exists()
        error: dict[str, str] = document["error"]
        return error

    def close(self) -> None:
        """Forget it all, for it is large."""
        for place in (self.shared, self.node):
            shutil.rmtree(place)


def venv(python: str | Path, target: Path, *options: str, env: Mapping[str, str] | None = None) -> Path:
    """Make a venv without pip, and one script in it that tells its prefix."""
    subprocess.run([str(python), "-m", "venv", "--without-pip", *options, str(target)], check=True, env=env)
    add_script(target)
    return target


def add_script(environment: Path) -> None:
    """Give an environment the console script `where`, as pip would write it."""
    script = environment / "bin" / "where"
    script.write_text(f"#!{environment}/bin/python\nimport sys\nprint(sys.prefix)\n")
    script.chmod(0o755)


def settings(environment: Path) -> dict[str, str]:
    """What its pyvenv.cfg says."""
    lines = (environment / "pyvenv.cfg").read_text().splitlines()
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}


def names(content: bytes, path: Path) -> bool:
    """Whether a content names a path; not as `.` and a path, which sysconfig says for WASM and means nothing."""
    return re.search(rb"(?<![.\w])" + re.escape(os.fsencode(path)), content) is not None


def naming(folder: Path, path: Path) -> list[str]:
    """The files and links below a folder that name a path; not bytecode, made when something ran, and our receipt."""
    found = []
    for each in sorted(folder.rglob("*")):
        said = os.fsencode(os.readlink(each)) if each.is_symlink() else each.read_bytes() if each.is_file() else b""
        if each.suffix != ".pyc" and each.name != ".ezpz-yeet-receipt.json" and names(said, path):
            found.append(str(each.relative_to(folder)))
    return found

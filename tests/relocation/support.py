"""An environment that was put on this host, and what has to be true of it while its source is hidden."""

from __future__ import annotations

import json
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.hidden import hidden, traced

MODULES = ("json", "asyncio", "ssl", "sqlite3", "ctypes", "zlib", "pip", "numpy", "lab_project")
TRACED = "import json, asyncio, numpy"
FACTS = """
import importlib, json, re, sys, sysconfig
modules, roots = {}, re.compile("|".join(r"(?<![.\\w])" + re.escape(root) for root in json.loads(sys.argv[1])))
for name in json.loads(sys.argv[2]):
    try:
        modules[name] = getattr(importlib.import_module(name), "__file__", None)
    except ImportError as error:
        pass
said = {name: value for name, value in sysconfig.get_config_vars().items() if roots.search(str(value))}
print(json.dumps({"version": sys.version, "prefix": sys.prefix, "modules": modules, "path": sys.path, "said": said}))
"""
SHELLS = {
    "bash": ["bash", "--norc", "-c"],
    "zsh": ["zsh", "-f", "-c"],
    "fish": ["fish", "--no-config", "-c"],
}
WHERE = "import os, sys; print(sys.prefix); print(os.__file__)"
ACTIVATE = f'. "$1/bin/activate" && command -v python && python -c "{WHERE}"'
FISH = f'source "$argv[1]/bin/activate.fish"; and command -v python; and python -c "{WHERE}"'


@dataclass(frozen=True)
class Made:
    """An environment as its creator left it; `hide`: all that it, its base and its caches are made of."""

    path: Path
    hide: tuple[Path, ...]


@dataclass(frozen=True)
class Landed:
    """A copy of an environment that must not need it. `home` is where its programs write, `report` what ezpz said."""

    source: Made
    path: Path
    home: Path
    report: dict[str, Any]

    @property
    def env(self) -> dict[str, str]:
        return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(self.home), "LC_ALL": "C.UTF-8", "TERM": "dumb"}

    def run(self, *argv: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
        """Run a program to its end with the source hidden."""
        return hidden(argv, self.source.hide, env=self.env)

    def says(self, *argv: str | os.PathLike[str]) -> str:
        """What it prints; it must succeed."""
        done = self.run(*argv)
        assert done.returncode == 0, f"{argv} exited {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"


def check_interpreter(landed: Landed) -> None:
    """The same Python as at the source imports the same modules, all from the copy, and names nothing else."""
    asked = ["-c", FACTS, json.dumps([str(path) for path in landed.source.hide]), json.dumps(MODULES)]
    here = json.loads(landed.says(landed.python, *asked))
    at_source = [str(landed.source.path / "bin" / "python"), "-B", *asked]
    there = json.loads(subprocess.run(at_source, env=landed.env, capture_output=True, check=True).stdout)
    assert here["version"] == there["version"]
    assert here["prefix"] == str(landed.path)
    assert set(here["modules"]) == set(there["modules"])
    files = [*here["modules"].values(), *here["path"]]
    assert [file for file in files if file and not Path(file).is_relative_to(landed.path)] == []
    assert here["said"] == {}, f"sysconfig names the source: {here['said']}"


def check_scripts(landed: Landed) -> None:
    """Every script that a Python runs is there and runs."""
    scripts = python_scripts(landed.path)
    assert scripts == python_scripts(landed.source.path)
    assert scripts, "an environment without any script proves nothing"
    with ThreadPoolExecutor(2) as pool:
        failures = list(filter(None, pool.map(lambda name: _failure(landed, name), scripts)))
    assert not failures, "\n".join(failures)


def _failure(landed: Landed, name: str) -> str | None:
    done = landed.run(landed.path / "bin" / name, "--help")
    if done.returncode:
        done = landed.run(landed.path / "bin" / name, "--version")
    return f"{name} exited {done.returncode}: {done.stdout}{done.stderr}" if done.returncode else None


def python_scripts(environment: Path) -> list[str]:
    """The names in its bin of what begins with a line for a Python, or with lines of sh that find one."""
    names = []
    for path in sorted((environment / "bin").iterdir()):
        if path.is_file() and os.access(path, os.X_OK):
            with open(path, "rb") as file:
                head = file.read(4096).split(b"\n")[:3]
            if re.match(rb"#!.*python", head[0]) or (head[0].startswith(b"#!/bin/sh") and b"'''exec'" in head[1]):
                names.append(path.name)
    return names


def check_activation(landed: Landed, shell: str) -> None:
    """Once activated, `python` is that of the copy, and its library as well."""
    script = FISH if shell == "fish" else ACTIVATE
    name = [] if shell == "fish" else [shell]
    found, prefix, library = landed.says(*SHELLS[shell], script, *name, str(landed.path)).splitlines()
    assert Path(found).parent == landed.path / "bin"
    assert prefix == str(landed.path)
    assert Path(library).is_relative_to(landed.path)


def check_pip(landed: Landed) -> None:
    """What is installed fits together."""
    assert landed.says(landed.python, "-m", "pip", "check").strip() == "No broken requirements found."


def check_trace(landed: Landed) -> None:
    """With the source in plain sight, no call of the copy's Python reaches it."""
    calls = traced([landed.python, "-c", TRACED], landed.source.hide, env=landed.env)
    assert not calls, f"{len(calls)} calls, such as {calls[:5]}"

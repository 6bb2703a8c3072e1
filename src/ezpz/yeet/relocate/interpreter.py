"""Interpreter: which python runs an environment, as it tells itself; and `pyvenv.cfg`, which names it."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ezpz import process
from ezpz.errors import InterpreterBroken
from ezpz.yeet.agent.refusal import shown

if TYPE_CHECKING:
    import threading

ANSWER_WITHIN = 120.0  # seconds; a cold shared filesystem answers slowly
PATHS = ("prefix", "base_prefix", "base_executable", "stdlib", "platstdlib", "user_site")
FOLDERS = ("site_packages", "base_site_packages", "dynload")
TRIED = ("ssl", "sqlite3", "ctypes", "zlib")
PROGRAM = """\
import importlib.util, json, os, site, sys, sysconfig
def can(name):
    try:
        __import__(name)
    except Exception:
        return False
    return True
base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix,
        "installed_base": sys.base_prefix, "installed_platbase": sys.base_exec_prefix}
scheme = "posix_prefix" if "posix_prefix" in sysconfig.get_scheme_names() else None
path = lambda name: sysconfig.get_path(name, scheme, base) if scheme else sysconfig.get_path(name, vars=base)
real = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
facts = {
    "version": sys.version, "prefix": sys.prefix, "base_prefix": sys.base_prefix, "executable": sys.executable,
    "base_executable": real, "stdlib": os.path.dirname(os.__file__), "platstdlib": path("platstdlib"),
    "tag": sys.implementation.cache_tag or "", "magic": importlib.util.MAGIC_NUMBER.hex(),
    "imports": [name for name in %r if can(name)], "user_site": site.getusersitepackages(),
    "site_packages": [p for p in site.getsitepackages([sys.prefix]) if os.path.isdir(p)],
    "base_site_packages": [p for p in site.getsitepackages([sys.base_prefix]) if os.path.isdir(p)],
    "dynload": [p for p in sys.path if os.path.basename(p) == "lib-dynload"],
}
print("ezpz:" + json.dumps(facts))
"""
LIBRARY = re.compile(r"error while loading shared libraries: (\S+?):")
ERROR = re.compile(r"[\w.]*(?:Error|Exception): |Fatal ")  # a python that dies early says more behind it
SETTING = re.compile(rb"^[ \t]*([\w-]+)[ \t]*=[ \t]*(.*?)[ \t\r]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """What a python says about itself; paths are absolute, as it sees them.

    version: sys.version, which has the build's date and compiler in it; prefix: of the environment; base_prefix: of
    the installation that has the standard library; base_executable: resolved; tag, magic: of its bytecode (PEP 3147)
    imports: of the modules that need libraries those it can import; dynload: where its extension modules are
    """

    version: str
    prefix: bytes
    base_prefix: bytes
    base_executable: bytes
    stdlib: bytes
    platstdlib: bytes
    tag: bytes
    magic: bytes
    imports: tuple[str, ...]
    user_site: bytes
    site_packages: tuple[bytes, ...]
    base_site_packages: tuple[bytes, ...]
    dynload: tuple[bytes, ...]

    @property
    def name(self) -> str:
        """As people say it: Python 3.11.7."""
        return "Python " + self.version.split(" ", 1)[0]


def python_of(root: bytes) -> bytes | None:
    """The path of an environment's python, also when it is a link to nothing; None when it has none."""
    for name in (b"bin/python", b"bin/python3"):
        if os.path.lexists(os.path.join(root, name)):
            return os.path.join(root, name)
    return None


def probe(python: bytes, stop: threading.Event | None = None) -> Interpreter:
    """Ask a python about itself; it writes nothing and runs isolated from the user's settings (python(1), -I -B).

    Raises InterpreterBroken when it does not start or does not answer, and Stopped.
    """
    name = shown(python)
    if not os.path.exists(python):
        raise InterpreterBroken(
            f"'{name}' leads to nothing ('{shown(os.path.realpath(python))}')",
            hint="is its python installed on this host? load its module, or make the environment again",
        )
    done = process.run([python, "-I", "-B", "-c", PROGRAM % (TRIED,)], feed=b"", timeout=ANSWER_WITHIN, stop=stop)
    found = next((line[5:] for line in done.out.splitlines() if line.startswith("ezpz:")), None)
    if found is None:
        raise _broken(name, done.err or f"it ended with exit status {done.returncode}")
    facts = json.loads(found)
    paths: dict[str, Any] = {name: os.fsencode(facts[name]) for name in PATHS}
    paths |= {name: tuple(os.fsencode(path) for path in facts[name]) for name in FOLDERS}
    return Interpreter(
        version=facts["version"], tag=facts["tag"].encode(), magic=bytes.fromhex(facts["magic"]),
        imports=tuple(facts["imports"]), **paths,
    )  # fmt: skip


def _broken(name: str, said: str) -> InterpreterBroken:
    missing = LIBRARY.search(said)
    if missing:
        return InterpreterBroken(
            f"'{name}' does not start: {missing.group(1)} not found",
            hint="load the module that it was made with (module load ...), then run it again",
        )
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    why = [line for line in lines if ERROR.match(line)] or lines
    return InterpreterBroken(f"'{name}' does not start: {why[-1]}", hint="does it run by hand?")


def settings(configuration: bytes) -> dict[bytes, bytes]:
    """The settings in a pyvenv.cfg (PEP 405), names in lower case."""
    return {match.group(1).lower(): match.group(2) for match in SETTING.finditer(configuration)}


def with_settings(configuration: bytes, new: dict[bytes, bytes]) -> bytes:
    """A pyvenv.cfg with the values of some settings that it has replaced; everything else stays byte for byte."""

    def replaced(match: re.Match[bytes]) -> bytes:
        value = new.get(match.group(1).lower())
        if value is None:
            return match.group()
        start = match.start()
        return match.group()[: match.start(2) - start] + value + match.group()[match.end(2) - start :]

    return SETTING.sub(replaced, configuration)

"""The agent as one program, and the remote commands that start it."""

from __future__ import annotations

import functools
import os
import re
import sys
import zlib

import ezpz.agent

SYSTEM_PYTHONS = "/usr/bin/python3 python3 /usr/libexec/platform-python"
BOOTSTRAP = "import sys,zlib;b=sys.stdin.buffer;program=b.read(int(b.readline()));exec(zlib.decompress(program))"
SAFE_PATH = re.compile(r"/[A-Za-z0-9_./+-]+")
NOT_FOUND = "no python3 (3.6 or newer) was found"
CANNOT_START = 1  # the status of a python that is too old or lacks zlib
AGENT = "ezpz.agent"
_IMPORT = re.compile(r"^\s*from (\.+)([\w.]*) import (?:\(([^)]*)\)|([\w, ]+))", re.MULTILINE)
SETUP = """\
import sys
from importlib.machinery import ModuleSpec
texts = %r
class Bundle:
    def find_spec(name, path=None, target=None):
        return ModuleSpec(name, Bundle, is_package=not texts[name]) if name in texts else None
    def create_module(spec):
        return None
    def exec_module(module):
        name = module.__name__
        exec(compile(texts[name], "<ezpz agent: " + name + ">", "exec"), module.__dict__)
sys.meta_path.insert(0, Bundle)
from ezpz.agent.%s import main
main()
"""
"""The program that runs the agent. Modules are compiled when they are first imported."""


@functools.cache
def bundle(entry: str = "server") -> bytes:
    """Return the agent as one program, compressed by zlib, after a line with its length.

    Args:
        entry: the module of `ezpz.agent` whose `main` is called; all modules that it imports are included
    """
    program = zlib.compress((SETUP % (agent_sources(f"{AGENT}.{entry}"), entry)).encode())
    return b"%d\n%b" % (len(program), program)


def agent_sources(entry: str) -> dict[str, str]:
    """Return the source of a module of the agent and of all modules that it imports, by module ("" for a package)."""
    sources = {"ezpz": ""}
    pending = [entry]
    while pending:
        module = pending.pop()
        if module in sources:
            continue
        path = _path_of(module)
        if path is None:
            continue
        package, _, _ = module.rpartition(".")
        pending.append(package)
        if path.endswith("__init__.py"):
            sources[module] = ""
            continue
        with open(path, encoding="utf-8") as file:
            sources[module] = text = file.read()
        for dots, name, folded, plain in _IMPORT.findall(text):
            above = ".".join(module.split(".")[: -len(dots)])
            parent = f"{above}.{name}".rstrip(".")
            pending += [parent, *(f"{parent}.{each.strip()}" for each in (folded or plain).split(","))]
    return sources


def _path_of(module: str) -> str | None:
    """Return the file of a module of the agent, or None if the name is not a module."""
    stem = os.path.join(os.path.dirname(ezpz.agent.__file__), *module.split(".")[2:])
    return next((path for path in (f"{stem}.py", os.path.join(stem, "__init__.py")) if os.path.exists(path)), None)


def bootstrap_command(pythons: tuple[str, ...] = ()) -> str:
    """Return the remote command that reads a line of shell (maybe empty) and the agent from stdin, and runs both.

    The login shell may be sh, csh, or fish. A python that cannot run the agent fails before it has read anything, so
    the next one is tried.

    Args:
        pythons: paths to try if the system has no python; paths with characters that a shell interprets are left out
    """
    candidates = " ".join((SYSTEM_PYTHONS, *(path for path in pythons if SAFE_PATH.fullmatch(path))))
    there = "command -v $p >/dev/null 2>&1 || continue"
    run = f'$p -IS -c "{BOOTSTRAP}"; s=$?; [ $s = {CANNOT_START} ] || exit $s'
    tries = f"for p in {candidates}; do {there}; {run}; done"
    return f'exec /bin/sh -c \'IFS= read -r first; eval "$first"; {tries}; echo "{NOT_FOUND}" >&2; exit 127\''


def shared_pythons() -> tuple[str, ...]:
    """Return the paths of the python that runs ezpz, which a node can use if it is on a shared filesystem."""
    return tuple(
        path for path in dict.fromkeys((sys.executable, os.path.realpath(sys.executable))) if SAFE_PATH.fullmatch(path)
    )

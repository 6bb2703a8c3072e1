"""The agent as one program, and the remote commands that start it."""

from __future__ import annotations

import functools
import os
import re
import sys
import zlib

import ezpz.agent

PYTHONS = "/usr/bin/python3 python3 /usr/libexec/platform-python"
BOOTSTRAP = "import sys,zlib;b=sys.stdin.buffer;program=b.read(int(b.readline()));exec(zlib.decompress(program))"
PLAIN = re.compile(r"/[A-Za-z0-9_./+-]+")
MISSING = "no python3 (3.6 or newer) was found"
NO_START = 1  # the status of a python that could not begin, because it is too old or lacks zlib
AGENT = "ezpz.agent"
_IMPORT = re.compile(r"^\s*from (ezpz\.agent[\w.]*) import (?:\(([^)]*)\)|([\w, ]+))", re.MULTILINE)
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
"""What runs the agent: its modules are compiled when they are first needed."""


@functools.cache
def bundle(entry: str = "server") -> bytes:
    """Return the agent as one program, packed by zlib and preceded by its length on a line of its own.

    Args:
        entry: the module of `ezpz.agent` whose `main` is called; it is sent with every module that it imports
    """
    program = zlib.compress((SETUP % (agent_sources(f"{AGENT}.{entry}"), entry)).encode())
    return b"%d\n%b" % (len(program), program)


def agent_sources(entry: str) -> dict[str, str]:
    """Return the source of a module of the agent and of all that it imports, by module; "" for a package."""
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
        for parent, folded, plain in _IMPORT.findall(text):
            pending += [parent, *(f"{parent}.{name.strip()}" for name in (folded or plain).split(","))]
    return sources


def _path_of(module: str) -> str | None:
    """Return the file of a module of the agent, or None for a name that is no module."""
    stem = os.path.join(os.path.dirname(ezpz.agent.__file__), *module.split(".")[2:])
    return next((path for path in (f"{stem}.py", os.path.join(stem, "__init__.py")) if os.path.exists(path)), None)


def bootstrap_command(pythons: tuple[str, ...] = ()) -> str:
    """The remote command that runs a line of shell, which may be empty, and starts the agent, both from its stdin.

    The text is the same for sh, csh and fish as login shells.

    pythons: paths to try when the system has none; a path that any of these shells would take apart is left out
    """
    candidates = " ".join((PYTHONS, *(path for path in pythons if PLAIN.fullmatch(path))))
    there = "command -v $p >/dev/null 2>&1 || continue"
    run = f'$p -IS -c "{BOOTSTRAP}"; s=$?; [ $s = {NO_START} ] || exit $s'
    tries = f"for p in {candidates}; do {there}; {run}; done"
    return f'exec /bin/sh -c \'IFS= read -r first; eval "$first"; {tries}; echo "{MISSING}" >&2; exit 127\''


def shared_pythons() -> tuple[str, ...]:
    """Pythons that a node without one of its own may have: the one that runs this, if it is on a disk of all nodes."""
    return tuple(
        path for path in dict.fromkeys((sys.executable, os.path.realpath(sys.executable))) if PLAIN.fullmatch(path)
    )

"""The smoke run: does the environment's python work where it was staged? Asked on every node before it is published."""

import json
import os
import re
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

from ezpz.agent.common import filesystem
from ezpz.agent.common.errors import AgentError
from ezpz.agent.common.run_python import NAMES, python_of, run_python
from ezpz.agent.common.text import printable_path
from ezpz.agent.common.tree import remove

CONFIGURATION = b"pyvenv.cfg"
KEYS = rb"(?:home|executable|base-[a-z-]+)"  # what of it a python believes; virtualenv adds to the first one
STAND_IN = b".trial"  # beside the tree
WITHIN = 120.0  # seconds
CODE = "smoke-failed"
MARK = b"ezpz:"  # begins the line with the facts; what a .pth file runs may print what it likes
HINT = "the version in place was kept; `ezpz yeet -v` tells what was carried"
PROGRAM = """\
import json, sys
failed = {}
for name in %r:
    try:
        __import__(name)
    except Exception as e:
        failed[name] = str(e)
facts = {"version": sys.version, "prefix": sys.prefix, "base_prefix": sys.base_prefix, "failed": failed}
print("\\nezpz:" + json.dumps(facts))
"""
VERSION = "import sys; sys.stdout.write(sys.version)"


def run_smoke_test(
    tree: bytes, destinations: Tuple[bytes, ...], expected: Dict[str, Any], going_on: Callable[[], None]
) -> None:
    """Start the python of a staged environment and compare what it says; raise Refusal ("smoke-failed").

    destinations: every spelling of the place where it will stand, which its `pyvenv.cfg` names already
    expected: version (None for any), base (where the standard library must be: relative to the tree, or absolute, or
    None for anywhere), imports (modules that must work), environ (variables that the python needs to start)
    going_on: called several times a second; may raise to stop it
    """
    with at_final_path(tree, destinations) as root:
        python = _python_in(root)
        facts = _ask(python, expected, going_on)
    relative = os.path.relpath(python, root)
    version, prefix, base = expected.get("version"), facts["prefix"], facts["base_prefix"]
    if version is not None and facts["version"] != version:
        raise _refused(relative, "it is '{}' instead of '{}'".format(facts["version"], version))
    if os.fsencode(prefix) != root and not _same(prefix, tree):
        raise _refused(relative, "its prefix is '{}'".format(printable_path(os.fsencode(prefix))))
    wanted = expected.get("base")
    if wanted is not None and not _same(base, os.path.join(tree, os.fsencode(wanted))):
        raise _refused(relative, "its standard library is in '{}'".format(printable_path(os.fsencode(base))))
    if facts["failed"]:
        name, why = sorted(facts["failed"].items())[0]
        raise _refused(relative, "`import {}` fails: {}".format(name, why))


def _python_in(root: bytes) -> bytes:
    """The python of a staged environment. Raises Refusal, which says what its link leads to."""
    try:
        return python_of(root)
    except AgentError:
        name = next((name for name in NAMES if os.path.islink(os.path.join(root, b"bin", name))), NAMES[0])
        target = os.path.realpath(os.path.join(root, b"bin", name))
        why = "it leads to '{}', which is not there".format(printable_path(target))
        raise AgentError(CODE, _failure(b"bin/" + name, why), "yeet it again with --base embed")


def has_python(request: Dict[str, Any], going_on: Callable[[], None]) -> Dict[str, Any]:
    """Whether this host has the very same interpreter on a disk of its own: {"same": bool, "why": str}.

    request: executable, prefix (of the installation), version (sys.version, which tells the build)
    """
    python, prefix = os.fsencode(request["executable"]), os.fsencode(request["prefix"])
    for path in (python, prefix):
        if not os.path.exists(path):
            return {"same": False, "why": "'{}' is not there".format(printable_path(path))}
        kind = filesystem.filesystem(os.path.realpath(path))
        if not filesystem.is_node_local(kind):
            return {"same": False, "why": "'{}' is on {}".format(printable_path(path), kind)}
    try:
        environ = _environ(request.get("environ"))
        said = run_python(python, VERSION, environ, going_on, WITHIN, cwd=b"/", options=(b"-I", b"-S"))
    except AgentError as e:
        return {"same": False, "why": e.message}
    version = said.decode("utf-8", "replace")
    if version != request["version"]:
        return {"same": False, "why": "'{}' is '{}'".format(printable_path(python), version)}
    return {"same": True, "why": ""}


def _same(path: str, other: bytes) -> bool:
    return os.path.realpath(os.fsencode(path)) == os.path.realpath(other)


def _refused(python: bytes, why: str) -> AgentError:
    return AgentError(CODE, _failure(python, why), HINT)


def _failure(python: bytes, why: str) -> str:
    return "the environment does not work there: '{}': {}".format(printable_path(python), why)


def _environ(needed: Optional[Dict[str, str]]) -> Dict[str, str]:
    """The variables for a python that runs without the settings of this user; `needed`: those that it must have."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") and k != "LD_LIBRARY_PATH"}
    environ.update(needed or {})
    return environ


def _ask(python: bytes, expected: Dict[str, Any], going_on: Callable[[], None]) -> Dict[str, Any]:
    """What a python says of itself, started without the settings of this user. Raises Refusal."""
    environ = _environ(expected.get("environ"))
    program = PROGRAM % (list(expected.get("imports", ())),)
    try:
        said = run_python(python, program, environ, going_on, WITHIN, cwd=b"/", options=(b"-I",))
    except AgentError as e:
        raise AgentError(CODE, e.message, HINT)
    for line in said.splitlines():
        if line.startswith(MARK):
            return dict(json.loads(line[len(MARK) :].decode("utf-8")))
    raise AgentError(CODE, "'{}' does not answer".format(printable_path(python)), HINT)


@contextmanager
def at_final_path(tree: bytes, destinations: Tuple[bytes, ...]) -> Iterator[bytes]:
    """The root to start python from: the tree, or a stand-in whose `pyvenv.cfg` names the tree and not the destination.

    Nothing stands at the destination yet, or the version before. The stand-in, beside the tree, has links to all else
    of it, so that what was verified stays as it is.
    """
    try:
        with open(os.path.join(tree, CONFIGURATION), "rb") as file:
            final = file.read()
    except OSError:
        final = b""
    now = final
    for destination in destinations:
        name = re.compile(rb"(?m)^(%b[ \t]*=[ \t]*)%b(?=/)" % (KEYS, re.escape(destination)))
        now = name.sub(lambda match: match.group(1) + tree, now)
    if now == final:
        yield tree
        return
    root = tree + STAND_IN
    os.makedirs(os.path.join(root, b"bin"), 0o700)
    try:
        with open(os.path.join(root, CONFIGURATION), "xb") as file:
            file.write(now)
        for folder, apart in ((b"", (b"bin", CONFIGURATION)), (b"bin", ())):
            for entry in os.listdir(os.path.join(tree, folder)):
                if entry not in apart:
                    os.symlink(os.path.join(tree, folder, entry), os.path.join(root, folder, entry))
        yield root
    finally:
        remove(root)

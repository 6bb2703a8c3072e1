"""The smoke test: start the Python of a staged environment before it is published."""

import json
import os
import re
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple

from ..common import filesystem
from ..common.cancel import CancelToken
from ..common.errors import AgentError
from ..common.messages.answers import InterpreterAnswer
from ..common.messages.parts import SmokeTest
from ..common.messages.requests import InterpreterRequest
from ..common.run_python import NAMES, python_of, run_python
from ..common.text import printable_path
from .remove_tree import remove_tree

CONFIGURATION = b"pyvenv.cfg"
KEYS = rb"(?:home|executable|base-[a-z-]+)"  # those that name the base Python; virtualenv adds to the first one
SUBSTITUTE = b".trial"  # next to the tree
TIMEOUT = 120.0  # seconds
CODE = "smoke-failed"
MARK = b"ezpz:"  # starts the line with the facts; what a .pth file runs may print other lines
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


def run_smoke_test(tree: bytes, destinations: Tuple[bytes, ...], expected: SmokeTest, cancel: CancelToken) -> None:
    """Start the Python of a staged environment, and compare what it says. Raise AgentError ("smoke-failed").

    Args:
        tree: the staged environment
        destinations: every spelling of its destination, which its `pyvenv.cfg` names already
        expected: what its Python must say
        cancel: is checked several times per second
    """
    with at_final_path(tree, destinations) as root:
        python = _python_in(root)
        facts = _ask(python, expected, cancel)
    relative = os.path.relpath(python, root)
    version, prefix, base = expected.version, facts["prefix"], facts["base_prefix"]
    if version is not None and facts["version"] != version:
        raise _refused(relative, "it is '{}' instead of '{}'".format(facts["version"], version))
    if os.fsencode(prefix) != root and not _same(prefix, tree):
        raise _refused(relative, "its prefix is '{}'".format(printable_path(os.fsencode(prefix))))
    wanted = expected.base
    if wanted is not None and not _same(base, os.path.join(tree, os.fsencode(wanted))):
        raise _refused(relative, "its standard library is in '{}'".format(printable_path(os.fsencode(base))))
    if facts["failed"]:
        name, why = sorted(facts["failed"].items())[0]
        raise _refused(relative, "`import {}` fails: {}".format(name, why))


def _python_in(root: bytes) -> bytes:
    """Return the Python of a staged environment. Raise AgentError, which says what its link points to."""
    try:
        return python_of(root)
    except AgentError:
        name = next((name for name in NAMES if os.path.islink(os.path.join(root, b"bin", name))), NAMES[0])
        target = os.path.realpath(os.path.join(root, b"bin", name))
        why = "it leads to '{}', which is not there".format(printable_path(target))
        raise AgentError(CODE, _failure(b"bin/" + name, why), "yeet it again with --base embed")


def has_python(request: InterpreterRequest, cancel: CancelToken) -> InterpreterAnswer:
    """Return whether this host has the same interpreter on a disk of its own."""
    why = _why_not_same(request, cancel)
    return InterpreterAnswer(same=not why, why=why)


def _why_not_same(request: InterpreterRequest, cancel: CancelToken) -> str:
    """Return why this host has not the same interpreter on a disk of its own, "" if it has."""
    python, prefix = os.fsencode(request.executable), os.fsencode(request.prefix)
    for path in (python, prefix):
        if not os.path.exists(path):
            return "'{}' is not there".format(printable_path(path))
        kind = filesystem.filesystem(os.path.realpath(path))
        if not filesystem.is_node_local(kind):
            return "'{}' is on {}".format(printable_path(path), kind)
    try:
        environ = _environ(request.environ)
        said = run_python(python, VERSION, environ, cancel, TIMEOUT, cwd=b"/", options=(b"-I", b"-S"))
    except AgentError as e:
        return e.message
    version = said.decode("utf-8", "replace")
    if version != request.version:
        return "'{}' is '{}'".format(printable_path(python), version)
    return ""


def _same(path: str, other: bytes) -> bool:
    return os.path.realpath(os.fsencode(path)) == os.path.realpath(other)


def _refused(python: bytes, why: str) -> AgentError:
    return AgentError(CODE, _failure(python, why), HINT)


def _failure(python: bytes, why: str) -> str:
    return "the environment does not work there: '{}': {}".format(printable_path(python), why)


def _environ(needed: Optional[Mapping[str, str]]) -> Dict[str, str]:
    """Return the variables for a Python that runs without the settings of this user, with those that it needs."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") and k != "LD_LIBRARY_PATH"}
    environ.update(needed or {})
    return environ


def _ask(python: bytes, expected: SmokeTest, cancel: CancelToken) -> Dict[str, Any]:
    """Return what a Python says of itself, started without the settings of this user. Raise AgentError."""
    environ = _environ(expected.environ)
    program = PROGRAM % (list(expected.imports),)
    try:
        said = run_python(python, program, environ, cancel, TIMEOUT, cwd=b"/", options=(b"-I",))
    except AgentError as e:
        raise AgentError(CODE, e.message, HINT)
    for line in said.splitlines():
        if line.startswith(MARK):
            return dict(json.loads(line[len(MARK) :].decode("utf-8")))
    raise AgentError(CODE, "'{}' does not answer".format(printable_path(python)), HINT)


@contextmanager
def at_final_path(tree: bytes, destinations: Tuple[bytes, ...]) -> Iterator[bytes]:
    """Yield the root to start Python from: the tree, or a substitute whose `pyvenv.cfg` names the tree.

    That of the tree names the destination, where nothing is yet, or the previous version. The substitute, next to the
    tree, has links to everything else in it, so that what was verified does not change.
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
    root = tree + SUBSTITUTE
    os.makedirs(os.path.join(root, b"bin"), 0o700)
    try:
        with open(os.path.join(root, CONFIGURATION), "xb") as file:
            file.write(now)
        for directory, excluded in ((b"", (b"bin", CONFIGURATION)), (b"bin", ())):
            for entry in os.listdir(os.path.join(tree, directory)):
                if entry not in excluded:
                    os.symlink(os.path.join(tree, directory, entry), os.path.join(root, directory, entry))
        yield root
    finally:
        remove_tree(root)

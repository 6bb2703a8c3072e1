"""Interpreter: which python runs an environment, as it tells itself; and `pyvenv.cfg`, which names it."""

from __future__ import annotations

import errno
import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ezpz.agent.common.cancel import NEVER
from ezpz.agent.common.errors import AgentError
from ezpz.agent.common.run_python import run_python
from ezpz.agent.common.text import printable_path
from ezpz.errors import InterpreterBroken, LimitReached
from ezpz.runtime import process
from ezpz.yeet.relocate.formats.elf import is_elf

if TYPE_CHECKING:
    from ezpz.agent.common.cancel import CancelToken

ANSWER_WITHIN = 120.0  # seconds; a cold shared filesystem answers slowly
PATHS = ("prefix", "base_prefix", "base_executable", "stdlib", "platstdlib", "user_site")
FOLDERS = ("site_packages", "base_site_packages", "dynload")
WORDS = ("version", "tag", "magic", "imports")
TRIED = ("ssl", "sqlite3", "ctypes", "zlib")
OLDEST, NEWEST = (3, 8), (3, 14)  # what is tested; a newer one may do as well
MARK = b"ezpz:"  # begins the line with the answer; what a .pth file runs may print what it likes
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
print("\\nezpz:" + json.dumps(facts))
"""
VERSION_PROGRAM = "import sys; sys.stdout.write('\\nezpz:%d.%d\\n' % sys.version_info[:2])"  # of any Python
LIBRARY = re.compile(r"error while loading shared libraries: (\S+?):")
MACHINES = {3: "i386", 20: "ppc", 21: "ppc64", 22: "s390", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv"}


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


def probe(python: bytes, cancel: CancelToken | None = None) -> Interpreter:
    """Ask a python about itself; it writes nothing and runs isolated from the user's settings (python(1), -I -B).

    Raises InterpreterBroken when it does not start, does not answer or is too old, LimitReached, and Cancelled.
    """
    name = printable_path(python)
    if not os.path.exists(python):
        raise InterpreterBroken(
            f"'{name}' leads to nothing ('{printable_path(os.path.realpath(python))}')",
            hint="is its python installed on this host? load its module, or make the environment again",
        )
    if not os.path.isfile(python) or not os.access(python, os.X_OK):
        raise InterpreterBroken(f"'{name}' may not be executed", hint="look at its mode, or make the environment again")
    try:
        facts = _facts(_said(python, PROGRAM % (TRIED,), cancel, (b"-I",)))
    except AgentError as e:
        raise _broken(python, e, cancel) from e
    if facts is None:
        raise InterpreterBroken(f"'{name}' does not answer as a python does", hint="does it run by hand?")
    _refuse_old(name, facts["version"])
    paths: dict[str, Any] = {name: os.fsencode(facts[name]) for name in PATHS}
    paths |= {name: tuple(os.fsencode(path) for path in facts[name]) for name in FOLDERS}
    return Interpreter(
        version=facts["version"], tag=facts["tag"].encode(), magic=bytes.fromhex(facts["magic"]),
        imports=tuple(facts["imports"]), **paths,
    )  # fmt: skip


def _said(python: bytes, program: str, cancel: CancelToken | None, options: tuple[bytes, ...]) -> bytes:
    """What a python prints, which finds its libraries as the user's session does. Raises Refusal, Cancelled."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return run_python(python, program, environ, cancel or NEVER, ANSWER_WITHIN, cwd=b"/", options=options)


def _facts(said: bytes) -> dict[str, Any] | None:
    """The answer to PROGRAM, or None when there is none."""
    for line in said.splitlines():
        if line.startswith(MARK):
            try:
                facts = json.loads(line[len(MARK) :])
            except ValueError:
                continue
            if isinstance(facts, dict) and facts.keys() >= {*PATHS, *FOLDERS, *WORDS}:
                return facts
    return None


def _broken(python: bytes, refusal: AgentError, cancel: CancelToken | None) -> InterpreterBroken:
    """Why a python did not do what it was asked. Raises LimitReached, Cancelled; InterpreterBroken for an old one."""
    name, cause = printable_path(python), refusal.__context__
    if refusal.code == "timed-out":
        hint = "what hangs when it starts, a .pth file? --base keep goes on without its answer"
        return InterpreterBroken(refusal.message, hint=hint)
    if isinstance(cause, OSError):  # it was not even started
        if cause.errno in process.SCARCE:
            raise LimitReached(refusal.message, hint="see `ulimit -a`") from refusal
        machine = _foreign_machine(python) if cause.errno == errno.ENOEXEC else None
        if machine is None:
            return InterpreterBroken(refusal.message, hint="is it a program? make the environment again")
        return InterpreterBroken(
            f"'{name}' is made for another kind of machine ({machine}) than this host ({os.uname().machine})",
            hint="start from a host of that kind, or make the environment again on this one",
        )
    missing = LIBRARY.search(refusal.message)
    if missing:
        return InterpreterBroken(
            f"'{name}' does not start: {missing.group(1)} not found",
            hint="load the module that it was made with (module load ...), then run it again",
        )
    _refuse_unknown(python, cancel)
    why = refusal.message.removeprefix(f"'{name}' does not work: ")
    return InterpreterBroken(f"'{name}' does not start: {why}", hint="does it run by hand?")


def _refuse_unknown(python: bytes, cancel: CancelToken | None) -> None:
    """Raise InterpreterBroken for a python that is too old to have been asked as others are."""
    try:
        said = _said(python, VERSION_PROGRAM, cancel, ())
    except AgentError:
        return
    for line in said.splitlines():
        if line.startswith(MARK):
            _refuse_old(printable_path(python), line[len(MARK) :].decode(errors="replace"))


def _refuse_old(name: str, version: str) -> None:
    """Raise InterpreterBroken for a version that is older than all that are relocated."""
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None or (int(match[1]), int(match[2])) >= OLDEST:
        return
    oldest, newest = (".".join(map(str, each)) for each in (OLDEST, NEWEST))
    raise InterpreterBroken(
        f"'{name}': Python {match[0]} is too old: {oldest} to {newest} can be relocated",
        hint="make the environment again with a newer one; --base keep goes on without asking it",
    )


def _foreign_machine(python: bytes) -> str | None:
    """The kind of machine that a program is made for, when that is not this host's."""
    try:
        with open(python, "rb") as file, open("/proc/self/exe", "rb") as own:
            theirs, ours = file.read(20), own.read(20)
    except OSError:
        return None  # one that may be executed and not read
    if not is_elf(theirs) or len(theirs) < 20 or (theirs[4:6] + theirs[18:20]) == (ours[4:6] + ours[18:20]):
        return None
    number = int.from_bytes(theirs[18:20], "big" if theirs[5] == 2 else "little")
    return MACHINES.get(number, f"ELF machine {number}")

"""Ask the python of an environment about itself."""

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

PROBE_TIMEOUT = 120.0  # seconds; a cold shared filesystem answers slowly
PATHS = ("prefix", "base_prefix", "base_executable", "stdlib", "platstdlib", "user_site")
PATH_LISTS = ("site_packages", "base_site_packages", "dynload")
TEXT_FACTS = ("version", "tag", "magic", "imports")
TRIED_IMPORTS = ("ssl", "sqlite3", "ctypes", "zlib")
OLDEST_PYTHON, NEWEST_PYTHON = (3, 8), (3, 14)  # tested versions; a newer one may work as well
MARKER = b"ezpz:"  # starts the line with the answer: code in .pth files can print other lines
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
VERSION_PROGRAM = "import sys; sys.stdout.write('\\nezpz:%d.%d\\n' % sys.version_info[:2])"  # runs in any Python
MISSING_LIBRARY = re.compile(r"error while loading shared libraries: (\S+?):")
ELF_MACHINES = {3: "i386", 20: "ppc", 21: "ppc64", 22: "s390", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv"}


@dataclass(frozen=True, slots=True)
class Interpreter:
    """What a python tells about itself. Paths are absolute, as it sees them.

    Attributes:
        version: sys.version, which includes the date of the build and the compiler.
        prefix: Path of the environment.
        base_prefix: Path of the installation with the standard library.
        base_executable: Resolved path of its executable.
        stdlib: Directory of the standard library.
        platstdlib: Directory of its platform-dependent part.
        tag: Tag of its bytecode (PEP 3147).
        magic: Magic number of its bytecode.
        imports: The modules of TRIED_IMPORTS, which need libraries, that it can import.
        user_site: The user's site-packages.
        site_packages: Site-packages of the environment.
        base_site_packages: Site-packages of the installation.
        dynload: Directories of its extension modules.
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
        """Readable name: Python 3.11.7."""
        return "Python " + self.version.split(" ", 1)[0]


def find_python(root: bytes) -> bytes | None:
    """Return the path of an environment's python, even if it is a dangling link, or None if there is none."""
    for name in (b"bin/python", b"bin/python3"):
        if os.path.lexists(os.path.join(root, name)):
            return os.path.join(root, name)
    return None


def probe(python: bytes, cancel: CancelToken | None = None) -> Interpreter:
    """Ask a python about itself. It writes nothing, and ignores the user's settings (python(1), -I -B).

    Raises:
        InterpreterBroken: It does not start, does not answer, or is too old.
        LimitReached: No process can be started.
        `Cancelled`: The token was set.
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
        facts = _parse_facts(_run_program(python, PROGRAM % (TRIED_IMPORTS,), cancel, (b"-I",)))
    except AgentError as e:
        raise _start_failure(python, e, cancel) from e
    if facts is None:
        raise InterpreterBroken(f"'{name}' does not answer as a python does", hint="does it run by hand?")
    _check_version(name, facts["version"])
    paths: dict[str, Any] = {name: os.fsencode(facts[name]) for name in PATHS}
    paths |= {name: tuple(os.fsencode(path) for path in facts[name]) for name in PATH_LISTS}
    return Interpreter(
        version=facts["version"], tag=facts["tag"].encode(), magic=bytes.fromhex(facts["magic"]),
        imports=tuple(facts["imports"]), **paths,
    )  # fmt: skip


def _run_program(python: bytes, program: str, cancel: CancelToken | None, options: tuple[bytes, ...]) -> bytes:
    """Return the output of a python, which finds its libraries as in the user's session.

    Raises AgentError, `Cancelled`.
    """
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return run_python(python, program, environ, cancel or NEVER, PROBE_TIMEOUT, cwd=b"/", options=options)


def _parse_facts(output: bytes) -> dict[str, Any] | None:
    """Return the answer to PROGRAM, or None if there is none."""
    for line in output.splitlines():
        if line.startswith(MARKER):
            try:
                facts = json.loads(line[len(MARKER) :])
            except ValueError:
                continue
            if isinstance(facts, dict) and facts.keys() >= {*PATHS, *PATH_LISTS, *TEXT_FACTS}:
                return facts
    return None


def _start_failure(python: bytes, error: AgentError, cancel: CancelToken | None) -> InterpreterBroken:
    """Return why a python did not do what it was asked.

    Raises LimitReached, `Cancelled`, and InterpreterBroken for an old python.
    """
    name, cause = printable_path(python), error.__context__
    if error.code == "timed-out":
        hint = "what hangs when it starts, a .pth file? --base keep goes on without its answer"
        return InterpreterBroken(error.message, hint=hint)
    if isinstance(cause, OSError):  # it was not started
        if cause.errno in process.RESOURCE_ERRORS:
            raise LimitReached(error.message, hint="see `ulimit -a`") from error
        machine = _foreign_machine(python) if cause.errno == errno.ENOEXEC else None
        if machine is None:
            return InterpreterBroken(error.message, hint="is it a program? make the environment again")
        return InterpreterBroken(
            f"'{name}' is made for another kind of machine ({machine}) than this host ({os.uname().machine})",
            hint="start from a host of that kind, or make the environment again on this one",
        )
    missing = MISSING_LIBRARY.search(error.message)
    if missing:
        return InterpreterBroken(
            f"'{name}' does not start: {missing.group(1)} not found",
            hint="load the module that it was made with (module load ...), then run it again",
        )
    _check_version_of_old_python(python, cancel)
    why = error.message.removeprefix(f"'{name}' does not work: ")
    return InterpreterBroken(f"'{name}' does not start: {why}", hint="does it run by hand?")


def _check_version_of_old_python(python: bytes, cancel: CancelToken | None) -> None:
    """Raise InterpreterBroken for a python that is too old to run PROGRAM."""
    try:
        output = _run_program(python, VERSION_PROGRAM, cancel, ())
    except AgentError:
        return
    for line in output.splitlines():
        if line.startswith(MARKER):
            _check_version(printable_path(python), line[len(MARKER) :].decode(errors="replace"))


def _check_version(name: str, version: str) -> None:
    """Raise InterpreterBroken for a version that is older than all supported ones."""
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None or (int(match[1]), int(match[2])) >= OLDEST_PYTHON:
        return
    oldest, newest = (".".join(map(str, each)) for each in (OLDEST_PYTHON, NEWEST_PYTHON))
    raise InterpreterBroken(
        f"'{name}': Python {match[0]} is too old: {oldest} to {newest} can be relocated",
        hint="make the environment again with a newer one; --base keep goes on without asking it",
    )


def _foreign_machine(python: bytes) -> str | None:
    """Return the machine type that a program was built for, or None if it is that of this host."""
    try:
        with open(python, "rb") as file, open("/proc/self/exe", "rb") as own:
            theirs, ours = file.read(20), own.read(20)
    except OSError:
        return None  # executable but not readable
    if not is_elf(theirs) or len(theirs) < 20 or (theirs[4:6] + theirs[18:20]) == (ours[4:6] + ours[18:20]):
        return None
    number = int.from_bytes(theirs[18:20], "big" if theirs[5] == 2 else "little")
    return ELF_MACHINES.get(number, f"ELF machine {number}")

"""Paths of an environment that still point to a shared filesystem, as its own Python lists them."""

import json
import os
import shlex
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Set, Tuple

from ..common import filesystem
from ..common.cancel import CancelToken
from ..common.errors import AgentError
from ..common.messages.answers import LeaksAnswer
from ..common.messages.parts import LeakFound
from ..common.messages.requests import LeaksRequest
from ..common.run_python import python_of, run_python
from ..common.text import printable_path

TIMEOUT = 60.0  # seconds for the environment's Python to start, import and tell
MARK = b"EZPZ-LEAKS "  # begins the line with the facts; modules may print what they like
MAX_DIRECTORIES = 5  # that are reported for each kind of leak
PROBE = """\
import importlib, importlib.util, json, os, platform, site, sys, sysconfig
if sys.path and not sys.path[0]:
    del sys.path[0]
for name in ("json", "asyncio", "ssl", "sqlite3", "ctypes", "numpy"):
    try:
        importlib.import_module(name)
    except BaseException:
        pass
def absolute(found):
    if isinstance(found, str):
        return [found] if os.path.isabs(found) else []
    if isinstance(found, dict):
        found = list(found.values())
    return [path for each in found for path in absolute(each)] if isinstance(found, (list, tuple)) else []
def redirected(finder):
    try:
        name = finder.__name__ if isinstance(finder, (type(sys), type)) else ""
        if "editable" in name + str(getattr(finder, "__module__", "")):
            return absolute([each for each in vars(finder).values() if isinstance(each, dict)])
    except BaseException:
        pass
    return []
def installed(name):
    try:
        return importlib.util.find_spec(name) is not None
    except BaseException:
        return False
modules = [module for module in list(sys.modules.values()) if module is not None]
files = [getattr(module, "__dict__", {}).get("__file__") for module in modules]
with open("/proc/self/maps", "rb") as file:
    mapped = [os.fsdecode(line.rstrip(b"\\n").split(None, 5)[5]) for line in file if b" /" in line]
variables = dict(sysconfig.get_config_vars(), userbase=None)
own = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, os.path.realpath(sys.executable)]
user = site.getusersitepackages() if site.ENABLE_USER_SITE else None
facts = {
    "python": platform.python_version(),
    "base": sys.base_prefix,
    "user": user,
    "packages": [name for name in %r if installed(name)],
    "interpreter": own,
    "sys.path": absolute(sys.path),
    "module": absolute(files + [redirected(finder) for finder in modules + list(sys.meta_path)]),
    "library": absolute(mapped),
    "sysconfig": absolute([sysconfig.get_paths(), list(variables.values())]),
}
for what in ("interpreter", "sys.path", "module", "library", "sysconfig"):
    facts[what] = sorted({path for path in facts[what] if os.path.exists(path)})
sys.stdout.flush()
os.write(1, b"\\n" + %r + json.dumps(facts).encode() + b"\\n")
os._exit(0)
"""
REMEDIES = {
    "destination": "yeet it to node-local disk, as in --dst /tmp/NAME",
    "interpreter": "yeet again with --base embed",
    "PYTHONPATH": "unset PYTHONPATH, or install what it names into the environment",
    "user-site": "export PYTHONNOUSERSITE=1, or install what is there into the environment",
    "sys.path": "yeet again with --editable snapshot, or take the .pth file out that names it",
    "module": "yeet again with --editable snapshot",
    "LD_LIBRARY_PATH": "take it out of LD_LIBRARY_PATH: every library is looked for there first",
    "library": "install what has it into the environment, then yeet again",
    "sysconfig": "yeet again with --base embed; only what compiles extensions reads it",
    "cache": "source {dst}/env.sh, which points it at node-local storage",
}


class Cache(NamedTuple):
    """Where a package keeps what it compiles: in the directory that a variable names, else in `default`.

    Attributes:
        packages: the default counts if one of them is installed, and `device`, if any, exists
    """

    variable: str
    default: str = ""
    packages: Tuple[str, ...] = ()
    device: str = ""


CACHES = (
    Cache("XDG_CACHE_HOME"),
    Cache("TRITON_CACHE_DIR", "{HOME}/.triton/cache", ("triton",)),
    Cache("TORCH_EXTENSIONS_DIR", "{XDG_CACHE_HOME}/torch_extensions", ("torch",)),
    Cache("TORCHINDUCTOR_CACHE_DIR"),  # by itself in the temporary directory
    Cache("MPLCONFIGDIR", "{XDG_CACHE_HOME}/matplotlib", ("matplotlib",)),
    Cache("NUMBA_CACHE_DIR"),  # by default next to the module
    Cache(
        "CUDA_CACHE_PATH", "{HOME}/.nv/ComputeCache", ("torch", "cupy", "jax", "numba", "tensorflow"), "/dev/nvidiactl"
    ),
    Cache("PYTHONPYCACHEPREFIX"),
)


def job_environ(environ: Mapping[str, str]) -> Dict[str, str]:
    """Return the variables of a job that decide where its Python reads and writes."""
    names = {"LD_LIBRARY_PATH"}.union(cache.variable for cache in CACHES)
    return {name: value for name, value in environ.items() if name in names or name.startswith("PYTHON")}


def find_leaks(request: LeaksRequest, cancel: CancelToken) -> LeaksAnswer:
    """Return what the environment at a destination would still read from a shared filesystem.

    Raises AgentError ("smoke-failed", "timed-out").
    """
    dst = os.fsencode(request.dst)
    job = job_environ(request.environ)
    own = job_environ(os.environ)
    environ = dict({name: value for name, value in os.environ.items() if name not in own}, **job)
    facts = _ask_python(dst, environ, cancel)
    paths = _PathClassifier(dst, [os.fsencode(path) for path in request.known])
    tally = _Tally(paths)
    if paths.is_shared(paths.dst):
        tally.add_cause("destination", dst)
    tally.add_cause("interpreter", os.fsencode(facts["base"]))
    for entry in _entries(environ.get("PYTHONPATH", "")):
        tally.add_cause("PYTHONPATH", entry)
    for entry in _entries(environ.get("LD_LIBRARY_PATH", "")):
        tally.add_cause("LD_LIBRARY_PATH", entry, only=("library",))
    if facts["user"] and os.path.isdir(facts["user"]):
        tally.add_cause("user-site", os.fsencode(facts["user"]))
    facts["library"] = set(facts["library"]) - set(facts["module"]) - set(facts["interpreter"])
    for what in ("interpreter", "sys.path", "module", "library", "sysconfig"):
        for path in facts[what]:
            tally.add_path(what, os.fsencode(path))
    for directory in _cache_directories(environ, facts["packages"]):
        tally.add_cause("cache", directory, only=())
    return LeaksAnswer(python=facts["python"], leaks=list(tally.leaks(dst)))


def _ask_python(dst: bytes, environ: Dict[str, str], cancel: CancelToken) -> Dict[str, Any]:
    """Return what the Python of an environment says of itself. Raise AgentError."""
    packages = sorted({package for cache in CACHES for package in cache.packages})
    out = run_python(python_of(dst), PROBE % (packages, MARK), environ, cancel, TIMEOUT, cwd=dst)
    for line in reversed(out.splitlines()):
        if line.startswith(MARK):
            facts: Dict[str, Any] = json.loads(line[len(MARK) :].decode())
            return facts
    raise AgentError("smoke-failed", "the Python of '{}' ended before it had answered".format(printable_path(dst)))


def _entries(value: str) -> Iterator[bytes]:
    """Yield the directories of a search path that exist; a relative one depends on where a job starts."""
    for entry in value.split(":"):
        if os.path.isabs(entry) and os.path.exists(entry):
            yield os.fsencode(entry)


def _cache_directories(environ: Dict[str, str], packages: List[str]) -> Iterator[bytes]:
    home = environ.get("HOME", "")
    parents = {"HOME": home, "XDG_CACHE_HOME": environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")}
    for cache in CACHES:
        directory = environ.get(cache.variable, "")
        used = home and set(cache.packages).intersection(packages)
        if not directory and used and os.path.exists(cache.device or "/"):
            directory = cache.default.format(**parents)
        if os.path.isabs(directory):
            yield os.fsencode(directory)


class _PathClassifier:
    """Decides whether a path points out of the destination to what only a shared filesystem has."""

    def __init__(self, dst: bytes, known: Iterable[bytes]) -> None:
        self.given = os.path.normpath(dst)
        self.dst = os.path.realpath(dst)
        self.known = {os.path.normpath(path): os.path.realpath(path) for path in known}
        self.image = os.stat(b"/").st_dev
        self.shared: Dict[int, bool] = {}

    def leak(self, path: bytes) -> Optional[bytes]:
        """Return where a path points to, or None if that is in the destination or on a disk of this node."""
        path, real = os.path.normpath(path), os.path.realpath(path)
        inside = _is_below(path, self.given) or _is_below(path, self.dst)
        if inside and _is_below(real, self.dst):
            return None
        if self.known_above(path) or self.is_shared(real):
            return real if inside else path
        return None

    def known_above(self, path: bytes) -> Optional[bytes]:
        """Return the nearest directory above a path that is known to be shared, or None."""
        real = os.path.realpath(path)
        above = [known for known in self.known if _is_below(path, known) or _is_below(real, self.known[known])]
        return max(above, key=len) if above else None

    def is_shared(self, real: bytes) -> bool:
        """Return whether the filesystem of a path, or of what exists above it, is shared by its type.

        That of `/` never counts: a diskless node has its whole image on it, and no job can change that.
        """
        while not os.path.exists(real):
            real = os.path.dirname(real)
        device = os.stat(real).st_dev
        if device not in self.shared:
            self.shared[device] = device != self.image and not filesystem.is_node_local(filesystem.filesystem(real))
        return self.shared[device]


class _Cause(NamedTuple):
    """A directory that explains every leak below it, or only some kinds of them."""

    what: str
    path: bytes
    real: bytes
    only: Optional[Tuple[str, ...]]


class _Tally:
    """Leaks by their kind and the directory that they have in common."""

    def __init__(self, paths: _PathClassifier) -> None:
        self.paths = paths
        self.causes: List[_Cause] = []
        self.found: Dict[str, Dict[bytes, Set[bytes]]] = {what: {} for what in REMEDIES}

    def add_cause(self, what: str, path: bytes, *, only: Optional[Tuple[str, ...]] = None) -> None:
        """Note a directory, if it leaks, as the cause of what leaks below it."""
        name = path if what == "destination" else self.paths.leak(path)
        if name is not None:
            self.found[what].setdefault(name, set()).add(name)
            if what != "destination":
                self.causes.append(_Cause(what, name, os.path.realpath(name), only))

    def add_path(self, what: str, path: bytes) -> None:
        """Count a path, if it leaks, for its cause or else for itself."""
        name = self.paths.leak(path)
        if name is None:
            return
        real = os.path.realpath(name)
        causes = [
            cause
            for cause in self.causes
            if (_is_below(name, cause.path) or _is_below(real, cause.real))
            and (cause.only is None or what in cause.only)
        ]
        if causes:
            cause = max(causes, key=lambda cause: len(cause.real))
            self.found[cause.what][cause.path].add(name)
            return
        directory = name if what == "sys.path" else self.paths.known_above(name) or os.path.dirname(name)
        self.found[what].setdefault(directory, set()).add(name)

    def leaks(self, dst: bytes) -> Iterator[LeakFound]:
        """Yield one leak for each kind and directory."""
        for what, remedy in REMEDIES.items():
            groups = self.found[what]
            if what in ("module", "library", "sysconfig"):
                groups = group_by_directory(groups)
            for directory in sorted(groups):
                yield LeakFound(
                    what=what,
                    path=os.fsdecode(directory),
                    count=len(groups[directory]),
                    remedy=remedy.format(dst=shlex.quote(os.fsdecode(dst))),
                )


def group_by_directory(groups: Dict[bytes, Set[bytes]]) -> Dict[bytes, Set[bytes]]:
    """Return the same paths below at most MAX_DIRECTORIES directories.

    A directory below another is merged into it. If there are still too many, the deepest is replaced by its parent.
    """
    while True:
        merged: Dict[bytes, Set[bytes]] = {}
        for directory in sorted(groups):
            above = next((other for other in merged if _is_below(directory, other)), directory)
            merged.setdefault(above, set()).update(groups[directory])
        if len(merged) <= MAX_DIRECTORIES:
            return merged
        deepest = max(merged, key=lambda directory: (directory.count(b"/"), directory))
        paths = merged.pop(deepest)
        merged.setdefault(os.path.dirname(deepest), set()).update(paths)
        groups = merged


def _is_below(path: bytes, directory: bytes) -> bool:
    return path == directory or path.startswith(directory.rstrip(b"/") + b"/")

"""What in an environment still leads to a shared filesystem, as its own Python tells and the filesystems' types."""

import json
import os
import shlex
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Set, Tuple

from ezpz.agent.common import filesystem
from ezpz.agent.common.errors import AgentError
from ezpz.agent.common.run_python import python_of, run_python
from ezpz.agent.common.text import printable_path

WITHIN = 60.0  # seconds for the environment's Python to start, import and tell
MARK = b"EZPZ-LEAKS "  # begins the line with the facts; modules may print what they like
MOST = 5  # folders that are told apart, for each kind of leak
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
    """Where a package keeps what it compiles: in a variable's folder, without it in `default`, of $HOME or ~/.cache.

    packages: the default counts if one of them is installed, and `device`, if any, is there
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
    Cache("NUMBA_CACHE_DIR"),  # by itself beside the module
    Cache(
        "CUDA_CACHE_PATH", "{HOME}/.nv/ComputeCache", ("torch", "cupy", "jax", "numba", "tensorflow"), "/dev/nvidiactl"
    ),
    Cache("PYTHONPYCACHEPREFIX"),
)


def job_environ(environ: Mapping[str, str]) -> Dict[str, str]:
    """The variables of a job that decide where its Python looks for things and puts them."""
    names = {"LD_LIBRARY_PATH"}.union(cache.variable for cache in CACHES)
    return {name: value for name, value in environ.items() if name in names or name.startswith("PYTHON")}


def find_leaks(dst: bytes, request: Dict[str, Any], going_on: Callable[[], None]) -> Dict[str, Any]:
    """What the environment at `dst` would still touch on a shared filesystem: {"python": version, "leaks": [...]}.

    request: known (folders that count as shared wherever they are: the source, its base, its editables), environ (what
    `job_environ` says of the job). A leak is {"what": a key of REMEDIES, "path", "count": of things there, "remedy"}.
    `going_on` may raise to stop it. Raises Refusal ("smoke-failed", "timed-out").
    """
    theirs = job_environ(request["environ"])
    ours = job_environ(os.environ)
    environ = dict({name: value for name, value in os.environ.items() if name not in ours}, **theirs)
    facts = _ask(dst, environ, going_on)
    judge = _Judge(dst, [os.fsencode(path) for path in request["known"]])
    tally = _Tally(judge)
    if judge.is_shared(judge.dst):
        tally.own("destination", dst)
    tally.own("interpreter", os.fsencode(facts["base"]))
    for entry in _entries(environ.get("PYTHONPATH", "")):
        tally.own("PYTHONPATH", entry)
    for entry in _entries(environ.get("LD_LIBRARY_PATH", "")):
        tally.own("LD_LIBRARY_PATH", entry, only=("library",))
    if facts["user"] and os.path.isdir(facts["user"]):
        tally.own("user-site", os.fsencode(facts["user"]))
    facts["library"] = set(facts["library"]) - set(facts["module"]) - set(facts["interpreter"])
    for what in ("interpreter", "sys.path", "module", "library", "sysconfig"):
        for path in facts[what]:
            tally.add(what, os.fsencode(path))
    for folder in _caches(environ, facts["packages"]):
        tally.own("cache", folder, only=())
    return {"python": facts["python"], "leaks": list(tally.leaks(dst))}


def _ask(dst: bytes, environ: Dict[str, str], going_on: Callable[[], None]) -> Dict[str, Any]:
    packages = sorted({package for cache in CACHES for package in cache.packages})
    out = run_python(python_of(dst), PROBE % (packages, MARK), environ, going_on, WITHIN, cwd=dst)
    for line in reversed(out.splitlines()):
        if line.startswith(MARK):
            facts: Dict[str, Any] = json.loads(line[len(MARK) :].decode())
            return facts
    raise AgentError("smoke-failed", "the Python of '{}' ended before it had answered".format(printable_path(dst)))


def _entries(value: str) -> Iterator[bytes]:
    """The folders that a search path names and that exist; what is relative depends on where a job starts."""
    for entry in value.split(":"):
        if os.path.isabs(entry) and os.path.exists(entry):
            yield os.fsencode(entry)


def _caches(environ: Dict[str, str], packages: List[str]) -> Iterator[bytes]:
    home = environ.get("HOME", "")
    folders = {"HOME": home, "XDG_CACHE_HOME": environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")}
    for cache in CACHES:
        folder = environ.get(cache.variable, "")
        used = home and set(cache.packages).intersection(packages)
        if not folder and used and os.path.exists(cache.device or "/"):
            folder = cache.default.format(**folders)
        if os.path.isabs(folder):
            yield os.fsencode(folder)


class _Judge:
    """Whether a path leads out of the destination to what only the shared filesystem has."""

    def __init__(self, dst: bytes, known: Iterable[bytes]) -> None:
        self.given = os.path.normpath(dst)
        self.dst = os.path.realpath(dst)
        self.known = {os.path.normpath(path): os.path.realpath(path) for path in known}
        self.image = os.stat(b"/").st_dev
        self.shared: Dict[int, bool] = {}

    def leak(self, path: bytes) -> Optional[bytes]:
        """Where it leads, or None when that is nowhere but the destination and this node's own disks."""
        path, real = os.path.normpath(path), os.path.realpath(path)
        inside = _below(path, self.given) or _below(path, self.dst)
        if inside and _below(real, self.dst):
            return None
        if self.known_above(path) or self.is_shared(real):
            return real if inside else path
        return None

    def known_above(self, path: bytes) -> Optional[bytes]:
        """The folder that is known to be shared and has this path, the one nearest to it, or None."""
        real = os.path.realpath(path)
        above = [folder for folder in self.known if _below(path, folder) or _below(real, self.known[folder])]
        return max(above, key=len) if above else None

    def is_shared(self, real: bytes) -> bool:
        """Whether the filesystem of a path, or of what exists above it, is shared by its type.

        That of `/` never counts: a diskless node has its whole image on it, and no job can do anything about that.
        """
        while not os.path.exists(real):
            real = os.path.dirname(real)
        device = os.stat(real).st_dev
        if device not in self.shared:
            self.shared[device] = device != self.image and not filesystem.is_node_local(filesystem.filesystem(real))
        return self.shared[device]


class _Owner(NamedTuple):
    """A folder that explains every leak below it, or of those only some kinds."""

    what: str
    path: bytes
    real: bytes
    only: Optional[Tuple[str, ...]]


class _Tally:
    """Leaks by what they are and the folder they have in common."""

    def __init__(self, judge: _Judge) -> None:
        self.judge = judge
        self.owners: List[_Owner] = []
        self.found: Dict[str, Dict[bytes, Set[bytes]]] = {what: {} for what in REMEDIES}

    def own(self, what: str, path: bytes, *, only: Optional[Tuple[str, ...]] = None) -> None:
        """Note a folder, if it leaks, as the reason for what leaks below it."""
        name = path if what == "destination" else self.judge.leak(path)
        if name is not None:
            self.found[what].setdefault(name, set()).add(name)
            if what != "destination":
                self.owners.append(_Owner(what, name, os.path.realpath(name), only))

    def add(self, what: str, path: bytes) -> None:
        """Count a path, if it leaks, for its reason or else for itself."""
        name = self.judge.leak(path)
        if name is None:
            return
        real = os.path.realpath(name)
        owners = [
            owner
            for owner in self.owners
            if (_below(name, owner.path) or _below(real, owner.real)) and (owner.only is None or what in owner.only)
        ]
        if owners:
            owner = max(owners, key=lambda owner: len(owner.real))
            self.found[owner.what][owner.path].add(name)
            return
        folder = name if what == "sys.path" else self.judge.known_above(name) or os.path.dirname(name)
        self.found[what].setdefault(folder, set()).add(name)

    def leaks(self, dst: bytes) -> Iterator[Dict[str, Any]]:
        """One entry for each kind and folder."""
        for what, remedy in REMEDIES.items():
            groups = self.found[what]
            if what in ("module", "library", "sysconfig"):
                groups = group_by_directory(groups)
            for folder in sorted(groups):
                yield {
                    "what": what,
                    "path": os.fsdecode(folder),
                    "count": len(groups[folder]),
                    "remedy": remedy.format(dst=shlex.quote(os.fsdecode(dst))),
                }


def group_by_directory(groups: Dict[bytes, Set[bytes]]) -> Dict[bytes, Set[bytes]]:
    """The same paths below at most `MOST` folders: a folder below another goes to it, then the deepest goes up."""
    while True:
        merged: Dict[bytes, Set[bytes]] = {}
        for folder in sorted(groups):
            above = next((other for other in merged if _below(folder, other)), folder)
            merged.setdefault(above, set()).update(groups[folder])
        if len(merged) <= MOST:
            return merged
        deepest = max(merged, key=lambda folder: (folder.count(b"/"), folder))
        paths = merged.pop(deepest)
        merged.setdefault(os.path.dirname(deepest), set()).update(paths)
        groups = merged


def _below(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")

"""Check the host, each check in a process of its own, so that one that hangs delays no other.

A result goes from the process of its check to the agent as JSON.
"""

import binascii
import json
import os
import select
import shutil
import signal
import subprocess
import time
from typing import Any, Callable, Dict, List, Tuple

from .common.messages.queries import CheckResult, HealthCheckAnswer, HealthCheckRequest
from .common.receipt import read_receipt
from .common.wire_paths import ProtocolError

MAX_REASON = 200  # characters of an error that are kept
NICS = "/sys/class/net"
TOOLS = (
    (("nvidia-smi", "-L"), "GPU "),
    (("rocm-smi", "--showid"), "Device ID"),
    (("xpu-smi", "discovery"), "Device ID"),
)  # command line, and what it prints once for each device
Check = Callable[[], Dict[str, Any]]


class CheckFailed(Exception):
    """The reason why a check fails."""


def check_path(path: str) -> Dict[str, Any]:
    """Raise CheckFailed or OSError unless a path exists and can be read."""
    if os.path.isdir(path):
        os.listdir(path)
    elif os.path.exists(path):
        with open(path, "rb") as file:
            file.read(1)
    elif os.path.lexists(path):
        raise CheckFailed("{} leads to nothing".format(path))
    else:
        raise CheckFailed("{} does not exist".format(path))
    return {}


def check_program(path: str) -> Dict[str, Any]:
    """Raise CheckFailed unless a program can be executed."""
    if not os.path.exists(path):
        raise CheckFailed("{} does not exist".format(path))
    if not os.access(path, os.X_OK):
        raise CheckFailed("{} cannot be executed".format(path))
    return {}


def check_filesystem(path: str) -> Dict[str, Any]:
    """Raise OSError unless a filesystem answers."""
    os.statvfs(path)
    with os.scandir(path) as entries:
        next(iter(entries), None)
    return {}


def check_tmp(path: str, wanted: int) -> Dict[str, Any]:
    """Return the free bytes of a directory. Raise CheckFailed or OSError if they are few, or it cannot be written."""
    found = os.statvfs(path)
    free = found.f_bavail * found.f_frsize
    if free < wanted:
        raise CheckFailed("{} MB free in {}, {} MB wanted".format(free // 1000000, path, wanted // 1000000))
    fd, name = new_file(path)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(fd)
    finally:
        if name:
            os.unlink(name)
    return {"free": free}


def new_file(directory: str) -> Tuple[int, str]:
    """Create a file for writing that only this user can read. Raise OSError.

    Returns:
        Its descriptor, and its path: "" where the filesystem supports files without a name, else one that cannot be
        predicted.
    """
    try:
        return os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600), ""
    except (AttributeError, OSError):  # a Python or a filesystem that does not support it
        pass
    while True:
        name = os.path.join(directory, ".ezpz-checkup-{}".format(binascii.hexlify(os.urandom(8)).decode()))
        try:
            return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), name
        except FileExistsError:
            continue


def find_links() -> Dict[str, Any]:
    """Return the states of network interfaces that are hardware or named like a fast one, and of InfiniBand ports."""
    found = {}
    for name in sorted(os.listdir(NICS)):
        hardware = os.path.exists(os.path.join(NICS, name, "device"))
        if name != "lo" and (hardware or name.startswith(("hsn", "ib", "eth", "en"))):
            found[name] = read(os.path.join(NICS, name, "operstate"))
    base = "/sys/class/infiniband"
    for device in sorted(os.listdir(base)) if os.path.isdir(base) else ():
        for port in sorted(os.listdir(os.path.join(base, device, "ports"))):
            state = read(os.path.join(base, device, "ports", port, "state"))
            found["{}/{}".format(device, port)] = "up" if "ACTIVE" in state else "down"
    return {"links": found}


def read(path: str) -> str:
    """Return the text of a small file, "unknown" if it cannot be read."""
    try:
        with open(path) as file:
            return file.read(100).strip()
    except OSError:
        return "unknown"


def count_devices(argv: Tuple[str, ...], each: str) -> Dict[str, Any]:
    """Return how many devices a tool lists, nothing if it is not installed. Raise CheckFailed if it fails."""
    if not shutil.which(argv[0]):
        return {}
    done = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text = done.communicate()[0].decode("utf-8", "replace")
    if done.returncode:
        last = (text.strip().splitlines() or ["it says nothing"])[-1]
        raise CheckFailed("{} fails with status {}: {}".format(argv[0], done.returncode, last[:MAX_REASON]))
    return {"devices": text.count(each)}


def find_copy(path: str) -> Dict[str, Any]:
    """Return the copy that a path belongs to, if this user has one: its destination, and its version."""
    directory = path
    while os.path.dirname(directory) != directory:
        receipt = read_receipt(os.fsencode(directory))
        if receipt is not None:
            return {"dst": directory, "version": receipt.version}
        directory = os.path.dirname(directory)
    return {}


def checks_of(request: HealthCheckRequest) -> Dict[str, Check]:
    """Return the checks that are requested, by name."""
    found: Dict[str, Check] = {}
    for path in request.programs:
        found["path " + path] = lambda path=path: check_program(path)  # type: ignore[misc]
    for path in request.paths:
        found["path " + path] = lambda path=path: check_path(path)  # type: ignore[misc]
    for path in request.shared:
        found["shared " + path] = lambda path=path: check_filesystem(path)  # type: ignore[misc]
    for path in dict.fromkeys((*request.programs, *request.paths)):
        found["version " + path] = lambda path=path: find_copy(path)  # type: ignore[misc]
    tmp = request.tmp
    if tmp is not None:
        found["tmp"] = lambda: check_tmp(tmp, request.room)
    if request.links:
        found["links"] = find_links
    for argv, each in TOOLS if request.devices else ():
        found["devices " + argv[0]] = lambda argv=argv, each=each: count_devices(argv, each)  # type: ignore[misc]
    return found


class IsolatedCheck:
    """A check in a process of its own."""

    def __init__(self, act: Check) -> None:
        self.read, write = os.pipe()
        self.said = b""
        self.pid = os.fork()
        if self.pid == 0:
            self._child(act, write)
        os.close(write)

    def _child(self, act: Check, write: int) -> None:
        """Run the check; a child that hangs must have nothing open that another process waits for."""
        try:
            os.setpgid(0, 0)
            os.dup2(write, 3)
            os.closerange(4, 256)
            nothing = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(nothing, number)
            os.write(3, json.dumps(attempt(act)).encode())
        finally:
            os._exit(0)

    def end(self) -> None:
        """Kill the process. It is not waited for: it may hang in a call to a filesystem."""
        for kill in (os.killpg, os.kill):
            try:
                kill(self.pid, signal.SIGKILL)
            except OSError:
                pass
        os.close(self.read)


def attempt(act: Check) -> Dict[str, Any]:
    """Return what a check finds, or why it fails."""
    try:
        return dict(act(), ok=True)
    except CheckFailed as e:
        return {"ok": False, "why": str(e)}
    except OSError as e:
        where = ": {}".format(e.filename) if e.filename else ""
        return {"ok": False, "why": "{}{}".format(e.strerror, where)[:MAX_REASON]}
    except Exception as e:  # the boundary of this process: a bug becomes an answer
        return {"ok": False, "why": "{}: {}".format(type(e).__name__, e)[:MAX_REASON]}


def check(request: HealthCheckRequest) -> Dict[str, CheckResult]:
    """Return the results of all checks, which run at once; one that exceeds `seconds` has failed.

    Nothing here may touch a filesystem: only the checks run in processes of their own.
    """
    seconds = request.seconds
    begun = {name: IsolatedCheck(act) for name, act in checks_of(request).items()}
    open_ends = {apart.read: apart for apart in begun.values()}
    deadline = time.monotonic() + seconds
    while open_ends:
        ready = select.select(list(open_ends), [], [], max(0.0, deadline - time.monotonic()))[0]
        if not ready:
            break
        for end in ready:
            said = os.read(end, 65536)
            open_ends[end].said += said
            if not said:
                del open_ends[end]
    found = {name: result(apart.said, seconds) for name, apart in begun.items()}
    for apart in begun.values():
        apart.end()
    return found


def result(said: bytes, seconds: float) -> CheckResult:
    """Return the result that a check has printed."""
    try:
        return CheckResult.from_json(json.loads(said.decode()))
    except (ValueError, ProtocolError):
        return CheckResult(ok=False, why="no answer within {:g} s".format(seconds))


def sweep(mark: str) -> List[int]:
    """Kill every process of this user whose environment has this setting; return their IDs."""
    wanted, swept, me = mark.encode(), [], os.getpid()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/{}/environ".format(pid), "rb") as file:
                settings = file.read().split(b"\0")
            if wanted in settings and int(pid) != me:
                os.kill(int(pid), signal.SIGKILL)
                swept.append(int(pid))
        except OSError:
            continue
    return swept


def answer(request: HealthCheckRequest) -> HealthCheckAnswer:
    """Run the checks, and kill the processes that are left of a run, if one is named."""
    now = time.time()
    swept = sweep(request.sweep) if request.sweep else []
    return HealthCheckAnswer(time=now, swept=swept, checks=check(request))

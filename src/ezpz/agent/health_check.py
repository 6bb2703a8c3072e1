"""Checks of the host that this runs on, each in a process of its own, so that a check that hangs delays nothing."""

import binascii
import errno
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import time
from typing import Any, Callable, Dict, List, Tuple

RECEIPT = ".ezpz-yeet-receipt.json"
RECEIPT_LIMIT = 1 << 20  # bytes
SAID = 200  # characters of an error that are kept
NICS = "/sys/class/net"
TOOLS = (
    (("nvidia-smi", "-L"), "GPU "),
    (("rocm-smi", "--showid"), "Device ID"),
    (("xpu-smi", "discovery"), "Device ID"),
)  # command line, and what it prints once for each device
Look = Callable[[], Dict[str, Any]]


class CheckFailed(Exception):
    """What is wrong, in words."""


def look_at_path(path: str) -> Dict[str, Any]:
    """Whether it exists and can be read."""
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


def look_at_program(path: str) -> Dict[str, Any]:
    """Whether it can be executed."""
    if not os.path.exists(path):
        raise CheckFailed("{} does not exist".format(path))
    if not os.access(path, os.X_OK):
        raise CheckFailed("{} cannot be executed".format(path))
    return {}


def look_at_shared(path: str) -> Dict[str, Any]:
    """Whether the filesystem answers."""
    os.statvfs(path)
    with os.scandir(path) as entries:
        next(iter(entries), None)
    return {}


def look_at_tmp(path: str, wanted: int) -> Dict[str, Any]:
    """Whether there is room, and it can be written."""
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


def new_file(folder: str) -> Tuple[int, str]:
    """Make a file for writing that only this user can read; return its descriptor, and its path, "" for no name.

    It has no name where the filesystem can do that, else one that nobody can foresee. Raises OSError.
    """
    try:
        return os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600), ""
    except (AttributeError, OSError):  # a Python or a filesystem that does not know it
        pass
    while True:
        name = os.path.join(folder, ".ezpz-checkup-{}".format(binascii.hexlify(os.urandom(8)).decode()))
        try:
            return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), name
        except FileExistsError:
            continue


def read_own(folder: str, name: str, limit: int) -> bytes:
    """Return the content, up to `limit` bytes, of a regular file of this user in a directory of this user.

    Neither may be a link. Whose the directory is decides what lies in it: a file of this user can be put into one of
    another user by a hard link. Raises OSError.
    """
    above = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(above).st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "another user's", folder)
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=above)
    finally:
        os.close(above)
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "no file of this user", os.path.join(folder, name))
        return file.read(limit)


def look_at_links() -> Dict[str, Any]:
    """The state of every network interface that is hardware or named like a fast one; and of InfiniBand's ports."""
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
    try:
        with open(path) as file:
            return file.read(100).strip()
    except OSError:
        return "unknown"


def look_at_devices(argv: Tuple[str, ...], each: str) -> Dict[str, Any]:
    """How many devices a tool lists, if it is there. It must succeed."""
    if not shutil.which(argv[0]):
        return {}
    done = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text = done.communicate()[0].decode("utf-8", "replace")
    if done.returncode:
        last = (text.strip().splitlines() or ["it says nothing"])[-1]
        raise CheckFailed("{} fails with status {}: {}".format(argv[0], done.returncode, last[:SAID]))
    return {"devices": text.count(each)}


def look_at_receipt(path: str) -> Dict[str, Any]:
    """Return the yeet of this user that a path belongs to, if it does: where it stands, and its receipt's version."""
    folder = path
    while os.path.dirname(folder) != folder:
        try:
            found = json.loads(read_own(folder, RECEIPT, RECEIPT_LIMIT).decode("utf-8", "replace"))
            return {"dst": folder, "version": str(found.get("version", ""))}
        except OSError:
            folder = os.path.dirname(folder)
    return {}


def looks(request: Dict[str, Any]) -> Dict[str, Look]:
    """What is looked at, by name."""
    found: Dict[str, Look] = {}
    for path in request.get("programs", ()):
        found["path " + path] = lambda path=path: look_at_program(path)  # type: ignore[misc]
    for path in request.get("paths", ()):
        found["path " + path] = lambda path=path: look_at_path(path)  # type: ignore[misc]
    for path in request.get("shared", ()):
        found["shared " + path] = lambda path=path: look_at_shared(path)  # type: ignore[misc]
    for path in dict.fromkeys((*request.get("programs", ()), *request.get("paths", ()))):
        found["version " + path] = lambda path=path: look_at_receipt(path)  # type: ignore[misc]
    if "tmp" in request:
        found["tmp"] = lambda: look_at_tmp(request["tmp"], int(request.get("room", 0)))
    if request.get("links"):
        found["links"] = look_at_links
    for argv, each in TOOLS if request.get("devices") else ():
        found["devices " + argv[0]] = lambda argv=argv, each=each: look_at_devices(argv, each)  # type: ignore[misc]
    return found


class IsolatedCheck:
    """One look in a process of its own."""

    def __init__(self, look: Look) -> None:
        self.read, write = os.pipe()
        self.said = b""
        self.pid = os.fork()
        if self.pid == 0:
            self._child(look, write)
        os.close(write)

    def _child(self, look: Look, write: int) -> None:
        """What a hung child holds must be nothing that anybody waits for."""
        try:
            os.setpgid(0, 0)
            os.dup2(write, 3)
            os.closerange(4, 256)
            nothing = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(nothing, number)
            os.write(3, json.dumps(attempt(look)).encode())
        finally:
            os._exit(0)

    def end(self) -> None:
        """Kill what has not ended. It may be beyond that, in a call to a filesystem; nobody waits for it then."""
        for kill in (os.killpg, os.kill):
            try:
                kill(self.pid, signal.SIGKILL)
            except OSError:
                pass
        os.close(self.read)


def attempt(look: Look) -> Dict[str, Any]:
    """What a look finds, or why it is bad."""
    try:
        return dict(look(), ok=True)
    except CheckFailed as e:
        return {"ok": False, "why": str(e)}
    except OSError as e:
        where = ": {}".format(e.filename) if e.filename else ""
        return {"ok": False, "why": "{}{}".format(e.strerror, where)[:SAID]}
    except Exception as e:  # the boundary of this process: a bug becomes an answer
        return {"ok": False, "why": "{}: {}".format(type(e).__name__, e)[:SAID]}


def check(request: Dict[str, Any]) -> Dict[str, Any]:
    """All looks at once; one that takes longer than `seconds` is an answer too.

    Nothing here may touch a filesystem: only what is done in a look is done in a process of its own.
    """
    seconds = float(request.get("seconds", 5.0))
    begun = {name: IsolatedCheck(look) for name, look in looks(request).items()}
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


def result(said: bytes, seconds: float) -> Dict[str, Any]:
    try:
        found: Dict[str, Any] = json.loads(said.decode())
    except ValueError:
        return {"ok": False, "why": "no answer within {:g} s".format(seconds)}
    return found


def sweep(mark: str) -> List[int]:
    """Kill every process of this user whose environment holds this setting; return their numbers."""
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


def answer(request: Dict[str, Any]) -> Dict[str, Any]:
    """Return the time at which the request arrived, what the checks found, and the processes that were killed.

    Args:
        request: the checks (see `looks`), with `seconds` for each; `sweep` is a setting of the processes to kill
    """
    found: Dict[str, Any] = {"time": time.time()}
    if "sweep" in request:
        found["swept"] = sweep(request["sweep"])
    found["checks"] = check(request)
    return found

"""One destination on one host, from the first question to the published tree: stage beside it, verify, rename.

The launching host and every node run this same code, so that a version is never half there on any of them.
"""

import ctypes
import errno
import json
import os
import re
import shutil
import stat
import threading
import time
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Optional

from . import place, tree
from .refusal import Refusal, from_os_error, shown

AT_FDCWD = -100
RENAME_NOREPLACE = 1  # renameat2(2)
RENAME_EXCHANGE = 2
RUN = rb"\d{8}-\d{6}-[0-9a-f]{8}"  # a run's id, in the name of a staging directory
UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


class Abandoned(Exception):
    """The run that asked has gone away or was interrupted."""


class Landing:
    """A destination that is being written; `prepare` first, then `publish`, `keep` or nothing, always `close`.

    dst: absolute path; run: the run's id, which names the staging directory
    """

    def __init__(self, dst: bytes, run: str) -> None:
        self.dst = os.path.join(os.path.realpath(os.path.dirname(dst)), os.path.basename(dst))
        self.given = dst
        self.run = run
        self.parent = os.path.dirname(self.dst)
        self.staging = place.beside(self.dst, b".ezpz-" + run.encode())
        self.tree = os.path.join(self.staging, b"tree")
        self.lock = place.Lock(self.dst, run)
        self.abandoned = threading.Event()
        self.receipt: Optional[Dict[str, Any]] = None
        self._made_parents: List[bytes] = []

    def check_on(self) -> None:
        """Raise Abandoned once nobody wants the result any more."""
        if self.abandoned.is_set():
            raise Abandoned

    def prepare(self, request: Dict[str, Any]) -> Dict[str, Any]:
        """Check the destination, take its lock, remove what dead runs left, make the staging directory.

        request: avoid (a tree that the destination must not touch, or None), source (what the receipt will name),
        bytes, allocated (the same in whole blocks), files, executable, replace, tools (programs that must be here).
        Returns staging, receipt, tools (name -> path) and what the filesystem offers. Raises Refusal.
        """
        avoid = request.get("avoid")
        place.refuse_path(self.given, None if avoid is None else os.fsencode(avoid))
        tools = {tool: shutil.which(tool) for tool in request.get("tools", ())}
        for tool, path in tools.items():
            if path is None:
                raise Refusal(
                    "tool-missing",
                    "'{}' is not installed".format(tool),
                    "install {0} there, or load the module that has {0}".format(tool),
                )
        try:
            self._make_parents()
            self.lock.acquire()
            self.receipt = receipt = place.refuse_strangers(self.dst, replace=bool(request.get("replace")))
            self._remove_leftovers()
            held = int(receipt.get("bytes", 0)) if receipt and receipt.get("source") == request.get("source") else 0
            room = place.refuse_full(
                self.parent,
                size=max(0, int(request["bytes"]) - held) if held else int(request["allocated"]),
                files=int(request["files"]) if not held else 0,
                executable=bool(request.get("executable")),
            )
            os.mkdir(self.staging, 0o700)
            os.mkdir(self.tree, 0o700)
        except OSError as e:
            raise from_os_error(e, "cannot prepare '{}'".format(shown(self.parent)))
        return dict(room, staging=os.fsdecode(self.tree), receipt=receipt, tools=tools)

    def _make_parents(self) -> None:
        missing = []
        folder = self.parent
        while not os.path.isdir(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for folder in reversed(missing):
            os.mkdir(folder, 0o755)
            self._made_parents.append(folder)

    def _remove_leftovers(self) -> None:
        run = b"00000000-000000-00000000"
        staging = re.escape(os.path.basename(place.beside(self.dst, b".ezpz-" + run))).replace(re.escape(run), RUN)
        with os.scandir(self.parent) as found:
            stale = [
                entry.path
                for entry in found
                if re.fullmatch(staging, entry.name)
                and entry.is_dir(follow_symlinks=False)
                and entry.stat(follow_symlinks=False).st_uid == os.geteuid()
            ]
        for path in stale:
            self.check_on()
            tree.remove(path)
        self.forget_failed_nodes()

    def forget_failed_nodes(self) -> None:
        """Remove an earlier run's list of failed nodes. Raises OSError when that cannot be done."""
        try:
            os.unlink(os.path.join(self.dst, tree.FAILED_NODES))
        except (FileNotFoundError, NotADirectoryError):
            pass

    def note_failed_nodes(self, names: List[str]) -> str:
        """Write the failed nodes into the destination, one a line, and return the path. Raises OSError."""
        path = os.path.join(self.dst, tree.FAILED_NODES)
        part = path + b".part"
        with open(part, "w") as file:
            file.writelines(name + "\n" for name in names)
        os.replace(part, path)
        return os.fsdecode(path)

    def keep(self, version: str) -> bool:
        """Whether what stands at the destination is this very version, looked at entry by entry."""
        receipt = place.read_receipt(self.dst)
        if receipt is None or receipt.get("version") != version:
            return False
        return tree.survey(self.dst, self.check_on).version == version

    def verify(self, expected: Dict[str, Any]) -> tree.Survey:
        """Survey what has been staged and hold it against `expected` (files, bytes, version; None for unknown)."""
        found = tree.survey(self.tree, self.check_on)
        for name in ("files", "bytes", "version"):
            want, have = expected.get(name), getattr(found, name)
            if want is not None and want != have:
                message = "what landed is not what was sent: {} {}, expected {}".format(name, have, want)
                raise Refusal("verify-failed", message, "was the source changed during the run? run it again")
        return found

    def publish(self, found: tree.Survey, receipt: Dict[str, Any], *, executable: bool) -> Dict[str, Any]:
        """Add the receipt to what was verified and rename it into place.

        Returns replaced, the version that stood there ("" for none of ours), and removed, the count of its files that
        are gone. Raises Refusal or OSError.
        """
        if executable:
            place.refuse_full(self.parent, size=0, files=0, executable=True)
        mode = stat.S_IMODE(os.lstat(self.tree).st_mode)
        times = os.stat(self.tree)
        os.chmod(self.tree, mode | 0o700)
        self._write_receipt(dict(receipt, files=found.files, bytes=found.bytes, version=found.version))
        os.utime(self.tree, ns=(times.st_atime_ns, times.st_mtime_ns))
        standing = os.path.isdir(self.dst) and not os.path.islink(self.dst)
        removed = tree.count_missing(self.dst, self.tree) if standing else 0
        self.check_on()
        with writable(self.dst):  # a folder that is moved elsewhere must be writable itself
            swap_in(self.tree, self.dst, aside=os.path.join(self.staging, b"old"))
        if mode & 0o700 != 0o700:
            os.chmod(self.dst, mode)
        self._made_parents = []
        tree.remove(self.staging)
        return {"removed": removed, "replaced": str((self.receipt or {}).get("version", ""))}

    def _write_receipt(self, receipt: Dict[str, Any]) -> None:
        content = dict(
            receipt,
            format=place.RECEIPT_FORMAT,
            destination=os.fsdecode(self.dst),
            run=self.run,
            created=int(time.time()),
        )
        path = os.path.join(self.tree, tree.RECEIPT)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            json.dump(content, file, indent=1, sort_keys=True)
            file.write("\n")

    def close(self) -> None:
        """Leave nothing behind but what was published: staging goes, the lock is given up. Never raises OSError."""
        held = self.lock.fd >= 0
        try:
            if held:
                tree.remove(self.staging)
                self.lock.release()
            for folder in reversed(self._made_parents):
                os.rmdir(folder)
        except OSError:
            pass  # a disk that is gone; the next run removes what is ours
        self._made_parents = []


@contextmanager
def writable(folder: bytes) -> Iterator[None]:
    """Within it the owner may write to a folder, if there is one; if that fails its mode is as it was."""
    standing = os.path.isdir(folder) and not os.path.islink(folder)
    mode = stat.S_IMODE(os.lstat(folder).st_mode) if standing else 0o700
    if mode & 0o700 != 0o700:
        os.chmod(folder, mode | 0o700)
    try:
        yield
    except OSError:
        if mode & 0o700 != 0o700:
            os.chmod(folder, mode)
        raise


def swap_in(new: bytes, dst: bytes, *, aside: bytes) -> None:
    """Put `new` at `dst` in one step and leave what stood there, if anything, at `new` or `aside`.

    Uses renameat2(2) with RENAME_EXCHANGE; where the kernel or the filesystem has none, two renames, the first undone
    if the second fails. Raises OSError.
    """
    if not os.path.lexists(dst):
        if not _renameat2(new, dst, RENAME_NOREPLACE):
            os.rename(new, dst)
    elif not _renameat2(new, dst, RENAME_EXCHANGE):
        os.rename(dst, aside)
        try:
            os.rename(new, dst)
        except OSError:
            os.rename(aside, dst)
            raise


def _renameat2(old: bytes, new: bytes, flags: int) -> bool:
    """True when it was done, False when this system cannot do it. Raises OSError."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return False
    if function(AT_FDCWD, ctypes.c_char_p(old), AT_FDCWD, ctypes.c_char_p(new), ctypes.c_uint(flags)) == 0:
        return True
    code = ctypes.get_errno()
    if code in UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), os.fsdecode(new))


def look(dst: bytes) -> Optional[Dict[str, Any]]:
    """What stands at a destination: its receipt and state ("receipt", "foreign"), or None when nothing does."""
    if not os.path.lexists(dst):
        return None
    receipt = place.read_receipt(dst)
    return {"state": "foreign" if receipt is None else "receipt", "receipt": receipt}

"""One destination on one host, from the first question to the published tree: stage beside it, verify, rename.

The launching host and every node run this same code, so that a version is never half there on any of them.
"""

import errno
import json
import os
import re
import stat
import time
from contextlib import contextmanager, suppress
from typing import Any, Callable, Container, Dict, Iterator, List, Optional, TextIO

from ezpz.agent.common import filesystem, find_digest, layout, tree
from ezpz.agent.common.cancel import CancelToken
from ezpz.agent.common.errors import AgentError, from_os_error
from ezpz.agent.common.receipt import FORMAT, create, read_receipt
from ezpz.agent.common.text import printable_path
from ezpz.agent.destination import installed, validation
from ezpz.agent.destination.lock import Lock

AT_FDCWD = -100
RENAME_NOREPLACE = 1  # renameat2(2)
RENAME_EXCHANGE = 2
RUN = rb"\d{8}-\d{6}-[0-9a-f]{8}"  # a run's id, in the name of a staging directory
OLD = b"old"  # in staging: what stood at the destination, where the kernel cannot exchange two names
UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


class Deployment:
    """A destination that is being written; `prepare` first, then `publish`, `keep` or nothing, always `close`.

    dst: absolute path; run: the run's id, which names the staging directory
    """

    def __init__(self, dst: bytes, run: str, cancel: Optional[CancelToken] = None) -> None:
        self.dst = os.path.join(os.path.realpath(os.path.dirname(dst)), os.path.basename(dst))
        self.given = dst
        self.run = run
        self.parent = os.path.dirname(self.dst)
        self.staging = filesystem.beside(self.dst, b".ezpz-" + run.encode())
        self.tree = os.path.join(self.staging, b"tree")
        self.lock = Lock(self.dst, run)
        self.cancel = cancel or CancelToken()
        self.advanced: "Callable[[], None]" = lambda: None
        self.receipt: Optional[Dict[str, Any]] = None
        self.standing: Optional[os.stat_result] = None
        self.public = False
        self.stock: Dict[str, Any] = {}
        self.listing = ""
        self._made_parents: List[bytes] = []

    def check_on(self) -> None:
        """Raise Cancelled once the work was cancelled; else report progress."""
        self.cancel.raise_if_cancelled()
        self.advanced()

    def prepare(self, request: Dict[str, Any]) -> Dict[str, Any]:
        """Check the destination, take its lock, remove what dead runs left, make the staging directory.

        request: avoid (a tree that the destination must not touch, or None), source (what the receipt will name),
        bytes, allocated (the same in whole blocks), files, executable, replace, tools (programs that must be here),
        longest, longest_name (bytes of paths and names), clash (a path that differs from another only in case, or ""),
        public (whether the top keeps the permissions of the source's, instead of being closed to others).
        Returns staging, receipt, tools (name -> path) and what the filesystem offers. Raises Refusal.
        """
        avoid = request.get("avoid")
        self.public = bool(request.get("public"))
        validation.check_path(self.given, None if avoid is None else os.fsencode(avoid))
        filesystem.refuse_mounts(self.dst)
        tools = _found(request["tools"]) if request.get("tools") else {}
        try:
            self._make_parents()
            validation.check_parent(self.parent)
            self.lock.acquire()
            self._rescue_old_version()
            self.receipt = receipt = validation.check_ownership(self.dst, replace=bool(request.get("replace")))
            self.standing = os.lstat(self.dst) if os.path.lexists(self.dst) else None
            self._remove_leftovers()
            self.forget_failed_nodes()
            held = int(receipt.get("bytes", 0)) if receipt and receipt.get("source") == request.get("source") else 0
            room = validation.check_room(
                self.parent,
                size=max(0, int(request["bytes"]) - held) if held else int(request["allocated"]),
                files=int(request["files"]) if not held else 0,
                executable=bool(request.get("executable")),
            )
            os.mkdir(self.staging, 0o700)
            validation.check_names(
                self.tree,
                int(request.get("longest", 0)),
                int(request.get("longest_name", 0)),
                os.fsencode(request.get("clash", "")),
            )
            os.mkdir(self.tree, 0o700)
        except OSError as e:
            raise from_os_error(e, "cannot prepare '{}'".format(printable_path(self.parent)))
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

    def _leftovers(self) -> List[bytes]:
        """The staging directories of dead runs, and of this run's dead agent: ours by name, kind and owner."""
        run = b"00000000-000000-00000000"
        staging = re.escape(os.path.basename(filesystem.beside(self.dst, b".ezpz-" + run))).replace(re.escape(run), RUN)
        with os.scandir(self.parent) as found:
            return [
                entry.path
                for entry in found
                if (re.fullmatch(staging, entry.name) or entry.path == self.staging)
                and entry.is_dir(follow_symlinks=False)
                and entry.stat(follow_symlinks=False).st_uid == os.geteuid()
            ]

    def _rescue_old_version(self) -> None:
        """Put back what a run moved aside that died before it had put the new version in."""
        for staging in self._leftovers():
            old = os.path.join(staging, OLD)
            if not os.path.lexists(self.dst) and read_receipt(self.dst, at=old) is not None:
                os.rename(old, self.dst)

    def _remove_leftovers(self) -> None:
        for path in self._leftovers():
            self.check_on()
            with suppress(OSError):  # somebody else's files in it, perhaps; they are in nobody's way
                tree.remove(path)

    def forget_failed_nodes(self) -> None:
        """Remove an earlier run's list of failed nodes, which would mislead. Raises Refusal if that cannot be done."""
        path = os.path.join(self.dst, layout.FAILED_NODES)
        if not os.path.lexists(path):
            return
        try:
            with writable(self.dst):
                os.unlink(path)
        except OSError as e:
            message = "the list of failed nodes of an earlier run, '{}', cannot be removed: {}".format(
                printable_path(path), e.strerror
            )
            raise AgentError("stale-list", message, "remove it by hand, so that nobody takes it for this run's")

    def note_failed_nodes(self, names: List[str]) -> str:
        """Write the failed nodes into the destination, one a line, and return the path. Raises OSError."""
        path = os.path.join(self.dst, layout.FAILED_NODES)
        with writable(self.dst):
            fd, part = create(self.dst, layout.FAILED_NODES + b".")
            try:
                with os.fdopen(fd, "w") as file:
                    file.writelines(name + "\n" for name in names)
                os.replace(part, path)
            except OSError:
                os.unlink(part)
                raise
        return os.fsdecode(path)

    def take_stock(self, seen: Container[str] = ()) -> Dict[str, Any]:
        """What of the version in place can be used again; see `standing.take_stock`. Raises OSError."""
        self.stock = installed.check_installed(self.dst, self.receipt, self.check_on, seen)
        return self.stock

    def has(self, receipt: Dict[str, Any]) -> bool:
        """Whether what stood here when stock was taken is what publishing this receipt would bring.

        Of the same contents there are many manifests, each with another order.
        """
        there = self.receipt or {}
        sound = self.stock.get("untouched") and receipt.get("contents")
        return bool(sound) and all(there.get(name) == value for name, value in receipt.items() if name != "manifest")

    def open_standing(self) -> Optional[int]:
        """A descriptor of the version of ours that stands here, None for none. Raises OSError."""
        if self.receipt is None:
            return None
        return os.open(self.dst, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def write_manifest(self, packed: bytes) -> None:
        """Put the manifest of what is staged beside it. Raises OSError."""
        path = os.path.join(self.tree, layout.MANIFEST)
        times = os.stat(self.tree)
        with writable(self.tree):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(packed)
            os.utime(self.tree, ns=(times.st_atime_ns, times.st_mtime_ns))

    def adopt(self, packed: bytes) -> int:
        """Take what a manifest tells of from the version in place into staging; how many files. Raises OSError."""
        from ezpz.agent.common import manifest, wire_paths
        from ezpz.agent.destination import reuse

        self.write_manifest(packed)
        old = self.open_standing()
        if old is None or not self.stock.get("contents"):
            return 0
        new = os.open(self.tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            have = installed.records_of(self.dst, self.receipt or {})
            return reuse.adopt(have, self.stock["changed"], manifest.read(packed), reuse.FileReuser(old, new))
        except (manifest.Unreadable, wire_paths.ProtocolError):
            return 0
        finally:
            os.close(old)
            os.close(new)

    def verify(self, expected: Dict[str, Any], trial: Optional[Dict[str, Any]] = None) -> tree.Survey:
        """Survey what has been staged and hold it against `expected` (files, bytes, version; None for unknown).

        trial: what its python must say (see `smoke.try_out`), which is asked at the same time; None for no python
        Raises Refusal or OSError.
        """
        from ezpz.agent.common.threads import BackgroundTask
        from ezpz.agent.destination import smoke_test

        spellings = (self.given, self.dst)
        beside = (
            []
            if trial is None
            else [BackgroundTask(smoke_test.run_smoke_test, self.tree, spellings, trial, self.check_on)]
        )
        beside.append(BackgroundTask(self._list))
        try:
            found = tree.summarize(self.tree, self.check_on)
        finally:
            for each in beside:
                each.finish()
        for name in ("files", "bytes", "version"):
            want, have = expected.get(name), getattr(found, name)
            if want is not None and want != have:
                message = "what landed is not what was sent: {} {}, expected {}".format(name, have, want)
                raise AgentError("verify-failed", message, "was the source changed during the run? run it again")
        return found

    def _list(self) -> None:
        self.listing = find_digest.digest(self.tree, self.check_on)

    def publish(self, found: tree.Survey, receipt: Dict[str, Any], *, executable: bool) -> Dict[str, Any]:
        """Add the receipt to what was verified and rename it into place.

        Returns replaced, the version that stood there ("" for none of ours), and removed, the count of its files that
        are gone. Raises Refusal or OSError.
        """
        if executable:
            validation.check_room(self.parent, size=0, files=0, executable=True)
        times = os.stat(self.tree)
        mode = top_mode(times.st_mode, public=self.public)
        os.chmod(self.tree, mode | 0o700)
        facts = {"files": found.files, "bytes": found.bytes, "version": found.version, "listing": self.listing}
        self._write_receipt(dict(receipt, **facts, mode=installed.mode_of(mode)))
        os.utime(self.tree, ns=(times.st_atime_ns, times.st_mtime_ns))
        has_old = os.path.isdir(self.dst) and not os.path.islink(self.dst)
        removed = tree.count_missing(self.dst, self.tree) if has_old else 0
        self.check_on()
        self._swap()
        self.advanced()
        if mode & 0o700 != 0o700:
            os.chmod(self.dst, mode)
        self._made_parents = []
        with suppress(OSError):  # the new version stands; the next run tries again to remove the old one
            tree.remove(self.staging)
        return {"removed": removed, "replaced": str((self.receipt or {}).get("version", ""))}

    def _swap(self) -> None:
        """Put the new version in place of what stood there when the run began, and of nothing else."""
        if not same(self.standing, self.dst):
            raise self._changed()
        if self.standing is None:
            try:
                move_in(self.tree, self.dst)
            except FileExistsError:
                raise self._changed()
            return
        filesystem.refuse_mounts(self.dst)
        aside = os.path.join(self.staging, OLD)
        with writable(self.dst):  # a folder that is moved elsewhere must be writable itself
            old = swap(self.tree, self.dst, aside=aside)
        if not same(self.standing, old):
            swap(old, self.dst, aside=aside)
            raise self._changed()

    def _changed(self) -> AgentError:
        message = "'{}' has been changed by somebody else during the run".format(printable_path(self.dst))
        return AgentError("destination-not-ours", message, "look at it; run it again, with --replace if it may go")

    def _write_receipt(self, receipt: Dict[str, Any]) -> None:
        content = dict(
            receipt,
            format=FORMAT,
            destination=os.fsdecode(self.dst),
            run=self.run,
            created=int(time.time()),
        )
        path = os.path.join(self.tree, layout.RECEIPT)
        with _new_private(path) as file:
            json.dump(content, file, indent=1, sort_keys=True)
            file.write("\n")

    def close(self) -> None:
        """Leave nothing behind but what was published: staging goes, the lock is given up. Never raises OSError."""
        if self.lock.fd >= 0:
            with suppress(OSError):  # a disk that is gone; the next run removes what is ours
                tree.remove(self.staging)
            with suppress(OSError):
                self.lock.release()
        with suppress(OSError):
            for folder in reversed(self._made_parents):
                os.rmdir(folder)
        self._made_parents = []


def top_mode(mode: int, *, public: bool) -> int:
    """Return the permissions of a published top, given those of the source's: closed to others unless it is public."""
    return stat.S_IMODE(mode) if public else mode & 0o700


def _new_private(path: bytes) -> TextIO:
    """Open a new file that its owner alone may read. Raises OSError."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w")


def _found(tools: List[str]) -> Dict[str, str]:
    """Where these programs are. Raises Refusal for one that is not here."""
    import shutil

    found = {}
    for tool in tools:
        path = shutil.which(tool)
        if path is None:
            raise AgentError(
                "tool-missing",
                "'{}' is not installed".format(tool),
                "install {0} there, or load the module that has {0}".format(tool),
            )
        found[tool] = path
    return found


@contextmanager
def writable(folder: bytes) -> Iterator[None]:
    """Within it the owner may write to a folder; afterwards the mode of what stands there is as it was."""
    before = os.lstat(folder)
    if before.st_mode & 0o700 == 0o700 or not stat.S_ISDIR(before.st_mode):
        yield
        return
    fd = tree.open_directory(folder)
    try:
        yield
    finally:
        try:
            if same(os.fstat(fd), folder):
                os.fchmod(fd, stat.S_IMODE(before.st_mode))
        finally:
            os.close(fd)


def same(before: Optional[os.stat_result], path: bytes) -> bool:
    """Whether what stands at a path now is what stood there before, or nothing in both cases."""
    if before is None:
        return not os.path.lexists(path)
    try:
        return os.path.samestat(before, os.lstat(path))
    except FileNotFoundError:
        return False


def move_in(new: bytes, dst: bytes) -> None:
    """Put `new` at `dst`, where nothing stands. Raises OSError, also when something does."""
    if not _renameat2(new, dst, RENAME_NOREPLACE):
        if os.path.lexists(dst):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fsdecode(dst))
        os.rename(new, dst)


def swap(new: bytes, dst: bytes, *, aside: bytes) -> bytes:
    """Put `new` at `dst` in one step and return where what stood there is now: `new` or `aside`.

    Uses renameat2(2) with RENAME_EXCHANGE; where the kernel or the filesystem has none, two renames, the first undone
    if the second fails. Raises OSError.
    """
    if _renameat2(new, dst, RENAME_EXCHANGE):
        return new
    os.rename(dst, aside)
    try:
        os.rename(new, dst)
    except OSError:
        os.rename(aside, dst)
        raise
    return aside


def _renameat2(old: bytes, new: bytes, flags: int) -> bool:
    """True when it was done, False when this system cannot do it. Raises OSError."""
    import ctypes

    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return False
    if function(AT_FDCWD, ctypes.c_char_p(old), AT_FDCWD, ctypes.c_char_p(new), ctypes.c_uint(flags)) == 0:
        return True
    code = ctypes.get_errno()
    if code in UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), os.fsdecode(new))

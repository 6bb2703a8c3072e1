"""One destination on one host, from the first check to the published tree: stage next to it, verify, rename.

The launch host and every node run this same code, so that no version is ever incomplete on any of them.
"""

import json
import os
import re
import stat
import time
from contextlib import suppress
from typing import Any, Callable, Container, Dict, List, Optional, Sequence, TextIO

from ..common import filesystem, find_digest, layout, tree_version
from ..common.cancel import NEVER, CancelToken, ProgressToken
from ..common.errors import AgentError, from_os_error
from ..common.messages.answers import InstalledAnswer, PrepareAnswer, PublishAnswer
from ..common.messages.parts import ExpectedTree, SmokeTest
from ..common.messages.receipt import MADE_OF, Receipt
from ..common.messages.requests import PrepareRequest
from ..common.receipt import create, read_receipt
from ..common.text import printable_path
from . import installed, validation
from .free_space import check_free_space
from .lock import Lock
from .remove_tree import remove_tree
from .swap import is_same, move_in, swap, writable

RUN = rb"\d{8}-\d{6}-[0-9a-f]{8}"  # the ID of a run, in the name of a staging directory


class Deployment:
    """A destination that is being written: call `prepare`, then perhaps `publish`, and always `close`.

    Attributes:
        dst: the destination, its parent resolved
        staging: the private directory next to it
        tree: the new version, in staging
        receipt: of the version in place, None for none
        report_progress: is called while long work advances
    """

    def __init__(self, dst: bytes, run: str, cancel: CancelToken = NEVER) -> None:
        """Take an absolute path, and the ID of the run, which names the staging directory."""
        self.dst = os.path.join(os.path.realpath(os.path.dirname(dst)), os.path.basename(dst))
        self.given = dst
        self.run = run
        self.parent = os.path.dirname(self.dst)
        self.staging = filesystem.beside(self.dst, b".ezpz-" + run.encode())
        self.tree = os.path.join(self.staging, b"tree")
        self.lock = Lock(self.dst, run)
        self.report_progress: "Callable[[], None]" = lambda: None
        self.cancel = ProgressToken(cancel, self._report)
        self.receipt: Optional[Receipt] = None
        self.before: Optional[os.stat_result] = None
        self.public = False
        self.installed = InstalledAnswer()
        self.find_digest = ""
        self._made_parents: List[bytes] = []

    def _report(self) -> None:
        self.report_progress()

    def prepare(self, request: PrepareRequest) -> PrepareAnswer:
        """Check the destination, take its lock, remove what dead runs left, and make the staging directory.

        Raises AgentError.
        """
        self.public = request.public
        validation.check_path(self.given, None if request.avoid is None else os.fsencode(request.avoid))
        filesystem.refuse_mounts(self.dst)
        tools = find_tools(request.tools)
        try:
            self._make_parents()
            validation.check_parent(self.parent)
            self.lock.acquire()
            self._rescue_old_version()
            self.receipt = validation.check_ownership(self.dst, replace=request.replace)
            self.before = os.lstat(self.dst) if os.path.lexists(self.dst) else None
            self._remove_leftovers()
            self.remove_failed_nodes()
            space = self._check_space(request)
            os.mkdir(self.staging, 0o700)
            validation.check_names(self.tree, request.longest, request.longest_name, os.fsencode(request.clash))
            os.mkdir(self.tree, 0o700)
        except OSError as e:
            raise from_os_error(e, "cannot prepare '{}'".format(printable_path(self.parent)))
        return PrepareAnswer(staging=os.fsdecode(self.tree), receipt=self.receipt, tools=tools, **space)

    def _check_space(self, request: PrepareRequest) -> Dict[str, Any]:
        """Return what the filesystem offers, given that a version of the same source is there. Raise AgentError."""
        receipt = self.receipt or Receipt()
        held = receipt.bytes if receipt.source == request.source else 0
        return check_free_space(
            self.parent,
            size=max(0, request.bytes - held) if held else request.allocated,
            files=0 if held else request.files,
            executable=request.executable,
        )

    def _make_parents(self) -> None:
        missing = []
        directory = self.parent
        while not os.path.isdir(directory):
            missing.append(directory)
            directory = os.path.dirname(directory)
        for directory in reversed(missing):
            os.mkdir(directory, 0o755)
            self._made_parents.append(directory)

    def _leftovers(self) -> List[bytes]:
        """Return the staging directories of dead runs, and of the dead agent of this run, by name, kind, and owner."""
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
        """Put back the version that a run moved aside, if the run died before it had renamed the new one."""
        for staging in self._leftovers():
            old = os.path.join(staging, layout.OLD)
            if not os.path.lexists(self.dst) and read_receipt(self.dst, at=old) is not None:
                os.rename(old, self.dst)

    def _remove_leftovers(self) -> None:
        for path in self._leftovers():
            self.cancel.raise_if_cancelled()
            with suppress(OSError):  # perhaps files of another user in it, which are in nobody's way
                remove_tree(path)

    def remove_failed_nodes(self) -> None:
        """Remove the list of failed nodes of an earlier run, which would mislead. Raise AgentError."""
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

    def write_failed_nodes(self, names: Sequence[str]) -> str:
        """Write the failed nodes into the destination, one per line, and return the path. Raise OSError."""
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

    def check_installed(self, seen: Container[str] = ()) -> InstalledAnswer:
        """Return what of the version in place can be used again; see `installed.check_installed`. Raise OSError."""
        self.installed = installed.check_installed(self.dst, self.receipt, self.cancel, seen)
        return self.installed

    def is_installed(self, receipt: Receipt) -> bool:
        """Return whether the version in place, when it was checked, was the one that this receipt would publish."""
        if self.receipt is None or not self.installed.untouched or not receipt.contents:
            return False
        return all(getattr(self.receipt, name) == getattr(receipt, name) for name in MADE_OF)

    def open_installed(self) -> Optional[int]:
        """Return a descriptor of the version in place, None if ezpz created none. Raise OSError."""
        if self.receipt is None:
            return None
        return os.open(self.dst, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def write_manifest(self, packed: bytes) -> None:
        """Write the manifest of the staged tree into it. Raise OSError."""
        path = os.path.join(self.tree, layout.MANIFEST)
        times = os.stat(self.tree)
        with writable(self.tree):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(packed)
            os.utime(self.tree, ns=(times.st_atime_ns, times.st_mtime_ns))

    def adopt(self, packed: bytes) -> int:
        """Take files of the version in place into staging, given the new manifest; return how many. Raise OSError."""
        from ..common import manifest, wire_paths
        from . import reuse

        self.write_manifest(packed)
        old = self.open_installed()
        if old is None or self.receipt is None or not self.installed.contents:
            return 0
        new = os.open(self.tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            have = installed.read_entries(self.dst, self.receipt)
            return reuse.adopt(have, self.installed.changed, manifest.read(packed), reuse.FileReuser(old, new))
        except (manifest.Unreadable, wire_paths.ProtocolError):
            return 0
        finally:
            os.close(old)
            os.close(new)

    def verify(self, expected: ExpectedTree, smoke: Optional[SmokeTest] = None) -> tree_version.Survey:
        """Compare the staged tree with what is expected, and run the smoke test meanwhile, if there is one.

        Raises AgentError or OSError.
        """
        from ..common.threads import BackgroundTask
        from . import smoke_test

        tasks = [BackgroundTask(self._take_digest)]
        if smoke is not None:
            spellings = (self.given, self.dst)
            tasks.append(BackgroundTask(smoke_test.run_smoke_test, self.tree, spellings, smoke, self.cancel))
        try:
            found = tree_version.summarize(self.tree, self.cancel)
        finally:
            for each in reversed(tasks):
                each.finish()
        for name in ("files", "bytes", "version"):
            want, have = getattr(expected, name), getattr(found, name)
            if want is not None and want != have:
                message = "what landed is not what was sent: {} {}, expected {}".format(name, have, want)
                raise AgentError("verify-failed", message, "was the source changed during the run? run it again")
        return found

    def _take_digest(self) -> None:
        self.find_digest = find_digest.digest(self.tree, self.cancel)

    def publish(self, found: tree_version.Survey, receipt: Receipt, *, executable: bool) -> PublishAnswer:
        """Add the receipt to what was verified, and rename it into place. Raise AgentError or OSError."""
        if executable:
            check_free_space(self.parent, size=0, files=0, executable=True)
        times = os.stat(self.tree)
        mode = top_mode(times.st_mode, public=self.public)
        os.chmod(self.tree, mode | 0o700)
        facts = {"files": found.files, "bytes": found.bytes, "version": found.version, "listing": self.find_digest}
        self._write_receipt(receipt.updated(**facts, mode=installed.mode_of(mode)))
        os.utime(self.tree, ns=(times.st_atime_ns, times.st_mtime_ns))
        has_old = os.path.isdir(self.dst) and not os.path.islink(self.dst)
        removed = tree_version.count_missing(self.dst, self.tree) if has_old else 0
        self.cancel.raise_if_cancelled()
        self._swap()
        self.report_progress()
        if mode & 0o700 != 0o700:
            os.chmod(self.dst, mode)
        self._made_parents = []
        with suppress(OSError):  # the new version is in place; the next run tries again to remove the old one
            remove_tree(self.staging)
        return PublishAnswer(removed=removed, replaced="" if self.receipt is None else self.receipt.version)

    def _swap(self) -> None:
        """Rename the new version into the place of what was there when the run started, and of nothing else."""
        if not is_same(self.before, self.dst):
            raise self._changed()
        if self.before is None:
            try:
                move_in(self.tree, self.dst)
            except FileExistsError:
                raise self._changed()
            return
        filesystem.refuse_mounts(self.dst)
        aside = os.path.join(self.staging, layout.OLD)
        with writable(self.dst):  # a directory that is moved to another one must be writable itself
            old = swap(self.tree, self.dst, aside=aside)
        if not is_same(self.before, old):
            swap(old, self.dst, aside=aside)
            raise self._changed()

    def _changed(self) -> AgentError:
        message = "'{}' has been changed by somebody else during the run".format(printable_path(self.dst))
        return AgentError("destination-not-ours", message, "look at it; run it again, with --replace if it may go")

    def _write_receipt(self, receipt: Receipt) -> None:
        complete = receipt.updated(destination=os.fsdecode(self.dst), run=self.run, created=int(time.time()))
        path = os.path.join(self.tree, layout.RECEIPT)
        with _new_private(path) as file:
            json.dump(complete.to_json(), file, indent=1, sort_keys=True)
            file.write("\n")

    def close(self) -> None:
        """Remove staging, and give up the lock. Never raise OSError."""
        if self.lock.fd >= 0:
            with suppress(OSError):  # a disk that has failed; the next run removes what is left
                remove_tree(self.staging)
            with suppress(OSError):
                self.lock.release()
        with suppress(OSError):
            for directory in reversed(self._made_parents):
                os.rmdir(directory)
        self._made_parents = []


def top_mode(mode: int, *, public: bool) -> int:
    """Return the permissions of a published top, given those of the source's: closed to others unless it is public."""
    return stat.S_IMODE(mode) if public else mode & 0o700


def _new_private(path: bytes) -> TextIO:
    """Open a new file that only its owner may read. Raise OSError."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w")


def find_tools(tools: Sequence[str]) -> Dict[str, str]:
    """Return the paths of programs. Raise AgentError for one that is not installed."""
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

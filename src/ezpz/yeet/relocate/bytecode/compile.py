"""Compile missing bytecode with the environment's own interpreter, or link that of the previous version."""

from __future__ import annotations

import contextlib
import functools
import heapq
import itertools
import os
import re
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ezpz.runtime import process
from ezpz.runtime.threads import ordered_map
from ezpz.yeet.model.entry import BYTECODE_DIRECTORY
from ezpz.yeet.relocate.bytecode import compile_worker
from ezpz.yeet.relocate.bytecode.compile_worker import DISK_ERRORS, open_directory
from ezpz.yeet.relocate.bytecode.validity import HEADER_SIZE, source_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.relocate.bytecode.validity import BytecodeTag

DISK_FAILURE = re.compile(rb"!(\d+)")  # in the output of the worker


@dataclass(frozen=True, slots=True)
class CompileResult:
    """The result of a compilation.

    Attributes:
        compiled: Number of compiled files.
        failed: Number of files that could not be compiled, mostly because of their syntax.
        seconds: Duration.
    """

    compiled: int
    failed: int
    seconds: float


def compile_missing(
    tree: bytes,
    python: bytes,
    paths: Sequence[bytes],
    destination: bytes,
    *,
    workers: int,
    cancel: CancelToken,
) -> CompileResult:
    """Compile files of a tree in `workers` processes of an interpreter, which run no code of the environment.

    Each `.pyc` is a new file with the mode and time of its source, so that a later run creates the same tree. Modes and
    times of directories stay.

    Args:
        tree: Path of the tree.
        python: Path of the interpreter.
        paths: Relative paths of the sources.
        destination: Path of the copy, for tracebacks.
        workers: Number of processes.
        cancel: Stops the compilation when it is set.

    Raises:
        `Cancelled`: The token was set.
        ToolMissing, LimitReached: The interpreter cannot be started.
        OSError: The disk is full, read-only, or broken, or the mode and time of a directory cannot be restored.
    """
    started = time.monotonic()
    wanted = sorted(set(paths))
    command = (python, b"-I", b"-S", b"-B", b"-c", _program(), tree, destination)
    shares = _divide(tree, wanted, max(1, workers))
    with _writable_caches(tree, wanted, make=True):
        compiled = sum(
            ordered_map(
                lambda share: _compile(command, tree, share, cancel),
                shares,
                threads=len(shares),
                ahead=len(shares),
                cancel=cancel,
            )
        )
    return CompileResult(compiled, len(wanted) - compiled, time.monotonic() - started)


def link_previous(
    tree: bytes, previous: bytes | None, paths: Sequence[bytes], bytecode_tag: BytecodeTag
) -> tuple[bytes, ...]:
    """Link the valid bytecode of the previous version, and return the sources that still have to be compiled.

    A source is unchanged if its size, time, and mode are: the same ezpz made `previous` from the same source.
    Raises OSError as `compile_missing` does.
    """
    if previous is None:
        return tuple(sorted(paths))
    remaining: list[bytes] = []
    with _writable_caches(tree, paths, make=True):
        for directory, names in _by_directory(paths):
            linked: set[bytes] = set()
            with contextlib.suppress(OSError), _open_pair(tree, previous, directory) as pair:
                linked.update(name for name in names if pair.link_if_valid(name, bytecode_tag))
            remaining += (os.path.join(directory, name) for name in names if name not in linked)
    return tuple(sorted(remaining))


def remove_bytecode(tree: bytes, paths: Sequence[bytes]) -> tuple[bytes, ...]:
    """Remove all bytecode of these sources, that of other interpreters and optimized bytecode included.

    Return its paths.

    Raises OSError if a file cannot be removed.
    """
    removed: list[bytes] = []
    with _writable_caches(tree, paths, make=False):
        for directory, names in _by_directory(paths):
            sources = set(names)
            with (
                contextlib.suppress(FileNotFoundError, NotADirectoryError),
                _open(tree, directory, BYTECODE_DIRECTORY) as cache,
            ):
                for name in map(os.fsencode, os.listdir(cache)):
                    if source_of(name) in sources:
                        os.unlink(name, dir_fd=cache)
                        removed.append(os.path.join(directory, BYTECODE_DIRECTORY, name))
    return tuple(removed)


@functools.cache
def _program() -> bytes:
    with open(compile_worker.__file__, "rb") as file:
        return file.read()


def _compile(command: tuple[bytes, ...], tree: bytes, share: Sequence[bytes], cancel: CancelToken) -> int:
    """Compile a share of the files and return how many succeeded. A file that crashes the interpreter is skipped.

    Raises OSError if the disk failed.
    """
    compiled = 0
    while share:
        done = process.run(command, feed=b"".join(path + b"\0" for path in share), cancel=cancel)
        started = done.stdout.count(b".")
        compiled += done.stdout.count(b"+")
        failure = DISK_FAILURE.search(done.stdout)
        if failure is not None:
            number = int(failure.group(1))
            raise OSError(number, os.strerror(number), os.path.join(tree, share[started - 1]))
        if started == 0:
            break  # the interpreter does not start
        share = share[started:]
    return compiled


def _divide(tree: bytes, paths: Iterable[bytes], workers: int) -> list[list[bytes]]:
    """Return at most one share for each worker, of about the same size in bytes, each sorted."""
    shares: list[tuple[int, int, list[bytes]]] = [(0, number, []) for number in range(workers)]
    for size, path in sorted(((_size(os.path.join(tree, path)), path) for path in paths), reverse=True):
        total, number, share = shares[0]
        share.append(path)
        heapq.heapreplace(shares, (total + size, number, share))
    return [sorted(share) for _, _, share in shares if share]


def _size(path: bytes) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _by_directory(paths: Iterable[bytes]) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yield each directory with the names in it."""
    for directory, group in itertools.groupby(sorted(map(os.path.split, paths)), key=lambda pair: pair[0]):
        yield directory, [name for _, name in group]


@contextlib.contextmanager
def _open_pair(tree: bytes, previous: bytes, directory: bytes) -> Iterator[_CachePair]:
    """Open a directory of both trees, and the `__pycache__` of both. Raises OSError."""
    with contextlib.ExitStack() as stack:
        new, new_cache, old, old_cache = (
            stack.enter_context(_open(root, directory, *cache))
            for root in (tree, previous)
            for cache in ((), (BYTECODE_DIRECTORY,))
        )
        yield _CachePair(new, new_cache, old, old_cache)


class _CachePair(NamedTuple):
    """Descriptors of one directory in the new tree and in the previous version, and of their `__pycache__`."""

    new: int
    new_cache: int
    old: int
    old_cache: int

    def link_if_valid(self, name: bytes, bytecode_tag: BytecodeTag) -> bool:
        """Link the old bytecode of a source if it is valid for the new source. Return whether it was linked."""
        with contextlib.suppress(OSError):
            new, old = (os.stat(name, dir_fd=fd, follow_symlinks=False) for fd in (self.new, self.old))
            cached = bytecode_tag.file_name(name)
            if stat.S_ISREG(new.st_mode) and _facts(new) == _facts(old) and self._is_valid(cached, new, bytecode_tag):
                os.link(cached, cached, src_dir_fd=self.old_cache, dst_dir_fd=self.new_cache, follow_symlinks=False)
                return True
        return False

    def _is_valid(self, cached: bytes, source: os.stat_result, bytecode_tag: BytecodeTag) -> bool:
        """Return whether bytecode equals what `compile_missing` would create, with the mode and time of its source."""
        fd = os.open(cached, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self.old_cache)
        try:
            status = os.fstat(fd)
            mode = stat.S_IFREG | stat.S_IMODE(source.st_mode) & 0o666 | 0o200
            if (status.st_mode, status.st_mtime_ns) != (mode, source.st_mtime_ns):
                return False
            return os.read(fd, HEADER_SIZE) == bytecode_tag.header(source.st_mtime_ns, source.st_size)
        finally:
            os.close(fd)


def _facts(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_mode


@contextlib.contextmanager
def _writable_caches(tree: bytes, paths: Iterable[bytes], *, make: bool) -> Iterator[None]:
    """Make the `__pycache__` next to each file writable, and restore modes and times at the end.

    A link or a file in its place is left alone. Raises OSError if the disk failed.

    Args:
        tree: Path of the tree.
        paths: Relative paths of the sources.
        make: Create missing directories with the mode and time of their parent, and remove those that stay empty.
    """
    with contextlib.ExitStack() as stack:
        for directory in sorted({os.path.dirname(path) for path in paths}):
            with _ignore_unless_disk_error(tree, directory):
                if make:
                    stack.enter_context(_create_cache(tree, directory, stack.enter_context(_writable(tree, directory))))
                stack.enter_context(_writable(tree, directory, BYTECODE_DIRECTORY))
        yield


@contextlib.contextmanager
def _ignore_unless_disk_error(tree: bytes, directory: bytes) -> Iterator[None]:
    """Ignore errors in the block, unless the disk failed. The error then names the directory."""
    try:
        yield
    except OSError as e:
        if e.errno in DISK_ERRORS:
            raise OSError(e.errno, e.strerror, os.path.join(tree, directory)) from e


@contextlib.contextmanager
def _create_cache(tree: bytes, directory: bytes, status: os.stat_result) -> Iterator[None]:
    """Create a missing `__pycache__`, and remove it at the end if it is empty."""
    with _open(tree, directory) as fd:
        try:
            os.mkdir(BYTECODE_DIRECTORY, 0o700, dir_fd=fd)
        except FileExistsError:
            made = False
        else:
            made = True
            os.chmod(BYTECODE_DIRECTORY, status.st_mode & 0o777, dir_fd=fd)
            os.utime(BYTECODE_DIRECTORY, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=fd)
    try:
        yield
    finally:
        if made:
            with contextlib.suppress(OSError), _open(tree, directory) as fd:
                os.rmdir(BYTECODE_DIRECTORY, dir_fd=fd)


@contextlib.contextmanager
def _writable(tree: bytes, *directory: bytes) -> Iterator[os.stat_result]:
    """Let the owner write to a directory in the block, and restore its mode and times at the end."""
    with _open(tree, *directory) as fd:
        status = os.fstat(fd)
        os.fchmod(fd, stat.S_IMODE(status.st_mode) | 0o700)
    try:
        yield status
    finally:
        with _open(tree, *directory) as fd:
            os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
            os.fchmod(fd, stat.S_IMODE(status.st_mode))


@contextlib.contextmanager
def _open(tree: bytes, *directory: bytes) -> Iterator[int]:
    """Open a directory of the tree as a descriptor."""
    fd = open_directory(tree, os.path.join(*directory))
    try:
        yield fd
    finally:
        os.close(fd)

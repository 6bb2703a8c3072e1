"""Compile what an environment lacks, once, by its own interpreter; take what the version in place has."""

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
from ezpz.yeet.relocate.bytecode.compile_worker import DISK, open_folder
from ezpz.yeet.relocate.bytecode.validity import HEADER, source_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.relocate.bytecode.validity import BytecodeTag

FAILURE = re.compile(rb"!(\d+)")  # in what the program says: the disk failed, and how


@dataclass(frozen=True, slots=True)
class Compiled:
    """How many files were compiled, how many could not be (bad syntax, mostly), and the seconds that it took."""

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
) -> Compiled:
    """Compile files of a tree by `workers` processes of an interpreter, which runs no code of the environment.

    Each `.pyc` is a new file with its source's mode and time, so that a later run makes the same tree. Modes and times
    of folders stay. destination: where the tree will stand, for tracebacks.
    Raises Cancelled, ToolMissing, LimitReached, or OSError when the disk is full, read-only or broken, or when a folder
    cannot be given its mode and time back.
    """
    began = time.monotonic()
    wanted = sorted(set(paths))
    command = (python, b"-I", b"-S", b"-B", b"-c", _program(), tree, destination)
    shares = _deal(tree, wanted, max(1, workers))
    with _caches(tree, wanted, make=True):
        compiled = sum(
            ordered_map(
                lambda share: _compile(command, tree, share, cancel),
                shares,
                threads=len(shares),
                ahead=len(shares),
                cancel=cancel,
            )
        )
    return Compiled(compiled, len(wanted) - compiled, time.monotonic() - began)


def reuse(tree: bytes, previous: bytes | None, paths: Sequence[bytes], flavour: BytecodeTag) -> tuple[bytes, ...]:
    """Link the bytecode that the version in place has of the same sources, and return the paths still to be compiled.

    A source is the same when its size, time and mode are: `previous` was made from the same source by the same ezpz.
    Raises OSError as `compile_missing` does.
    """
    if previous is None:
        return tuple(sorted(paths))
    left: list[bytes] = []
    with _caches(tree, paths, make=True):
        for folder, names in _by_folder(paths):
            taken: set[bytes] = set()
            with contextlib.suppress(OSError), _open_pair(tree, previous, folder) as pair:
                taken.update(name for name in names if pair.take(name, flavour))
            left += (os.path.join(folder, name) for name in names if name not in taken)
    return tuple(sorted(left))


def drop(tree: bytes, paths: Sequence[bytes]) -> tuple[bytes, ...]:
    """Remove the bytecode of these sources, other interpreters' and optimised ones too, and return its paths.

    Raises OSError when one cannot be removed.
    """
    dropped: list[bytes] = []
    with _caches(tree, paths, make=False):
        for folder, names in _by_folder(paths):
            sources = set(names)
            with (
                contextlib.suppress(FileNotFoundError, NotADirectoryError),
                _opened(tree, folder, BYTECODE_DIRECTORY) as cache,
            ):
                for name in map(os.fsencode, os.listdir(cache)):
                    if source_of(name) in sources:
                        os.unlink(name, dir_fd=cache)
                        dropped.append(os.path.join(folder, BYTECODE_DIRECTORY, name))
    return tuple(dropped)


@functools.cache
def _program() -> bytes:
    with open(compile_worker.__file__, "rb") as file:
        return file.read()


def _compile(command: tuple[bytes, ...], tree: bytes, share: Sequence[bytes], cancel: CancelToken) -> int:
    """Compile a share of the files and return how many could be; a file that crashes the interpreter is passed by.

    Raises OSError when it is the disk that failed.
    """
    compiled = 0
    while share:
        done = process.run(command, feed=b"".join(path + b"\0" for path in share), cancel=cancel)
        begun = done.stdout.count(b".")
        compiled += done.stdout.count(b"+")
        failure = FAILURE.search(done.stdout)
        if failure is not None:
            number = int(failure.group(1))
            raise OSError(number, os.strerror(number), os.path.join(tree, share[begun - 1]))
        if begun == 0:
            break  # it does not even start
        share = share[begun:]
    return compiled


def _deal(tree: bytes, paths: Iterable[bytes], workers: int) -> list[list[bytes]]:
    """As many shares as workers, of about the same size in bytes, each sorted."""
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


def _by_folder(paths: Iterable[bytes]) -> Iterator[tuple[bytes, list[bytes]]]:
    """Each folder with the names in it."""
    for folder, group in itertools.groupby(sorted(map(os.path.split, paths)), key=lambda pair: pair[0]):
        yield folder, [name for _, name in group]


@contextlib.contextmanager
def _open_pair(tree: bytes, previous: bytes, folder: bytes) -> Iterator[_CachePair]:
    """Open a directory of both trees, and the `__pycache__` of both. Raises OSError."""
    with contextlib.ExitStack() as stack:
        new, new_cache, old, old_cache = (
            stack.enter_context(_opened(root, folder, *cache))
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

    def take(self, name: bytes, flavour: BytecodeTag) -> bool:
        """Whether the old bytecode of a source is valid for the new one, and was linked."""
        with contextlib.suppress(OSError):
            new, old = (os.stat(name, dir_fd=fd, follow_symlinks=False) for fd in (self.new, self.old))
            cached = flavour.name(name)
            if stat.S_ISREG(new.st_mode) and _facts(new) == _facts(old) and self._is_valid(cached, new, flavour):
                os.link(cached, cached, src_dir_fd=self.old_cache, dst_dir_fd=self.new_cache, follow_symlinks=False)
                return True
        return False

    def _is_valid(self, cached: bytes, source: os.stat_result, flavour: BytecodeTag) -> bool:
        """Whether bytecode is what `compile_missing` would make: with the mode and time of its source."""
        fd = os.open(cached, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self.old_cache)
        try:
            status = os.fstat(fd)
            mode = stat.S_IFREG | stat.S_IMODE(source.st_mode) & 0o666 | 0o200
            if (status.st_mode, status.st_mtime_ns) != (mode, source.st_mtime_ns):
                return False
            return os.read(fd, HEADER) == flavour.header(source.st_mtime_ns, source.st_size)
        finally:
            os.close(fd)


def _facts(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_mode


@contextlib.contextmanager
def _caches(tree: bytes, paths: Iterable[bytes], *, make: bool) -> Iterator[None]:
    """Within it the `__pycache__` beside each file can be written to; afterwards modes and times are as they were.

    make: so can one that was missing; it is given the mode and time of its folder, and goes again if it stays empty.
    What is a link or a file is left alone. Raises OSError when it is the disk that failed.
    """
    with contextlib.ExitStack() as stack:
        for folder in sorted({os.path.dirname(path) for path in paths}):
            with _left_alone(tree, folder):
                if make:
                    stack.enter_context(_made(tree, folder, stack.enter_context(_writable(tree, folder))))
                stack.enter_context(_writable(tree, folder, BYTECODE_DIRECTORY))
        yield


@contextlib.contextmanager
def _left_alone(tree: bytes, folder: bytes) -> Iterator[None]:
    """Within it an error is no error, unless it is the disk that failed; then it names the folder."""
    try:
        yield
    except OSError as e:
        if e.errno in DISK:
            raise OSError(e.errno, e.strerror, os.path.join(tree, folder)) from e


@contextlib.contextmanager
def _made(tree: bytes, folder: bytes, status: os.stat_result) -> Iterator[None]:
    with _opened(tree, folder) as fd:
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
            with contextlib.suppress(OSError), _opened(tree, folder) as fd:
                os.rmdir(BYTECODE_DIRECTORY, dir_fd=fd)


@contextlib.contextmanager
def _writable(tree: bytes, *folder: bytes) -> Iterator[os.stat_result]:
    """Within it the owner may write to a folder; afterwards its mode and times are as they were."""
    with _opened(tree, *folder) as fd:
        status = os.fstat(fd)
        os.fchmod(fd, stat.S_IMODE(status.st_mode) | 0o700)
    try:
        yield status
    finally:
        with _opened(tree, *folder) as fd:
            os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
            os.fchmod(fd, stat.S_IMODE(status.st_mode))


@contextlib.contextmanager
def _opened(tree: bytes, *folder: bytes) -> Iterator[int]:
    fd = open_folder(tree, os.path.join(*folder))
    try:
        yield fd
    finally:
        os.close(fd)

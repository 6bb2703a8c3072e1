"""Compile files of a tree. Sent as text to the environment's own interpreter, which is Python 3.7 or newer.

The command is `python -I -S -B -c TEXT tree destination`, with relative paths on stdin, each followed by a NUL.
For each file the program writes "." when it begins and "+" when the bytecode is complete. So the number of "." tells
which file crashed it. If the disk fails, it writes "!" and the error number, and stops.
"""

import errno
import marshal
import os
import stat
import sys
import warnings
from importlib.util import MAGIC_NUMBER
from types import CodeType

CACHE = b"__pycache__"
TEMPORARY = b".ezpz-%d"
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)  # all other files would fail as well
SOURCE_ERRORS = (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError)


def open_directory(tree: bytes, directory: bytes) -> int:
    """Return a descriptor of a directory of the tree, no component of which is a link. Raises OSError."""
    fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    for name in directory.split(b"/") if directory else ():
        above = fd
        try:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        finally:
            os.close(above)
    return fd


def read_source(directory: int, name: bytes) -> "tuple[bytes, os.stat_result]":
    """Return the content and status of a regular file. Raises OSError."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("not a regular file")
        return file.read(), status


def compile_source(source: bytes, shown: str) -> CodeType:
    """Return the code of a source, marshalled to the same size whatever was compiled before it.

    Two functions with equal frozensets share one, unless strings in it were interned before. This made a difference of
    15 bytes in 1 of 2,214 files of the library of Python 3.12. So such a file is compiled twice: the second time, all
    of its strings are interned. Raises one of SOURCE_ERRORS.
    """
    code = compile(source, shown, "exec", dont_inherit=True, optimize=0)
    if not has_equal_frozensets(code):
        return code
    return compile(source, shown, "exec", dont_inherit=True, optimize=0)  # `code` keeps the strings interned


def has_equal_frozensets(code: CodeType) -> bool:
    """Return whether equal frozensets are constants of two functions."""
    found, codes = set(), [code]
    while codes:
        for constant in codes.pop().co_consts:
            if isinstance(constant, CodeType):
                codes.append(constant)
            elif isinstance(constant, frozenset):
                if constant in found:
                    return True
                found.add(constant)
    return False


def compile_file(cache: int, name: bytes, source: bytes, status: os.stat_result, shown: str) -> None:
    """Write the bytecode of a source to the directory `cache`, as a new file.

    Raises OSError or one of SOURCE_ERRORS.
    """
    code = marshal.dumps(compile_source(source, shown))
    facts = (0, int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF)
    header = MAGIC_NUMBER + b"".join(fact.to_bytes(4, "little") for fact in facts)
    temporary = TEMPORARY % os.getpid()
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=cache)
    try:
        with open(fd, "wb") as file:
            file.write(header + code)
            file.flush()
            os.fchmod(fd, stat.S_IMODE(status.st_mode) & 0o666 | 0o200)
            os.utime(fd, ns=(status.st_mtime_ns, status.st_mtime_ns))
        compiled = b"%b.%b.pyc" % (name[: -len(b".py")], str(sys.implementation.cache_tag).encode())
        os.rename(temporary, compiled, src_dir_fd=cache, dst_dir_fd=cache)
    except OSError:
        os.unlink(temporary, dir_fd=cache)
        raise


def compile_path(tree: bytes, path: bytes, destination: bytes) -> None:
    """Compile one file of the tree. Raises OSError or one of SOURCE_ERRORS."""
    directory, name = os.path.split(path)
    above = open_directory(tree, directory)
    try:
        source, status = read_source(above, name)
        cache = os.open(CACHE, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
    finally:
        os.close(above)
    try:
        compile_file(cache, name, source, status, os.fsdecode(os.path.join(destination, path)))
    finally:
        os.close(cache)


def main() -> None:
    """Compile the files that stdin names."""
    tree, destination = map(os.fsencode, sys.argv[1:])
    warnings.simplefilter("ignore")
    for path in sys.stdin.buffer.read().split(b"\0")[:-1]:
        os.write(1, b".")
        try:
            compile_path(tree, path, destination)
            os.write(1, b"+")
        except OSError as e:
            if e.errno in DISK_ERRORS:
                os.write(1, b"!%d" % e.errno)
                return
        except SOURCE_ERRORS:
            continue


if __name__ == "__main__":
    main()

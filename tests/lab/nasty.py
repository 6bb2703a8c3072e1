"""The tree that every copier must carry over whole: all that a file system allows and a user once did."""

from __future__ import annotations

import os
import random
import socket
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

EPOCH = 1_600_000_000 * 10**9
ODD_NANOSECONDS = 10_000_019

NAMES = (
    b"a name with spaces", b" leading and trailing ", b"it's \"quoted\"", b"new\nline", b"back\\slash", b"-rf",
    b"--delete", b"*", b"[a-z]?", b"{a,b}", b"$HOME", b"`id`", b"semi;colon & more", b"#comment", b"~", b"a:b",
    b"tab\there", b"caf\xc3\xa9", b"not-utf8-\xff\xfe\x80", b"n" * 255, b".hidden", b"...",
)  # fmt: skip
MODES = (0o400, 0o600, 0o644, 0o755, 0o777)
SPARSE_BYTES = 4 << 20
RANDOM_BYTES = 3 << 20
DEPTH = 40


def nasty_tree(target: Path) -> Path:
    """Write the contract suite's tree at ``target``, which must not exist; the same on every call, to the nanosecond.

    It holds a FIFO and a socket, which a copy leaves out, and a read-only directory with files in it.
    """
    root = os.fsencode(target)
    os.makedirs(root)
    _names(root + b"/names")
    _modes(root + b"/modes")
    _links(root + b"/links", root)
    _hard_links(root)
    _contents(root + b"/contents")
    _bytecode(root + b"/pkg")
    _deep(root)
    _specials(root + b"/specials")
    os.chmod(root + b"/modes/read-only", 0o555)
    _set_times(root)
    return target


def _write(path: bytes, data: bytes = b"content\n", mode: int = 0o644) -> None:
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, mode)


def _names(base: bytes) -> None:
    os.mkdir(base)
    for number, name in enumerate(NAMES):
        _write(base + b"/" + name, name)
        if len(name) < 200:
            os.mkdir(base + b"/dir " + name)
            _write(base + b"/dir " + name + b"/" + name, b"%d" % number)


def _modes(base: bytes) -> None:
    os.makedirs(base + b"/read-only/inner")
    for mode in MODES:
        _write(base + b"/%o" % mode, b"mode %o\n" % mode, mode)
        _write(base + b"/read-only/%o" % mode, b"kept\n", mode)
        os.mkdir(base + b"/dir%o" % mode)
        os.chmod(base + b"/dir%o" % mode, mode | 0o700)
    _write(base + b"/read-only/inner/file")
    os.chmod(base + b"/read-only/inner", 0o555)


def _links(base: bytes, root: bytes) -> None:
    os.mkdir(base)
    _write(base + b"/file")
    os.mkdir(base + b"/directory")
    for name, destination in (
        (b"relative", b"file"),
        (b"upwards", b"../contents/small"),
        (b"absolute", os.path.abspath(root) + b"/contents/small"),
        (b"absolute-outside", b"/usr/bin/env"),
        (b"dangling", b"no/such/file"),
        (b"to-directory", b"directory"),
        (b"loop", b"loop"),
        (b"loop-up", b"../links"),
        (b"odd \n\xff", b"odd \n\xff target"),
    ):
        os.symlink(destination, base + b"/" + name)


def _hard_links(root: bytes) -> None:
    for name in (b"/hard-a", b"/hard-b"):
        os.mkdir(root + name)
    _write(root + b"/hard-a/two", b"two names\n", 0o755)
    os.link(root + b"/hard-a/two", root + b"/hard-b/zwei")
    _write(root + b"/hard-b/three", b"three names\n")
    os.link(root + b"/hard-b/three", root + b"/hard-b/tres")
    os.link(root + b"/hard-b/three", root + b"/hard-b/trois")
    os.symlink(b"link", root + b"/hard-a/symlink")
    os.link(root + b"/hard-a/symlink", root + b"/hard-b/symlink", follow_symlinks=False)


def _contents(base: bytes) -> None:
    os.makedirs(base + b"/empty-directory/empty-too")
    _write(base + b"/empty", b"")
    _write(base + b"/small")
    _write(base + b"/random", random.Random(1).randbytes(RANDOM_BYTES))
    with open(base + b"/sparse", "wb") as file:
        file.truncate(SPARSE_BYTES)
        file.seek(SPARSE_BYTES // 2)
        file.write(b"middle")


def _bytecode(base: bytes) -> None:
    os.makedirs(base + b"/__pycache__")
    _write(base + b"/mod.py", b"x = 1\n")
    _write(base + b"/__pycache__/mod.cpython-311.pyc", b"\xa7\r\r\n" + bytes(12) + b"\xe3")


def _deep(root: bytes) -> None:
    path = root + b"/deep" + b"".join(b"/level-%02d" % level for level in range(DEPTH))
    os.makedirs(path)
    _write(path + b"/bottom")


def _specials(base: bytes) -> None:
    os.mkdir(base)
    os.mkfifo(base + b"/fifo")
    here = os.open(".", os.O_RDONLY)
    try:  # A socket's path may not exceed 107 bytes: bind it by a short relative one.
        os.chdir(base)
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(b"socket")
    finally:
        os.fchdir(here)
        os.close(here)


def _set_times(root: bytes) -> None:
    """Give everything an odd time of its own, children before the directories that hold them."""
    walk = os.walk(root)
    paths = [root, *(d + b"/" + name for d, subdirectories, files in walk for name in (*subdirectories, *files))]
    for path in sorted(paths, reverse=True):
        moment = EPOCH + zlib.crc32(path[len(root) :]) * ODD_NANOSECONDS
        os.utime(path, ns=(moment, moment), follow_symlinks=False)

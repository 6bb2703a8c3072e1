"""Checks of a destination before anything is written."""

import os
import pwd
import stat
from typing import Optional, Tuple

from ..common import mounts
from ..common.errors import AgentError, from_os_error
from ..common.filesystem import (
    FREE,
    PATH_MAX,
    SYSTEM,
    user_name,
)
from ..common.messages.receipt import Receipt
from ..common.receipt import read_receipt
from ..common.text import printable_path


def check_path(dst: bytes, source: Optional[bytes]) -> None:
    """Raise AgentError for a destination that must never be replaced; `source` is the tree that is read, if known."""
    name = printable_path(dst)
    if os.path.basename(dst) in (b"", b".", b".."):
        raise AgentError("destination-refused", "destination '{}' has no name of its own".format(name), "spell it out")
    if not os.path.isabs(dst) or b"\0" in dst:
        raise AgentError("destination-refused", "destination '{}' is not an absolute path".format(name))
    if os.path.islink(dst):
        target = printable_path(os.path.realpath(dst))
        raise AgentError(
            "destination-refused",
            "destination '{}' is a link to '{}'".format(name, target),
            "give the real path with --dst, or remove the link",
        )
    real = os.path.realpath(dst)
    if os.path.dirname(real) == real or os.path.dirname(real) == b"/":
        raise AgentError(
            "destination-refused",
            "destination '{}' is a top-level directory".format(name),
            "choose a directory below it, as in --dst /tmp/NAME",
        )
    _refuse_common(real, name)
    for home in homes():
        if _holds(real, home):
            raise AgentError(
                "destination-refused",
                "destination '{}' is or holds a home directory ({})".format(name, printable_path(home)),
                "choose a directory of its own with --dst",
            )
    if source is not None and os.path.exists(source):
        _refuse_source(dst, real, os.path.realpath(source))


def _refuse_common(real: bytes, name: str) -> None:
    """Raise AgentError for what belongs to the system or to all users."""
    if os.path.ismount(real) or any(mount.point == real for mount in mounts.table()):
        raise AgentError(
            "destination-refused", "destination '{}' is a mount point".format(name), "choose a directory below it"
        )
    for directory in SYSTEM:
        if _holds(directory, real) and not any(_holds(free, real) and real != free for free in FREE):
            raise AgentError(
                "destination-refused",
                "destination '{}' belongs to the system".format(name),
                "choose a place on node-local disk, as in --dst /tmp/NAME",
            )
    if os.path.isdir(real) and os.stat(real).st_mode & stat.S_ISVTX:
        raise AgentError(
            "destination-refused",
            "destination '{}' is a directory for everybody's files".format(name),
            "choose a directory below it",
        )


def check_parent(parent: bytes) -> None:
    """Raise AgentError if another user could replace what is below `parent`, as sshd's StrictModes does.

    Each directory above must belong to this user or to root, and be sticky if all users may write to it.
    """
    trusted = (0, os.geteuid(), os.stat(b"/").st_uid)  # in a user namespace root may have another ID
    directory = os.path.realpath(parent)
    while True:
        status = os.stat(directory)
        if status.st_uid not in trusted:
            raise AgentError(
                "destination-refused",
                "'{}' belongs to {}, who could replace what is put there".format(
                    printable_path(directory), user_name(status.st_uid)
                ),
                "choose a place of your own with --dst",
            )
        if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            raise AgentError(
                "destination-refused",
                "everybody may write to '{}', and replace what is put there".format(printable_path(directory)),
                "choose another place with --dst, or `chmod +t` it",
            )
        if directory == os.path.dirname(directory):
            return
        directory = os.path.dirname(directory)


def _refuse_source(dst: bytes, real: bytes, source: bytes) -> None:
    hint = "choose a place on node-local disk, as in --dst /tmp/NAME"
    if real == source or (os.path.exists(real) and os.path.samefile(real, source)):
        raise AgentError(
            "destination-refused", "destination '{}' is the source itself".format(printable_path(dst)), hint
        )
    if _holds(source, real):
        raise AgentError(
            "destination-refused",
            "destination '{}' is inside the source '{}'".format(printable_path(dst), printable_path(source)),
            hint,
        )
    if _holds(real, source):
        raise AgentError(
            "destination-refused",
            "destination '{}' holds the source '{}'".format(printable_path(dst), printable_path(source)),
            hint,
        )


def homes() -> Tuple[bytes, ...]:
    """Return the home directories of the user, by the environment and by the password database, resolved."""
    found = [os.environb.get(b"HOME", b"")]
    try:
        found.append(os.fsencode(pwd.getpwuid(os.geteuid()).pw_dir))
    except KeyError:
        pass
    return tuple(sorted({os.path.realpath(home) for home in found if home and os.path.realpath(home) != b"/"}))


def _holds(outer: bytes, inner: bytes) -> bool:
    return inner == outer or inner.startswith(outer.rstrip(b"/") + b"/")


def check_ownership(dst: bytes, *, replace: bool) -> Optional[Receipt]:
    """Return the receipt of the version at `dst`, None for nothing. Raise AgentError for what ezpz did not create."""
    try:
        status = os.lstat(dst)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise from_os_error(e, "cannot look at '{}'".format(printable_path(dst)))
    if status.st_uid != os.geteuid():
        raise AgentError(
            "destination-not-ours",
            "'{}' belongs to {}".format(printable_path(dst), user_name(status.st_uid)),
            "choose another place with --dst",
        )
    receipt = read_receipt(dst) if stat.S_ISDIR(status.st_mode) else None
    if receipt is None and not replace:
        raise AgentError(
            "destination-not-ours",
            "'{}' exists and has no receipt of an earlier yeet".format(printable_path(dst)),
            "look at it; if it may go, add --replace",
        )
    return receipt


def check_names(tree: bytes, longest: int, longest_name: int, clash: bytes) -> None:
    """Raise AgentError if a filesystem cannot have the paths or names of a source.

    Args:
        tree: the directory that will be created
        longest: bytes of the longest path
        longest_name: bytes of the longest name
        clash: a path that differs from another only in case, b"" for none
    """
    directory = os.path.dirname(tree)
    hint = "leave it out with --exclude, or choose a shorter --dst"
    if len(tree) + 1 + longest >= PATH_MAX:
        raise AgentError(
            "destination-refused",
            "paths of {} bytes in the source are too long below '{}'".format(longest, printable_path(directory)),
            hint,
        )
    limit = os.statvfs(directory).f_namemax
    if longest_name > limit:
        message = "the source has a name of {} bytes, and '{}' takes {}".format(
            longest_name, printable_path(directory), limit
        )
        raise AgentError("destination-refused", message, hint)
    if clash and _folds_case(directory):
        message = "'{}' has a name that differs only in case, which '{}' cannot tell apart".format(
            printable_path(clash), printable_path(directory)
        )
        raise AgentError("destination-refused", message, "choose another place with --dst")


def _folds_case(directory: bytes) -> bool:
    """Return whether names in a directory that differ only in case are the same."""
    path = os.path.join(directory, b"case")
    os.mkdir(path, 0o700)
    try:
        return os.path.exists(os.path.join(directory, b"CASE"))
    finally:
        os.rmdir(path)

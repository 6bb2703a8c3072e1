"""The destination on one host: which paths are refused, whose it is, how much room it has."""

import hashlib
import os
import pwd
import shlex
import stat
from typing import Any, Dict, Optional, Tuple

from . import mounts, own
from .refusal import Refusal, from_os_error, shown

PATH_MAX = 4096  # bytes of a path on Linux, its NUL included (limits.h)
NAME_MAX = 255  # bytes of a file name on Linux
ST_NOEXEC = 8  # statvfs(3)
INODES_SPARE = 16
MEMORY_FILESYSTEMS = ("tmpfs", "ramfs")
SHARED_FILESYSTEMS = (
    "nfs", "nfs4", "lustre", "gpfs", "ceph", "beegfs", "beegfs_nodev", "panfs", "pvfs2", "orangefs", "cifs", "smb3",
    "smbfs", "9p", "afs", "dvs", "glusterfs", "wekafs", "vast", "daos", "virtiofs",
)  # fmt: skip
SYSTEM = tuple(
    b"/usr /etc /bin /sbin /lib /lib64 /boot /dev /proc /sys /var/cache /var/lib /var/log /var/run /var/spool".split()
)
FREE = (b"/dev/shm",)  # a place in those that is for everybody


def refuse_path(dst: bytes, source: Optional[bytes]) -> None:
    """Raise Refusal for a destination that must never be replaced; `source` is the tree that is read, if it is here."""
    name = shown(dst)
    if os.path.basename(dst) in (b"", b".", b".."):
        raise Refusal("destination-refused", "destination '{}' has no name of its own".format(name), "spell it out")
    if not os.path.isabs(dst) or b"\0" in dst:
        raise Refusal("destination-refused", "destination '{}' is not an absolute path".format(name))
    if os.path.islink(dst):
        target = shown(os.path.realpath(dst))
        raise Refusal(
            "destination-refused",
            "destination '{}' is a link to '{}'".format(name, target),
            "give the real path with --dst, or remove the link",
        )
    real = os.path.realpath(dst)
    if os.path.dirname(real) == real or os.path.dirname(real) == b"/":
        raise Refusal(
            "destination-refused",
            "destination '{}' is a top-level directory".format(name),
            "choose a directory below it, as in --dst /tmp/NAME",
        )
    _refuse_common(real, name)
    for home in homes():
        if _holds(real, home):
            raise Refusal(
                "destination-refused",
                "destination '{}' is or holds a home directory ({})".format(name, shown(home)),
                "choose a directory of its own with --dst",
            )
    if source is not None and os.path.exists(source):
        _refuse_source(dst, real, os.path.realpath(source))


def _refuse_common(real: bytes, name: str) -> None:
    """Refuse what belongs to the system or to everybody."""
    if os.path.ismount(real) or any(mount.point == real for mount in mounts.table()):
        raise Refusal(
            "destination-refused", "destination '{}' is a mount point".format(name), "choose a directory below it"
        )
    for folder in SYSTEM:
        if _holds(folder, real) and not any(_holds(free, real) and real != free for free in FREE):
            raise Refusal(
                "destination-refused",
                "destination '{}' belongs to the system".format(name),
                "choose a place on node-local disk, as in --dst /tmp/NAME",
            )
    if os.path.isdir(real) and os.stat(real).st_mode & stat.S_ISVTX:
        raise Refusal(
            "destination-refused",
            "destination '{}' is a directory for everybody's files".format(name),
            "choose a directory below it",
        )


def refuse_mounts(path: bytes) -> None:
    """Raise Refusal when a filesystem is mounted in the tree at `path`."""
    refusal = refusal_of_mounts(path)
    if refusal is not None:
        raise refusal


def refusal_of_mounts(path: bytes) -> Optional[Refusal]:
    """Return why the tree at `path` must not be replaced or removed: a filesystem is mounted in it; None otherwise."""
    mounted = mounts.within(path)
    if not mounted:
        return None
    point, kind = mounted[0].point, mounted[0].kind
    more = " (and {} more)".format(len(mounted) - 1) if len(mounted) > 1 else ""
    unmount = "fusermount -u" if kind.partition(".")[0] == "fuse" else "umount"
    return Refusal(
        "destination-refused",
        "'{}'{} is mounted in '{}'".format(shown(point), more, shown(path)),
        "unmount it first: `{} {}`".format(unmount, shlex.quote(shown(point))),
    )


def refuse_shady_parent(parent: bytes) -> None:
    """Raise Refusal when somebody else could replace what is below `parent`, as sshd's StrictModes does.

    Each folder above must belong to this user or to root, and be sticky if everybody may write to it.
    """
    trusted = (0, os.geteuid(), os.stat(b"/").st_uid)  # in a user namespace root may have another number
    folder = os.path.realpath(parent)
    while True:
        status = os.stat(folder)
        if status.st_uid not in trusted:
            raise Refusal(
                "destination-refused",
                "'{}' belongs to {}, who could replace what is put there".format(
                    shown(folder), user_name(status.st_uid)
                ),
                "choose a place of your own with --dst",
            )
        if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            raise Refusal(
                "destination-refused",
                "everybody may write to '{}', and replace what is put there".format(shown(folder)),
                "choose another place with --dst, or `chmod +t` it",
            )
        if folder == os.path.dirname(folder):
            return
        folder = os.path.dirname(folder)


def _refuse_source(dst: bytes, real: bytes, source: bytes) -> None:
    hint = "choose a place on node-local disk, as in --dst /tmp/NAME"
    if real == source or (os.path.exists(real) and os.path.samefile(real, source)):
        raise Refusal("destination-refused", "destination '{}' is the source itself".format(shown(dst)), hint)
    if _holds(source, real):
        raise Refusal(
            "destination-refused", "destination '{}' is inside the source '{}'".format(shown(dst), shown(source)), hint
        )
    if _holds(real, source):
        raise Refusal(
            "destination-refused", "destination '{}' holds the source '{}'".format(shown(dst), shown(source)), hint
        )


def homes() -> Tuple[bytes, ...]:
    """The user's home directories, by the environment and by the password database, resolved."""
    found = [os.environb.get(b"HOME", b"")]
    try:
        found.append(os.fsencode(pwd.getpwuid(os.geteuid()).pw_dir))
    except KeyError:
        pass
    return tuple(sorted({os.path.realpath(home) for home in found if home and os.path.realpath(home) != b"/"}))


def _holds(outer: bytes, inner: bytes) -> bool:
    return inner == outer or inner.startswith(outer.rstrip(b"/") + b"/")


def refuse_strangers(dst: bytes, *, replace: bool) -> Optional[Dict[str, Any]]:
    """The receipt of our own version at `dst`, None when nothing stands there; raise Refusal for anything else."""
    try:
        status = os.lstat(dst)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise from_os_error(e, "cannot look at '{}'".format(shown(dst)))
    if status.st_uid != os.geteuid():
        raise Refusal(
            "destination-not-ours",
            "'{}' belongs to {}".format(shown(dst), user_name(status.st_uid)),
            "choose another place with --dst",
        )
    receipt = own.read_receipt(dst) if stat.S_ISDIR(status.st_mode) else None
    if receipt is None and not replace:
        raise Refusal(
            "destination-not-ours",
            "'{}' exists and has no receipt of an earlier yeet".format(shown(dst)),
            "look at it; if it may go, add --replace",
        )
    return receipt


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "user {}".format(uid)


def filesystem(path: bytes) -> str:
    """The type of the filesystem that `path` is on, as the kernel names it; "" when that cannot be told."""
    device = os.stat(path).st_dev
    wanted = "{}:{}".format(os.major(device), os.minor(device))
    kinds = [mount.kind for mount in mounts.table() if mount.device == wanted]
    return kinds[-1] if kinds else ""


def is_node_local(kind: str) -> bool:
    """Whether a filesystem of this type is, as far as its type tells, a disk that only one host has."""
    return kind not in SHARED_FILESYSTEMS and kind.partition(".")[0] != "fuse"


def refuse_full(parent: bytes, *, size: int, files: int, executable: bool) -> Dict[str, Any]:
    """What the filesystem of `parent` offers; raise Refusal when so much does not fit there, or may not run."""
    room = os.statvfs(parent)
    free = room.f_bavail * room.f_frsize
    kind = filesystem(parent)
    where = "'{}' ({})".format(shown(parent), kind or "filesystem unknown")
    if executable and room.f_flag & ST_NOEXEC:
        raise Refusal(
            "noexec",
            "{} is mounted noexec: an environment cannot run there".format(where),
            "choose another place with --dst",
        )
    if size > free:
        raise Refusal(
            "no-space",
            "{} has {} free, {} needed".format(where, human(free), human(size)),
            "free some space there, or choose another place with --dst",
        )
    if room.f_files and files + INODES_SPARE > room.f_favail:
        raise Refusal(
            "no-space",
            "{} has {} inodes free, {} needed".format(where, room.f_favail, files + INODES_SPARE),
            "remove some files there, or choose another place with --dst",
        )
    memory = _memory_available() if kind in MEMORY_FILESYSTEMS else None
    if memory is not None and size > memory:
        raise Refusal(
            "no-space",
            "{} lives in memory, of which {} is available, {} needed".format(where, human(memory), human(size)),
            "choose a place on disk with --dst",
        )
    return {"free_bytes": free, "free_files": room.f_favail if room.f_files else None, "filesystem": kind}


def refuse_names(tree: bytes, longest: int, longest_name: int, clash: bytes) -> None:
    """Raise Refusal when paths or names of a source cannot be had on this filesystem; `tree` is to be made.

    longest, longest_name: bytes; clash: a path that differs from another only in case, b"" for none
    """
    folder = os.path.dirname(tree)
    hint = "leave it out with --exclude, or choose a shorter --dst"
    if len(tree) + 1 + longest >= PATH_MAX:
        raise Refusal(
            "destination-refused",
            "paths of {} bytes in the source are too long below '{}'".format(longest, shown(folder)),
            hint,
        )
    limit = os.statvfs(folder).f_namemax
    if longest_name > limit:
        message = "the source has a name of {} bytes, and '{}' takes {}".format(longest_name, shown(folder), limit)
        raise Refusal("destination-refused", message, hint)
    if clash and _folds_case(folder):
        message = "'{}' has a name that differs only in case, which '{}' cannot tell apart".format(
            shown(clash), shown(folder)
        )
        raise Refusal("destination-refused", message, "choose another place with --dst")


def _folds_case(folder: bytes) -> bool:
    """Whether names in a directory of ours that differ only in case are the same."""
    path = os.path.join(folder, b"case")
    os.mkdir(path, 0o700)
    try:
        return os.path.exists(os.path.join(folder, b"CASE"))
    finally:
        os.rmdir(path)


def _memory_available() -> Optional[int]:
    try:
        with open("/proc/meminfo", "rb") as file:
            for line in file:
                if line.startswith(b"MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def human(size: float) -> str:
    """Bytes for people: 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return "{:.0f} B".format(size) if unit == "B" else "{:.1f} {}".format(size, unit)
        size /= 1000
    return "{:.1f} TB".format(size)


def beside(dst: bytes, suffix: bytes) -> bytes:
    """The path of something of ours beside a destination: hidden, named after it, and never too long a name."""
    folder, name = os.path.split(dst)
    if len(name) + len(suffix) + 1 > NAME_MAX:
        name = name[:64] + b"~" + hashlib.sha256(name).hexdigest()[:16].encode()
    return os.path.join(folder, b"." + name + suffix)

"""Facts about paths and filesystems of a host."""

import hashlib
import os
import pwd
import shlex
from typing import Optional

from . import mounts
from .errors import AgentError
from .text import printable_path

PATH_MAX = 4096  # bytes of a path on Linux, its NUL included (limits.h)
NAME_MAX = 255  # bytes of a file name on Linux
SHARED_FILESYSTEMS = (
    "nfs", "nfs4", "lustre", "gpfs", "ceph", "beegfs", "beegfs_nodev", "panfs", "pvfs2", "orangefs", "cifs", "smb3",
    "smbfs", "9p", "afs", "dvs", "glusterfs", "wekafs", "vast", "daos", "virtiofs",
)  # fmt: skip
SYSTEM = tuple(
    b"/usr /etc /bin /sbin /lib /lib64 /boot /dev /proc /sys /var/cache /var/lib /var/log /var/run /var/spool".split()
)
FREE = (b"/dev/shm",)  # in SYSTEM, but for all users


def refuse_mounts(path: bytes) -> None:
    """Raise AgentError if a filesystem is mounted in the tree at `path`."""
    refusal = refusal_of_mounts(path)
    if refusal is not None:
        raise refusal


def refusal_of_mounts(path: bytes) -> Optional[AgentError]:
    """Return why the tree at `path` must not be replaced or removed, None if nothing is mounted in it."""
    mounted = mounts.within(path)
    if not mounted:
        return None
    point, kind = mounted[0].point, mounted[0].kind
    more = " (and {} more)".format(len(mounted) - 1) if len(mounted) > 1 else ""
    unmount = "fusermount -u" if kind.partition(".")[0] == "fuse" else "umount"
    return AgentError(
        "destination-refused",
        "'{}'{} is mounted in '{}'".format(printable_path(point), more, printable_path(path)),
        "unmount it first: `{} {}`".format(unmount, shlex.quote(printable_path(point))),
    )


def user_name(uid: int) -> str:
    """Return the name of a user for a message."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "user {}".format(uid)


def filesystem(path: bytes) -> str:
    """Return the type of the filesystem that `path` is on, as the kernel names it, "" if it is unknown."""
    device = os.stat(path).st_dev
    wanted = "{}:{}".format(os.major(device), os.minor(device))
    kinds = [mount.kind for mount in mounts.table() if mount.device == wanted]
    return kinds[-1] if kinds else ""


def is_node_local(kind: str) -> bool:
    """Return whether a filesystem of this type is a disk of one host only, as far as the type says."""
    return kind not in SHARED_FILESYSTEMS and kind.partition(".")[0] != "fuse"


def beside(dst: bytes, suffix: bytes) -> bytes:
    """Return a path next to a destination: hidden, named after it, and with a name that is not too long."""
    parent, name = os.path.split(dst)
    if len(name) + len(suffix) + 1 > NAME_MAX:
        name = name[:64] + b"~" + hashlib.sha256(name).hexdigest()[:16].encode()
    return os.path.join(parent, b"." + name + suffix)

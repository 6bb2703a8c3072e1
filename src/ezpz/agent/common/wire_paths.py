"""Paths of a tree as JSON has them, and back. Bytes that are not UTF-8 are lone surrogates. Pure."""


class ProtocolError(Exception):
    """Data that no end of a run sends."""


def encode_path(path: bytes) -> str:
    """Return a path as JSON has it."""
    return path.decode("utf-8", "surrogateescape")


def decode_path(path: str) -> bytes:
    """Return a path as the filesystem has it. Raise ProtocolError if it points out of the tree."""
    found = decode_target(path)
    if found.startswith(b"/") or b"\0" in found or (b".." in found and b".." in found.split(b"/")):
        raise ProtocolError("a path that leads out: {!r}".format(path))
    return found


def decode_target(target: str) -> bytes:
    """Return the target of a symbolic link as the filesystem has it. Raise ProtocolError if it cannot be one."""
    try:
        return target.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ProtocolError("a name that nobody can have: {!r}".format(target))

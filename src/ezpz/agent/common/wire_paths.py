"""Names: paths of a tree as JSON has them, and back; bytes that are no UTF-8 travel as lone surrogates. Pure."""


class ProtocolError(Exception):
    """What no sender of ours makes."""


def encode_path(path: bytes) -> str:
    """A path as a list has it."""
    return path.decode("utf-8", "surrogateescape")


def decode_path(path: str) -> bytes:
    """A path as the filesystem has it. Raises Malformed for one that leads out of the tree."""
    found = decode_target(path)
    if found.startswith(b"/") or b"\0" in found or (b".." in found and b".." in found.split(b"/")):
        raise ProtocolError("a path that leads out: {!r}".format(path))
    return found


def decode_target(target: str) -> bytes:
    """What a symbolic link says, as the filesystem has it. Raises Malformed for what is no text of ours."""
    try:
        return target.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ProtocolError("a name that nobody can have: {!r}".format(target))

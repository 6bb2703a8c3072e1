"""Amounts and paths as text."""


def format_bytes(size: float) -> str:
    """Return an amount of bytes as text, as in "1.5 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return "{:.0f} B".format(size) if unit == "B" else "{:.1f} {}".format(size, unit)
        size /= 1000
    return "{:.1f} TB".format(size)


def printable_path(path: bytes) -> str:
    """Return a path as text: what is not printable is escaped, so that it cannot fake a line."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

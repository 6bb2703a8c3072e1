"""Formatting of numbers, times, and untrusted text for people."""

from __future__ import annotations

_PRINTED = "\n\t"


def pluralize(number: int, noun: str) -> str:
    """Return a number with its noun: 1 node, 2 nodes, 2 entries."""
    many = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else many}"


def age(seconds: float) -> str:
    """Return how long ago something was, in one unit."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def printable(text: str) -> str:
    """Return text that is safe to print: control characters and bytes that are not UTF-8 as backslash escapes."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _PRINTED else c.encode("unicode_escape").decode() for c in text)


SHORT_LENGTH = 100  # characters


def shorten(text: str) -> str:
    """Return a text, cut so that it fits on a line."""
    return text if len(text) <= SHORT_LENGTH else f"{text[:SHORT_LENGTH]}..."

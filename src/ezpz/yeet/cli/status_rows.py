"""Rows of text about nodes, as `ezpz yeet status` and `clean` print them."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ezpz.agent.common.text import printable_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ezpz.cli.output import Output
    from ezpz.cluster.allocation import Node
    from ezpz.yeet.model.results import Failure

INDENT = " " * 7
NO_BREAK_SPACE = "\u00a0"
MIN_TEXT_WIDTH = 20  # columns; narrower text is not wrapped


@dataclass(frozen=True, slots=True)
class StatusRow:
    """Row of text, and the lines that belong to it.

    Attributes:
        text: the row
        color: a click color name, "" for none
        below: more lines, printed below it
    """

    text: str
    color: str = ""
    below: tuple[str, ...] = ()


def escape(text: object) -> str:
    """Return text from a node or a user that is safe to print."""
    return printable_path(str(text).encode("utf-8", "surrogateescape"))


def failure_text(node: Node, failure: Failure) -> str:
    """Return the message of a failure without the name of the node, which the row contains already."""
    return failure.text_next_to(node.given)


def print_row(output: Output, row: StatusRow) -> None:
    """Print a row, wrapped to the width of a terminal and not wrapped elsewhere."""
    for text in wrap_line(escape(row.text), terminal_width()):
        output.line(text, fg=row.color or None)
    for text in row.below:
        output.line(f"{INDENT}  {escape(text)}")


def terminal_width() -> int:
    """Return the columns of the terminal, 0 if stdout is none."""
    return shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else 0


def wrap_line(text: str, width: int) -> Iterable[str]:
    """Return a line as lines of at most `width` columns, indented except for the first.

    The line stays as it is if `width` is 0 or very small. Lines break between facts if that is enough, else also
    within facts.
    """
    if width < 2 * len(INDENT) + MIN_TEXT_WIDTH or len(text) <= width:
        return (text,)
    facts_kept = re.sub(r"(?<![ ,]) (?! )", NO_BREAK_SPACE, text)
    for each in (facts_kept, text):
        lines = textwrap.wrap(
            each, width, subsequent_indent=INDENT, break_long_words=False, break_on_hyphens=False,
            replace_whitespace=False,
        )  # fmt: skip
        if all(len(line) <= width for line in lines):
            break
    return [line.replace(NO_BREAK_SPACE, " ") for line in lines]
